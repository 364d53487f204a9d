"""A stock client's pings and streams are never punished, whatever road it takes.

grpcio measures bandwidth with bursts of PINGs and keeps idle connections alive with
more; both look like a flood to a careless server.
"""

import contextlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def unpunished(world: testing.Server) -> Iterator[None]:
    before = world.metric("router_abuse_total")
    yield
    assert world.metric("router_abuse_total") == before


@pytest.mark.usefixtures("unpunished")
def test_bandwidth_probes_are_not_abuse(world: testing.Server) -> None:
    accepted = world.metric("router_accepted_connections_total")
    big = {"x": np.zeros(400_000, np.float32)}
    with testing.Caller(world.address) as caller:
        for _ in range(40):
            caller.infer("echo_fp32", big)
        for _ in range(300):
            caller.infer("tag", X)
    # One connection for everything: nobody was sent away in between.
    assert world.metric("router_accepted_connections_total") == accepted + 1


@pytest.mark.usefixtures("unpunished")
def test_a_thousand_short_streams_are_not_abuse(world: testing.Server) -> None:
    with testing.Caller(world.address) as caller:
        caller.versions("tag", X, [str(i) for i in range(1000)])


@pytest.mark.usefixtures("unpunished")
def test_a_client_that_cancels_often_is_not_abuse(world: testing.Server) -> None:
    with testing.Caller(world.address) as caller:
        for _ in range(100):
            with contextlib.suppress(grpc.RpcError):
                caller.infer("tag", X, timeout_s=0.0005)
        assert caller.infer("tag", X).model == "tag"


@pytest.mark.soak
@pytest.mark.usefixtures("unpunished")
def test_keepalive_of_an_idle_client_is_not_abuse(world: testing.Server) -> None:
    import time

    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    accepted = world.metric("router_accepted_connections_total")
    with testing.Caller(world.address, options) as caller:
        for _ in range(3):
            caller.infer("tag", X)
            time.sleep(35)  # the idle time is the subject
        caller.infer("tag", X)
    assert world.metric("router_accepted_connections_total") == accepted + 1


def test_a_unix_socket_serves_like_a_port(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("unix")
    testing.write_model(directory / "models", "tag", {1: testing.tag(1)})
    config = {"models": [model(directory / "models", "tag")]}
    path = f"unix:{directory}/d.sock"
    server = testing.Server(directory, config, settings={"listen": path, "drain_s": 2})
    with server, testing.Caller(path) as caller:
        assert caller.infer("tag", X).version == 1


def test_health_follows_readiness(world: testing.Server) -> None:
    message = testing.messages("grpc.health.v1")
    request, response = message("HealthCheckRequest"), message("HealthCheckResponse")
    with grpc.insecure_channel(world.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for service in ("", "inference.GRPCInferenceService"):
            body = request(service=service).SerializeToString()
            assert response.FromString(check(body, timeout=5)).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            check(request(service="nobody").SerializeToString(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        stream = watch(request().SerializeToString(), timeout=5)
        assert response.FromString(next(stream)).status == 1
        stream.cancel()


def test_metrics_are_what_promtool_expects(world: testing.Server) -> None:
    import shutil
    import subprocess

    page = world.get("/metrics")[1]
    names = {name for name, _, _ in testing.samples(page)}
    assert {"router_requests_total", "router_build_info"} <= names
    tool = shutil.which("promtool")
    if tool is not None:
        command = [tool, "check", "metrics"]
        done = subprocess.run(command, input=page, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
