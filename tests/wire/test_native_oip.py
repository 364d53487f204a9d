"""The codec of the data plane, compared with the protobuf library byte for byte.

The native tests are run here too, and the fuzz targets over the corpora in the tree
(`tests/native/oip/`), all under sanitizers. A new corpus comes from a search:
`pytest -m soak tests/wire/test_native_oip.py`, which leaves what it found in
`build/native/oip/`.
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native_build import PLAIN_ENVIRONMENT, ROOT, Toolchain, build, run
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2
from tritonclient.grpc._utils import _get_inference_request

HERE = "tests/native/oip"
CORPUS = ROOT / HERE / "corpus"
CODEC = [
    "router/engine/base/status.cc",
    "router/engine/wire/tensor.cc",
    "router/engine/wire/oip_read.cc",
    "router/engine/wire/oip_write.cc",
]
PREDICTION_ID = ["router/engine/wire/prediction_id.cc"]
TARGETS = {
    "read_infer": ([f"{HERE}/fuzz_read_infer.cc", *CODEC], []),
    "read_reply": ([f"{HERE}/fuzz_read_reply.cc", *CODEC], []),
    "prediction_id": ([f"{HERE}/fuzz_prediction_id.cc", *PREDICTION_ID], ["crypto"]),
}
# Datatype: the field its typed contents go in, and numpy's name for the raw layout.
TYPED = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "INT8": ("int_contents", "i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", ""),
}


class Codec:
    """The native codec in a process of its own, one record at a time."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=PLAIN_ENVIRONMENT,
        )

    def ask(self, what: bytes, message: bytes) -> bytes:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(what + struct.pack("<I", len(message)) + message)
        stdin.flush()
        header = stdout.read(4)
        assert len(header) == 4, "the codec died; its sanitizer's report is above"
        return stdout.read(struct.unpack("<I", header)[0])

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    running = Codec(build("oip/driver", [f"{HERE}/driver.cc", *CODEC]))
    yield running
    running.close()


def message_of(frame: bytes) -> bytes:
    """The message in a gRPC frame, whose prefix must say so."""
    compressed, length = struct.unpack(">BI", frame[:5])
    assert compressed == 0
    assert length == len(frame) - 5
    return frame[5:]


def elements_of(field: str, datatype: str) -> st.SearchStrategy:
    bits = int(datatype.strip("UINTFPBOLYES") or 0)
    return {
        "bool_contents": st.booleans(),
        "uint_contents": st.integers(0, 2**bits - 1),
        "uint64_contents": st.integers(0, 2**64 - 1),
        "int_contents": st.integers(
            -(2 ** max(bits - 1, 0)), 2 ** max(bits - 1, 0) - 1
        ),
        "int64_contents": st.integers(-(2**63), 2**63 - 1),
        "fp32_contents": st.floats(width=32),
        "fp64_contents": st.floats(),
        "bytes_contents": st.binary(max_size=20),
    }[field]


def raw_of(datatype: str, values: list) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, dtype=TYPED[datatype][1]).tobytes()


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
shapes = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def params(draw: st.DrawFn, into: object) -> None:
    for name in draw(st.lists(names, max_size=4)):
        parameter = into[name]
        kind = draw(
            st.sampled_from(["bool", "int64", "string", "double", "uint64", ""])
        )
        if kind:
            value = {
                "bool": st.booleans(),
                "int64": st.integers(-(2**63), 2**63 - 1),
                "string": names,
                "double": st.floats(),
                "uint64": st.integers(0, 2**64 - 1),
            }[kind]
            setattr(parameter, f"{kind}_param", draw(value))


