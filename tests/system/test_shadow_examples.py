"""What a shadow answers otherwise can be looked at, and taken away."""

import json
from pathlib import Path

import numpy as np
import pytest

from router.cli.main import main
from router.telemetry.tape import Kind, read_tape
from router.testing import Caller, Server, tag, wait_until, write_model

X = {"x": np.array([[3.0, 4.0]], np.float32)}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["shadow", "examples", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.slow
def test_the_worst_pairs_are_shown_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path, "m", {1: tag(1), 2: tag(2)})
    rollout = {
        "name": "m-2", "model": "m", "candidate": 2,
        "steps": [
            {"shadow": {"percent": 100, "for": "1h"}},
            {"weight": {"to": 100, "for": "1h"}},
        ],
    }  # fmt: skip
    config = {
        "models": [{"name": "m", "repository": str(tmp_path / "m"), "stable": 1}],
        "rollouts": [rollout],
    }
    tape = str(tmp_path / "tape")

    def has_pairs() -> bool:
        caller.infer("m", X, {"x-user-id": "u"})
        records = read_tape(tape, lambda _: None)
        return any(record.kind == Kind.SHADOW_PAIR for record in records)

    server = Server(tmp_path, config, settings={"tape": {"path": tape}})
    with server, Caller(server.address) as caller:
        wait_until(has_pairs, f"a pair\n{server.tail()}")
    export = tmp_path / "pairs.jsonl"
    code, out, err = run(
        capsys, "m-2", "--from", tape, "-o", "json", "--limit", "1",
        "--export", str(export),
    )  # fmt: skip
    assert code == 0, err
    (pair,) = json.loads(out)
    assert pair["inputs"] == {"x": [[3.0, 4.0]]}
    assert (pair["stable"]["tag"], pair["candidate"]["tag"]) == ([[1.0]], [[2.0]])
    assert (pair["stable_version"], pair["candidate_version"]) == (1, 2)
    assert pair["differs"]
    lines = [json.loads(line) for line in export.read_text().splitlines()]
    assert lines
    assert pair in lines
    code, out, _ = run(capsys, "m-2", "--from", tape)
    assert (code, "tag: [[1.0]] -> [[2.0]]" in out) == (0, True)
    code, _, err = run(capsys, "other", "--from", tape)
    assert code == 1
    assert "no pair of 'other'; it has pairs of m-2" in err
