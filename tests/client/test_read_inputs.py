"""What a server says of a model's inputs, and what it means when it does not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from router.client.messages import message
from router.client.metadata import read_inputs
from router.client.stub import INFERENCE
from router.client.values import PredictError


def metadata(request: object, context: grpc.ServicerContext) -> object:
    if request.name != "credit":
        context.abort(grpc.StatusCode.NOT_FOUND, f"model '{request.name}' is unknown")
    answer = message("inference.ModelMetadataResponse")(name=request.name)
    answer.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    answer.inputs.add(name="id", datatype="INT64", shape=[])
    return answer


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    served = grpc.unary_unary_rpc_method_handler(
        metadata,
        message("inference.ModelMetadataRequest").FromString,
        lambda answer: answer.SerializeToString(),
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(INFERENCE, {"ModelMetadata": served}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_inputs_have_their_datatype_and_shape(address: str) -> None:
    found = read_inputs(address, "credit", 5)
    assert found == {"x": ("FP32", (-1, 2)), "id": ("INT64", ())}


def test_a_refusal_says_what_the_server_said(address: str) -> None:
    with pytest.raises(PredictError, match="NOT_FOUND: model 'nobody' is unknown"):
        read_inputs(address, "nobody", 5)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(PredictError, match="UNAVAILABLE: "):
        read_inputs("127.0.0.1:1", "credit", 5)
