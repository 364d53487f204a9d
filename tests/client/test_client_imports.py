"""The client may be imported anywhere: beside tritonclient, without the engine."""

import subprocess
import sys

import pytest

ASK = """
import sys
from router.client import AsyncClient, CallError, Client, Explanation, Prediction
from router.client.messages import message
message("inference.ModelInferRequest")(model_name="m").SerializeToString()
native = [m for m in sys.modules if "fasthash" in m or "_engine" in m]
print(sorted({m.split(".")[0] for m in sys.modules} & {"onnxruntime", "pydantic"}))
print(native)
"""
TRITON = "import tritonclient.grpc\n"


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("program", [TRITON + ASK, ASK + TRITON])
def test_it_lives_beside_tritonclient_in_either_order(program: str) -> None:
    run(program)


def test_it_needs_neither_the_kernel_nor_onnx_runtime() -> None:
    assert run(ASK) == ["[]", "[]"]


def test_the_servers_messages_do_not_bring_grpcio() -> None:
    program = "import sys, router.client.messages; print('grpc' in sys.modules)"
    assert run(program) == ["False"]


def test_a_name_it_does_not_have_is_an_attribute_error() -> None:
    import router.client

    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = router.client.Klient
