"""Server reflection, both versions by one test body."""

import pytest
from google.protobuf import descriptor_pb2

from router.ops.methods import Code
from router.ops.reflection import reflection_methods


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request, plane):
    """A function from a request's fields to the response."""
    path = f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo"
    (method,) = [m for m in reflection_methods(plane.sent) if m.path == path]

    def asked(**fields):
        sent = method.request(host="h", **fields)
        method.calls.opened(1, sent)
        stream, data, end, code, _ = plane.sent.calls[-1]
        assert (stream, end, code) == (1, False, 0)
        answer = type(method.calls._response()).FromString(data)
        assert answer.valid_host == "h"
        assert answer.original_request == sent
        return answer

    asked.method = method
    return asked


def files_in(answer):
    data = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(d) for d in data]


def test_every_service_is_listed(ask):
    names = [s.name for s in ask(list_services="").list_services_response.service]
    assert names == sorted(names)
    assert {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "router.v1.Feedback",
    } <= set(names)


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.InferInputTensor",
    ],
)
def test_a_symbol_leads_to_the_file_that_has_it(ask, symbol):
    first, *_ = files_in(ask(file_containing_symbol=symbol))
    assert first.package == "inference"


def test_a_file_is_found_by_the_name_it_was_given_under(ask):
    (file,) = files_in(ask(file_containing_symbol="grpc.health.v1.Health"))
    (again,) = files_in(ask(file_by_filename=file.name))
    assert again == file


@pytest.mark.parametrize(
    "fields",
    [
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "no.Such"},
        {
            "file_containing_extension": {
                "containing_type": "a.B",
                "extension_number": 3,
            }
        },
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
    ],
)
def test_what_is_not_there_is_answered_and_the_stream_lives_on(ask, fields):
    assert ask(**fields).error_response.error_code == Code.NOT_FOUND
    assert ask(list_services="").HasField("list_services_response")


def test_a_request_for_nothing_is_an_error_response(ask):
    assert ask().error_response.error_code == Code.INVALID_ARGUMENT


def test_the_stream_ends_when_the_client_is_done(ask, plane):
    ask.method.calls.half_closed(1)
    assert plane.sent.calls[-1] == (1, None, True, 0, "")