@st.composite
def requests(draw: st.DrawFn) -> tuple[service_pb2.ModelInferRequest, list[bytes]]:
    """A request that is in order, and what its inputs are in the raw layout."""
    request = service_pb2.ModelInferRequest(
        model_name=draw(names), model_version=draw(names), id=draw(names)
    )
    draw(params(request.parameters))
    raw, is_raw = [], draw(st.booleans())
    for name in draw(st.lists(names, max_size=5, unique=True)):
        datatype = draw(st.sampled_from(list(TYPED) + ["FP16", "BF16"] * is_raw))
        shape = draw(shapes)
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        draw(params(tensor.parameters))
        count = int(np.prod(shape, dtype=int))
        if datatype not in TYPED:
            raw.append(draw(st.binary(min_size=2 * count, max_size=2 * count)))
            continue
        field, _ = TYPED[datatype]
        values = draw(
            st.lists(elements_of(field, datatype), min_size=count, max_size=count)
        )
        raw.append(raw_of(datatype, values))
        if not is_raw:
            getattr(tensor.contents, field).extend(values)
    if is_raw:
        request.raw_input_contents.extend(raw)
    for name in draw(st.lists(names, max_size=3, unique=True)):
        draw(params(request.outputs.add(name=name).parameters))
    return request, raw


def shown_param(parameter: object) -> str:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        return "none"
    value = getattr(parameter, kind)
    return {
        "bool_param": lambda: f"bool {int(value)}",
        "int64_param": lambda: f"int {value}",
        "string_param": lambda: f"text {value.encode().hex()}",
        "double_param": lambda: f"number {np.float64(value).view(np.uint64)}",
        "uint64_param": lambda: f"uint {value}",
    }[kind]()


def shown(request: service_pb2.ModelInferRequest, raw: list[bytes]) -> list[str]:
    """What the driver prints of a request, without the order of parameters."""

    def hexed(text: str) -> str:
        return text.encode().hex()

    lines = [
        f"model {hexed(request.model_name)}",
        f"version {hexed(request.model_version)}",
    ]
    lines += [f"id {hexed(request.id)}"]
    lines += [
        f"param {hexed(k)} {shown_param(v)}" for k, v in request.parameters.items()
    ]
    for tensor, data in zip(request.inputs, raw, strict=True):
        shape = ",".join(map(str, tensor.shape))
        count = int(np.prod(tensor.shape, dtype=int))
        name = hexed(tensor.name)
        lines += [f"input {name} {tensor.datatype} [{shape}] {count} {data.hex()}"]
    return sorted(
        lines + [f"output {hexed(output.name)}" for output in request.outputs]
    )


