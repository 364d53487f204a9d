"""The protocols spoken are those that stock clients speak."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from router.client.messages import message, method, pool

OURS = pool().FindFileByName("inference.proto")
SERVICE = "inference.GRPCInferenceService"
THEIRS = {
    **service_pb2.DESCRIPTOR.message_types_by_name,
    **model_config_pb2.DESCRIPTOR.message_types_by_name,
}


def fields_of(descriptor: Descriptor) -> dict[str, tuple]:
    """What decides how a field looks on the wire, by name, nested messages included."""

    def type_of(field: FieldDescriptor) -> str:
        named = field.message_type or field.enum_type
        return named.full_name if named else str(field.type)

    fields = {
        f"{descriptor.full_name}.{field.name}": (
            field.number,
            field.type,
            field.is_repeated,
            type_of(field),
            field.containing_oneof.name if field.containing_oneof else "",
        )
        for field in descriptor.fields
    }
    for nested in descriptor.nested_types:
        fields |= fields_of(nested)
    return fields


@pytest.mark.parametrize("name", sorted(OURS.message_types_by_name))
def test_every_field_is_where_tritonclient_has_it(name: str) -> None:
    theirs = fields_of(THEIRS[name])
    ours = fields_of(OURS.message_types_by_name[name])
    assert ours == {field: theirs.get(field) for field in ours}


@pytest.mark.parametrize("name", sorted(OURS.enum_types_by_name))
def test_every_enum_value_is_tritonclients(name: str) -> None:
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name[name].values_by_name
    for value in OURS.enum_types_by_name[name].values:
        assert value.number == theirs[value.name].number


def test_every_method_takes_and_gives_what_tritonclient_expects() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for ours in OURS.services_by_name["GRPCInferenceService"].methods:
        other = theirs.methods_by_name[ours.name]
        assert ours.input_type.full_name == other.input_type.full_name
        assert ours.output_type.full_name == other.output_type.full_name
        assert (ours.client_streaming, ours.server_streaming) == (
            other.client_streaming,
            other.server_streaming,
        )


def test_messages_cross_to_tritonclients_classes_as_bytes() -> None:
    request = message("inference.ModelInferRequest")(model_name="m", id="7")
    request.parameters["targeting_key"].string_param = "u"
    request.inputs.add(
        name="x", datatype="INT8", shape=[2]
    ).contents.int_contents.extend([1, 2])
    theirs = service_pb2.ModelInferRequest.FromString(request.SerializeToString())
    assert str(theirs) == str(request)


@pytest.mark.slow
@pytest.mark.parametrize("order", [("ours", "theirs"), ("theirs", "ours")])
def test_we_live_beside_tritonclient_whoever_comes_first(
    order: tuple[str, str],
) -> None:
    lines = {
        "ours": "from router.client.messages import message\n"
        "message('inference.ServerLiveRequest')()",
        "theirs": "import tritonclient.grpc",
    }
    program = "\n".join(lines[who] for who in order)
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


def test_a_message_has_one_class() -> None:
    assert message("inference.ModelInferRequest") is message(
        "inference.ModelInferRequest"
    )


def test_what_is_not_in_the_files_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        message("inference.SystemSharedMemoryStatusRequest")
    with pytest.raises(KeyError):
        method(SERVICE, "TraceSetting")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_reflections_differ_in_their_package_only(version: str) -> None:
    found = method(
        f"grpc.reflection.{version}.ServerReflection", "ServerReflectionInfo"
    )
    assert found.input_type.full_name == (
        f"grpc.reflection.{version}.ServerReflectionRequest"
    )
    numbers = {f.name: f.number for f in found.output_type.fields}
    assert numbers == {
        "valid_host": 1,
        "original_request": 2,
        "file_descriptor_response": 4,
        "all_extension_numbers_response": 5,
        "list_services_response": 6,
        "error_response": 7,
    }
