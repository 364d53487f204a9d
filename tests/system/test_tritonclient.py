"""NVIDIA's own client, unchanged, against every method and datatype served."""

import queue
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from router import testing

DRAW = np.random.default_rng(7)
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
INTEGERS = {
    f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}")
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
WORDS = [b"", b"\x00", b"a\x00b", b"caf\xc3\xa9", b"\xff\xfe\x00", b"x" * 5000]


def example(datatype: str) -> NDArray[Any]:
    """Values that a sloppy conversion would change: extremes, NaN, -0.0, odd bytes."""
    if datatype == "BOOL":
        return np.array([True, False, True, True])
    if datatype == "BYTES":
        return np.array(WORDS, dtype=np.object_)
    if datatype in INTEGERS:
        info = np.iinfo(INTEGERS[datatype])
        return np.array([info.min, 0, 1, info.max], INTEGERS[datatype])
    values = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan, *DRAW.normal(size=9)])
    kind = ml_dtypes.bfloat16 if datatype == "BF16" else FLOATS[datatype]
    return values.astype(kind)


def tensor(name: str, datatype: str, array: NDArray[Any]) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def fp32(*rows: list[float]) -> triton.InferInput:
    return tensor("x", "FP32", np.array(rows, np.float32))


def same(got: NDArray[Any], sent: NDArray[Any]) -> bool:
    """Equal to the last bit; text compares as bytes."""
    if sent.dtype == np.object_:
        return list(got.reshape(-1)) == list(sent.reshape(-1))
    return got.shape == sent.shape and got.tobytes() == sent.tobytes()


def params(result: triton.InferResult) -> dict[str, Any]:
    return {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in result.get_response().parameters.items()
    }


@pytest.mark.parametrize("datatype", testing.DATATYPES)
def test_every_datatype_comes_back_bit_for_bit(
    client: triton.InferenceServerClient, datatype: str
) -> None:
    sent = example(datatype)
    name = f"echo_{datatype.lower()}"
    result = client.infer(name, [tensor("x", datatype, sent)])
    assert same(result.as_numpy("y"), sent)
    assert result.get_output("y").datatype == datatype


@pytest.mark.parametrize("datatype", testing.DATATYPES)
def test_a_tensor_without_elements_comes_back_empty(
    client: triton.InferenceServerClient, datatype: str
) -> None:
    sent = example(datatype)[:0]
    result = client.infer(f"echo_{datatype.lower()}", [tensor("x", datatype, sent)])
    assert list(result.get_output("y").shape) == [0]


def test_all_datatypes_travel_in_one_request(
    client: triton.InferenceServerClient,
) -> None:
    sent = {name: example(name) for name in testing.DATATYPES}
    inputs = [tensor(f"in_{n.lower()}", n, array) for n, array in sent.items()]
    result = client.infer("all", inputs)
    for name, array in sent.items():
        assert same(result.as_numpy(f"out_{name.lower()}"), array), name


def test_inputs_may_come_in_any_order(client: triton.InferenceServerClient) -> None:
    sent = {name: example(name) for name in reversed(testing.DATATYPES)}
    inputs = [tensor(f"in_{n.lower()}", n, array) for n, array in sent.items()]
    result = client.infer("all", inputs)
    assert same(result.as_numpy("out_int16"), sent["INT16"])


def test_a_scalar_has_no_dimensions(client: triton.InferenceServerClient) -> None:
    result = client.infer("scalar", [tensor("x", "FP32", np.array(2.5, np.float32))])
    assert result.as_numpy("y").shape == ()
    assert result.as_numpy("y") == 2.5


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (7, 5)])
def test_shapes_are_kept(
    client: triton.InferenceServerClient, shape: tuple[int, int]
) -> None:
    sent = DRAW.normal(size=shape).astype(np.float32)
    assert same(client.infer("grid", [tensor("x", "FP32", sent)]).as_numpy("y"), sent)


def test_only_requested_outputs_are_sent(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("sum")]
    result = client.infer("tag", [fp32([1, 2])], outputs=wanted)
    assert [output.name for output in result.get_response().outputs] == ["sum"]
    assert result.as_numpy("sum")[0, 0] == 3


def test_outputs_come_in_the_order_they_were_asked_for(
    client: triton.InferenceServerClient,
) -> None:
    wanted = [triton.InferRequestedOutput(name) for name in ("sum", "tag")]
    result = client.infer("tag", [fp32([1, 2])], outputs=wanted)
    assert [output.name for output in result.get_response().outputs] == ["sum", "tag"]


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_compressed_requests_are_read(
    client: triton.InferenceServerClient, how: str
) -> None:
    sent = np.tile(DRAW.normal(size=100).astype(np.float32), 50)
    inputs = [tensor("x", "FP32", sent)]
    result = client.infer("echo_fp32", inputs, compression_algorithm=how)
    assert same(result.as_numpy("y"), sent)


@pytest.mark.parametrize("count", [150_000, 1_500_000])
def test_large_tensors_pass_through_flow_control(
    client: triton.InferenceServerClient, count: int
) -> None:
    sent = DRAW.normal(size=count).astype(np.float32)
    result = client.infer("echo_fp32", [tensor("x", "FP32", sent)])
    assert same(result.as_numpy("y"), sent)


def test_the_request_id_is_echoed(client: triton.InferenceServerClient) -> None:
    result = client.infer("tag", [fp32([1, 2])], request_id="order-66/ü")
    assert result.get_response().id == "order-66/ü"


def test_a_pin_chooses_the_version_and_says_so(
    client: triton.InferenceServerClient,
) -> None:
    for version in ("1", "2", "3"):
        result = client.infer("tag", [fp32([1, 2])], model_version=version)
        assert result.as_numpy("tag")[0, 0] == int(version)
        assert result.get_response().model_version == version
        assert params(result)["route_reason"] == "STATIC"


