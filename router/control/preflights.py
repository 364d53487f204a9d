"""Preflights that are made when a rollout first wants one.

Replaying compares arrays, and a server that never replays does not carry what that
needs: the library costs more memory than a small model.
"""

from collections.abc import Callable
from typing import Protocol

from router.analysis.verdict import Verdict
from router.plan.rollout import PreflightStep, Spec


class Replays(Protocol):
    """Replays of recordings, on a thread of their own."""

    def verdict(
        self, spec: Spec, attempt: int, step: PreflightStep
    ) -> Verdict | None: ...

    def close(self) -> None: ...


class LatePreflights:
    """Owner of the replays, once there are any. The ticking thread asks."""

    def __init__(self, make: Callable[[], Replays]) -> None:
        self._make = make
        self._made: Replays | None = None

    def verdict(self, spec: Spec, attempt: int, step: PreflightStep) -> Verdict | None:
        """What the replay came to; None while it runs."""
        if self._made is None:
            self._made = self._make()
        return self._made.verdict(spec, attempt, step)

    def close(self) -> None:
        """End the replays, if any were made."""
        if self._made is not None:
            self._made.close()