def test_the_native_tests_pass() -> None:
    sources = [f"{HERE}/{name}.cc" for name in ("main", "test_tensor", "test_read")]
    sources += [f"{HERE}/test_write.cc", f"{HERE}/test_prediction_id.cc"]
    program = build("oip/tests", [*sources, *CODEC, *PREDICTION_ID], ["crypto"])
    done = run(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_of_a_fuzz_target_finds_nothing(target: str) -> None:
    sources, libraries = TARGETS[target]
    program = build(f"oip/replay_{target}", [*sources, f"{HERE}/replay.cc"], libraries)
    done = run(program, CORPUS / target)
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_two_minutes_of_fuzzing_find_nothing(target: str) -> None:
    clang = shutil.which("clang++") or shutil.which("clang++-14")
    assert clang is not None, "fuzzing needs clang: apt-get install clang"
    fuzzer = Toolchain("fuzz", clang, "fuzzer,address,undefined")
    sources, libraries = TARGETS[target]
    program = build(f"oip/fuzz_{target}", sources, libraries, fuzzer)
    found = program.parent / f"corpus_{target}"
    found.mkdir(exist_ok=True)
    options = [
        "-max_total_time=120",
        "-max_len=600",
        f"-artifact_prefix={found.parent}/",
    ]
    done = run(program, *options, found, CORPUS / target)
    assert done.returncode == 0, done.stderr[-4000:]


@settings(max_examples=30)
@given(made=requests())
def test_every_request_is_read_as_protobuf_reads_it(codec: Codec, made: tuple) -> None:
    request, raw = made
    answer = codec.ask(b"r", request.SerializeToString()).decode()
    assert sorted(answer.splitlines()) == shown(request, raw)


@settings(max_examples=30)
@given(made=requests())
def test_inputs_sent_back_as_outputs_arrive_unchanged(
    codec: Codec, made: tuple
) -> None:
    request, raw = made
    for name, parameter in list(request.parameters.items()):
        if parameter.WhichOneof("parameter_choice") in (
            None,
            "double_param",
            "uint64_param",
        ):
            del request.parameters[name]  # kinds that are never written
    encoded = request.SerializeToString()
    response = service_pb2.ModelInferResponse.FromString(
        message_of(codec.ask(b"e", encoded))
    )
    expected = service_pb2.ModelInferResponse(
        model_name=request.model_name,
        model_version="4294967295",
        id=request.id,
        parameters=request.parameters,
        raw_output_contents=raw,
    )
    for tensor in request.inputs:
        expected.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
    assert response == expected
    stream = service_pb2.ModelStreamInferResponse.FromString(
        message_of(codec.ask(b"s", encoded))
    )
    assert stream.error_message == ""
    assert stream.infer_response == expected


@pytest.mark.slow
@settings(max_examples=500)
@given(
    made=requests(),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=3)), max_size=4),
    cut=st.integers(0, 3),
)
@example(made=(service_pb2.ModelInferRequest(), []), edits=[], cut=0)
def test_bytes_are_undecodable_exactly_when_protobuf_says_so(
    codec: Codec, made: tuple, edits: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(made[0].SerializeToString())
    for place, patch in edits:
        at = place % (len(damaged) + 1)
        damaged[at : at + max(len(patch), 1)] = patch
    message = bytes(damaged[: len(damaged) - cut])
    try:
        service_pb2.ModelInferRequest.FromString(message)
        is_good = True
    except DecodeError:
        is_good = False
    answer = codec.ask(b"r", message)
    assert answer.startswith(b"!undecodable") == (not is_good)


def test_what_fuzzing_found_is_judged_as_protobuf_judges_it(codec: Codec) -> None:
    for path in sorted((CORPUS / "read_infer").iterdir()):
        message = path.read_bytes()
        answer = codec.ask(b"r", message)
        if answer.startswith(b"!bad_input too many"):
            continue  # refused at the limit: what follows was not looked at
        try:
            service_pb2.ModelInferRequest.FromString(message)
            is_good = True
        except DecodeError:
            is_good = False
        assert answer.startswith(b"!undecodable") == (not is_good), path.name


@pytest.mark.parametrize("datatype", [*TYPED, "FP16"])
def test_what_tritonclient_builds_is_read(codec: Codec, datatype: str) -> None:
    if datatype == "BYTES":
        array = np.array([[b"a", b"", b"\x00\xff"]], dtype=np.object_)
        raw = raw_of("BYTES", list(array[0]))
    else:
        array = np.array([[0, 1, 100]], dtype=TYPED.get(datatype, ("", "<f2"))[1])
        raw = array.tobytes()
    tensor = InferInput("x", [1, 3], datatype)
    tensor.set_data_from_numpy(array)
    request = _get_inference_request(
        model_name="m",
        inputs=[tensor],
        model_version="1",
        request_id="7",
        outputs=[InferRequestedOutput("y")],
        sequence_id=5,
        sequence_start=True,
        sequence_end=False,
        priority=0,
        timeout=1000,
        parameters={"targeting_key": "u"},
    )
    answer = codec.ask(b"r", request.SerializeToString()).decode()
    assert sorted(answer.splitlines()) == shown(request, [raw])


def test_a_stream_error_carries_its_message_and_id(codec: Codec) -> None:
    frame = codec.ask(b"x", b"the model is not known")
    response = service_pb2.ModelStreamInferResponse.FromString(message_of(frame))
    assert response.error_message == "the model is not known"
    assert response.infer_response == service_pb2.ModelInferResponse(id="an id")
