"""What the README shows works: its files are served, its code runs, its commands exist.

Ports are the only thing changed on the way, because a test may not own 8001.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from grpc_tools import protoc

from router import testing

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(directory: Path, *command: str) -> str:
    """What a command prints; fails with what it says when it fails."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("readme")
    versions = {1: testing.mlp(seed=1), 2: testing.mlp(seed=2)}
    testing.write_model(directory / "models", "credit", versions)
    config = yaml.safe_load(blocks("yaml")[0])
    # The server's file is written as JSON, whose keys are never numbers.
    (route,) = config["routes"]
    route["split"] = [{"version": v, "weight": w} for v, w in route["split"].items()]
    with testing.Server(directory, config) as made:
        yield made


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_a_configuration_shown_is_valid(server: testing.Server, number: int) -> None:
    (server.directory / "shown.yaml").write_text(blocks("yaml")[number])
    run(server.directory, sys.executable, "-m", "router", "validate", "shown.yaml")


def test_the_first_configuration_has_five_lines() -> None:
    assert len(blocks("yaml")[0].splitlines()) == 5


def test_the_tritonclient_example_prints_an_answer(server: testing.Server) -> None:
    code = blocks("python")[0].replace("127.0.0.1:8001", server.address)
    said = run(server.directory, sys.executable, "-c", code)
    assert re.search(r"version [12] \[\[", said)
    assert "because SPLIT" in said


def test_the_stub_example_prints_an_answer(server: testing.Server) -> None:
    out = f"{server.directory}"
    command = ["", f"-I{ROOT}/proto", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main([*command, "inference.proto"]) == 0
    code = blocks("python")[1].replace("127.0.0.1:8001", server.address)
    said = run(server.directory, sys.executable, "-c", code)
    assert re.search(r"version [12] \(0\.", said)


def test_the_commands_shown_run(server: testing.Server) -> None:
    (server.directory / "router.yaml").touch()
    shown = re.findall(r"`?(router (?:predict|explain|plan) [^`#\n]*)", README)
    assert {line.split()[1] for line in shown} == {"predict", "explain", "plan"}
    for line in shown:
        words = line.replace("127.0.0.1:8001", server.address).split()
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, cwd=server.directory, capture_output=True, text=True
        )
        # 2 is `plan` saying that something would change.
        assert done.returncode in (0, 2), line + done.stdout + done.stderr


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_no_path_of_this_machine_is_shown() -> None:
    assert os.path.expanduser("~") + "/" not in README
