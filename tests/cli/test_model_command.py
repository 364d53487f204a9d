"""`router model` tells what a repository holds, and brings what it does not."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from router import testing
from router.cli.main import main
from router.cli.yaml import to_yaml


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(["model", *map(str, arguments)])
        code = ended.value.code
        return Ran(code if isinstance(code, int) else -1, *capsys.readouterr())

    return call


def put(folder: Path, data: bytes, manifest: str = "") -> None:
    """A version with a checksum, and more if that is said."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    text = f"files: {{model.onnx: {digest}}}\n{manifest}"
    (folder / "manifest.yaml").write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration of one model: 1 is stable, 2 the champion, 3 not served."""
    folder = tmp_path / "models" / "tag"
    put(folder / "1", testing.tag(1), "training: {commit: aaa}\ntags: {team: risk}\n")
    put(
        folder / "2", testing.mlp((4, 2)),
        "training: {commit: bbb}\ntags: {team: risk}\ncreated: 2030-01-31\n"
        "data: {name: loans, uri: here}\n",
    )  # fmt: skip
    (folder / "3").mkdir()
    (folder / "3" / "model.onnx").write_bytes(b"junk")
    path = tmp_path / "router.yaml"
    entry = {"name": "tag", "repository": str(folder), "versions": [1, 2]}
    entry["aliases"] = {"stable": 1, "champion": 2}
    path.write_text(json.dumps({"api_version": "router/v1", "models": [entry]}))
    return path


def test_list_shows_versions_and_what_they_are_called(run: Run, file: Path) -> None:
    ran = run("list", file)
    assert ran.code == 0
    head, one, two, three = ran.out.splitlines()
    assert head.split()[:3] == ["model", "version", "names"]
    assert one.split()[:3] == ["tag", "1", "stable"]
    assert two.split()[:3] == ["tag", "2", "champion"]
    assert "2030-01-31" in two
    assert "bbb" in two
    assert "not served" in three


def test_a_folder_is_a_place_too(run: Run, file: Path) -> None:
    folder = file.parent / "models"
    for place in (folder, folder / "tag"):
        found = json.loads(run("list", place, "-o", "json").out)
        assert [(one["model"], one["version"]) for one in found] == [
            ("tag", 1), ("tag", 2), ("tag", 3),
        ]  # fmt: skip
    assert run("list", file.parent / "models" / "tag" / "1").code == 1


def test_describe_tells_the_same_in_every_form(run: Run, file: Path) -> None:
    as_json = json.loads(run("describe", file, "champion", "-o", "json").out)
    assert as_json["version"] == 2
    assert as_json["signature"]["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": ["rows", 4]}
    ]
    assert as_json["manifest"]["training"] == {"commit": "bbb"}
    assert yaml.safe_load(run("describe", file, "2", "-o", "yaml").out) == as_json
    text = run("describe", file, "2").out
    assert "inputs    x FP32 [rows, 4]" in text
    assert 'created: "2030-01-31T00:00:00Z"' in text


def test_diff_names_what_two_versions_do_not_share(run: Run, file: Path) -> None:
    ran = run("diff", file, "1", "champion", "-o", "json")
    assert ran.code == 2
    found = {one["what"]: (one["left"], one["right"]) for one in json.loads(ran.out)}
    assert found["manifest.training.commit"] == ("aaa", "bbb")
    assert found["manifest.data.loans.uri"] == ("", "here")
    assert found["inputs.x"] == ("x FP32 [rows, 2]", "x FP32 [rows, 4]")
    assert "manifest.tags.team" not in found
    assert run("diff", file, "1", "stable").out == "no difference\n"
    assert run("diff", file, "1", "1").code == 0


def test_verify_finds_a_file_that_is_not_what_it_was(run: Run, file: Path) -> None:
    folder = file.parent / "models" / "tag"
    assert run("verify", file).code == 0
    assert run("verify", file, "--strict").code == 1  # 3 has no checksum
    assert run("verify", file, "1", "2", "--strict").code == 0
    with (folder / "1" / "model.onnx").open("ab") as model:
        model.write(b"\0")
    ran = run("verify", file, "-o", "json")
    assert ran.code == 1
    assert [(one["version"], one["verdict"]) for one in json.loads(ran.out)] == [
        (1, "differs"), (2, "ok"), (3, "not listed"),
    ]  # fmt: skip
    (folder / "2" / "manifest.yaml").write_text("fils: {}")
    assert "fils: unknown key" in run("verify", file, "2").out
    assert run("verify", file, "2").code == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("describe", "9"), "model 'tag' has no version 9; it has 1, 2, 3"),
        (("describe", "best"), "has no alias 'best'; known: champion, stable"),
        (("verify", "1", "--model", "other"), "no model 'other'"),
    ],
)
def test_what_is_not_there_is_said(
    run: Run, file: Path, arguments: tuple[str, ...], error: str
) -> None:
    ran = run(arguments[0], file, *arguments[1:])
    assert ran.code == 1
    assert error in ran.err


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """A web server with the folder of the test."""
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="http")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_pull_brings_a_version_that_is_what_its_manifest_says(
    run: Run, file: Path, tmp_path: Path, http: str, scheme: str
) -> None:
    source = f"file://{tmp_path}" if scheme == "file" else http
    put(tmp_path / "far" / "7", testing.tag(7))
    ran = run("pull", file, f"{source}/far/7", "-o", "json")
    assert ran.code == 0, ran.err
    pulled = tmp_path / "models" / "tag" / "7"
    assert json.loads(ran.out)["path"] == str(pulled)
    assert (pulled / "model.onnx").read_bytes() == testing.tag(7)
    assert run("verify", file, "7", "--strict").code == 0
    again = run("pull", file, f"{source}/far/7")
    assert again.code == 1
    assert "is there already" in again.err
    absent = run("pull", file, f"{source}/far/8", "--unverified")
    assert absent.code == 1
    assert "not found" in absent.err
    assert not list(pulled.parent.glob(".pull-*"))


def test_load_needs_to_know_whom_to_tell(run: Run, file: Path) -> None:
    assert run("load", "tag", "1").code == 64
    closed = file.with_name("closed.yaml")
    closed.write_text(
        json.dumps(json.loads(file.read_text()) | {"server": {"admin": None}})
    )
    assert "no admin listener" in run("load", "tag", "1", "-f", closed).err
    ran = run("load", "tag", "best", "-f", file, "--admin", "127.0.0.1:1")
    assert "no number and no alias" in ran.err
    ran = run("load", "tag", "1", "--admin", "127.0.0.1:1", "--timeout", "5")
    assert ran.code == 1
    assert "UNAVAILABLE" in ran.err


@pytest.mark.parametrize(
    "value",
    [
        {}, [], "", "a b", "yes", "1.5", "a: b", "- x", "é\n", None, True, 3, 2.5,
        {"a": {"b": [1, {"c": [], "d": {}}, ["x", ["y"]]]}, "null": "~", "e": "x "},
        [{"name": "a", "more": [{"b": "c"}]}, [[]], [{"x": [1]}]],
    ],
)  # fmt: skip
def test_yaml_reads_back_the_same(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value
