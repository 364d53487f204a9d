"""The references have to be right before anything is measured beside them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from benchmarks import feedback, models, servers, shadow
from benchmarks.h2load import Load, run
from benchmarks.models import MEDIUM, SMALL, TENSOR
from benchmarks.probe import WrongAnswerError, probe_model
from router.config.load import load_config


def test_the_same_version_is_the_same_model_every_time() -> None:
    first, again = (models.onnx_of(SMALL, 1).SerializeToString() for _ in range(2))
    assert first == again


@pytest.mark.parametrize("model", [SMALL, MEDIUM, TENSOR])
def test_versions_answer_differently(model: models.Model) -> None:
    one, two = (models.expected_answer(model, version) for version in models.VERSIONS)
    assert one.shape == two.shape
    assert np.abs(one - two).max() > 1e-3


def test_a_body_is_one_prefixed_message(tmp_path: Path) -> None:
    body = models.write_body(TENSOR, tmp_path / "body").read_bytes()
    compressed, size = struct.unpack(">BI", body[:5])
    request = service_pb2.ModelInferRequest.FromString(body[5:])
    assert (compressed, size) == (0, len(body) - 5)
    assert request.model_version == ""
    assert len(request.raw_input_contents[0]) == 600_000


@pytest.mark.parametrize(
    ("split", "versions"), [({}, set()), ({2: 100}, {2}), ({1: 50, 2: 50}, {1, 2})]
)
def test_the_router_is_given_a_valid_configuration(
    tmp_path: Path, split: dict[int, int], versions: set[int]
) -> None:
    path = tmp_path / "router.yaml"
    both = (SMALL, MEDIUM)
    config = servers.router_config(8001, 8002, tmp_path, tmp_path, both, split)
    servers.write_config(path, config)
    read = load_config(path)
    assert [model.name for model in read.models] == ["small", "medium"]
    shares = {share.version for route in read.routes for share in route.split or ()}
    assert shares == versions


@pytest.mark.parametrize(
    "more", [shadow.shadowing([SMALL]), feedback.labelling(Path())]
)
def test_what_a_question_adds_to_the_configuration_is_valid(
    tmp_path: Path, more: dict[str, object]
) -> None:
    path = tmp_path / "router.yaml"
    config = servers.router_config(8001, 8002, tmp_path, tmp_path, (SMALL,), {})
    servers.write_config(path, {**config, **more})
    read = load_config(path)
    (model,) = read.models
    assert bool(read.rollouts) != model.prediction_id


@pytest.mark.slow
def test_labels_under_load_are_joined_and_counted(tmp_path: Path) -> None:
    repository = models.write_models(tmp_path / "models", (SMALL,))
    body = models.write_body(SMALL, tmp_path / "body")
    more = feedback.labelling(repository)
    with servers.router(tmp_path, repository, (SMALL,), more=more) as router:
        ids = feedback.predict(router, 256)
        reports = feedback.reports(ids)
        load = Load(2, 2, body, logged=True, rate=4000, pace_min=0)
        found = feedback.with_labels(router, reports, lambda: run(router, load, 4000))
        assert found.labels_per_s > 0
        with pytest.raises(feedback.LostLabelError, match="DUPLICATE"):
            feedback.with_labels(router, reports, lambda: run(router, load, 4000))
    assert len(set(ids)) == 256


@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL, TENSOR])
def test_the_floor_echoes_every_call(tmp_path: Path, model: models.Model) -> None:
    body = models.write_body(model, tmp_path / "body")
    with servers.floor(tmp_path, (model,)) as floor:
        measured = run(floor, Load(4, 4, body, logged=True), 400)
        floor.check(model)
    assert measured.p50_us <= measured.p99_us <= measured.p999_us


@pytest.mark.slow
def test_the_python_server_answers_every_call_rightly(tmp_path: Path) -> None:
    repository = models.write_models(tmp_path / "models", (SMALL,))
    body = models.write_body(SMALL, tmp_path / "body")
    with servers.python_server(tmp_path, repository, (SMALL,)) as grpcio:
        run(grpcio, Load(2, 2, body), 40)
        grpcio.check(SMALL)


@pytest.mark.slow
def test_a_wrong_answer_is_noticed(tmp_path: Path) -> None:
    with servers.floor(tmp_path, (SMALL,)) as floor, pytest.raises(WrongAnswerError):
        probe_model(floor.port, SMALL)
