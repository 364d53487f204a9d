"""Methods served by Python, asked through the real server by a plain client."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from router import testing

SERVICE = "/inference.GRPCInferenceService/"
UNARY = [
    "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
    "ModelStatistics", "RepositoryIndex",
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_bytes_that_are_no_message_are_an_invalid_argument(
    caller: testing.Caller, name: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary(SERVICE + name)(b"\xff\xff\xff", timeout=5)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"inference.{name}Request" in caught.value.details()
    assert caller.channel.unary_unary(SERVICE + "ServerLive")(b"", timeout=5)


@pytest.mark.parametrize("name", ["TraceSetting", "LogSettings", "RepositoryModelLoad"])
def test_a_method_that_is_not_served_is_unimplemented(
    caller: testing.Caller, name: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary(SERVICE + name)(b"", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_hundreds_of_watches_cost_no_thread_and_all_are_told(
    world: testing.Server,
) -> None:
    message = testing.messages("grpc.health.v1")
    request = message("HealthCheckRequest")(service="model/tag").SerializeToString()
    threads = thread_count(world)
    channels = [grpc.insecure_channel(world.address, [("id", n)]) for n in range(4)]
    streams = [
        channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=30)
        for channel in channels
        for _ in range(80)
    ]
    response = message("HealthCheckResponse")
    assert {response.FromString(next(stream)).status for stream in streams} == {1}
    assert thread_count(world) == threads
    for stream in streams:
        stream.cancel()
    for channel in channels:
        channel.close()
    with testing.Caller(world.address) as caller:
        assert caller.channel.unary_unary(SERVICE + "ServerLive")(b"", timeout=5)


def thread_count(server: testing.Server) -> int:
    with open(f"/proc/{server.pid}/status") as status:
        (line,) = [text for text in status if text.startswith("Threads:")]
    return int(line.split()[1])


def test_many_clients_of_methods_get_their_own_answers(world: testing.Server) -> None:
    message = testing.messages()
    response = message("ModelMetadataResponse")
    failures: list[str] = []
    together = threading.Barrier(4)

    def ask(name: str) -> None:
        together.wait(10)
        with testing.Caller(world.address) as caller:
            call = caller.channel.unary_unary(SERVICE + "ModelMetadata")
            for _ in range(50):
                body = message("ModelMetadataRequest")(name=name).SerializeToString()
                if response.FromString(call(body, timeout=10)).name != name:
                    failures.append(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, ["tag", "mlp", "faulty", "scalar"]))
    assert failures == []
