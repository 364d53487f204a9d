"""A rollout's report as a value: its moves from the control log, its points from the
series. Reads a state file without changing it, also while a router writes to it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router.clock import Clock
from router.control.scope_records import SCOPE_MOVED
from router.control.series import read_series
from router.errors import NotFoundError
from router.store.log import Entry
from router.store.sqlite import SqliteLog


@dataclass(frozen=True, slots=True)
class Moved:
    """One move of a scope, with what it was decided by."""

    at_s: float
    revision: int
    event: str
    before: str
    after: str
    step: int
    shares_bp: Mapping[str, int]
    actor: str
    reason: str
    evidence: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report of one scope shows."""

    scope: str
    about: Mapping[str, Any]
    moves: tuple[Moved, ...]
    points: tuple[Mapping[str, Any], ...]
    judged: tuple[Mapping[str, Any], ...]
    made_at_s: float

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return asdict(self)


def read_reports(path: str | Path, rollout: str, clock: Clock) -> tuple[Report, ...]:
    """A report for each scope of a rollout (or for the one scope named)."""
    if not Path(path).exists():
        raise NotFoundError(f"there is no state file {path}")
    log = SqliteLog(path, clock, is_read_only=True)
    try:
        return reports_of(log.read(), log, rollout, clock.now())
    finally:
        log.close()


def reports_of(
    entries: Iterable[Entry], checkpoints: Any, rollout: str, now: float
) -> tuple[Report, ...]:
    """The reports that a log's entries and checkpoints make."""
    moves: dict[str, list[Moved]] = {}
    for entry in entries:
        if entry.record.kind == SCOPE_MOVED:
            moves.setdefault(entry.record.subject, []).append(_moved(entry))
    scopes = [one for one in moves if one == rollout or one.startswith(f"{rollout}/")]
    if not scopes:
        known = ", ".join(sorted(moves)) or "none"
        raise NotFoundError(f"no rollout '{rollout}' (there are: {known})")
    found = []
    for scope in sorted(scopes):
        stored = read_series(checkpoints, scope)
        found.append(
            Report(
                scope, stored.get("about", {"scope": scope}), tuple(moves[scope]),
                tuple(stored.get("points", ())), tuple(stored.get("judged", ())), now,
            )
        )  # fmt: skip
    return tuple(found)


def _moved(entry: Entry) -> Moved:
    payload = json.loads(entry.record.payload)
    state = payload.get("state", {})
    return Moved(
        entry.time, entry.revision, str(payload.get("event", "")),
        str(payload.get("from", "")), str(payload.get("to", "")),
        int(state.get("step", 0)), dict(state.get("weights_bp", {})),
        entry.record.actor, entry.record.reason, tuple(payload.get("evidence", ())),
    )  # fmt: skip
