"""Recorded by a server, asked again without one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.cli.main import main
from router.testing import Caller, Server, tag, wait_until, write_model

ROWS = 20


def serve(folder: Path, **record: Any) -> Server:
    write_model(folder, "m", {1: tag(1), 2: tag(2)})
    model = {
        "name": "m", "repository": str(folder / "m"), "stable": 1,
        "record": {"percent": 100, **record},
    }  # fmt: skip
    return Server(folder, {"models": [model]}, settings={"tape": {"path": "tape"}})


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    return code if isinstance(code, int) else -1, capsys.readouterr().out


@pytest.mark.slow
def test_what_was_served_is_recorded_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.ones((1, 2), np.float32)
    with serve(tmp_path, metadata=["X-User-Id"]) as server:
        with Caller(server.address) as caller:
            for i in range(ROWS):
                met = {"x-user-id": f"u{i}", "x-secret": "no"}
                caller.infer("m", {"x": x * i}, met)
        wait_until(
            lambda: any(p.stat().st_size for p in (tmp_path / "tape").iterdir()), "tape"
        )
    tape = b"".join(path.read_bytes() for path in (tmp_path / "tape").iterdir())
    assert b"u7" in tape
    assert b"x-secret" not in tape
    file, config = str(tmp_path / "r"), str(tmp_path / "router.yaml")
    code, out = run(capsys, "record", "--from", str(tmp_path / "tape"), "-o", file)
    assert (code, out) == (0, f"{file}: {ROWS} requests\n")
    asked = ("replay", file, "--candidate", "2", "-c", config, "-o", "json")
    code, out = run(capsys, *asked)
    found = json.loads(out)
    assert (code, found["verdict"], found["replayed"]["disagreed"]) == (2, "fail", ROWS)
    code, out = run(capsys, *asked, "--tolerance", "1")
    assert (code, json.loads(out)["verdict"]) == (0, "pass")


def test_recording_needs_a_tape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path, "m", {1: tag(1)})
    model = {"name": "m", "repository": str(tmp_path / "m"), "record": {"percent": 1}}
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps({"api_version": "router/v1", "models": [model]}))
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(file)])
    assert ended.value.code == 1
    assert "models[0].record: requests are recorded on the tape" in (
        capsys.readouterr().err
    )
