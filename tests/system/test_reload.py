"""A configuration changes while the server runs, or is bad from the beginning."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

X = {"x": np.ones((1, 2), np.float32)}
SUCCESSFUL = "router_config_last_reload_successful"
QUICK = {"drain_s": 2}
HALVES = [{"version": version, "weight": 50} for version in (1, 2)]


def versions_of_tag(directory: Path, *versions: int) -> dict[str, object]:
    """A configuration that serves `tag`, stable 1, with these versions on disk."""
    repository = directory / "models"
    testing.write_model(repository, "tag", {v: testing.tag(v) for v in versions})
    return {"models": [model(repository, "tag", stable=1)]}


def lines(server: testing.Server, text: str) -> list[dict[str, object]]:
    """Log lines with this message."""
    whole = server.log.read_text().splitlines()
    parsed = [json.loads(line) for line in whole if line.startswith("{")]
    return [line for line in parsed if line["message"] == text]


def test_a_changed_file_is_seen_without_a_signal(tmp_path: Path) -> None:
    one = versions_of_tag(tmp_path, 1, 2)
    with (
        testing.Server(tmp_path, one, settings=QUICK) as server,
        testing.Caller(server.address) as caller,
    ):
        assert caller.infer("tag", X).version == 1
        server.write({**one, "routes": [{"model": "tag", "version": 2}]})
        testing.wait_until(lambda: caller.infer("tag", X).version == 2, "the new route")
        # The table serves a moment before the log says so.
        testing.wait_until(lambda: len(lines(server, "published")) == 2, "the log line")
        published = lines(server, "published")
        assert [line["reason"] for line in published] == [
            "start",
            "the file has changed",
        ]
        assert published[1]["models"][0]["rules"][0]["change"] == "added"


def test_a_swapped_directory_is_a_changed_file(tmp_path: Path) -> None:
    # The way Kubernetes replaces a ConfigMap: a link to a link to a directory.
    one = versions_of_tag(tmp_path, 1, 2)
    server = testing.Server(tmp_path, one, settings=QUICK)
    whole = json.loads(server.path.read_text())
    for name, text in {
        "first": whole,
        "second": {**whole, "routes": [{"model": "tag", "version": 2}]},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(json.dumps(text))
    (tmp_path / "data").symlink_to("first")
    server.path.unlink()
    server.path.symlink_to("data/router.yaml")
    with server, testing.Caller(server.address) as caller:
        assert caller.infer("tag", X).version == 1
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "data")
        testing.wait_until(lambda: caller.infer("tag", X).version == 2, "the swap")


def test_every_problem_of_a_bad_file_is_logged_and_the_old_one_serves(
    tmp_path: Path,
) -> None:
    one = versions_of_tag(tmp_path, 1)
    with (
        testing.Server(tmp_path, one, settings=QUICK) as server,
        testing.Caller(server.address) as caller,
    ):
        revision = server.metric("router_published_tables_total")
        server.write({**one, "rutes": [], "routes": [{"model": "tga", "version": 1}]})
        testing.wait_until(lambda: server.metric(SUCCESSFUL) == 0, "the refusal")
        problems = [
            line["problem"] for line in lines(server, "a configuration is refused")
        ]
        assert any("rutes" in problem for problem in problems)
        assert any("tga" in problem for problem in problems)
        assert caller.infer("tag", X).version == 1
        assert server.metric("router_published_tables_total") == revision
        server.reload(one)
        assert server.metric(SUCCESSFUL) == 1


def test_a_removed_version_is_unloaded_and_a_pin_to_it_is_not_found(
    tmp_path: Path,
) -> None:
    both = versions_of_tag(tmp_path, 1, 2)
    with (
        testing.Server(tmp_path, both, settings=QUICK) as server,
        testing.Caller(server.address) as caller,
    ):
        assert caller.infer("tag", X, version="2").version == 2
        only = {"models": [model(tmp_path / "models", "tag", stable=1, versions=[1])]}
        server.reload(only)
        with pytest.raises(grpc.RpcError) as caught:
            caller.infer("tag", X, version="2")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        testing.wait_until(
            lambda: 'version="2"' not in version_lines(server), "the version is gone"
        )


def version_lines(server: testing.Server) -> str:
    page = server.get("/metrics")[1].splitlines()
    return "\n".join(line for line in page if line.startswith("router_version_ready{"))


@pytest.mark.parametrize(
    "broken", [b"not a model", testing.mlp()], ids=["junk", "other"]
)
def test_a_candidate_that_cannot_serve_does_not_keep_the_server_from_starting(
    tmp_path: Path, broken: bytes
) -> None:
    config = versions_of_tag(tmp_path, 1)
    testing.write_model(tmp_path / "models", "tag", {2: broken})
    config["routes"] = [{"model": "tag", "split": HALVES}]
    with (
        testing.Server(tmp_path, config, settings=QUICK) as server,
        testing.Caller(server.address) as caller,
    ):
        units = [f"user-{n}" for n in range(100)]
        assert set(caller.versions("tag", X, units).values()) == {1}
        with pytest.raises(grpc.RpcError) as caught:
            caller.infer("tag", X, version="2")
        assert "version '2'" in caught.value.details()
        ready = testing.messages()("ModelReadyResponse")
        ask = testing.messages()("ModelReadyRequest")(name="tag", version="2")
        answer = caller.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=ready.FromString,
        )(ask, timeout=5)
        assert not answer.ready


def test_a_repaired_candidate_gets_its_share_back(tmp_path: Path) -> None:
    config = versions_of_tag(tmp_path, 1)
    testing.write_model(tmp_path / "models", "tag", {2: b"not a model"})
    config["routes"] = [{"model": "tag", "split": HALVES}]
    with (
        testing.Server(tmp_path, config, settings=QUICK) as server,
        testing.Caller(server.address) as caller,
    ):
        testing.write_model(tmp_path / "models", "tag", {2: testing.tag(2)})
        server.reload(config)
        units = [f"user-{n}" for n in range(100)]
        assert set(caller.versions("tag", X, units).values()) == {1, 2}


def test_a_stable_version_that_cannot_load_is_an_error_at_start(tmp_path: Path) -> None:
    config = versions_of_tag(tmp_path, 2)
    testing.write_model(tmp_path / "models", "tag", {1: b"not a model"})
    server = testing.Server(tmp_path, config)
    done = subprocess.run(
        [sys.executable, "-m", "router", "serve", str(server.path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "models.tag.1" in done.stderr
    assert "Traceback" not in done.stderr
