"""Upstream versions as an operator has them: two servers, and a file that names one.

Both are real processes. What is claimed: the file is enough, the other server's word on
inputs and outputs is checked against stable's, and a server that is away or different
leaves stable serving.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import testing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    """The other server: version 7 of `inner`, and a model that is like no other."""
    directory = tmp_path_factory.mktemp("back")
    models = directory / "models"
    testing.write_model(models, "inner", {7: testing.tag(7)})
    testing.write_model(models, "mlp", {1: testing.mlp()})
    config = {
        "models": [
            {"name": name, "repository": str(models / name)}
            for name in ("inner", "mlp")
        ]
    }
    with testing.Server(directory, config) as server:
        yield server


def front_config(directory: Path, versions: dict[int, Any]) -> dict[str, Any]:
    models = directory / "models"
    if not models.exists():
        testing.write_model(models, "tag", {1: testing.tag(1)})
    return {
        "models": [
            {
                "name": "tag",
                "repository": str(models / "tag"),
                "stable": 1,
                "versions": versions,
            }
        ],
        "routes": [
            {"model": "tag", "split": [{"version": v, "weight": 50} for v in (1, 2)]}
        ],
    }


def upstream(target: str, **settings: Any) -> dict[str, Any]:
    return {"upstream": {"targets": target, **settings}}


def served(server: testing.Server, count: int = 60) -> dict[int, float]:
    """Which versions answered, and with what."""
    with testing.Caller(server.address) as caller:
        answers = [caller.infer("tag", {"x": np.zeros((1, 2))}) for _ in range(count)]
    return {each.version: float(each.outputs["tag"][0, 0]) for each in answers}


def test_a_file_puts_another_servers_model_behind_a_split(
    tmp_path: Path, back: testing.Server
) -> None:
    versions = {2: upstream(back.address, model="inner", version="7")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0, 2: 7.0}
        metric = "router_upstream_requests_total"
        labels = {"model": "tag", "version": "2", "target": back.address}
        assert front.metric(metric, **labels, outcome="answered") > 0
        assert front.metric("router_upstream_connections", **labels) >= 1
        assert front.metric("router_upstream_ejected", **labels) == 0


def test_a_model_may_live_in_other_servers_alone(
    tmp_path: Path, back: testing.Server
) -> None:
    config = {
        "models": [
            {
                "name": "tag",
                "versions": {7: upstream([back.address], model="inner")},
            }
        ]
    }
    with testing.Server(tmp_path, config) as front:
        assert served(front, 5) == {7: 7.0}


def test_a_model_unlike_stable_takes_no_traffic(
    tmp_path: Path, back: testing.Server
) -> None:
    versions = {2: upstream(back.address, model="mlp")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0}
        assert "differ from stable's" in front.log.read_text()


def test_a_server_that_is_away_at_start_leaves_stable_serving(tmp_path: Path) -> None:
    versions = {2: upstream(f"unix:{tmp_path}/nobody.sock")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0}


def test_a_server_that_dies_costs_no_answer(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("dying")
    testing.write_model(directory / "models", "inner", {7: testing.tag(7)})
    inner = {"name": "inner", "repository": str(directory / "models/inner")}
    with testing.Server(directory, {"models": [inner]}) as dying:
        versions = {2: upstream(dying.address, model="inner")}
        with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
            assert set(served(front)) == {1, 2}
            dying.kill()
            assert set(served(front)) == {1}
