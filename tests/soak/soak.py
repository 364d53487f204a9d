"""Minutes of everything at once against one server, which must not even notice.

    scripts/sanitize asan soak [--minutes 10] [--clients 3] [--seed 1]

A server process with several models; clients in processes of their own (clients.py),
some good, most not; new weights by SIGHUP all the while. Prints answers by code, the
resident size over time, and what was wrong. Fails on a wrong answer or code, on a
sanitizer's report, on memory that grows, on calls or connections that stay, and when
the server does not leave cleanly.

Not a test of speed: the address sanitizer slows the server several times, and clients
share its cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from router import testing

HERE = Path(__file__).resolve().parent
CLIENTS = HERE / "clients.py"
RELOAD_EVERY_S = 4.0
SAMPLE_EVERY_S = 1.0
# Sizes settle while arenas and quarantine fill: a quarter of the time is not judged.
WARM_SHARE = 0.25
# Growth that is not called growth: what an allocator keeps of a burst of large tensors.
GROWTH_SHARE, GROWTH_BYTES = 1.10, 24 << 20
REPORT_WORDS = ("Sanitizer", "runtime error:", "Assertion", "Traceback")


@dataclass
class Findings:
    """What the run has shown."""

    codes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    reloads: int = 0
    late: list[str] = field(default_factory=list)


def weights(generation: int) -> dict[int, bytes]:
    """Versions of `tag`; a generation answers a hundred more than the one before."""
    return {v: testing.tag(v + 100 * (generation % 2)) for v in (1, 2, 3)}


def config(repository: Path, share: int) -> dict[str, Any]:
    def model(name: str, **settings: Any) -> dict[str, Any]:
        return {"name": name, "repository": str(repository / name), **settings}

    faults = {"queue_ms_max": 50, "timeout_ms": 100}
    split = [{"version": 1, "weight": 100 - share}, {"version": 2, "weight": share}]
    return {
        "models": [
            model("tag", stable=1),
            model("faulty", stable=1, output={"tensor": "tag"}, runtime=faults),
            model("big", stable=1),
            model("text", stable=1),
            model("mlp", stable=1),
        ],
        "routes": [
            {"model": "tag", "split": split},
            {"model": "faulty", "split": split},
        ],
    }


def write_models(repository: Path, generation: int) -> None:
    testing.write_model(repository, "tag", weights(generation))


def write_all_models(repository: Path) -> None:
    write_models(repository, 0)
    faults = {1: testing.tag(1), 2: testing.faulty(2)}
    testing.write_model(repository, "faulty", faults)
    testing.write_model(repository, "big", {1: testing.echo("FP32")})
    testing.write_model(repository, "text", {1: testing.echo("BYTES")})
    testing.write_model(repository, "mlp", {1: testing.mlp()})


def start_clients(
    address: str, seconds: float, count: int, seed: int
) -> list[subprocess.Popen[str]]:
    kinds = ["stock"] * count + ["raw", "garbage"]
    # Clients are not what is looked at, and a sanitizer would only slow them.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return [
        subprocess.Popen(
            [sys.executable, str(CLIENTS), kind, address, str(seconds), str(seed + i)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for i, kind in enumerate(kinds)
    ]


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def watch(
    server: testing.Server,
    clients: list[subprocess.Popen[str]],
    repository: Path,
    ends: float,
    found: Findings,
) -> None:
    """Reload and measure until the clients are done."""
    reload_at = time.monotonic() + RELOAD_EVERY_S
    while time.monotonic() < ends and server.is_running:
        found.resident.append(resident_bytes(server.pid))
        if time.monotonic() >= reload_at:
            reload_at = time.monotonic() + RELOAD_EVERY_S
            found.reloads += 1
            write_models(repository, found.reloads)
            share = (found.reloads * 17) % 100
            try:
                server.reload(config(repository, share))
            except (TimeoutError, RuntimeError) as error:
                # A server that shares starved cores with its clients may be slow.
                found.late.append(str(error)[:300])
        time.sleep(SAMPLE_EVERY_S)
    for client in clients:
        try:
            output, _ = client.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            client.kill()
            found.problems.append("a client did not end")
            continue
        if client.returncode != 0:
            found.problems.append(f"a client ended with {client.returncode}")
            continue
        told = json.loads(output)
        found.codes.update(told["codes"])
        if told["wrong_count"]:
            found.problems.append(f"{told['wrong_count']} wrong: {told['wrong']}")


def judge_memory(resident: list[int], found: Findings) -> None:
    """Compare the first and the last quarter of what follows the warm-up."""
    settled = resident[int(len(resident) * WARM_SHARE) :]
    quarter = max(len(settled) // 4, 1)
    first, last = median(settled[:quarter]), median(settled[-quarter:])
    step = max(len(resident) // 20, 1)
    print("resident, MiB:", *(size >> 20 for size in resident[::step]))
    print(f"resident: start {resident[0] >> 20} MiB, after warm-up {int(first) >> 20}, "
          f"last {int(last) >> 20}, most {max(resident) >> 20}")  # fmt: skip
    if last > first * GROWTH_SHARE + GROWTH_BYTES:
        found.problems.append(
            f"resident size grew from {int(first) >> 20} to {int(last) >> 20} MiB"
        )


def judge_server(server: testing.Server, found: Findings) -> None:
    """What must hold when all clients have gone: nothing of them is left."""
    gauges = ("router_inflight", "router_connections", "router_body_bytes")
    try:
        testing.wait_until(
            lambda: all(server.metric(name) == 0 for name in gauges), "gauges at 0", 20
        )
    except TimeoutError:
        left = {name: server.metric(name) for name in gauges}
        found.problems.append(f"left behind: {left}")
    if server.metric("router_requests_total", code="UNKNOWN"):
        found.problems.append("UNKNOWN left the server")


def judge_log(log: Path, found: Findings) -> None:
    lines = log.read_text(errors="replace").splitlines()
    bad = [line for line in lines if any(word in line for word in REPORT_WORDS)]
    if bad:
        found.problems.append(f"{len(bad)} reports in the log, first: {bad[0][:300]}")


def run(minutes: float, clients: int, seed: int) -> Findings:
    found = Findings()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        directory = Path(temporary)
        repository = directory / "models"
        write_all_models(repository)
        settings = {"drain_s": 5, "limits": {"progress_timeout_s": 2}}
        server = testing.Server(directory, config(repository, 50), settings=settings)
        server.start()
        try:
            seconds = minutes * 60
            running = start_clients(server.address, seconds, clients, seed)
            ends = time.monotonic() + seconds
            watch(server, running, repository, ends, found)
            if server.is_running:
                judge_server(server, found)
            else:
                found.problems.append(f"the server died:\n{server.tail()}")
        finally:
            code = server.stop()
        if code != 0:
            found.problems.append(f"the server ended with {code}:\n{server.tail()}")
        judge_log(server.log, found)
    if len(found.late) * 10 > found.reloads:
        found.problems.append(f"{len(found.late)} reloads were late: {found.late[0]}")
    judge_memory(found.resident, found)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--clients", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    found = run(chosen.minutes, chosen.clients, chosen.seed)
    for what, count in sorted(found.codes.items()):
        print(f"{count:9}  {what}")
    print(f"{sum(found.codes.values()):9}  in all, through {found.reloads} reloads, "
          f"{len(found.late)} of them late")  # fmt: skip
    for problem in found.problems:
        print(f"PROBLEM: {problem}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
