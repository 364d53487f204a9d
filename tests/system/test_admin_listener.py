"""The operators' listener: who may come in, what is served there and nowhere else."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from entries import AUDIENCES, model

from router import testing
from router.client import CallError, Client
from router.client.messages import message, pool
from router.client.stub import call, streaming

ADMIN = "run/admin.sock"
OPERATORS = [
    f"router.v1.{name}Service"
    for name in (
        "Audience", "Config", "Explain", "Flag", "History", "Model", "Rollout",
        "Variation",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("operated")
    tags = {version: testing.tag(version) for version in (1, 2, 3)}
    testing.write_model(directory / "models", "tag", tags)
    config = {
        "models": [model(directory / "models", "tag", stable=1)],
        "audiences": AUDIENCES,
        "routes": [
            {"model": "tag", "audience": "new-york", "version": 2},
            {
                "model": "tag",
                "split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}],
            },
        ],
    }
    with testing.Server(directory, config, settings={"drain_s": 2}) as made:
        yield made


@pytest.fixture
def admin(server: testing.Server) -> str:
    return f"unix:{server.directory / ADMIN}"


@pytest.fixture
def operator(admin: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(admin) as channel:
        yield channel


def listed(channel: grpc.Channel) -> set[str]:
    name = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    asked = message("grpc.reflection.v1.ServerReflectionRequest")(list_services="")
    (answer,) = streaming(channel, name, [asked], 5)
    return {one.name for one in answer.list_services_response.service}


def test_the_socket_is_there_by_default_and_for_its_owner_only(
    server: testing.Server,
) -> None:
    assert (server.directory / ADMIN).stat().st_mode & 0o777 == 0o600


def test_what_operators_do_is_not_on_the_clients_port(
    server: testing.Server, operator: grpc.Channel
) -> None:
    request = message("router.v1.ListModelsRequest")()
    assert call(operator, "router.v1.ModelService/List", request, 5).models
    with grpc.insecure_channel(server.address) as client:
        with pytest.raises(grpc.RpcError) as caught:
            call(client, "router.v1.ModelService/List", request, 5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert listed(operator) - listed(client) == set(OPERATORS)
        name = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        asked = message("grpc.reflection.v1.ServerReflectionRequest")
        request = asked(file_containing_symbol=OPERATORS[0])
        for channel, is_told in ((operator, True), (client, False)):
            (answer,) = streaming(channel, name, [request], 5)
            assert answer.HasField("file_descriptor_response") == is_told


def test_every_method_of_the_package_is_served(operator: grpc.Channel) -> None:
    garbage = b"\xff\xff\xff"
    for name in OPERATORS:
        for method in pool().FindServiceByName(name).methods:
            ask = operator.stream_stream(f"/{name}/{method.name}")
            with pytest.raises(grpc.RpcError) as caught:
                list(ask(iter([garbage]), timeout=5))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.name
            assert method.input_type.full_name in caught.value.details()


def test_explaining_says_what_a_request_gets(
    server: testing.Server, admin: str
) -> None:
    with Client(server.address, admin=admin) as client:
        before = server.metric("router_requests_total")
        x = {"x": [[1.0, 1.0]]}
        for i in range(50):
            unit = f"user-{i}"
            found = client.explain("tag", unit=unit)
            got = client.predict("tag", x, unit=unit)
            assert (found.version, found.bucket) == (got.version, got.bucket)
            assert (found.reason, found.rule) == (got.reason, got.rollout)
            assert found.revision == got.revision
        # Explaining counts nothing: only the predictions did.
        assert server.metric("router_requests_total") == before + 50


def test_explaining_finds_the_unit_where_a_request_has_it(
    server: testing.Server, admin: str
) -> None:
    with Client(server.address, admin=admin) as client:
        named = client.explain("tag", unit="user-7")
        header = client.explain("tag", metadata={"x-user-id": "user-7"})
        assert named == header
        nobody = client.explain("tag")
        assert not nobody.has_unit


def test_explaining_says_which_conditions_held(
    server: testing.Server, admin: str
) -> None:
    metadata = {"location": "boston"}
    with Client(server.address, admin=admin) as client:
        found = client.explain("tag", unit="u", metadata=metadata)
        rule = found.tried[0]
        assert not rule.is_match
        (test,) = rule.tests
        assert (test.has_passed, test.value) == (False, "boston")
        assert client.explain("tag", version=9).refusal
        with pytest.raises(CallError) as caught:
            client.explain("nothing")
        assert caught.value.code == "NOT_FOUND"
        assert "tag" in caught.value.detail


def test_models_say_what_they_take_and_whether_they_are_ready(
    operator: grpc.Channel,
) -> None:
    request = message("router.v1.DescribeModelRequest")(name="tag")
    found = call(operator, "router.v1.ModelService/Describe", request, 5)
    assert (found.name, found.stable) == ("tag", 1)
    assert [v.version for v in found.versions] == [1, 2, 3]
    assert all(v.is_loaded and v.is_ready for v in found.versions)
    (x,) = found.versions[0].inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 2])
    request.name = "nothing"
    with pytest.raises(grpc.RpcError) as caught:
        call(operator, "router.v1.ModelService/Describe", request, 5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_second_server_in_the_same_directory_is_told_what_to_do(
    server: testing.Server, tmp_path: Path
) -> None:
    path = tmp_path / "second.yaml"
    data, ops = testing.free_ports(2)
    path.write_text(
        f"api_version: router/v1\nserver: {{listen: 127.0.0.1:{data}, "
        f"ops: 127.0.0.1:{ops}, state: {tmp_path}/state.db}}\n"
        f"models: [{{name: tag, repository: models/tag}}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "router", "serve", str(path)],
        cwd=server.directory, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot listen on unix:run/admin.sock: somebody listens there" in done.stderr
    assert "give one of them another path" in done.stderr
    assert server.get("/readyz")[0] == 200


def test_a_socket_left_by_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left, contextlib.chdir(tmp_path):
        left.bind(ADMIN)
    assert (tmp_path / ADMIN).exists()
    os.chmod(tmp_path / ADMIN, 0o666)
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    config = {"models": [model(tmp_path / "models", "tag")]}
    with testing.Server(tmp_path, config, settings={"drain_s": 2}):
        assert (tmp_path / ADMIN).stat().st_mode & 0o777 == 0o600
        with grpc.insecure_channel(f"unix:{tmp_path / ADMIN}") as channel:
            assert listed(channel) >= set(OPERATORS)
    assert not (tmp_path / ADMIN).exists()
