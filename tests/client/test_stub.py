"""Calls without generated stubs reach a stock grpcio server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from router.client.messages import message
from router.client.stub import INFERENCE, call, streaming, unary

HEALTH = "grpc.health.v1.Health"


def infer(request: object, context: grpc.ServicerContext) -> object:
    metadata = dict(context.invocation_metadata())
    if request.model_name == "slow":
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
    context.set_trailing_metadata((("x-answered", "yes"),))
    answer = message("inference.ModelInferResponse")(
        model_name=request.model_name, id=metadata.get("x-user-id", "")
    )
    answer.parameters["has_deadline"].bool_param = context.time_remaining() < 1000
    return answer


def infer_stream(requests: Iterator, _context: grpc.ServicerContext) -> Iterator:
    for request in requests:
        answer = message("inference.ModelStreamInferResponse")()
        answer.infer_response.id = request.id
        yield answer


def watch(_request: object, _context: grpc.ServicerContext) -> Iterator:
    for status in (1, 2):
        yield message(f"{HEALTH}CheckResponse")(status=status)


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    def served(make: object, method: object, request: str) -> grpc.RpcMethodHandler:
        return make(
            method, message(request).FromString, lambda m: m.SerializeToString()
        )

    server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="stub-test"))
    request = "inference.ModelInferRequest"
    inference = {
        "ModelInfer": served(grpc.unary_unary_rpc_method_handler, infer, request),
        "ModelStreamInfer": served(
            grpc.stream_stream_rpc_method_handler, infer_stream, request
        ),
    }
    health = {
        "Watch": served(
            grpc.unary_stream_rpc_method_handler, watch, f"{HEALTH}CheckRequest"
        )
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(INFERENCE, inference),
            grpc.method_handlers_generic_handler(HEALTH, health),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    server.stop(None).wait(5)


def request_of(name: str, request_id: str = "") -> object:
    return message("inference.ModelInferRequest")(model_name=name, id=request_id)


def test_a_call_carries_request_deadline_and_metadata(channel: grpc.Channel) -> None:
    answer = call(channel, "ModelInfer", request_of("m"), 5, [("x-user-id", "u1")])
    assert answer.model_name == "m"
    assert answer.id == "u1"
    assert answer.parameters["has_deadline"].bool_param
    assert (
        not call(channel, "ModelInfer", request_of("m"))
        .parameters["has_deadline"]
        .bool_param
    )


def test_an_error_is_grpcios_own(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", request_of("slow"), 5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "too late"


def test_a_kept_method_gives_the_trailers(channel: grpc.Channel) -> None:
    infer_method = unary(channel, "ModelInfer")
    answer, ended = infer_method.with_call(request_of("m"), timeout=5)
    assert answer.model_name == "m"
    assert ("x-answered", "yes") in ended.trailing_metadata()


def test_a_stream_answers_in_order(channel: grpc.Channel) -> None:
    requests = [request_of("m", str(i)) for i in range(3)]
    answers = streaming(channel, "ModelStreamInfer", requests, 5)
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]


def test_a_method_of_another_service_is_named_in_full(channel: grpc.Channel) -> None:
    request = message("grpc.health.v1.HealthCheckRequest")(service="x")
    answers = streaming(channel, f"{HEALTH}/Watch", [request], 5)
    assert [answer.status for answer in answers] == [1, 2]


def test_an_unknown_method_is_a_key_error(channel: grpc.Channel) -> None:
    with pytest.raises(KeyError):
        call(channel, "ModelTrain", request_of("m"))
    with pytest.raises(KeyError):
        call(channel, "no.such.Service/ModelInfer", request_of("m"))
