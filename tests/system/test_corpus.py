"""Every model of the ONNX standard's tests answers as it does in bare ONNX Runtime.

All of them are loaded in one server and asked over a real socket. They bring scalars,
empty tensors, text, half precision and models without inputs.
"""

import shutil
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from corpus import DATATYPES, Case, agrees, cases
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from router import testing

CACHE = Path(__file__).resolve().parents[2] / "build" / "corpus"
NUMPY = {ours: np.dtype(name) for name, ours in DATATYPES.items() if ours != "BF16"}
NUMPY["BF16"] = np.dtype(ml_dtypes.bfloat16)
QUICK_EVERY = 25


def encode(array: NDArray[Any]) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    texts = (t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1))
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def decode(datatype: str, shape: list[int], raw: bytes) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, NUMPY[datatype]).reshape(shape)
    texts, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : end])
        at = end
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array.reshape(shape)


def ask(channel: grpc.Channel, case: Case) -> dict[str, NDArray[Any]]:
    request = pb.ModelInferRequest(model_name=case.name)
    for name, array in case.inputs.items():
        datatype = DATATYPES[array.dtype.name]
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(encode(array))
    for name in case.outputs:
        request.outputs.add(name=name)
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    body = call(request.SerializeToString(), timeout=30)
    reply = pb.ModelInferResponse.FromString(body)
    return {
        output.name: decode(output.datatype, list(output.shape), raw)
        for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def wrong(channel: grpc.Channel, case: Case) -> str:
    """What is wrong with the router's answer; "" when nothing is."""
    try:
        got = ask(channel, case)
    except grpc.RpcError as error:
        return f"{case.name}: {error.code().name} {error.details()}"
    bad = [n for n, array in case.outputs.items() if not agrees(got.get(n), array)]
    return f"{case.name}: {bad} differ" if bad else ""


def config(directory: Path, chosen: list[Case]) -> dict[str, Any]:
    models = []
    for case in chosen:
        path = directory / "models" / case.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        shutil.copyfile(case.path, path)
        repository = str(path.parents[1])
        models.append({"name": case.name, "repository": repository})
    return {"models": models}


def complaints(directory: Path, chosen: list[Case]) -> list[str]:
    with (
        testing.Server(directory, config(directory, chosen)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        return [found for case in chosen if (found := wrong(channel, case))]


@pytest.fixture(scope="module")
def corpus() -> list[Case]:
    return cases(CACHE)


def test_a_sample_of_the_corpus_answers_as_in_bare_onnx_runtime(
    corpus: list[Case], tmp_path: Path
) -> None:
    assert complaints(tmp_path, corpus[::QUICK_EVERY]) == []


@pytest.mark.slow
def test_the_whole_corpus_answers_as_in_bare_onnx_runtime(
    corpus: list[Case], tmp_path: Path
) -> None:
    assert len(corpus) > 1_400
    assert complaints(tmp_path, corpus) == []
