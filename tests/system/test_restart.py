"""Going away without anybody noticing: what is finished, and what cannot be.

That a successor on the same descriptor loses nothing is test_drain.py's to prove.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from entries import model
from rawwire import DATA, END_STREAM, RawClient, frame, grpc_fields, message
from test_status_table import body

from router import testing
from router.engine import _engine

X = {"x": np.ones((1, 2), np.float32)}


def config(directory: Path) -> dict[str, Any]:
    testing.write_model(directory / "models", "tag", {1: testing.tag(1)})
    testing.write_model(directory / "models", "faulty", {1: testing.faulty(1)})
    runtime = {"batching": "off", "queue_ms_max": 10_000}
    return {
        "models": [
            model(directory / "models", "tag"),
            model(directory / "models", "faulty", runtime=runtime),
        ]
    }


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(512)
        yield made


def test_what_was_begun_is_finished_before_the_process_ends(tmp_path: Path) -> None:
    slow = {"x": np.array([[1, testing.FAULT_SLOW]], np.float32)}
    answers: list[int] = []
    server = testing.Server(tmp_path, config(tmp_path), settings={"drain_s": 10})
    server.start()
    with testing.Caller(server.address) as caller:
        running = threading.Thread(
            target=lambda: answers.append(caller.infer("faulty", slow).version)
        )
        running.start()
        testing.wait_until(lambda: server.metric("router_inflight") == 1, "it runs")
        assert server.stop() == 0
        running.join()
    assert answers == [1]


def test_a_draining_server_says_so_before_it_goes(tmp_path: Path) -> None:
    server = testing.Server(tmp_path, config(tmp_path), settings={"drain_s": 10})
    server.start()
    slow = message(body("faulty", testing.FAULT_HANG))
    with RawClient(server.address) as wire:
        stream = wire.open(grpc_fields(grpc_timeout="2S"))
        wire.send(frame(DATA, END_STREAM, stream, slow))
        testing.wait_until(lambda: server.metric("router_inflight") == 1, "it runs")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        testing.wait_until(lambda: server.get("/readyz")[0] == 503, "not ready")
        wire.read(lambda: wire.goaway is not None, 5)
        # No error: there is time to open streams until the second GOAWAY.
        assert wire.goaway == 0
        assert wire.wait(stream).code == 4
        stopping.join()


def test_a_call_that_outlives_the_grace_is_told_to_go_elsewhere(
    tmp_path: Path,
) -> None:
    server = testing.Server(tmp_path, config(tmp_path), settings={"drain_s": 0.2})
    server.start()
    with RawClient(server.address) as wire:
        stream = wire.open(grpc_fields(grpc_timeout="60S"))
        hang = message(body("faulty", testing.FAULT_HANG))
        wire.send(frame(DATA, END_STREAM, stream, hang))
        testing.wait_until(lambda: server.metric("router_inflight") == 1, "it runs")
        stopped = threading.Thread(target=server.stop)
        stopped.start()
        reply = wire.wait(stream)
        stopped.join()
    assert reply.code == grpc.StatusCode.UNAVAILABLE.value[0]


def test_before_anything_is_published_nothing_is_ready(
    listening: socket.socket,
) -> None:
    listening.setblocking(False)
    engine = _engine.Engine({})
    engine.listen(listening.fileno(), _engine.DATA)
    engine.start()
    try:
        with RawClient(f"127.0.0.1:{listening.getsockname()[1]}") as wire:
            reply = wire.call(body())
            assert reply.code == grpc.StatusCode.UNAVAILABLE.value[0]
            assert "grpc-retry-pushback-ms" not in reply.headers
            assert wire.ping()
    finally:
        engine.stop()


def test_the_process_holds_one_copy_of_the_runtime_and_no_grpc_server(
    world: testing.Server,
) -> None:
    maps = Path(f"/proc/{world.pid}/maps").read_text()
    assert "libonnxruntime.so" in maps
    assert "onnxruntime_pybind11_state" not in maps
    assert "cygrpc" not in maps


def test_two_signals_in_a_row_are_no_trouble(tmp_path: Path) -> None:
    server = testing.Server(tmp_path, config(tmp_path), settings={"drain_s": 5})
    with server:
        for _ in range(3):
            server.hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
            os.kill(server.pid, signal.SIGTERM)
