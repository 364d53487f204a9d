"""KServe's client works unchanged.

It needs half a gigabyte and an environment of its own, made once under build/kserve, so
this runs before a release and by hand: `pytest -m soak tests/kserve`.
"""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from router import testing

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parents[1] / "build" / "kserve"
PINNED = "kserve==0.21.0"
WORKED = [
    "readiness",
    "raw contents",
    "typed contents",
    "metadata routes, parameters come back",
    "errors keep their code",
]


def environment() -> Path:
    """The interpreter of an environment that has KServe."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / PINNED
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PINNED], check=True)
        done.touch()
    return python


@pytest.mark.soak
def test_kserves_client_works_unchanged(tmp_path: Path) -> None:
    repository = testing.write_model(
        tmp_path, "tag", {version: testing.tag(version) for version in (1, 2)}
    )
    config = {
        "models": [{"name": "tag", "repository": str(repository), "stable": 1}],
        "audiences": [
            {"name": "new-york", "when": {"key": "location", "exact": "new-york"}}
        ],
        "routes": [{"model": "tag", "audience": "new-york", "version": 2}],
    }
    with testing.Server(tmp_path, config) as server:
        command = [environment(), HERE / "kserve_client.py", server.address]
        # Nothing of ours may leak into its environment.
        clean = {"PATH": str(Path(sys.executable).parent)}
        done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == WORKED
