"""A model of MLflow's registry is served, by its alias.

A real MLflow server needs most of a gigabyte and an environment of its own, made once
under build/mlflow, so this runs before a release and by hand:
`pytest -m soak tests/mlflow`.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from router import testing
from router.models.manifest import read_manifest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / "build" / "mlflow"
PINNED = ("mlflow==3.17.2", "onnx>=1.17", "onnxruntime>=1.20")
FETCH = ROOT / "examples" / "mlflow" / "fetch.py"
X = {"x": np.ones((1, 2), np.float32)}


def environment() -> Path:
    """The interpreter of an environment that has MLflow."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / PINNED[0]
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINNED], check=True)
        done.touch()
    return python


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server with a database and artifacts of its own."""
    (port,) = testing.free_ports(1)
    folder = tmp_path / "mlflow"
    folder.mkdir()
    command = [
        environment(), "-m", "mlflow", "server", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            with urlopen(f"{address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=CLEAN
        )
        try:
            testing.wait_until(is_up, "MLflow", 180)
            yield address
        finally:
            server.terminate()
            server.wait(30)


# Nothing of ours may leak into its environment.
CLEAN = {"PATH": f"{ENVIRONMENT}/bin:/usr/bin:/bin", "HOME": "/tmp"}


def register(mlflow: str, folder: Path, *versions: int) -> None:
    """Train, so to say, and register; the last version is the champion."""
    files = []
    for version in versions:
        files.append(folder / f"{version}.onnx")
        files[-1].write_bytes(testing.tag(version))
    command = [environment(), HERE / "register.py", mlflow, "tag", *files]
    subprocess.run(command, check=True, env=CLEAN, cwd=folder)


def fetch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FETCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.soak
def test_a_registered_model_is_served_by_its_alias(mlflow: str, tmp_path: Path) -> None:
    register(mlflow, tmp_path, 1, 2)
    repository = tmp_path / "models" / "tag"
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    entry = {"name": "tag", "repository": str(repository), "stable": 1}
    settings = {"admin": "unix:admin.sock"}
    with testing.Server(tmp_path, {"models": [entry]}, settings=settings) as server:
        done = fetch(mlflow, "tag", "champion", repository)
        assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
        tell = [sys.executable, "-m", "router", "model", "load", "tag", "2",
                "-f", str(server.path)]  # fmt: skip
        told = subprocess.run(tell, cwd=tmp_path, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        champion = {**entry, "stable": "champion", "aliases": {"champion": 2}}
        server.reload({"models": [champion]})
        with testing.Caller(server.address) as caller:
            answer = caller.infer("tag", X)
        assert (answer.version, answer.outputs["tag"].item()) == (2, 2.0)
    manifest = read_manifest(repository, 2)
    assert manifest.training.commit == "1a2b3c4"
    assert manifest.training.run
    assert manifest.tags["team"] == "risk"
    assert set(manifest.files) == {"model.onnx"}
    before = (repository / "2" / "manifest.yaml").stat().st_mtime_ns
    assert fetch(mlflow, "tag", "champion", repository).stdout == "2\n"
    assert (repository / "2" / "manifest.yaml").stat().st_mtime_ns == before
    absent = fetch(mlflow, "tag", "nobody", repository)
    assert absent.returncode == 1
    assert "nobody" in absent.stderr
    assert json.loads((repository / "2" / "manifest.yaml").read_text())["created"]
