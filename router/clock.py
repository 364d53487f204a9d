"""Where control-plane time comes from. The engine has its own clocks.

A clock is passed in, never read in place, so that tests move it by hand.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since 1970 and monotonic seconds."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """Time that somebody moves: for simulations and tests."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_s, self._monotonic_s = wall_s, 1_000.0

    def now(self) -> float:
        return self._wall_s

    def monotonic(self) -> float:
        return self._monotonic_s

    def move(self, seconds: float) -> None:
        """Let this much time pass."""
        self._wall_s += seconds
        self._monotonic_s += seconds

    def set_wall(self, wall_s: float) -> None:
        """Somebody set the machine's clock; no time passed."""
        self._wall_s = wall_s
