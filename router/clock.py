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
