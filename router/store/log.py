"""The control log: what an entry is, and what appending can answer.

The log is append-only and has three calls: `append(expected_revision, records)`,
`read(since)` and `watch(since)`. A revision counts entries; whoever appends says which
revision they had read, and is answered with a conflict when somebody else was faster.
Nothing here knows what the entries mean: current state is a fold over them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to be remembered: what (`kind`) about whom (`subject`).

    `payload` is JSON text; `actor` and `reason` say who did it and why.
    """

    kind: str
    subject: str
    payload: str
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in the log, with its revision and the time it was appended."""

    revision: int
    time: float
    record: Record


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was appended: the log is at `revision`, not where the writer believed."""

    revision: int
