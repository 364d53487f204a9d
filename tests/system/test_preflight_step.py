"""A rollout that begins with a preflight, on a real server."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.cli.main import main
from router.lab.recording import record
from router.testing import Caller, Server, mlp, tag, wait_until, write_model

X = {"x": np.ones((1, 2), np.float32)}


def scope(admin: str, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["get", "rollouts", "-o", "json", "--admin", admin])
    found = json.loads(capsys.readouterr().out)["scopes"]
    (one,) = (each for each in found if each["scope"] == name)
    return one["phase"], json.dumps(one)


@pytest.mark.slow
def test_only_a_candidate_that_passes_meets_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    write_model(models, "good", {1: mlp((2, 4, 2)), 2: mlp((2, 4, 2))})
    write_model(models, "bad", {1: tag(1), 2: tag(2)})
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    recording = tmp_path / "r.jsonl"
    recording.write_text(
        "".join(
            json.dumps({"model_name": name, "inputs": [x]}) + "\n"
            for name in ("good", "bad")
        )
    )

    key, attestation = tmp_path / "key", tmp_path / "good.attestation"
    key.write_text("ab" * 32)

    def rollout(name: str, **preflight: str) -> dict[str, Any]:
        steps = [
            {"preflight": {"replay": str(recording), **preflight}},
            {"weight": {"to": 100, "for": "1h"}},
        ]
        return {"name": name, "model": name, "candidate": 2, "steps": steps}

    config = {
        "models": [
            {
                "name": name, "repository": str(models / name), "stable": 1,
                "record": {"percent": 100},
            }
            for name in ("good", "bad")
        ],
        "rollouts": [rollout("good", attestation=str(attestation)), rollout("bad")],
    }  # fmt: skip
    settings = {
        "drain_s": 2,
        "tape": {"path": str(tmp_path / "tape")},
        "attestation": {"key": str(key)},
    }
    server = Server(tmp_path, config, settings=settings)
    with pytest.raises(SystemExit) as attested:
        main(["parity", "attest", "-c", str(server.path), "--key", str(key),
              "-o", str(attestation)])  # fmt: skip
    assert attested.value.code == 0
    with server:
        admin = f"unix:{tmp_path}/run/admin.sock"
        for name, phase in (("good", "ramping"), ("bad", "failed")):
            wait_until(
                lambda n=name, p=phase: scope(admin, n, capsys)[0] == p,  # type: ignore[misc]
                f"{name} to be {phase}\n{server.tail()}",
            )
        with Caller(server.address) as caller:
            assert caller.infer("good", X).version == 2
            assert caller.infer("bad", X).version == 1
        with pytest.raises(SystemExit):
            main(["history", "bad", "-o", "json", "--admin", admin])
        assert "disagrees in 100 %" in capsys.readouterr().out
    made = record(str(tmp_path / "tape"), str(tmp_path / "made"))
    assert (made.kept, made.own) == (2, 4), "what a preflight asks is not recorded"
