"""What is told to others: one event, and how loud it is."""

import hashlib
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How soon a person has to look."""

    INFO = 0
    TICKET = 1
    PAGE = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened, or is over.

    `dedupe_key` names the trouble: an event of the same key is the same trouble again,
    or with `is_resolved` its end. `fields` are what a person needs to act: numbers,
    bounds, windows. `time` is in seconds since 1970.
    """

    kind: str
    severity: Severity
    subject: str
    summary: str
    fields: tuple[tuple[str, str], ...]
    dedupe_key: str
    time: float
    is_resolved: bool = False

    @property
    def id(self) -> str:
        """The same for every attempt to send this event, and for no other."""
        text = f"{self.dedupe_key}\0{self.time!r}\0{self.is_resolved}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]
