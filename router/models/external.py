"""What an ONNX file holds, read from its bytes: weights in other files, how many nodes.

A tensor's `external_data` names a path that the runtime would open by itself, relative
to wherever it believes the model to be: what a path in a downloaded file may reach has
to be decided before the runtime sees it. So the runtime never opens one. Files that are
allowed are read here, checked, and put into the model's own bytes (`inlined`): what was
checked is what is run. Only the messages that can lead to a tensor are walked, nothing
is copied, and no package for ONNX is needed at run time.

Bytes that are not protobuf have no paths and no nodes: the runtime refuses them by
name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from router.models.protobuf import NotProtobufError, delimited, fields

# Message -> field number -> message, for every way from ModelProto to a TensorProto.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}  # fmt: skip
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
# Messages within messages. Real models nest a Loop in an If in a Loop; the runtime's
# reader gives up at a hundred.
DEPTH_MAX = 100
# What ONNX Runtime reads: a protobuf message has at most 2 GiB less one byte.
SIZE_MAX = 2**31 - 1
# The largest models in public hubs have some ten thousand; each costs the walk some
# microseconds and the runtime a kilobyte.
NODES_MAX = 250_000


@dataclass(frozen=True, slots=True)
class Contents:
    """Every path that the model's tensors name, each once, and the number of nodes."""

    paths: tuple[str, ...] = ()
    node_count: int = 0


class TooDeepError(ValueError):
    """A model whose messages are nested without end."""


def contents_of(data: bytes) -> Contents:
    """A survey of the model. TooDeepError when its nesting has no end."""
    paths: set[str] = set()
    nodes = 0
    waiting = [(memoryview(data), "model", 0)]
    while waiting:
        view, kind, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise TooDeepError(f"its messages are nested more than {DEPTH_MAX} deep")
        nodes += kind == "node"
        if nodes > NODES_MAX:
            break
        known = _FIELDS[kind]
        try:
            for field in fields(view):
                inner = known.get(field.number)
                if inner is None or field.content is None:
                    continue
                if inner != "entry":
                    waiting.append((field.content, inner, depth + 1))
                    continue
                key, value = _entry(field.content)
                if key == "location":
                    paths.add(value)
        except NotProtobufError:
            continue
    return Contents(tuple(sorted(paths)), nodes)


def external_paths(data: bytes) -> tuple[str, ...]:
    """Every path that the model's tensors name, in order, each once."""
    return contents_of(data).paths


def inlined(data: bytes, files: Callable[[str], bytes]) -> bytes:
    """The model with the weights of other files among its own.

    `files` gives a file's bytes by the path in the model. ValueError for a part that is
    not in its file.
    """
    rebuilt = _rebuilt(memoryview(data), "model", files)
    return data if rebuilt is None else rebuilt


def _rebuilt(
    view: memoryview, kind: str, files: Callable[[str], bytes]
) -> bytes | None:
    """A message with its tensors filled; None when there is nothing to fill."""
    # As deep as the messages are, which `contents_of` has bounded.
    if kind == "tensor":
        return _filled(view, files)
    known = _FIELDS[kind]
    parts: list[bytes | memoryview] = []
    is_changed = False
    for field in fields(view):
        inner = known.get(field.number)
        if inner is not None and field.content is not None:
            made = _rebuilt(field.content, inner, files)
            if made is not None:
                parts.append(delimited(field.number, made))
                is_changed = True
                continue
        parts.append(field.raw)
    return b"".join(parts) if is_changed else None


def _filled(view: memoryview, files: Callable[[str], bytes]) -> bytes | None:
    """A tensor whose values were in a file; None when they were not."""
    entries: dict[str, str] = {}
    parts: list[bytes | memoryview] = []
    for field in fields(view):
        if field.number == _EXTERNAL_DATA and field.content is not None:
            key, value = _entry(field.content)
            entries[key] = value
        elif field.number not in (_DATA_LOCATION, _RAW_DATA):
            parts.append(field.raw)
    if "location" not in entries:
        return None
    values = files(entries["location"])
    begin, length = (_number(entries.get(key)) for key in ("offset", "length"))
    end = begin + (length if "length" in entries else len(values) - begin)
    if not 0 <= begin <= end <= len(values):
        raise ValueError(f"'{entries['location']}' is shorter than the model says")
    parts.append(delimited(_RAW_DATA, memoryview(values)[begin:end]))
    return b"".join(parts)


def _number(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError("a part of a file begins or ends at no number")
    return int(text)


def _entry(view: memoryview) -> tuple[str, str]:
    parts = {
        field.number: bytes(field.content).decode("utf-8", "replace")
        for field in fields(view)
        if field.content is not None
    }
    return parts.get(1, ""), parts.get(2, "")
