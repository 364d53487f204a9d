"""Every example is run as a reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / name / "run.py"), *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_candidate_in_a_worker_is_killed_and_nobody_notices() -> None:
    assert "every user was answered" in run("isolated")


@pytest.mark.slow
def test_two_routers_behind_envoy_agree_and_one_may_leave() -> None:
    assert "it is back, and nobody moved" in run("envoy")


@pytest.mark.slow
def test_three_clients_are_told_the_same() -> None:
    assert "all three are told the same" in run("clients")


@pytest.mark.slow
def test_a_second_router_is_an_upstream_and_may_go_away() -> None:
    assert "it is back, and so are its users" in run("upstream-router")


@pytest.mark.slow
def test_mlserver_is_an_upstream_and_may_go_away() -> None:
    # Made once per checkout by the example's script, or where MLSERVER_ENV says.
    folder = os.environ.get("MLSERVER_ENV", str(BUILD / "mlserver"))
    subprocess.run([str(EXAMPLES / "mlserver" / "setup.sh"), folder], check=True)
    assert "MLServer has left" in run("mlserver", folder)


@pytest.mark.slow
def test_qwaks_files_serve_new_york_and_california() -> None:
    assert "seventeen is old enough" in run("qwak")
