"""`router serve` from the outside: what it says when it cannot begin."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from entries import model

from router import testing


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    return {"models": [model(tmp_path / "models", "tag")]}


def serve(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", "serve", str(path)],
        cwd=path.parent, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_a_taken_address_is_named(tmp_path: Path, config: dict[str, object]) -> None:
    server = testing.Server(tmp_path, config)
    port = int(server.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        done = serve(server.path)
    assert done.returncode == 1
    assert f"cannot listen on {server.address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_problem_of_a_file_is_printed_with_its_line(
    tmp_path: Path, config: dict[str, object]
) -> None:
    server = testing.Server(tmp_path, {**config, "rutes": []})
    text = json.loads(server.path.read_text())
    text["server"]["listen"] = "0.0.0.0:18001"
    server.path.write_text(json.dumps(text, indent=1))
    done = serve(server.path)
    assert done.returncode == 1
    assert "rutes" in done.stderr
    assert "server.insecure" in done.stderr
    assert f"{server.path}:" in done.stderr


def test_a_socket_that_was_left_behind_is_replaced_and_removed_at_the_end(
    tmp_path: Path, config: dict[str, object]
) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    settings = {"listen": f"unix:{path}", "drain_s": 2}
    with testing.Server(tmp_path, config, settings=settings):
        assert path.stat().st_mode & 0o777 == 0o660
        with testing.Caller(f"unix:{path}") as caller:
            caller.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(
                b""
            )
    assert not path.exists()


def test_an_admin_socket_is_for_its_owner_only(
    tmp_path: Path, config: dict[str, object]
) -> None:
    path = tmp_path / "admin.sock"
    settings = {"admin": f"unix:{path}", "drain_s": 2}
    with testing.Server(tmp_path, config, settings=settings):
        assert path.stat().st_mode & 0o777 == 0o600
