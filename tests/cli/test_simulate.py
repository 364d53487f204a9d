"""`router simulate`: the answer, the exit code, the same numbers as JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.testing import tag, write_model

STEPS = [{"weight": {"to": share, "for": "5m"}} for share in (20, 50, 100)]
GUARDRAILS = [{"metric": "error_rate", "worse_by": "1pp"}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_model(tmp_path, "credit", {1: tag(1), 2: tag(2)})
    rollout = {"name": "credit-2", "model": "credit", "candidate": 2, "steps": STEPS,
               "guardrails": GUARDRAILS, "waves": ["new-york", "everyone"]}  # fmt: skip
    config = {
        "api_version": "router/v1",
        "models": [{"name": "credit", "repository": "credit", "stable": 1}],
        "audiences": [
            {"name": "new-york", "when": {"key": "location", "exact": "new-york"}}
        ],
        "rollouts": [rollout],
    }
    path = tmp_path / "router.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def simulate(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", "simulate", "-f", str(file), *arguments],
        cwd=file.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_healthy_candidate_is_promoted_wave_by_wave(file: Path) -> None:
    done = simulate(file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "credit-2: promoted after 30m" in done.stdout
    assert "2 times the errors: found out with a chance of" in done.stdout


@pytest.mark.slow
def test_a_bad_candidate_is_rolled_back_and_the_exit_code_says_so(file: Path) -> None:
    done = simulate(file, "--candidate-error-rate", "0.2", "--runs", "2", "-o", "json")
    assert done.returncode == 2
    (course,) = json.loads(done.stdout)
    found: dict[str, Any] = course["first"]
    assert (found["phase"], course["outcomes"]) == ("rolled_back", {"rolled_back": 2})
    assert "error_rate" in found["reason"]


@pytest.mark.slow
def test_one_that_waits_for_ever_is_told_apart(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    config["rollouts"][0]["steps"][0]["weight"]["min_units"] = 1_000_000
    file.write_text(yaml.safe_dump(config))
    done = simulate(file)
    assert done.returncode == 3
    assert "of 1000000 units at this step" in done.stdout


def test_a_rollout_that_is_none_is_an_error(file: Path) -> None:
    done = simulate(file, "--rollout", "nothing")
    assert done.returncode == 1
    assert "no rollout 'nothing'" in done.stderr
