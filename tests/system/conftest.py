"""One server that most system tests share, with a model for every question.

It lives for the whole session, because starting a process costs more than most tests.
Tests that stop, reload or starve a server start their own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from entries import AUDIENCES, model

from router import testing


def world_config(repository: Path) -> dict[str, Any]:
    """Write the models and say how they are served."""
    for datatype in testing.DATATYPES:
        name = f"echo_{datatype.lower()}"
        testing.write_model(repository, name, {1: testing.echo(datatype)})
    echoes = [model(repository, f"echo_{t.lower()}") for t in testing.DATATYPES]
    tags = {version: testing.tag(version) for version in (1, 2, 3)}
    for name in ("tag", "guarded", "strict", "ignoring"):
        testing.write_model(repository, name, tags)
    shapes = {"scalar": [], "grid": ["a", "b"], "row4": ["n", 4]}
    for name, shape in shapes.items():
        testing.write_model(repository, name, {1: testing.echo("FP32", shape)})
    testing.write_model(repository, "all", {1: testing.echo_all()})
    testing.write_model(repository, "faulty", {1: testing.faulty(1)})
    testing.write_model(repository, "mlp", {1: testing.mlp()})
    return {
        "models": [
            *echoes,
            *(model(repository, name) for name in (*shapes, "all", "mlp")),
            model(repository, "tag", stable=1),
            model(repository, "strict", stable=1, unit={"on_missing": "reject"}),
            model(repository, "ignoring", stable=1, pins="ignore"),
            model(
                repository,
                "guarded",
                stable=1,
                pins="deny",
            ),
            model(
                repository,
                "faulty",
                stable=1,
                output={"tensor": "tag"},
                runtime={"batching": "off", "queue_ms_max": 50, "concurrency": 1},
            ),
        ],
        "audiences": AUDIENCES,
        "routes": [
            {"model": "tag", "audience": "new-york", "version": 2},
            {"model": "tag", "audience": "california", "version": 3},
            {
                "model": "tag",
                "split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}],
            },
        ],
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    """The shared server."""
    directory = tmp_path_factory.mktemp("world")
    config = world_config(directory / "models")
    with testing.Server(directory, config, settings={"drain_s": 2}) as server:
        yield server


@pytest.fixture(scope="session")
def client(world: testing.Server) -> Iterator[triton.InferenceServerClient]:
    """A stock tritonclient of the shared server."""
    with triton.InferenceServerClient(world.address) as made:
        yield made


@pytest.fixture
def caller(world: testing.Server) -> Iterator[testing.Caller]:
    """A plain grpcio client of the shared server, with a connection of its own."""
    with testing.Caller(world.address) as made:
        yield made
