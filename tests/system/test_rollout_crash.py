"""A server killed at random moments while operators change it, and rolled back under
load. The state that comes back is the last that was acknowledged, or the one asked for.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import model

from router import testing
from router._fasthash import Table
from router._fasthash_bytes import read_models
from router.client.operator import Operator, asked
from router.client.prediction import CallError
from router.clock import SystemClock
from router.config.check import Checks
from router.config.load import load_config
from router.control.state import fold
from router.engine._engine import regex_problem
from router.plan.compile import compile_plan
from router.plan.encode import encode
from router.plan.rollout import Phase
from router.store.sqlite import SqliteLog

GOLDEN = 100_000
R = "tag-2"
FOR_EVER = [{"weight": {"to": 5, "for": "9d"}}, {"weight": {"to": 100, "for": "9d"}}]


def config(directory: Path) -> dict[str, Any]:
    testing.write_model(
        directory / "models", "tag", {1: testing.tag(1), 2: testing.tag(2)}
    )
    rollout = {"name": R, "model": "tag", "candidate": 2, "steps": FOR_EVER}
    return {
        "models": [model(directory / "models", "tag", stable=1)],
        "rollouts": [rollout],
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[testing.Server]:
    settings = {"admin": "unix:admin.sock", "state": "state.db"}
    made = testing.Server(tmp_path, config(tmp_path), settings=settings)
    made.start()
    yield made
    if made.is_running:
        made.stop()


def operator(server: testing.Server) -> Operator:
    return Operator(f"unix:{server.directory}/admin.sock")


def scope(made: Operator) -> Any:
    (found,) = made.call("RolloutService/Get", rollout=R).scopes
    return found


def on_disk(server: testing.Server) -> tuple[int, bytes]:
    """The candidate's stored weight, and the table that it makes."""
    log = SqliteLog(server.directory / "state.db", SystemClock(), is_read_only=True)
    state = fold(log.read())
    log.close()
    read = load_config(server.path, Checks(None, regex_problem))
    table = encode(compile_plan(read, state.states({"tag": (1, 2)})))
    return state.scopes[R].weights_bp.get(2, 0), table


def versions_of(table: bytes, units: range) -> list[int]:
    routed, variants = Table(table), read_models(table)["tag"].variants
    return [
        variants[routed.route("tag", {}, b"golden-%d" % n, 1).variant].version
        for n in units
    ]


class Mutator:
    """Sets one weight after the other until the server is gone."""

    def __init__(self, server: testing.Server, draw: random.Random) -> None:
        self._server, self._draw = server, draw
        self.acknowledged: int | None = None
        self.asked = 0
        self.count = 0
        self._thread = threading.Thread(target=self._run, name="mutator")

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        testing.wait_until(lambda: self.count > 0, "a change is acknowledged")

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with operator(self._server) as made, suppress(CallError):
            while True:
                self.asked = self._draw.randrange(1, 10_000)
                made.call(
                    "RolloutService/SetWeight", rollout=R, weight_bp=self.asked,
                    asked=asked("test"),
                )  # fmt: skip
                self.acknowledged = self.asked
                self.count += 1


def kill_and_recover(server: testing.Server, kills: int, seed: int) -> int:
    """How many changes were acknowledged, over so many lives of the server."""
    draw = random.Random(seed)
    total = 0
    for _ in range(kills):
        with operator(server) as made:
            testing.wait_until(lambda: scope(made).phase == "ramping", "it ramps")
        mutator = Mutator(server, draw)
        before = on_disk(server)[0]
        mutator.start()
        mutator.wait()
        time.sleep(draw.random() * 0.2)  # the random moment is what is tested
        server.kill()
        mutator.join()
        weight, table = on_disk(server)
        known = before if mutator.acknowledged is None else mutator.acknowledged
        assert weight in (known, mutator.asked)
        total += mutator.count
        server.start()
        assert shown(server, table) == 1
    return total


def shown(server: testing.Server, table: bytes) -> float:
    """1 when the server serves by this table."""
    revision = f"{int.from_bytes(table[16:24], 'little'):016x}"
    return server.metric("router_config_revision_info", table_revision=revision)


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(server: testing.Server) -> None:
    assert kill_and_recover(server, 5, seed=1) >= 5


@pytest.mark.soak
def test_what_was_acknowledged_survives_two_hundred_kills(
    server: testing.Server,
) -> None:
    assert kill_and_recover(server, 200, seed=2) >= 200
    weight, table = on_disk(server)
    before = versions_of(table, range(GOLDEN))
    server.kill()
    server.start()
    again = on_disk(server)
    assert again[0] == weight
    assert versions_of(again[1], range(GOLDEN)) == before
    assert set(before) == {1, 2}


@pytest.mark.slow
def test_the_first_request_after_a_rollback_is_stables(server: testing.Server) -> None:
    answers: list[tuple[float, int]] = []
    errors: list[str] = []
    is_done = threading.Event()
    inputs = {"x": np.zeros((1, 2), np.float32)}

    def load(which: int) -> None:
        with testing.Caller(server.address) as caller:
            n = 0
            while not is_done.is_set():
                n += 1
                sent_s = time.monotonic()
                unit = {"x-user-id": f"u{which}-{n % 997}"}
                answers.append((sent_s, caller.infer("tag", inputs, unit).version))

    def guarded(which: int) -> None:
        try:
            load(which)
        except Exception as error:
            errors.append(repr(error))

    with operator(server) as made:
        testing.wait_until(lambda: scope(made).phase == "ramping", "it ramps")
        made.call("RolloutService/SetWeight", rollout=R, weight_bp=5_000,
                  asked=asked("test"))  # fmt: skip
        threads = [threading.Thread(target=guarded, args=(at,)) for at in range(3)]
        for thread in threads:
            thread.start()
        testing.wait_until(lambda: len(answers) > 500, "load")
        made.call("RolloutService/RollBack", rollout=R, asked=asked("test"))
        acknowledged_s, count = time.monotonic(), len(answers)
        testing.wait_until(lambda: len(answers) > count + 500, "more load")
        is_done.set()
        for thread in threads:
            thread.join()
        assert scope(made).phase == Phase.ROLLED_BACK
    assert errors == []
    after = {version for sent_s, version in answers if sent_s > acknowledged_s}
    assert after == {1}
    assert 2 in {version for _, version in answers}
