"""Does this router, on this machine, decide as it promises? Through a real server.

Each trial is a rollout of a real server in a process of its own: two equal versions,
which must not be told apart, and versions with a fault, which must be rolled back
within a stated number of requests. What is counted is what was sent.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from router.client.messages import message
from router.clock import SystemClock
from router.control.reports import read_reports
from router.errors import NotFoundError, RouterError
from router.lab.tiny import WIDTH, tiny_model

SENDERS = 4
READY_S, LOOK_S, CHUNK = 60.0, 0.25, 64
LAYERS, USUAL = 4, 0.01
FAILED_MAX = 0.05  # of equal versions, of which USUAL fail: else nothing was served
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, what should become of it, and within how many requests."""

    name: str
    layers: int
    below: float
    requests_max: int  # 0: until its time is over, without a decision


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial."""

    trial: Trial
    requests: int
    failed: int  # as the client saw it
    phase: str
    reason: str
    seconds: float

    @property
    def is_right(self) -> bool:
        if not self.trial.requests_max:
            is_served = self.failed <= FAILED_MAX * self.requests
            return self.phase == "ramping" and self.requests > 0 and is_served
        return self.phase == "rolled_back" and self.requests <= self.trial.requests_max


TRIALS = (
    Trial("two equal versions stay undecided", LAYERS, USUAL, 0),
    Trial("twice the errors roll back", LAYERS, 2 * USUAL, 60_000),
    Trial("a slower model rolls back", LAYERS * 60, USUAL, 60_000),
    Trial("no numbers roll back", LAYERS, 2.0, 20_000),
)


def run_trials(minutes: float, tell: Callable[[str], None]) -> tuple[Outcome, ...]:
    """Every trial, one after the other; `tell` hears how far they are."""
    each_s = minutes * 60 / len(TRIALS)
    found = []
    for trial in TRIALS:
        tell(f"{trial.name}: at most {each_s:.0f} s")
        found.append(_run(trial, each_s))
        tell(said_of(found[-1]))
    return tuple(found)


def said_of(outcome: Outcome) -> str:
    """One line about an outcome."""
    word = "ok    " if outcome.is_right else "FAILED"
    most = outcome.trial.requests_max
    limit = f" (at most {most})" if most else ""
    return (
        f"{word} {outcome.trial.name}: {outcome.phase} after {outcome.requests}"
        f" requests{limit}, {outcome.failed} failed, in"
        f" {outcome.seconds:.0f} s. {outcome.reason}"
    )


def gpu_problem() -> str:
    """Why the same model cannot be compared on a graphics processor; empty if it can.

    The engine runs models with ONNX Runtime's CPU provider.
    """
    if shutil.which("nvidia-smi") is None:
        return "no GPU was found on this machine: nothing was compared"
    return "this build has no GPU provider: nothing was compared"


def _run(trial: Trial, limit_s: float) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="router-selftest-") as made:
        directory = Path(made)
        with _server(directory, trial) as address:
            begun = time.monotonic()
            senders = [_Sender(address, seed) for seed in range(SENDERS)]
            for sender in senders:
                sender.thread.start()
            try:
                while True:
                    time.sleep(LOOK_S)
                    phase, reason = _phase(directory)
                    sent = sum(sender.sent for sender in senders)
                    seconds = time.monotonic() - begun
                    is_over = phase not in ("pending", "ramping")
                    is_beyond = trial.requests_max and sent > trial.requests_max
                    if is_over or is_beyond or seconds >= limit_s:
                        failed = sum(sender.failed for sender in senders)
                        return Outcome(trial, sent, failed, phase, reason, seconds)
            finally:
                for sender in senders:
                    sender.is_leaving.set()
                for sender in senders:
                    sender.thread.join(10)


class _Sender:
    """A thread that asks for one prediction after the other, each for a new unit."""

    def __init__(self, address: str, seed: int) -> None:
        self._address, self._draw, self._seed = address, random.Random(seed), seed
        self.is_leaving = threading.Event()
        self.sent = self.failed = 0
        self.thread = threading.Thread(target=self._send, name=f"sender {seed}")

    def _send(self) -> None:
        asked = message("inference.ModelInferRequest")
        with grpc.insecure_channel(self._address) as channel:
            infer: Any = channel.unary_unary(METHOD)
            while not self.is_leaving.is_set():
                request = asked(model_name="tiny")
                request.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
                x = np.full(WIDTH, self._draw.random(), "<f4")
                request.raw_input_contents.append(x.tobytes())
                unit = f"{self._seed}-{self.sent}"
                request.parameters["targeting_key"].string_param = unit
                try:
                    infer(request.SerializeToString(), timeout=30)
                except grpc.RpcError as error:
                    self.failed += 1
                    if error.code() == grpc.StatusCode.UNAVAILABLE:
                        return
                self.sent += 1


def _phase(directory: Path) -> tuple[str, str]:
    try:
        (report,) = read_reports(directory / "state.db", "trial", SystemClock())
    except NotFoundError:
        return "pending", ""
    return report.moves[-1].after, report.moves[-1].reason


@contextmanager
def _server(directory: Path, trial: Trial) -> Iterator[str]:
    """A server of its own; where it listens."""
    versions = {1: tiny_model(LAYERS, USUAL), 2: tiny_model(trial.layers, trial.below)}
    for version, data in versions.items():
        place = directory / "models" / "tiny" / str(version)
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(data)
    address = f"unix:{directory / 'data.sock'}"
    config = directory / "router.yaml"
    config.write_text(json.dumps(_config(directory, address)))
    errors = directory / "log"
    with errors.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", str(config)],
            stdout=output, stderr=output, cwd=directory,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_S
        while b'"ready"' not in errors.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                last = errors.read_text(errors="replace")[-800:]
                raise RouterError(f"the server under test does not start:\n{last}")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _config(directory: Path, address: str) -> dict[str, object]:
    return {
        "api_version": "router/v1",
        "server": {
            "listen": [address], "state": str(directory / "state.db"),
            "admin": f"unix:{directory / 'admin.sock'}",
        },
        "models": [
            {
                "name": "tiny", "repository": str(directory / "models" / "tiny"),
                "stable": 1,
                "output": {"tensor": "y", "kind": "value", "finite": True},
            }
        ],
        "rollouts": [
            {
                "name": "trial", "model": "tiny", "candidate": 2,
                "steps": [
                    {"weight": {"to": 45, "for": "7d"}},
                    {"weight": {"to": 100, "for": "7d"}},
                ],
                "guardrails": [
                    {"metric": "error_rate", "worse_by": "10%"},
                    {"metric": "latency_p90", "worse_by": "10%"},
                ],
            }
        ],
    }  # fmt: skip