def test_the_answer_carries_the_decision_and_never_the_unit(
    client: triton.InferenceServerClient,
) -> None:
    result = client.infer("tag", [fp32([1, 2])], headers={"x-user-id": "mallory-7"})
    found = params(result)
    assert found["route_reason"] == "SPLIT"
    assert 0 <= int(found["route_bucket"]) < 10_000
    assert {"route_variant", "route_revision"} <= found.keys()
    assert "mallory" not in str(result.get_response())


def test_an_audience_gets_its_version(client: triton.InferenceServerClient) -> None:
    versions = {"new-york": 2, "california": 3}
    for place, version in versions.items():
        result = client.infer("tag", [fp32([0, 0])], headers={"location": place})
        assert result.as_numpy("tag")[0, 0] == version
        assert params(result)["route_reason"] == "TARGETING_MATCH"


def test_an_attribute_may_come_as_a_parameter(
    client: triton.InferenceServerClient,
) -> None:
    result = client.infer("tag", [fp32([0, 0])], parameters={"location": "california"})
    assert result.as_numpy("tag")[0, 0] == 3


def test_triton_parameters_are_accepted(client: triton.InferenceServerClient) -> None:
    result = client.infer(
        "tag", [fp32([1, 2])], priority=1, timeout=1_000_000, parameters={"any": 1.5}
    )
    assert result.as_numpy("sum")[0, 0] == 3


def test_a_sequence_id_is_a_unit(client: triton.InferenceServerClient) -> None:
    buckets = {
        params(client.infer("tag", [fp32([1, 2])], sequence_id=4711))["route_bucket"]
        for _ in range(20)
    }
    assert len(buckets) == 1


def test_an_asynchronous_call_answers(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for i in range(50):
        client.async_infer(
            "tag",
            [fp32([i, 1])],
            lambda result, error: answers.put(error or result),
            request_id=str(i),
        )
    got = [answers.get(timeout=10) for _ in range(50)]
    sums = {int(r.get_response().id): r.as_numpy("sum")[0, 0] for r in got}
    assert sums == {i: i + 1 for i in range(50)}


def test_a_stream_answers_by_id_and_tells_errors_in_band(
    world: testing.Server,
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(world.address) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        for i in range(10):
            client.async_stream_infer("tag", [fp32([i, 1])], request_id=str(i))
        client.async_stream_infer("nobody", [fp32([1, 1])], request_id="bad")
        client.async_stream_infer("tag", [fp32([10, 1])], request_id="10")
        got = [answers.get(timeout=10) for _ in range(12)]
        client.stop_stream()
    (error,) = [a for a in got if isinstance(a, InferenceServerException)]
    assert "nobody" in str(error)
    good = [a for a in got if a is not error]
    sums = {int(a.get_response().id): a.as_numpy("sum")[0, 0] for a in good}
    assert sums == {i: i + 1 for i in range(11)}


def test_the_server_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tag")
    assert client.is_model_ready("tag", "2")
    assert not client.is_model_ready("tag", "9")
    assert not client.is_model_ready("nobody")


def test_only_what_is_served_is_advertised(
    client: triton.InferenceServerClient,
) -> None:
    about = client.get_server_metadata()
    assert about.version
    assert "statistics" in about.extensions
    assert not [name for name in about.extensions if "shared_memory" in name]


def test_metadata_describes_the_model(client: triton.InferenceServerClient) -> None:
    about = client.get_model_metadata("tag")
    assert sorted(about.versions) == ["1", "2", "3"]
    assert about.platform == "onnxruntime_onnx"
    (x,) = about.inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 2])
    assert {output.name for output in about.outputs} == {"tag", "sum"}


def test_the_configuration_names_the_tensors(
    client: triton.InferenceServerClient,
) -> None:
    config = client.get_model_config("tag").config
    assert config.name == "tag"
    assert [tensor.name for tensor in config.input] == ["x"]


def test_statistics_advance_by_what_was_sent(
    client: triton.InferenceServerClient,
) -> None:
    def stats() -> Any:
        return client.get_inference_statistics("mlp", "1").model_stats[0]

    before = stats()
    sent = DRAW.normal(size=(4, 16)).astype(np.float32)
    for _ in range(5):
        client.infer("mlp", [tensor("x", "FP32", sent)])
    after = stats()
    assert after.version == "1"
    assert after.inference_count - before.inference_count == 20
    new, old = after.inference_stats, before.inference_stats
    assert new.success.count - old.success.count == 5
    assert new.queue.count > old.queue.count
    assert after.last_inference > before.last_inference


def test_the_repository_lists_every_version(
    client: triton.InferenceServerClient,
) -> None:
    index = client.get_model_repository_index()
    found = {(entry.name, entry.version): entry.state for entry in index.models}
    assert found["tag", "3"] == "READY"
    assert found["scalar", "1"] == "READY"


@pytest.mark.parametrize(
    ("model", "version", "code", "word"),
    [
        ("nobody", "", "NOT_FOUND", "nobody"),
        ("tag", "9", "NOT_FOUND", "9"),
        ("tag", "new", "INVALID_ARGUMENT", "new"),
        ("guarded", "2", "INVALID_ARGUMENT", "version"),
    ],
)
def test_errors_reach_the_client_with_code_and_name(
    client: triton.InferenceServerClient, model: str, version: str, code: str, word: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [fp32([1, 2])], model_version=version)
    assert caught.value.status() == f"StatusCode.{code}"
    assert word in caught.value.message()


def test_a_method_that_is_not_served_says_so(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.get_system_shared_memory_status()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
