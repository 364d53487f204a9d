"""ModelInfer as bytes: what generated stubs can send and stock wrappers never do.

Every row of BAD is one thing wrong. The server has to name it, and the connection has
to live on: each row ends with a good call on the same channel.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from router import testing

INFER = "/inference.GRPCInferenceService/ModelInfer"
TYPED = {
    "BOOL": ("bool_contents", [True, False, True]),
    "INT8": ("int_contents", [-128, 0, 127]),
    "INT16": ("int_contents", [-32768, 0, 32767]),
    "INT32": ("int_contents", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 0, 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 1, 255]),
    "UINT16": ("uint_contents", [0, 1, 65535]),
    "UINT32": ("uint_contents", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 1, 2**64 - 1]),
    "FP32": ("fp32_contents", [-0.0, 1.5, float("inf")]),
    "FP64": ("fp64_contents", [-0.0, 1.5, float("inf")]),
    "BYTES": ("bytes_contents", [b"", b"a\x00b", b"\xff"]),
}
NUMPY = {"BOOL": "?", "FP32": "<f4", "FP64": "<f8"} | {
    f"{sign}INT{8 * size}": f"<{'u' if sign else 'i'}{size}"
    for sign in ("", "U")
    for size in (1, 2, 4, 8)
}


@pytest.fixture
def channel(world: testing.Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(world.address) as made:
        yield made


def infer(channel: grpc.Channel, message: bytes, **options: Any) -> Any:
    call = channel.unary_unary(INFER)
    return pb.ModelInferResponse.FromString(call(message, timeout=20, **options))


def good(model: str = "tag", rows: int = 1) -> Any:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    request.raw_input_contents.append(np.ones((rows, 2), "<f4").tobytes())
    return request


def values(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, NUMPY[datatype]).tolist()
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return found


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_read_and_answered_raw(
    channel: grpc.Channel, datatype: str
) -> None:
    field, sent = TYPED[datatype]
    request = pb.ModelInferRequest(model_name=f"echo_{datatype.lower()}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[len(sent)])
    getattr(tensor.contents, field).extend(sent)
    reply = infer(channel, request.SerializeToString())
    (raw,) = reply.raw_output_contents
    assert values(datatype, raw) == sent
    assert not reply.outputs[0].HasField("contents")


def length_delimited(field: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([field << 3 | 2, len(payload)]) + payload


def test_unpacked_typed_contents_are_read(channel: grpc.Channel) -> None:
    # int64_contents = 3, one varint field per element, as a proto2 writer would.
    contents = b"".join(bytes([3 << 3, value]) for value in (5, 6, 7))
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="x", datatype="INT64", shape=[3]
    ).SerializeToString()
    tensor += length_delimited(5, contents)
    head = pb.ModelInferRequest(model_name="echo_int64").SerializeToString()
    reply = infer(channel, head + length_delimited(5, tensor))
    assert values("INT64", reply.raw_output_contents[0]) == [5, 6, 7]


def test_unknown_fields_and_parameters_pass(channel: grpc.Channel) -> None:
    request = good()
    request.parameters["anything"].double_param = 1.5
    request.parameters["later"].uint64_param = 2**64 - 1
    request.inputs[0].parameters["binary_data_size"].int64_param = 8
    # Field 900, a varint, and field 901, text: what a newer client may send.
    unknown = b"\xa0\x38\x07" + b"\xaa\x38\x02hi"
    assert infer(channel, request.SerializeToString() + unknown).model_name == "tag"


def test_fields_may_come_in_any_order(channel: grpc.Channel) -> None:
    request = good()
    raw = length_delimited(7, request.raw_input_contents[0])
    tensor = length_delimited(5, request.inputs[0].SerializeToString())
    reply = infer(channel, raw + tensor + length_delimited(1, b"tag"))
    assert reply.model_name == "tag"


def test_parameters_of_kinds_old_clients_do_not_know_are_never_written(
    channel: grpc.Channel,
) -> None:
    reply = infer(channel, good().SerializeToString())
    kinds = {p.WhichOneof("parameter_choice") for p in reply.parameters.values()}
    assert kinds <= {"bool_param", "int64_param", "string_param"}


def test_a_targeting_key_parameter_wins_over_metadata(channel: grpc.Channel) -> None:
    def bucket(key: str | None, user: str) -> int:
        request = good()
        if key is not None:
            request.parameters["targeting_key"].string_param = key
        metadata = (("x-user-id", user),)
        reply = infer(channel, request.SerializeToString(), metadata=metadata)
        return int(reply.parameters["route_bucket"].int64_param)

    alone = bucket(None, "anna")
    assert bucket("anna", "somebody else") == alone
    assert bucket("berta", "anna") != alone


def test_integer_and_text_units_of_the_same_digits_are_the_same_unit(
    channel: grpc.Channel,
) -> None:
    as_text, as_number = good(), good()
    as_text.parameters["targeting_key"].string_param = "4711"
    as_number.parameters["targeting_key"].int64_param = 4711
    replies = [infer(channel, r.SerializeToString()) for r in (as_text, as_number)]
    buckets = {r.parameters["route_bucket"].int64_param for r in replies}
    assert len(buckets) == 1


# --- bad input


def broken(change: Callable[[Any], object]) -> bytes:
    request = good()
    change(request)
    data: bytes = request.SerializeToString()
    return data


def two_inputs(second: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.inputs.add(name=second, datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(b"\0" * 8)

    return change


def typed_and_raw(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2])


def bytes_tensor(raw: bytes, count: int) -> bytes:
    request = pb.ModelInferRequest(model_name="echo_bytes")
    request.inputs.add(name="x", datatype="BYTES", shape=[count])
    request.raw_input_contents.append(raw)
    data: bytes = request.SerializeToString()
    return data


def typed_fp16(request: Any) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].datatype = "FP16"
    request.inputs[0].contents.fp32_contents.extend([1, 2])


BAD: dict[str, tuple[bytes, str]] = {
    "wrong rank": (broken(lambda r: r.inputs[0].shape.pop()), "x"),
    "wrong dimension": (
        broken(lambda r: r.inputs[0].shape.__setitem__(slice(None), [2, 1])),
        "x",
    ),
    "negative dimension": (
        broken(lambda r: r.inputs[0].shape.__setitem__(0, -1)),
        "x",
    ),
    "shape that overflows": (
        broken(lambda r: r.inputs[0].shape.__setitem__(0, 2**62)),
        "x",
    ),
    "too many dimensions": (broken(lambda r: r.inputs[0].shape.extend([1] * 40)), "x"),
    "bytes too few": (
        broken(lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 7)),
        "x",
    ),
    "bytes too many": (
        broken(lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 9)),
        "x",
    ),
    "wrong datatype": (
        broken(lambda r: setattr(r.inputs[0], "datatype", "INT32")),
        "INT32",
    ),
    "unknown datatype": (
        broken(lambda r: setattr(r.inputs[0], "datatype", "FP8")),
        "FP8",
    ),
    "unknown input": (broken(lambda r: setattr(r.inputs[0], "name", "y9")), "y9"),
    "one input too many": (broken(two_inputs("z9")), "z9"),
    "an input twice": (broken(two_inputs("x")), "x"),
    "no input": (pb.ModelInferRequest(model_name="tag").SerializeToString(), "x"),
    "no contents": (broken(lambda r: r.raw_input_contents.pop()), "x"),
    "contents without an input": (
        broken(lambda r: r.raw_input_contents.append(b"")),
        "raw_input_contents",
    ),
    "typed and raw at once": (broken(typed_and_raw), "x"),
    "typed contents for FP16": (broken(typed_fp16), "x"),
    "unknown output": (broken(lambda r: r.outputs.add(name="q9")), "q9"),
    "an output twice": (
        broken(lambda r: (r.outputs.add(name="tag"), r.outputs.add(name="tag"))),
        "tag",
    ),
    "version that is text": (
        broken(lambda r: setattr(r, "model_version", "latest")),
        "latest",
    ),
    "version that is negative": (
        broken(lambda r: setattr(r, "model_version", "-1")),
        "-1",
    ),
    "version that is no number yet": (
        broken(lambda r: setattr(r, "model_version", "1 ")),
        "1 ",
    ),
    "text shorter than its length": (bytes_tensor(b"\x05\0\0\0abc", 1), "x"),
    "text with half a length": (bytes_tensor(b"\x05\0", 1), "x"),
    "text with a length of 4 GiB": (bytes_tensor(b"\xff\xff\xff\xffabc", 1), "x"),
    "fewer texts than the shape": (bytes_tensor(b"\x01\0\0\0a", 2), "x"),
    "more texts than the shape": (bytes_tensor(b"\x01\0\0\0a" * 2, 1), "x"),
    "not protobuf": (b"\xff\xff\xff\xff", ""),
    "protobuf cut short": (good().SerializeToString()[:-3], ""),
    "a name of 10,000 bytes": (
        broken(lambda r: setattr(r.inputs[0], "name", "n" * 10_000)),
        "",
    ),
    "a hundred inputs": (
        broken(lambda r: [r.inputs.add(name=f"i{i}") for i in range(100)]),
        "input",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_by_name_and_the_connection_lives_on(
    channel: grpc.Channel, what: str
) -> None:
    message, word = BAD[what]
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, message)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert word in caught.value.details()
    assert infer(channel, good().SerializeToString()).model_name == "tag"


def test_messages_name_no_path_address_or_host(
    world: testing.Server, channel: grpc.Channel
) -> None:
    for message, _ in BAD.values():
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, message)
        said = caught.value.details()
        assert str(world.directory) not in said
        assert "127.0.0.1" not in said
        assert len(said) < 2_000


def test_every_prefix_of_a_request_is_answered(channel: grpc.Channel) -> None:
    whole = good().SerializeToString()
    codes = set()
    for end in range(len(whole)):
        try:
            infer(channel, whole[:end])
        except grpc.RpcError as error:
            codes.add(error.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_every_flipped_byte_is_answered(channel: grpc.Channel) -> None:
    whole = bytearray(good().SerializeToString())
    codes = set()
    for at in range(len(whole)):
        changed = whole.copy()
        changed[at] ^= 0xFF
        try:
            infer(channel, bytes(changed))
        except grpc.RpcError as error:
            codes.add(error.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_many_clients_get_their_own_answers(world: testing.Server) -> None:
    wrong: list[str] = []

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        with testing.Caller(world.address) as caller:
            for _ in range(60):
                x = draw.normal(size=(int(draw.integers(1, 9)), 2)).astype(np.float32)
                got = caller.infer("tag", {"x": x}).outputs["sum"]
                if not np.array_equal(got, x.sum(axis=1, keepdims=True)):
                    wrong.append(f"{seed}: {x} -> {got}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
