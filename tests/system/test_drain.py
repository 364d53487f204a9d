"""Leaving without losing: calls finish, watchers are told, a successor takes over."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

X = {"x": np.ones((1, 2), np.float32)}

# Puts a descriptor where systemd would, and becomes the server.
INHERIT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "router", "serve", sys.argv[2]])
"""


def test_a_call_in_flight_is_answered(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "faulty", {1: testing.faulty(1)})
    config = {"models": [model(tmp_path / "models", "faulty")]}
    slow = {"x": np.array([[1, testing.FAULT_SLOW]], np.float32)}
    server = testing.Server(tmp_path, config, settings={"drain_s": 20})
    server.start()
    answers = []

    def call() -> None:
        with testing.Caller(server.address) as caller:
            answers.append(caller.infer("faulty", slow).version)

    thread = threading.Thread(target=call)
    thread.start()
    testing.wait_until(lambda: server.metric("router_inflight") == 1, "the slow call")
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    thread.join(10)
    assert answers == [1]


def test_watchers_are_told_and_let_go(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    config = {"models": [model(tmp_path / "models", "tag")]}
    server = testing.Server(tmp_path, config, settings={"drain_s": 20})
    server.start()
    message = testing.messages("grpc.health.v1")
    response = message("HealthCheckResponse")
    with grpc.insecure_channel(server.address) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        stream = watch(message("HealthCheckRequest")().SerializeToString(), timeout=20)
        assert response.FromString(next(stream)).status == 1
        os.kill(server.pid, signal.SIGTERM)
        assert response.FromString(next(stream)).status == 2
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        # Far below the grace: an open watch does not hold the drain.
        assert server.wait() == 0


class Load:
    """A thread that calls until told to stop; errors are kept, not raised."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._call, self._stop = call, threading.Event()
        self.versions: list[int] = []
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set() and len(self.errors) < 5:
            try:
                self.versions.append(self._call())
            except grpc.RpcError as error:
                self.errors.append(f"{error.code()}: {error.details()}")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


def inheriting(
    directory: Path, version: int, listener: socket.socket
) -> tuple[testing.Server, subprocess.Popen[bytes]]:
    """A server of one version on an inherited descriptor, once it is ready."""
    directory.mkdir()
    testing.write_model(directory / "models", "tag", {version: testing.tag(version)})
    config = {"models": [model(directory / "models", "tag")]}
    host, port = listener.getsockname()
    settings = {"listen": f"{host}:{port}", "drain_s": 10}
    server = testing.Server(directory, config, settings=settings)
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", INHERIT, str(listener.fileno()), str(server.path)],
            cwd=directory, stdout=log, stderr=log, pass_fds=[listener.fileno()],
        )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, server.tail()
        try:
            return server.get("/readyz")[0] == 200
        except OSError:
            return False

    testing.wait_until(is_ready, "the inheriting server", 60)
    return server, process


def test_a_successor_on_the_same_descriptor_loses_nothing(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        contextlib.ExitStack() as stack,
    ):
        address = "{}:{}".format(*listener.getsockname())
        _, first = inheriting(tmp_path / "first", 1, listener)
        staying = stack.enter_context(testing.Caller(address))

        def reconnect() -> int:
            with testing.Caller(address) as caller:
                return caller.infer("tag", X).version

        loads = [Load(lambda: staying.infer("tag", X).version), Load(reconnect)]
        testing.wait_until(lambda: all(load.versions for load in loads), "answers")
        _, second = inheriting(tmp_path / "second", 2, listener)
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
        counts = [len(load.versions) for load in loads]
        testing.wait_until(
            lambda: all(
                len(x.versions) > n + 20 for x, n in zip(loads, counts, strict=True)
            ),
            "answers of the successor",
        )
        for load in loads:
            load.stop()
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
        assert [load.errors for load in loads] == [[], []]
        assert [load.versions[-1] for load in loads] == [2, 2]
