"""Starts each server as its users would, on a free loopback port, and stops it.

Every function is a context manager that yields a `Server` once that server has given a
right answer. All get the same number of loops (or threads, or workers), half the cores:
the other half is the load generator's.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import probe
from benchmarks.floor.build import ROOT, build
from benchmarks.models import MODELS, Model

LOOPS = max(1, (os.cpu_count() or 1) // 2)
RELEASE = ROOT / "build" / "release"
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens and how to see that it answers rightly."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    probe: Callable[[int, Model], object]
    ops_port: int | None = None
    config: Path | None = None

    def check(self, model: Model) -> object:
        """Make one call and compare its answer with the truth."""
        return self.probe(self.port, model)

    def counted(self, name: str, **labels: str) -> int | None:
        """One of its counters now; None if it does not count."""
        if self.ops_port is None:
            return None
        return total(read_metrics(self.ops_port), name, **labels)

    def ok_count(self) -> int | None:
        """Calls answered OK, by its own count."""
        return self.counted("router_requests_total", code="OK")

    def cpu_s(self) -> float:
        """Processor time used so far by all its threads, also those that ended."""
        # What clock_getcpuclockid() returns for a process; Python has no name for it.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident_mb(self) -> float:
        """Memory resident now, from /proc."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


def read_metrics(ops_port: int) -> str:
    """The exposition text of a router."""
    url = f"http://127.0.0.1:{ops_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as page:
        text: str = page.read().decode()
        return text


def total(metrics: str, name: str, **labels: str) -> int:
    """The sum of a counter's samples that carry these labels."""
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
    )


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def started(
    command: list[str], folder: Path, name: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to `folder/name.log`, ended on the way out."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        yield process
    except BaseException:
        lines = log.read_text(errors="replace").splitlines()[-30:]
        print(f"--- {name} said:", *lines, sep="\n", file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def when_ready(server: Server, models: tuple[Model, ...]) -> Server:
    """The server, once it has answered rightly for each of the models."""
    for model in models:
        probe.wait_until(
            lambda model=model: server.check(model),
            lambda: server.process.poll() is None,
        )
    return server


@contextmanager
def floor(folder: Path, models: tuple[Model, ...] = MODELS) -> Iterator[Server]:
    """The echo server in `floor/`."""
    port = free_port()
    command = [str(build()), "--port", str(port), "--loops", str(LOOPS)]
    with started(command, folder, "floor") as process:
        yield when_ready(Server("floor", port, process, probe.probe_echo), models)


@contextmanager
def python_server(
    folder: Path, repository: Path, models: tuple[Model, ...] = MODELS
) -> Iterator[Server]:
    """The grpc.aio server in `python_server.py`."""
    port = free_port()
    module = [sys.executable, "-m", "benchmarks.python_server"]
    command = [*module, str(repository), "--port", str(port)]
    with started(command, folder, "python", PYTHONPATH=str(ROOT)) as process:
        yield when_ready(Server("grpcio", port, process, probe.probe_model), models)


def router_config(
    port: int,
    ops_port: int,
    folder: Path,
    repository: Path,
    models: tuple[Model, ...],
    split: dict[int, int],
) -> dict[str, object]:
    """A configuration that routes by audience and split, or not at all without a split.

    The audience never matches (the requests carry no location), so that each decision
    costs a condition, a drawn unit, a bucket and a look-up.
    """
    config: dict[str, object] = {
        "api_version": "router/v1",
        "server": {
            "listen": f"127.0.0.1:{port}",
            "admin": f"unix:{folder}/admin.sock",
            "state": f"{folder}/state.db",
            "ops": f"127.0.0.1:{ops_port}",
            "loops": LOOPS,
        },
        "models": [
            {"name": m.name, "repository": str(repository / m.name), "stable": 1}
            for m in models
        ],
    }
    if not split:
        return config
    condition = {"key": "location", "exact": "new-york"}
    config["audiences"] = [{"name": "new-york", "when": {"all": [condition]}}]
    config["routes"] = [
        route
        for m in models
        for route in (
            {"model": m.name, "audience": "new-york", "version": 1},
            {"model": m.name, "split": [_share(*share) for share in split.items()]},
        )
    ]
    return config


def _share(version: int, weight: int) -> dict[str, object]:
    return {"version": version, "weight": weight}


def write_config(path: Path, config: dict[str, object]) -> None:
    """Replace a configuration file in one step: a reader never sees half of it."""
    partial = path.with_suffix(".tmp")
    partial.write_text(yaml.safe_dump(config, sort_keys=False))
    partial.replace(path)


@contextmanager
def router(
    folder: Path,
    repository: Path,
    models: tuple[Model, ...] = MODELS,
    split: dict[int, int] | None = None,
    name: str = "router",
    more: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """This router; routing is on if a split (version to weight) is given.

    `more` are sections that its configuration has as well, or instead.
    """
    if not (RELEASE / "router").is_dir():
        sys.exit("the router is not built: make build")
    home = folder / name
    home.mkdir()
    port, ops_port = free_port(), free_port()
    path = home / "router.yaml"
    config = router_config(port, ops_port, home, repository, models, split or {})
    write_config(path, {**config, **(more or {})})
    # The working directory is not the checkout, whose `router/` has no extensions.
    command = [sys.executable, "-m", "router", "serve", str(path)]
    with started(command, home, name, PYTHONPATH=str(RELEASE)) as process:
        server = Server(name, port, process, probe.probe_model, ops_port, path)
        yield when_ready(server, models)
