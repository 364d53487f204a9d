"""What does a worker cost, and what does its death cost those who do not use it?

First the price: the small model at 1x1, in a worker beside in the router. Then the
benefit: a router with stable inside and a candidate in a worker, 5 % or 50 % of the
traffic its. Two generators, paced at 15 % of capacity together: one sends what goes to
stable, for a unit that stable serves, and is measured; the other sends the
candidate's. In every other run the worker meets a fault: it segfaults, is killed,
stops, or its model wants 4 GB. Figures: microseconds with faults beside without. A
client-visible error, of stable's users or of the candidate's, ends the benchmark.
"""

import contextlib
import itertools
import os
import signal
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import h2load, models, probe, servers
from benchmarks.contest import contest
from benchmarks.h2load import Load, LostCallError, Measured, MissedPaceError
from benchmarks.models import SMALL
from benchmarks.pairs import alternate, compare
from benchmarks.report import Budget, Options, Row, main
from benchmarks.servers import Server

ONLY = (SMALL,)
SHARES = (5, 50)
LOAD_SHARE = 0.15
# A p99 of the quiet generator needs calls, and five crashes in a minute are too many
# for a worker: a run is long, and every other one has one fault.
RUN_S, SHORT_RUN_S = 7.5, 2.0
FAULT_AT = 0.3
PACE_TRIES = 3
HUNGRY = 1e6
FLOATS_WANTED = 10**9
FAULTS = ("segfault", "kill", "stop", "memory")
SIGNALS = {"segfault": signal.SIGSEGV, "kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def rows(chosen: Options) -> list[Row]:
    """The price of a worker, then p99 and p50 of stable while one dies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", ONLY)
        onnx.save(hungry(), repository / SMALL.name / "2" / "model.onnx")
        made = _price(folder, repository, chosen)
        for share in SHARES:
            made += _faults(folder, repository, share, chosen)
        return made


def hungry() -> onnx.ModelProto:
    """Version 2 of the small model, which wants 4 GB when column 0 says so."""
    made = models.onnx_of(SMALL, 2)
    graph = made.graph
    node = helper.make_node
    graph.node.extend(
        [
            node("Gather", ["x", "first"], ["column"], axis=1),
            node("ReduceMax", ["column"], ["most"], keepdims=0),
            node("Greater", ["most", "limit"], ["is_hungry"]),
            node("Cast", ["is_hungry"], ["times"], to=TensorProto.INT64),
            node("Mul", ["times", "wanted"], ["count"]),
            node("ConstantOfShape", ["count"], ["zeros"]),
            node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            node("Add", ["z", "zero"], ["fed"]),
            node("Softmax", ["fed"], ["y"], axis=1),
        ]
    )
    # The softmax that was there answered "y" already.
    graph.node.remove(next(n for n in graph.node if list(n.input) == ["z"]))
    for name, value in {
        "first": np.array([0], np.int64),
        "limit": np.array(HUNGRY, np.float32),
        "wanted": np.array([FLOATS_WANTED], np.int64),
    }.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(made)
    return made


@contextlib.contextmanager
def isolating(
    folder: Path, repository: Path, name: str, versions: dict[int, str], share: int = 0
) -> Iterator[Server]:
    """A router; each version in the router ("none") or in a worker ("process")."""
    home = folder / name
    home.mkdir()
    port, ops_port = servers.free_port(), servers.free_port()
    config: dict[str, Any] = servers.router_config(
        port, ops_port, home, repository, ONLY, {}
    )
    (model,) = config["models"]
    model["versions"] = {v: {"isolation": where} for v, where in versions.items()}
    model["runtime"] = {"timeout_ms": 200, "worker": {"hang_s": 1, "memory_mb": 500}}
    if share:
        split = [{"version": 1, "weight": 100 - share}, {"version": 2, "weight": share}]
        config["routes"] = [{"model": SMALL.name, "split": split}]
    path = home / "router.yaml"
    servers.write_config(path, config)
    command = [sys.executable, "-m", "router", "serve", str(path)]
    environment = {"PYTHONPATH": str(servers.RELEASE)}
    with servers.started(command, home, name, **environment) as process:
        server = Server(name, port, process, probe.probe_model, ops_port, path)
        yield servers.when_ready(server, ONLY)


def _price(folder: Path, repository: Path, chosen: Options) -> list[Row]:
    body = models.write_body(SMALL, folder / "body")
    with (
        isolating(folder, repository, "inside", {1: "none"}) as inside,
        isolating(folder, repository, "worker", {1: "process"}) as worker,
    ):
        found = contest((inside, worker), SMALL, Load(1, 1, body, logged=True), chosen)
    return [found.speed("worker", "inside", Budget("difference", 40.0))]


@dataclass(frozen=True, slots=True)
class Loads:
    """Sent to stable and measured; to the candidate; to a candidate that is to eat."""

    stable: Load
    candidate: Load
    hungry: Load


def _faults(folder: Path, repository: Path, share: int, chosen: Options) -> list[Row]:
    places = {1: "none", 2: "process"}
    seconds = SHORT_RUN_S if chosen.short else RUN_S
    with isolating(folder, repository, f"split-{share}", places, share) as router:
        loads = _loads(folder, router, share, chosen)
        faults = itertools.cycle(FAULTS)

        def quiet() -> Measured:
            return _on_pace(router, loads, seconds, None)

        def faulty() -> Measured:
            return _on_pace(router, loads, seconds, next(faults))

        runs = alternate({"faulty": faulty, "quiet": quiet}, chosen.rounds)
        router.check(SMALL)
        if errors := _errors(router):
            raise LostCallError(f"{errors} calls were answered with an error")
    return [
        _row(runs, share, "p99_us", Budget("ratio", 1.25)),
        _row(runs, share, "p50_us", None),
    ]


def _row(
    runs: dict[str, list[Measured]], share: int, figure: str, budget: Budget | None
) -> Row:
    values = {
        name: [getattr(run, figure) for run in made] for name, made in runs.items()
    }
    return Row(
        case=f"stable beside {share} %",
        figure=figure.replace("_", " "),
        subject="faulty",
        reference="quiet",
        better="lower",
        compared=compare(values["faulty"], values["quiet"]),
        budget=budget,
    )


def _loads(folder: Path, router: Server, share: int, chosen: Options) -> Loads:
    body = folder / "body"
    full = Load(8, 8, body)
    rate = h2load.run(router, full, h2load.calls_for(router, full, chosen.seconds)).rate
    units = _units(router)
    paced = rate * LOAD_SHARE

    def load(version: int, part: float, what: Path) -> Load:
        header = f"x-user-id: {units[version]}"
        # The candidate's may fall behind while it waits for a worker that is stopped.
        pace_min = h2load.PACE_MIN if version == 1 and not chosen.short else 0.0
        return Load(4, 2, what, True, paced * part, pace_min, (header,))

    request = models.request_of(SMALL)
    row = models.row_of(SMALL)
    row[0, 0] = 2 * HUNGRY
    request.raw_input_contents[0] = row.tobytes()
    message = request.SerializeToString()
    eats = folder / f"eats-{share}"
    eats.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    part = share / 100
    return Loads(load(1, 1 - part, body), load(2, part, body), load(2, part, eats))


def _units(router: Server) -> dict[int, str]:
    """A unit that each version serves."""
    found: dict[int, str] = {}
    body = models.request_of(SMALL).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{router.port}") as channel:
        call = channel.unary_unary(probe.METHOD)
        for i in range(1000):
            unit = f"u{i}"
            answer = call(body, metadata=(("x-user-id", unit),), timeout=10)
            response = probe.service_pb2.ModelInferResponse.FromString(answer)
            found.setdefault(int(response.model_version), unit)
            if len(found) == len(models.VERSIONS):
                return found
    raise LostCallError(f"no unit for some version: {found}")


def _on_pace(
    router: Server, loads: Loads, seconds: float, fault: str | None
) -> Measured:
    for _ in range(PACE_TRIES - 1):
        with contextlib.suppress(MissedPaceError):
            return _run(router, loads, seconds, fault)
    return _run(router, loads, seconds, fault)


def _run(router: Server, loads: Loads, seconds: float, fault: str | None) -> Measured:
    """Stable's latency while the candidate's users are served, or meet a fault."""
    # Two generators count together: errors are looked for at the end.
    uncounted = replace(router, ops_port=None)
    other = loads.hungry if fault == "memory" else loads.candidate
    problems: list[Exception] = []

    def send_others() -> None:
        try:
            h2load.run(uncounted, other, _calls(other, seconds))
        except LostCallError as error:
            problems.append(error)

    candidate = threading.Thread(target=send_others, name="candidate")
    candidate.start()
    timer = threading.Timer(seconds * FAULT_AT, _hurt, (router, fault))
    timer.start()
    try:
        return h2load.run(uncounted, loads.stable, _calls(loads.stable, seconds))
    finally:
        timer.join()
        candidate.join()
        if problems:
            raise problems[0]


def _calls(load: Load, seconds: float) -> int:
    assert load.rate is not None
    each = max(int(load.rate * seconds / load.connections), 1)
    return each * load.connections


def _hurt(router: Server, fault: str | None) -> None:
    if fault not in SIGNALS:
        return
    for pid in _workers(router.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, SIGNALS[fault])


def _workers(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in map(int, (task / "children").read_text().split()):
                if b"router.models.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return found


def _errors(router: Server) -> int:
    everything = router.counted("router_requests_total") or 0
    return everything - (router.ok_count() or 0)


if __name__ == "__main__":
    main("isolation", __doc__, rows)
