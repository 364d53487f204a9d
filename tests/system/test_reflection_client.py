"""A client that knows nothing but the address: reflection tells it everything.

This is what grpcurl and Postman do. The messages of the reflection service itself are
the only ones known beforehand; those of inference come from the server.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from router import testing

SERVICE = "inference.GRPCInferenceService"


class Reflection:
    """One reflection stream."""

    def __init__(self, channel: grpc.Channel, package: str) -> None:
        message = testing.messages(package)
        self.request = message("ServerReflectionRequest")
        self._response = message("ServerReflectionResponse")
        self._call = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo"
        )

    def ask(self, **question: Any) -> Any:
        sent = iter([self.request(**question).SerializeToString()])
        return self._response.FromString(next(self._call(sent, timeout=5)))


@pytest.fixture
def channel(world: testing.Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(world.address) as made:
        yield made


@pytest.fixture(params=["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def reflection(request: pytest.FixtureRequest, channel: grpc.Channel) -> Reflection:
    return Reflection(channel, request.param)


def pool_of(reflection: Reflection, symbol: str) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    reply = reflection.ask(file_containing_symbol=symbol)
    for raw in reply.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(raw))
    return pool


def test_services_are_listed(reflection: Reflection) -> None:
    reply = reflection.ask(list_services="")
    found = {service.name for service in reply.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= found


def test_a_client_made_from_reflection_gets_an_answer(
    channel: grpc.Channel, reflection: Reflection
) -> None:
    pool = pool_of(reflection, SERVICE)
    method = pool.FindServiceByName(SERVICE).methods_by_name["ModelInfer"]
    make = message_factory.GetMessageClass(method.input_type)
    read = message_factory.GetMessageClass(method.output_type)
    request = make(model_name="tag")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([[2, 3]], "<f4").tobytes())
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    reply = read.FromString(call(request.SerializeToString(), timeout=5))
    sums = dict(
        zip((o.name for o in reply.outputs), reply.raw_output_contents, strict=True)
    )
    assert np.frombuffer(sums["sum"], "<f4").tolist() == [5]


def test_a_method_and_a_message_are_symbols_too(reflection: Reflection) -> None:
    for symbol in (f"{SERVICE}.ModelInfer", "inference.ModelInferRequest"):
        assert pool_of(reflection, symbol).FindServiceByName(SERVICE)


def test_an_unknown_symbol_is_an_answer_and_not_the_end(reflection: Reflection) -> None:
    reply = reflection.ask(file_containing_symbol="no.Such")
    assert reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_everything_listed_as_served_is_served(
    channel: grpc.Channel, reflection: Reflection
) -> None:
    pool = pool_of(reflection, SERVICE)
    for method in pool.FindServiceByName(SERVICE).methods:
        call = channel.stream_stream(f"/{SERVICE}/{method.name}")
        try:
            list(call(iter([b""]), timeout=5))
        except grpc.RpcError as error:
            code = error.code()
            is_admin = method.name.startswith("RepositoryModel")
            assert (code == grpc.StatusCode.UNIMPLEMENTED) == is_admin, method.name
