"""A real log on a real file that cannot grow any more: growth is refused, and a
rollback is not."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rollouts import config, rollout
from world import SOMEONE, World

from router.clock import SystemClock
from router.control.commands import Retry, RollBack, SetWeight
from router.control.state import fold
from router.errors import StoreError
from router.plan.rollout import Phase
from router.store.sqlite import SqliteLog

R = "credit-2"


@contextmanager
def no_file_may_grow(size: int) -> Iterator[None]:
    """Writes beyond so many bytes of any file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_growth_is_refused_and_a_rollback_is_not(path: Path) -> None:
    log = SqliteLog(path, SystemClock())
    made = World(config(rollout()), log=log)
    made.run(60)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 500)
    with no_file_may_grow(4096):
        with pytest.raises(StoreError):
            made.ask(SetWeight(R, 600, None, SOMEONE))
        assert made.share_bp() == 500
        made.run(7200, tick_s=60)  # nothing is lost by trying again and again
        assert made.share_bp() == 500
        made.ask(RollBack(R, SOMEONE))
        assert (made.phase(), made.share_bp()) == (Phase.ROLLED_BACK, 0)
        with pytest.raises(StoreError):
            made.ask(Retry(R, SOMEONE))
        assert made.view().waiting == 1
        assert fold(log.read()).scopes[R].phase == Phase.RAMPING
    made.run(30)
    assert made.view().waiting == 0
    made.ask(Retry(R, SOMEONE))
    log.close()
    after = SqliteLog(path, SystemClock())
    assert fold(after.read()).scopes == made.routing.state.scopes
    after.close()


def test_a_failed_write_leaves_the_log_as_it_was(path: Path) -> None:
    log = SqliteLog(path, SystemClock())
    made = World(config(rollout()), log=log)
    made.run(60)
    before = log.read()
    with no_file_may_grow(4096):
        for _ in range(3):
            with pytest.raises(StoreError):
                made.ask(SetWeight(R, 600, None, SOMEONE))
            with pytest.raises(StoreError):
                log.save("name", "x" * 100_000)
        assert log.read() == before
    made.ask(SetWeight(R, 600, None, SOMEONE))
    assert len(log.read()) == len(before) + 1
    log.close()
