"""What the OIP methods say, as values in and messages out."""

import pytest

from router.ops.methods import Code, MethodError, UnaryMethod
from router.ops.oip import oip_methods, parse_version


def ask(plane, method_name, /, **fields):
    methods = oip_methods(plane.serving, lambda: plane.state)
    path = f"/inference.GRPCInferenceService/{method_name}"
    (method,) = [m for m in methods if m.path == path]
    assert isinstance(method, UnaryMethod)
    return method.answer(method.request(**fields))


def test_a_live_server_says_so_even_while_it_drains(plane):
    plane.serving.drain()
    assert ask(plane, "ServerLive").live
    assert not ask(plane, "ServerReady").ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("credit", "", True),
        ("credit", "2", True),
        ("credit", "3", False),
        ("credit", "9", False),
        ("nothing", "", False),
    ],
)
def test_model_ready_answers_for_any_name_and_never_refuses(
    plane, name, version, ready
):
    assert ask(plane, "ModelReady", name=name, version=version).ready is ready


def test_a_version_with_an_open_breaker_is_not_ready(plane):
    plane.open_breaker("credit", 2)
    assert not ask(plane, "ModelReady", name="credit", version="2").ready
    assert ask(plane, "ModelReady", name="credit").ready
    assert ask(plane, "ServerReady").ready


def test_a_server_is_not_ready_when_a_model_has_no_version_left(plane):
    plane.open_breaker("text", 5)
    assert not ask(plane, "ServerReady").ready
    assert plane.serving.unready_reasons() == ("model 'text': no version is ready",)


@pytest.mark.parametrize(
    "text", ["x", "-1", "0", "1.0", "1e3", " 1", "٣", "4294967296"]
)
def test_a_version_that_is_no_positive_integer_is_an_invalid_argument(text):
    with pytest.raises(MethodError) as raised:
        parse_version(text)
    assert raised.value.code == Code.INVALID_ARGUMENT
    assert text in raised.value.detail


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("nothing", "", Code.NOT_FOUND),
        ("credit", "9", Code.NOT_FOUND),
        ("credit", "3", Code.UNAVAILABLE),
        ("credit", "one", Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_served_is_refused_by_its_code(plane, method, name, version, code):
    with pytest.raises(MethodError) as raised:
        ask(plane, method, name=name, version=version)
    assert raised.value.code == code


def test_metadata_names_the_loaded_versions_and_whole_shapes(plane):
    answer = ask(plane, "ModelMetadata", name="credit")
    assert list(answer.versions) == ["1", "2"]
    assert answer.platform == "onnxruntime_onnx"
    (x,) = answer.inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 2])


def test_a_config_speaks_in_type_names_and_leaves_batching_out(plane):
    config = ask(plane, "ModelConfig", name="text").config
    kinds = config.DESCRIPTOR.fields_by_name["input"].message_type
    names = kinds.fields_by_name["data_type"].enum_type.values_by_number
    assert names[config.input[0].data_type].name == "TYPE_STRING"
    assert names[config.output[0].data_type].name == "TYPE_INT64"
    assert list(config.input[0].dims) == [-1]
    assert config.max_batch_size == 0
    assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")


def test_the_index_lists_every_version_or_only_those_that_are_ready(plane):
    def listed(**fields):
        models = ask(plane, "RepositoryIndex", **fields).models
        return [(m.name, m.version, m.state) for m in models]

    ready = [("credit", "1", "READY"), ("credit", "2", "READY"), ("text", "5", "READY")]
    assert listed(ready=True) == ready
    assert ("credit", "3", "UNAVAILABLE") in listed()
    assert len(listed()) == 4


def timed(count, seconds):
    return {"count": count, "sum": seconds, "buckets": []}


def variant(model, version, codes):
    stages = {name: timed(2, 0.002) for name in ("decode", "queue", "run", "encode")}
    return {
        "model": model,
        "version": version,
        "variant": f"v{version}",
        "codes": codes,
        "stages": {**stages, "total": timed(3, 0.25)},
    }


def test_statistics_add_up_the_variants_of_a_version(plane):
    plane.state["variants"] = [
        variant("credit", 1, {"OK": 4, "INTERNAL": 1}),
        variant("credit", 1, {"OK": 2}),
        variant("credit", 2, {"OK": 9}),
    ]
    (entry,) = ask(plane, "ModelStatistics", name="credit", version="1").model_stats
    assert (entry.name, entry.version) == ("credit", "1")
    assert (entry.inference_count, entry.execution_count) == (7, 3)
    assert entry.last_inference == 1_700_000_000_123
    assert entry.inference_stats.success.count == 6
    assert entry.inference_stats.success.ns == 500_000_000
    assert entry.inference_stats.fail.count == 1
    # perf_analyzer follows this one: every request counts, waiting or not.
    assert entry.inference_stats.queue.count == 7
    assert entry.inference_stats.compute_infer.ns == 4_000_000
    assert [(b.batch_size, b.compute_infer.count) for b in entry.batch_stats] == [
        (1, 2),
        (4, 1),
    ]


def test_statistics_of_a_model_or_of_all_list_every_version(plane):
    def listed(**fields):
        stats = ask(plane, "ModelStatistics", **fields).model_stats
        return [(s.name, s.version) for s in stats]

    assert listed(name="credit") == [("credit", "1"), ("credit", "2")]
    assert listed() == [("credit", "1"), ("credit", "2"), ("text", "5")]


def test_extensions_promise_what_is_served(plane):
    answer = ask(plane, "ServerMetadata")
    assert answer.name == "inference-router"
    assert "statistics" in answer.extensions
    assert "system_shared_memory" not in answer.extensions
