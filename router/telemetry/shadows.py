"""Shadows as numbers and as pairs: rows for the metrics, and the tape's pairs read.

`shadow_counters` and `shadow_histograms` say what the snapshot holds of shadows in the
shape that `prometheus.py` makes families of. `read_pair` reads one record of kind
SHADOW_PAIR (`ShadowPair` in proto/router/v1/tape.proto); it reads the protobuf by hand,
because the generated messages are above this package.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.telemetry.tape import Kind, TapeRecord

Labels = tuple[str, ...]
Row = tuple[Labels, float]
Counters = tuple[str, str, Labels, list[Row]]
Histograms = tuple[
    str, str, Labels, list[tuple[Labels, Mapping[str, Any]]], tuple[int, ...]
]

LABELS = "model", "shadow", "version"
STEPS = 32  # native histogram indices in an octave, as in prometheus.py
DISTANCE_EDGES = tuple(range(-20 * STEPS, 10 * STEPS + 1, 2 * STEPS))
RUN_EDGES = tuple(range(-20 * STEPS, 2 * STEPS + 1, STEPS))
MISMATCHES = "missing", "dtype", "shape", "nan"


def _labels(entry: Mapping[str, Any]) -> Labels:
    return entry["model"], entry["shadow"], str(entry["version"])


def shadow_counters(snapshot: Mapping[str, Any]) -> Iterator[Counters]:
    """Name, text, labels and rows of each counter; nothing without shadows."""
    shadows = snapshot.get("shadows", ())
    if not shadows:
        return
    outcomes = [
        ((*_labels(entry), outcome), float(count))
        for entry in shadows
        for outcome, count in (
            ("ok", entry["pairs"]),
            ("error", entry["failed"]),
            *((f"dropped_{why}", n) for why, n in entry["dropped"].items()),
        )
    ]
    yield (
        "router_shadow_requests",
        "Requests a shadow was to run, by what became of them.",
        (*LABELS, "outcome"),
        outcomes,
    )
    mismatches = [
        ((*_labels(entry), reason), float(entry[reason]))
        for entry in shadows
        for reason in MISMATCHES
    ]
    yield (
        "router_shadow_mismatches",
        "Pairs of answers that cannot be compared, by why; a pair may have several.",
        (*LABELS, "reason"),
        mismatches,
    )
    cpu = [(_labels(entry), entry["cpu_ns"] / 1e9) for entry in shadows]
    yield "router_shadow_cpu_seconds", "CPU time of a shadow's runs.", LABELS, cpu
    for name, text, key in (
        ("disagreements", "Pairs that differ, mismatches included.", "disagreements"),
        ("noise_pairs", "Pairs of stable beside stable.", "pairs"),
        ("noise_disagreements", "Those that differ.", "disagreements"),
    ):
        of = [entry["noise"] if "noise" in name else entry for entry in shadows]
        counts = [float(one[key]) for one in of]
        rows = list(zip(map(_labels, shadows), counts, strict=True))
        yield f"router_shadow_{name}", text, LABELS, rows


def shadow_histograms(snapshot: Mapping[str, Any]) -> Iterator[Histograms]:
    """Name, text, labels, rows and edges of each histogram."""
    shadows = snapshot.get("shadows", ())
    if not shadows:
        return
    distances: list[tuple[Labels, Mapping[str, Any]]] = [
        (
            _labels(entry),
            {
                "buckets": [(p * STEPS, n) for p, n in entry["distance"]["histogram"]],
                "sum": entry["distance"]["sum"],
            },
        )
        for entry in shadows
    ]
    text = "How far answers of pairs are apart, by their worst row."
    yield "router_shadow_distance", text, LABELS, distances, DISTANCE_EDGES
    runs = [(_labels(entry), entry["run"]) for entry in shadows]
    text = "A shadow's runs, at the lowest priority: no measure of its speed."
    yield "router_shadow_run_seconds", text, LABELS, runs, RUN_EDGES


@dataclass(frozen=True, slots=True)
class PairTensor:
    """One output; `data` as raw_output_contents, empty when too large to keep."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """What was answered, what the shadow made of it, and to what.

    `body` is a ModelInferRequest without id and parameters, empty when it was not kept.
    `mismatch` names why the two could not be compared. `digest` is the unit's with the
    shadow's seed, 0 when there was none.
    """

    time_ms: int
    model: str
    shadow: str
    variant: str
    version: int
    shadow_variant: str
    shadow_version: int
    distance: float
    mismatch: tuple[str, ...]
    differs: bool
    is_random: bool
    digest: int
    body: bytes
    body_bytes: int
    answered: tuple[PairTensor, ...]
    shadowed: tuple[PairTensor, ...]


def read_pairs(records: Iterable[TapeRecord]) -> Iterator[ShadowPair]:
    """The pairs among records of the tape."""
    return (read_pair(r.payload) for r in records if r.kind == Kind.SHADOW_PAIR)


def read_pair(payload: bytes) -> ShadowPair:
    """One pair; ValueError when the bytes are not one."""
    found: dict[int, list[Any]] = {}
    for number, value in _fields(payload):
        found.setdefault(number, []).append(value)

    def last(number: int, otherwise: Any) -> Any:
        return found.get(number, [otherwise])[-1]

    def text(number: int) -> str:
        value: bytes = last(number, b"")
        return value.decode()

    bits = last(9, 0)
    return ShadowPair(
        time_ms=last(1, 0),
        model=text(2),
        shadow=text(3),
        variant=text(4),
        version=last(5, 0),
        shadow_variant=text(6),
        shadow_version=last(7, 0),
        distance=struct.unpack("<d", struct.pack("<Q", last(8, 0)))[0],
        mismatch=tuple(n for i, n in enumerate(MISMATCHES) if bits >> i & 1),
        differs=bool(last(10, 0)),
        is_random=bool(last(11, 0)),
        digest=last(12, 0),
        body=last(13, b""),
        body_bytes=last(14, 0),
        answered=tuple(map(_tensor, found.get(15, ()))),
        shadowed=tuple(map(_tensor, found.get(16, ()))),
    )


def _tensor(payload: bytes) -> PairTensor:
    found = dict(_fields(payload))
    shape, at, data = [], 0, found.get(3, b"")
    while at < len(data):
        size, at = _varint(data, at)
        shape.append(size)
    return PairTensor(
        found.get(1, b"").decode(),
        found.get(2, b"").decode(),
        tuple(shape),
        found.get(4, b""),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an integer, or the bytes of what has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 1 if at + 8 <= len(data):
                yield tag >> 3, int.from_bytes(data[at : at + 8], "little")
                at += 8
            case 2:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise ValueError("a pair is cut off")
                yield tag >> 3, data[at : at + length]
                at += length
            case _:
                raise ValueError("not a pair: a field of an unknown kind, or cut off")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a pair is cut off")
