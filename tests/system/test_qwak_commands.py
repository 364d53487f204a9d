"""Files of Qwak's, put into a running router, and who is answered by what then."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from entries import model

from router import testing
from router.cli.main import main

X = {"x": np.ones((1, 2), np.float32)}
AUDIENCES = """\
api_version: v1
spec:
  audiences:
    - name: new-york
      description: everyone from New York
      conditions:
        unary: [{key: location, operand: new-york, operator: EXACT_MATCH}]
      routes: [{variation_name: new, weight: 100}]
    - name: california
      conditions:
        unary: [{key: location, operand: cali, operator: PREFIX_MATCH}]
        binary: [{key: age, first_operand: 18, second_operand: 65,
                  operator: RANGE_MATCH}]
"""
DEPLOYMENT = """\
model_id: tag
build_id: 7f3
realtime:
  workers: 4
  audiences:
    - name: new-york
      routes: [{variation_name: newest, weight: 100}]
    - name: california
      routes: [{variation_name: new, weight: 50}, {variation_name: old, weight: 50}]
  fallback_variation: old
"""

NAMES = {1: {"name": "old"}, 2: {"name": "new"}, 3: {"name": "newest"}}

Run = Callable[..., tuple[int, str, str]]


class YamlServer(testing.Server):
    """With a file whose keys may be numbers, which JSON has none of."""

    def write(self, config: Mapping[str, Any]) -> None:
        whole = {"api_version": "router/v1", "server": self._server, **config}
        self.path.write_text(yaml.safe_dump(whole))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("qwak")
    tags = {version: testing.tag(version) for version in (1, 2, 3)}
    for name in ("tag", "other"):
        testing.write_model(directory / "models", name, tags)
    models = directory / "models"
    config = {
        "models": [
            model(models, "tag", stable=1, versions=NAMES),
            model(models, "other", stable=1),
        ]
    }
    with YamlServer(directory, config, settings={"drain_s": 2}) as made:
        yield made


@pytest.fixture
def run(server: testing.Server, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--admin", f"unix:{server.directory}/run/admin.sock"])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return ran


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], str]:
    def written(text: str) -> str:
        path = tmp_path / "qwak.yaml"
        path.write_text(text)
        return str(path)

    return written


def answers(server: testing.Server, **metadata: str) -> set[int]:
    """Versions that answer forty units who say this of themselves."""
    with testing.Caller(server.address) as caller:
        return {
            caller.infer("tag", X, {"x-user-id": f"u{i}", **metadata}).version
            for i in range(40)
        }


def audience_names(run: Run) -> list[str]:
    listed = json.loads(run("audience", "list", "-o", "json")[1])
    return [one["name"] for one in listed.get("audiences", ())]


def test_a_file_that_cannot_be_honoured_puts_nothing_and_says_why(
    run: Run, put: Callable[[str], str]
) -> None:
    for text, words in (
        (AUDIENCES.replace("EXACT_MATCH", "EXACTLY"), "no operator of this name"),
        (AUDIENCES.replace("weight: 100", "weight: 100, shadow: true"), "shadow"),
        (AUDIENCES.replace("variation_name: new", "variation_name: nex"), "variation"),
        (AUDIENCES + "      wave: 1\n", "this key cannot be honoured"),
    ):
        code, _, err = run("audience", "create", "-f", put(text), "--model", "tag")
        assert (code, words in err) == (1, True), err
        assert "qwak.yaml:" in err
    code, _, err = run("audience", "create", "-f", put(AUDIENCES))
    assert (code, "--model" in err) == (1, True)
    code, _, err = run("deploy", "-f", put(DEPLOYMENT), "--model", "other")
    assert (code, "is about model 'tag'" in err) == (1, True)
    code, _, err = run("deploy", "-f", put("models: []"))
    assert (code, "router apply" in err) == (1, True)
    assert audience_names(run) == []


def test_qwaks_walk_through(
    run: Run, put: Callable[[str], str], server: testing.Server
) -> None:
    path = put(AUDIENCES)
    assert run("audience", "update", "-f", path, "--model", "tag")[0] == 1
    code, _, err = run("audience", "create", "-f", path, "--model", "tag")
    assert (code, err) == (0, "")
    assert run("audience", "create", "-f", path, "--model", "tag")[0] == 1
    assert run("audience", "update", "-f", path, "--model", "tag")[0] == 0
    assert audience_names(run) == ["new-york", "california"]
    assert answers(server, location="new-york") == {2}
    assert answers(server, location="california", age="30") == {1}
    code, _, err = run("deploy", "-f", put(DEPLOYMENT))
    assert code == 0, err
    assert "build_id" in err
    assert "realtime.workers" in err
    assert answers(server, location="new-york") == {3}
    assert answers(server, location="california", age="30") == {1, 2}
    assert answers(server, location="california", age="70") == {1}
    assert run("deploy", "-f", put(DEPLOYMENT))[0] == 0  # again changes nothing
    assert answers(server, location="new-york") == {3}
    # An audience that the deployment no longer names has left.
    without = DEPLOYMENT.replace("    - name: new-york\n", "").replace(
        "      routes: [{variation_name: newest, weight: 100}]\n", ""
    )
    assert run("deploy", "-f", put(without))[0] == 0
    assert answers(server, location="new-york") == {1}
    # One that is new goes behind the others, and before whoever is in none.
    code, _, err = run("deploy", "-f", put(DEPLOYMENT))
    assert (code, "order" in err) == (1, True)
    assert answers(server, location="new-york") == {1}
    assert run("variation", "delete", "tag/california")[0] == 0
    assert run("deploy", "-f", put(DEPLOYMENT))[0] == 0
    assert answers(server, location="new-york") == {3}


def test_the_running_table_explains_itself(run: Run, server: testing.Server) -> None:
    for unit in ("u1", "u2", "u3", "u4"):
        met = {"x-user-id": unit, "location": "california", "age": "30"}
        with testing.Caller(server.address) as caller:
            served = caller.infer("tag", X, met).version
        asked = ("--unit", unit, "--set", "location=california", "--set", "age=30")
        code, out, err = run("explain", "--model", "tag", *asked, "-o", "json")
        assert code == 0, err
        found = json.loads(out)
        assert (found["version"], found["reason"]) == (served, "SPLIT")
        assert found["rule"] == "tag/california"
    out = run("explain", "--model", "tag", "--unit", "u1", "--set", "location=x")[1]
    assert "does not match" in out
    assert "it is 'x'" in out
    code, _, err = run("explain", "--unit", "u1")
    assert (code, "name a model" in err) == (1, True)
