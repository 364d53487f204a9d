"""Shadow pairs from the tape: what was answered, and what a candidate would have said.

What is on the tape is a sample of two kinds: the pairs that were the worst of their
time, and a few drawn at random (`is_random`). The first are for people and for training
on what a candidate gets wrong; only the second say how often something happens.
"""

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.client.lines import read_arrays, read_request
from router.client.tensors import unpack
from router.errors import NotFoundError, RouterError
from router.telemetry.shadows import PairTensor, ShadowPair, read_pair
from router.telemetry.tape import Kind, read_tape

Told = Callable[[str], None]
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair as values; `inputs` is None when the request was not kept."""

    time_ms: int
    model: str
    shadow: str
    stable_version: int
    candidate_version: int
    distance: float | str
    mismatch: tuple[str, ...]
    differs: bool
    is_random: bool
    inputs: Values | None
    stable: Values
    candidate: Values


def pairs_of(folder: str, rollout: str, told: Told) -> Iterator[Pair]:
    """Every pair of a rollout's shadows, the oldest first; `told` of damage."""
    return (_as_values(found) for found in _found(folder, rollout, told))


def worst_pairs(folder: str, rollout: str, limit: int, told: Told) -> tuple[Pair, ...]:
    """The worst: those that cannot be compared, then by distance.

    NotFoundError when the tape has no pair of the rollout: it names those it has.
    """
    seen: set[str] = set()
    worst: list[tuple[tuple[bool, float], int, ShadowPair]] = []
    for number, found in enumerate(_found(folder, rollout, told, seen)):
        distance = found.distance if found.distance == found.distance else float("inf")
        entry = ((bool(found.mismatch), distance), -number, found)
        if len(worst) < limit:
            heapq.heappush(worst, entry)
        else:
            heapq.heappushpop(worst, entry)
    if not worst:
        others = ", ".join(sorted(seen)) or "none at all"
        raise NotFoundError(
            f"{folder}: no pair of '{rollout}'; it has pairs of {others}"
        )
    return tuple(_as_values(found) for *_, found in sorted(worst, reverse=True))


def export_pairs(folder: str, rollout: str, target: str, told: Told) -> int:
    """Write every pair as a line of JSON; how many."""
    count = 0
    try:
        with Path(target).open("w") as file:
            Path(target).chmod(0o600)  # requests may be anybody's business
            for pair in pairs_of(folder, rollout, told):
                file.write(json.dumps(as_dict(pair), ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise RouterError(f"{target}: cannot be written: {error.strerror}") from None
    return count


def as_dict(pair: Pair) -> dict[str, Any]:
    return {name: getattr(pair, name) for name in Pair.__slots__}


def _found(
    folder: str, rollout: str, told: Told, others: set[str] | None = None
) -> Iterator[ShadowPair]:
    if not Path(folder).is_dir():
        raise NotFoundError(
            f"{folder}: no such folder; it is server.tape.path of the router's file"
        )
    for record in read_tape(folder, told):
        if record.kind != Kind.SHADOW_PAIR:
            continue
        found = read_pair(record.payload)
        # A shadow is named for its scope: rollout, rollout/channel, and #version where
        # several candidates are shadows.
        if found.shadow.split("#")[0].split("/")[0] == rollout.split("/")[0] and (
            "/" not in rollout or found.shadow.split("#")[0] == rollout
        ):
            yield found
        elif others is not None:
            others.add(found.shadow)


def _as_values(found: ShadowPair) -> Pair:
    inputs: Values | None = None
    if found.body:
        arrays = read_arrays(read_request(found.body))
        inputs = {name: _plain(array.tolist()) for name, array in arrays.items()}
    return Pair(
        found.time_ms, found.model, found.shadow, found.version, found.shadow_version,
        _plain(found.distance), found.mismatch, found.differs, found.is_random,
        inputs or None, _outputs(found.answered), _outputs(found.shadowed),
    )  # fmt: skip


def _outputs(tensors: tuple[PairTensor, ...]) -> Values:
    """Values by output; None for one that was too large to keep."""
    return {
        each.name: _plain(unpack(each.datatype, each.shape, each.data).tolist())
        if each.data or 0 in each.shape
        else None
        for each in tensors
    }


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: JSON knows no NaN, and no bytes."""
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
