"""What signals do to a server: leave, leave at once, look again."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

X = {"x": np.ones((1, 2), np.float32)}


def faulty(directory: Path) -> dict[str, object]:
    testing.write_model(directory / "models", "faulty", {1: testing.faulty(1)})
    return {"models": [model(directory / "models", "faulty")]}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[testing.Server]:
    """A server with a call in flight that never ends by itself, and a long grace."""
    server = testing.Server(tmp_path, faulty(tmp_path), settings={"drain_s": 60})
    server.start()
    hang = {"x": np.array([[1, testing.FAULT_HANG]], np.float32)}

    def call() -> None:
        with testing.Caller(server.address) as caller:
            try:
                caller.infer("faulty", hang, timeout_s=60)
            except grpc.RpcError:
                return

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    testing.wait_until(lambda: server.metric("router_inflight") == 1, "the held call")
    yield server
    if server.is_running:
        server.kill()
    thread.join(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_leave_exits_with_zero(
    tmp_path: Path, number: signal.Signals
) -> None:
    server = testing.Server(tmp_path, faulty(tmp_path), settings={"drain_s": 2})
    server.start()
    os.kill(server.pid, number)
    assert server.wait() == 0
    assert not (tmp_path / "admin.sock").exists()


def test_while_it_drains_a_server_is_alive_and_not_ready(held: testing.Server) -> None:
    os.kill(held.pid, signal.SIGTERM)
    testing.wait_until(lambda: held.get("/readyz") == (503, "draining\n"), "not ready")
    assert held.get("/healthz")[0] == 200
    assert held.metric("router_draining") == 1


def test_a_second_signal_ends_the_wait(held: testing.Server) -> None:
    os.kill(held.pid, signal.SIGTERM)
    testing.wait_until(lambda: held.get("/readyz")[0] == 503, "draining")

    def told_again() -> bool:
        if held.is_running:
            os.kill(held.pid, signal.SIGTERM)
        return not held.is_running

    testing.wait_until(told_again, "leaving at once")
    assert held.wait() == 128 + signal.SIGTERM


def test_a_storm_of_hangups_is_a_few_reloads_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    server = testing.Server(tmp_path, faulty(tmp_path), settings={"drain_s": 2})
    with server, testing.Caller(server.address) as caller:
        before = server.metric("router_published_tables_total")
        for _ in range(200):
            server.hang_up()
            assert caller.infer("faulty", X).version == 1
        testing.wait_until(
            lambda: server.metric("router_published_tables_total") > before, "a reload"
        )
        assert server.metric("router_config_last_reload_successful") == 1
