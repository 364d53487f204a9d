"""The ops listener of a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from entries import model

from router import testing


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/x", 404)],
)
def test_pages_answer(world: testing.Server, path: str, status: int) -> None:
    assert world.get(path)[0] == status


def test_methods_are_counted_by_code_for_stock_dashboards(
    world: testing.Server,
) -> None:
    labels = {
        "grpc_service": "inference.GRPCInferenceService",
        "grpc_method": "ServerLive",
        "grpc_code": "OK",
    }
    before = world.metric("grpc_server_handled_total", **labels)
    with testing.Caller(world.address) as caller:
        caller.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"")
    testing.wait_until(
        lambda: world.metric("grpc_server_handled_total", **labels) == before + 1,
        "the call is counted",
    )


def test_build_and_configuration_name_themselves(world: testing.Server) -> None:
    from router import __version__

    assert world.metric("router_build_info", version=__version__) == 1
    assert world.metric("router_config_revision_info") == 1


def test_the_process_holds_neither_a_second_runtime_nor_a_grpc_library(
    world: testing.Server,
) -> None:
    # What is mapped is what was imported: ONNX Runtime's module and grpcio's core are
    # shared objects of their own.
    mapped = Path(f"/proc/{world.pid}/maps").read_text()
    assert "libonnxruntime.so" in mapped
    for unwanted in ("onnxruntime_pybind11_state", "cygrpc", "/sklearn/", "/onnx/"):
        assert unwanted not in mapped, unwanted


def test_a_server_without_an_ops_listener_does_not_load_a_web_library(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, router.app; bad = {'starlette', 'uvicorn', 'grpc', 'onnxruntime', "
        "'numpy', 'prometheus_client', 'click'} & set(sys.modules); print(sorted(bad))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        timeout=30,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_banner_names_addresses_and_the_time_it_took(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    testing.write_model(repository, "faulty", {1: testing.faulty(1)})
    config = {"models": [model(repository, "faulty")]}
    with testing.Server(tmp_path, config, settings={"drain_s": 2}) as server:
        ready = [
            json.loads(line)
            for line in server.log.read_text().splitlines()
            if '"ready"' in line
        ]
        assert ready[-1]["data"] == [server.address]
        assert ready[-1]["ready_ms"] > 0
