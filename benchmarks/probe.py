"""One real call, checked: h2load sees HTTP 200 and cannot tell a right answer.

Every server is probed before and after it is measured. The floor must return what it
was sent; the others must return what ONNX's reference evaluator computes for the
version that they say answered.
"""

import functools
import time
from collections.abc import Callable

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.models import VERSIONS, Model, expected_answer, request_of

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CALL_TIMEOUT_S = 10.0
RETRY_S = 0.005
TOLERANCE = 1e-4
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
)


class WrongAnswerError(Exception):
    """A server answered, and not what the model says."""


def call(port: int, body: bytes) -> bytes:
    """Send one message over a connection of its own and return the reply's bytes."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
        reply: bytes = channel.unary_unary(METHOD)(body, timeout=CALL_TIMEOUT_S)
        return reply


def probe_echo(port: int, model: Model) -> None:
    """Check that a server returns what it is sent."""
    body = request_of(model).SerializeToString()
    if call(port, body) != body:
        raise WrongAnswerError(f"{model.name}: the echo differs from what was sent")


def probe_model(port: int, model: Model) -> None:
    """Check that a server answers as the version it names would."""
    reply = call(port, request_of(model).SerializeToString())
    response = service_pb2.ModelInferResponse.FromString(reply)
    outputs = response.raw_output_contents
    if response.model_version not in map(str, VERSIONS) or len(outputs) != 1:
        raise WrongAnswerError(f"{model.name}: not an answer of any version")
    value = np.frombuffer(outputs[0], np.float32)
    expected = _expected(model, int(response.model_version)).ravel()
    same_shape = value.shape == expected.shape
    if not same_shape or not np.allclose(value, expected, atol=TOLERANCE):
        raise WrongAnswerError(f"{model.name} {response.model_version}: wrong values")


@functools.cache
def _expected(model: Model, version: int) -> np.ndarray:
    return expected_answer(model, version)


def wait_until(
    answers: Callable[[], object],
    is_alive: Callable[[], bool],
    deadline_s: float = 30.0,
) -> None:
    """Try until a probe succeeds; give up when the server dies or the time is over."""
    give_up = time.monotonic() + deadline_s
    while True:
        try:
            answers()
        except grpc.RpcError as error:
            if not is_alive():
                raise ChildProcessError("ended before it answered") from error
            if time.monotonic() > give_up:
                raise TimeoutError(f"no answer in {deadline_s} s: {error}") from error
            time.sleep(RETRY_S)
        else:
            return
