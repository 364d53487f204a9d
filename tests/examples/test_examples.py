"""Every example is run as a reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / name / "run.py")],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_candidate_in_a_worker_is_killed_and_nobody_notices() -> None:
    assert "every user was answered" in run("isolated")


@pytest.mark.slow
def test_two_routers_behind_envoy_agree_and_one_may_leave() -> None:
    pytest.importorskip("envoy")
    assert "it is back, and nobody moved" in run("envoy")
