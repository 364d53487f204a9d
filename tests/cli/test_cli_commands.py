"""The command line says what it found, and its exit codes can be relied on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from router.cli.main import main
from router.clock import SystemClock
from router.config.load import load_config
from router.control.apply import apply_config
from router.store.sqlite import SqliteLog

GOOD = """\
api_version: router/v1
server: {{state: {state}}}
models: [{{name: credit, repository: {models}, stable: 1}}]
audiences: [{{name: ny, when: {{key: location, exact: new-york}}}}]
routes:
  - {{model: credit, audience: ny, version: 3}}
  - {{model: credit, split: {{1: {stable}, 2: {candidate}}}}}
"""


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        code = ended.value.code
        return Ran(code if isinstance(code, int) else -1, *capsys.readouterr())

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        (tmp_path / "credit" / str(version)).mkdir(parents=True)
        (tmp_path / "credit" / str(version) / "model.onnx").write_bytes(b"model")
    return write(tmp_path, 90, 10)


def write(folder: Path, stable: float, candidate: float) -> Path:
    path = folder / "router.yaml"
    path.write_text(
        GOOD.format(
            state=folder / "state.db",
            models=folder / "credit",
            stable=stable,
            candidate=candidate,
        )
    )
    return path


def apply(path: Path) -> None:
    config = load_config(path)
    log = SqliteLog(config.server.state, SystemClock())
    apply_config(config, {"credit": (1, 2, 3)}, log, "test", bytes)
    log.close()


def test_a_valid_file_is_said_to_be(run: Run, file: Path) -> None:
    ran = run("validate", str(file))
    assert ran.code == 0
    assert "valid" in ran.out
    assert ran.err == ""


def test_every_problem_is_one_line_on_standard_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "api_version: router/v1\nmodels: [{nam: a, repository: gone}]\nx: 1\n"
    )
    ran = run("validate", str(path))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        f"{path}:2: models[0].name: this key is required",
        f"{path}:2: models[0].nam: unknown key; did you mean 'name'?",
        f"{path}:3: x: unknown key",
    ]


def test_repositories_are_looked_into_unless_told_not_to(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "router.yaml"
    path.write_text("api_version: router/v1\nmodels: [{name: a, repository: gone}]\n")
    assert "cannot read the repository" in run("validate", str(path)).err
    assert run("validate", "--no-models", str(path)).code == 0


def test_expressions_are_checked_by_the_engine(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(
        "api_version: router/v1\nmodels: [{name: a, repository: gone}]\n"
        "audiences: [{name: b, when: {key: k, regex: '(?=a)'}}]\n"
    )
    ran = run("validate", "--no-models", str(path))
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"{path}:3: audiences[0].when.regex: not an expression" in ran.err


def test_a_plan_exits_with_2_until_it_is_applied(run: Run, file: Path) -> None:
    assert run("plan", str(file)).code == 2
    assert not (file.parent / "state.db").exists()
    apply(file)
    ran = run("plan", str(file))
    assert ran.code == 0
    assert ran.out.startswith("no changes")


def test_a_plan_counts_who_moves(run: Run, file: Path) -> None:
    apply(file)
    ran = run("plan", str(write(file.parent, 75, 25)))
    assert ran.code == 2
    assert "15 % move from version 1 to version 2" in ran.out
    assert "85 % stay" in ran.out


def test_a_plan_for_scripts_is_json(run: Run, file: Path) -> None:
    apply(file)
    ran = run("plan", str(write(file.parent, 75, 25)), "-o", "json")
    rules = json.loads(ran.out)["models"][0]["rules"]
    assert (ran.code, rules[1]["moves"], rules[1]["moved_bp"]) == (
        2,
        [{"source": 1, "target": 2, "share_bp": 1500}],
        1500,
    )


def test_an_explanation_says_which_version_and_why(run: Run, file: Path) -> None:
    ran = run("explain", str(file), "--unit", "u1", "--set", "location=new-york")
    assert ran.code == 0
    assert ran.out.startswith("version 3")
    assert "TARGETING_MATCH" in ran.out
    ran = run("explain", str(file), "--unit", "u1", "--set", "location=boston")
    assert "no  location is 'new-york' (it is 'boston')" in ran.out
    assert "bucket" in ran.out


def test_an_explanation_for_scripts_is_json(run: Run, file: Path) -> None:
    ran = run("explain", str(file), "--model", "credit", "--pin", "2", "-o", "json")
    found = json.loads(ran.out)
    assert (found["version"], found["reason"], found["has_unit"]) == (
        2,
        "STATIC",
        False,
    )


def test_an_environment_is_explained(run: Run, file: Path) -> None:
    over = "environments: {staging: {routes: [{model: credit, version: 2}]}}\n"
    file.write_text(file.read_text() + over)
    assert (
        "version 2"
        in run("explain", str(file), "--environment", "staging", "--unit", "u1").out
    )


def test_a_refused_request_is_explained_too(run: Run, file: Path) -> None:
    assert "no such version" in run("explain", str(file), "--pin", "9").out


def test_a_model_that_is_not_in_the_file_is_an_error(run: Run, file: Path) -> None:
    ran = run("explain", str(file), "--model", "fraud")
    assert ran.code == 1
    assert "no model 'fraud'; known: credit" in ran.err


def test_a_damaged_state_is_an_error(run: Run, file: Path) -> None:
    (file.parent / "state.db").write_bytes(b"nonsense" * 1000)
    ran = run("plan", str(file))
    assert ran.code == 1
    assert "state.db" in ran.err


def test_the_schema_is_json(run: Run) -> None:
    ran = run("schema")
    assert ran.code == 0
    assert json.loads(ran.out)["title"] == "inference router configuration"


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("validate",), ("explain", "f", "--set", "x")]
)
def test_a_command_that_is_not_understood_exits_with_64(
    run: Run, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments).code == 64


def test_help_and_version_succeed(run: Run) -> None:
    assert run("--help").code == 0
    assert run("version").code == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [("X=1", "UNAVAILABLE"), ("X", "is not KEY=VALUE")],
)
def test_a_prediction_that_cannot_be_asked_says_why(
    run: Run, values: str, message: str
) -> None:
    ran = run("predict", "unix:/nowhere.sock", "m", "--input", values, "--timeout", "1")
    assert ran.code in (1, 64)
    assert message in ran.err


@pytest.mark.slow
def test_simple_commands_import_no_web_library() -> None:
    code = (
        "import sys\nfrom router.cli.main import main\n"
        "try: main(['version'])\nexcept SystemExit: pass\n"
        "print([m for m in ('grpc', 'pydantic', 'starlette', 'rich.table', 'numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[-1] == "[]"
