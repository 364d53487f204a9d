"""Runs h2load against a server, and reads what it measured.

A run is a number of calls, not a time, so that the server's own count can be compared
with it: h2load counts HTTP 200, which every gRPC failure is too. Writing one log line a
call costs the generator a third of its speed at full load; percentiles are therefore
taken only where they are asked for, and throughput never from such a run.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.probe import METHOD
from benchmarks.servers import LOOPS, Server

COUNT_TIMEOUT_S = 5.0
PACE_MIN = 0.99
PACE_TRIES = 5
T = TypeVar("T")
HEADERS = ("te: trailers", "content-type: application/grpc")


class LostCallError(Exception):
    """Not every call that was sent was answered with status OK."""


class MissedPaceError(Exception):
    """The generator fell behind the rate it was asked for: the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: connections x streams, the body of each call, perhaps a pace.

    A paced run that reached less than `pace_min` of its rate is void.
    """

    connections: int
    streams: int
    body: Path
    logged: bool = False
    rate: float | None = None
    pace_min: float = PACE_MIN
    headers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.connections}x{self.streams}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: calls a second, the server's processor time in microseconds a call, and
    percentiles of the duration in microseconds if they were logged."""

    rate: float
    cpu_us: float
    p50_us: float = float("nan")
    p99_us: float = float("nan")
    p999_us: float = float("nan")


def parse_summary(text: str) -> tuple[float, int]:
    """The calls a second and the calls that got HTTP 200, from h2load's report."""
    rate = re.search(r"^finished in \S+, ([\d.]+) req/s", text, re.MULTILINE)
    done = re.search(r"^requests: .* (\d+) succeeded", text, re.MULTILINE)
    if rate is None or done is None:
        raise ValueError(f"not a report of h2load: {text[-300:]!r}")
    return float(rate[1]), int(done[1])


def parse_log(text: str) -> np.ndarray:
    """The microseconds of every call, sorted; lines are (start, status, duration)."""
    rows = np.array(text.split(), np.int64).reshape(-1, 3)
    return np.sort(rows[:, 2])


def percentile(sorted_us: np.ndarray, share: float) -> float:
    """The duration that `share` of the calls stay below.

    h2load cuts to whole microseconds, coarser than differences that matter here. A
    value of 28 stands for calls spread evenly over 28-29; the rank says how far in.
    """
    rank = share * len(sorted_us)
    value = sorted_us[min(int(rank), len(sorted_us) - 1)]
    first, last = np.searchsorted(sorted_us, [value, value + 1])
    return float(value + (rank - first) / (last - first))


def run(server: Server, load: Load, calls: int) -> Measured:
    """Send `calls` calls and check that each was answered OK by the server's count."""
    before, cpu_before_s = server.ok_count(), server.cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        text = _h2load(server, load, calls, log)
        cpu_us = (server.cpu_s() - cpu_before_s) * 1e6 / calls
        durations = parse_log(log.read_text()) if load.logged else None
    rate, succeeded = parse_summary(text)
    if succeeded != calls:
        raise LostCallError(f"{server.name}: {succeeded} of {calls} got HTTP 200")
    if before is not None:
        _await_count(server, before + calls)
    if load.rate and rate < load.pace_min * load.rate:
        raise MissedPaceError(f"{rate:.0f} of {load.rate:.0f} calls a second")
    if durations is None:
        return Measured(rate, cpu_us)
    return Measured(
        rate, cpu_us, *(percentile(durations, q) for q in (0.5, 0.99, 0.999))
    )


def calls_for(server: Server, load: Load, seconds: float) -> int:
    """How many calls take about this long: a warm-up, then a timed run."""
    per_connection = 20 * load.streams
    for _ in range(2):
        rate = run(server, load, per_connection * load.connections).rate
        per_connection = max(int(rate * seconds / load.connections), load.streams)
        per_connection = min(per_connection, int(200_000 * seconds))
    return per_connection * load.connections


def paced(server: Server, full: Load, seconds: float, share: float) -> Load:
    """A share of the best that a server does under a load: logged, at that pace."""
    rate = run(server, full, calls_for(server, full, seconds)).rate * share
    return replace(full, logged=True, rate=rate)


def calls_in(load: Load, seconds: float) -> int:
    """How many calls a paced load is in this time."""
    assert load.rate is not None
    return max(int(load.rate * seconds / load.connections), 1) * load.connections


def on_pace(made: Callable[[], T]) -> Callable[[], T]:
    """The run, tried again when the generator fell behind: that point is void."""

    def tried() -> T:
        for _ in range(PACE_TRIES - 1):
            try:
                return made()
            except MissedPaceError:
                continue
        return made()

    return tried


def _h2load(server: Server, load: Load, calls: int, log: Path) -> str:
    threads = min(LOOPS, load.connections)
    command = ["h2load", f"-c{load.connections}", f"-m{load.streams}", f"-n{calls}"]
    command += [f"-t{threads}", "-d", str(load.body)]
    for header in (*HEADERS, *load.headers):
        command += ["-H", header]
    if load.logged:
        command += ["--log-file", str(log)]
    if load.rate:
        command += ["--rps", f"{load.rate / load.connections:.3f}"]
    command.append(f"http://127.0.0.1:{server.port}{METHOD}")
    plain = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=plain
    )
    return done.stdout


def _await_count(server: Server, expected: int) -> None:
    # A snapshot may be a moment older than the last answer.
    give_up = time.monotonic() + COUNT_TIMEOUT_S
    while (counted := server.ok_count()) != expected:
        if time.monotonic() > give_up:
            raise LostCallError(f"{server.name}: {counted} OK instead of {expected}")
        time.sleep(0.01)
