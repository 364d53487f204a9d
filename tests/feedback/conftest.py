"""Desks on a real file, with a clock that is moved by hand."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minted import CATALOGUE, NOW

from router.engine._engine import predictions_read
from router.feedback.desk import FeedbackDesk, Settings
from router.feedback.join import Catalogue, Report, Terms
from router.feedback.writer import Place


@dataclass
class ManualClock:
    """Time that moves when it is told to."""

    time: float = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Desk:
    """A desk, and what its callers were told."""

    desk: FeedbackDesk
    clock: ManualClock
    told: list[Any] = field(default_factory=list)
    ready: threading.Condition = field(default_factory=threading.Condition)

    def report(self, *reports: Report) -> Any:
        """What the sender of a message is told."""
        before = len(self.told)
        self.send(*reports)
        with self.ready:
            assert self.ready.wait_for(lambda: len(self.told) > before, 10)
            return self.told[before]

    def send(self, *reports: Report) -> None:
        self.desk.report(reports, self._done)

    def outcomes(self, *reports: Report) -> list[str]:
        return [answer.outcome.name for answer in self.report(*reports)]

    def _done(self, result: Any) -> None:
        with self.ready:
            self.told.append(result)
            self.ready.notify_all()


@pytest.fixture
def open_desk(tmp_path: Path):
    """Opens a desk on the same file as often as it is called."""
    opened: list[FeedbackDesk] = []

    def make(
        mib_max: float = 64,
        path: Path | None = None,
        catalogue: Callable[[], Catalogue] = lambda: CATALOGUE,
        **terms: float,
    ) -> Desk:
        clock = ManualClock()
        place = Place(path or tmp_path / "labels.db", int(mib_max * 1024 * 1024))
        settings = Settings(place, Terms(**terms), 72 * 3600.0)
        desk = FeedbackDesk(settings, catalogue, predictions_read, clock)
        desk.start()
        opened.append(desk)
        return Desk(desk, clock)

    yield make
    for desk in opened:
        desk.close()
