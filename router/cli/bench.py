"""`router bench`: what it takes, and what it says.

Ctrl-C ends the run, not the command: what was measured until then is printed. The
generator runs without the interpreter, so the signal reaches it as a readable
descriptor.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # the engine takes longer to load than most commands to run
    from router.lab.bench import BenchResult, Latency, Load

DURATION_S_MAX = 600.0


@click.command()
@click.argument("target")
@click.option("--model", required=True, help="Model to call.")
@click.option("--version", type=int, help="Version the requests name.")
@click.option("--rate", type=click.FloatRange(0.001, 1e6), help="Open loop: calls/s.")
@click.option(
    "--arrivals", type=click.Choice(["constant", "poisson"]), default="constant",
    show_default=True, help="Of an open loop.",
)  # fmt: skip
@click.option(
    "--concurrency", type=click.IntRange(1, 100_000),
    help="Closed loop: calls in flight; as many as connections if left out.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(1, 10_000), default=1, show_default=True
)
@click.option(
    "--duration", type=click.FloatRange(0, DURATION_S_MAX, min_open=True), default=10.0,
    show_default=True, help="Seconds.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.001, 600), default=5.0, show_default=True,
    help="Seconds a call may take.",
)  # fmt: skip
@click.option(
    "--in-flight-max", type=click.IntRange(1, 100_000), default=10_000,
    show_default=True, help="Open loop: with so many calls open, requests wait.",
)  # fmt: skip
@click.option(
    "--units",
    type=click.IntRange(0),
    default=0,
    help="Each request names one of so many.",
)
@click.option(
    "--unit-header", default="x-user-id", show_default=True, metavar="NAME",
    help="Metadata field that names the unit.",
)  # fmt: skip
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Metadata."
)
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME[:DATATYPE]=VALUES",
    help="Comma-separated values of one row, or JSON; drawn if left out. Repeatable.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True,
    help="Rows of an input whose first dimension is open.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True)
@click.option(
    "--max-errors", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="Share of answers that may fail; above it the exit code is 1.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def bench(target: str, output: str, max_errors: float, **asked: Any) -> int:
    """Put a load on TARGET (host:port or unix:path) and measure it.

    With --rate the loop is open: requests are due at that rate whatever becomes of
    those before, and latency counts from when a request was due. Without it the loop is
    closed. A run that sent less than 99 % of what was due is void.
    """
    from router.cli.show import show_json
    from router.lab.bench import Requests
    from router.lab.bench import bench as run

    load = _load(target, asked)
    inputs = tuple(_pair(text) for text in asked["inputs"])
    requests = Requests(asked["model"], inputs, asked["batch"], asked["version"])
    with stop_on_signal() as stop_fd:
        result = run(load, requests, stop_fd)
    if output == "json":
        show_json(result)
    else:
        click.echo(as_text(load, result))
    return 1 if result.error_share > max_errors else 0


def _load(target: str, asked: dict[str, Any]) -> "Load":
    from router.lab.bench import ClosedLoop, Load, OpenLoop, Units

    rate, concurrency = asked["rate"], asked["concurrency"]
    if rate is not None and concurrency is not None:
        raise click.UsageError("--rate is an open loop, --concurrency a closed one")
    connections = asked["connections"]
    if rate is None and (concurrency or connections) < connections:
        raise click.UsageError("--concurrency is less than --connections")
    return Load(
        target,
        ClosedLoop(concurrency or connections)
        if rate is None
        else OpenLoop(rate, asked["arrivals"] == "poisson", asked["in_flight_max"]),
        duration_s=asked["duration"],
        connections=connections,
        timeout_s=asked["timeout"],
        units=Units(asked["units"], asked["unit_header"].lower())
        if asked["units"]
        else None,
        metadata=tuple((k.lower(), v) for k, v in map(_pair, asked["headers"])),
        seed=asked["seed"],
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"'{text}' is not NAME=VALUE")
    return key, value


@contextmanager
def stop_on_signal() -> Iterator[int]:
    """A descriptor that becomes readable with the first SIGINT or SIGTERM."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    # A handler has to be there for the wakeup descriptor to be written.
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    woken_before = signal.set_wakeup_fd(write_fd)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)


def as_text(load: "Load", result: "BenchResult") -> str:
    """A page of it, for people."""
    asked = "" if result.rate_asked is None else f" of {result.rate_asked:g} asked"
    lines = [
        f"{load.target}: {result.elapsed_s:.2f} s, {load.connections} connections",
        f"  sent        {result.sent} ({result.rate_sent:.1f}/s{asked})",
        f"  answered    {result.rate_answered:.1f}/s, at most {result.in_flight_peak}"
        " in flight",
        f"  codes       {_counts(result.codes)}",
        f"  versions    {_counts(result.versions)}",
        f"  bytes       {result.bytes_out} out, {result.bytes_in} in",
    ]
    if result.rate_asked is not None:
        lines += [
            f"  late        {result.late} sent more than 1 ms late, the latest"
            f" {result.late_max_us / 1000:.2f} ms",
            f"  held        {result.held} waited for room, {result.unsent} never left",
        ]
    lines += [
        "",
        f"  {'latency, us':<14}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}"
        f"{'p99.9':>10}{'max':>10}",
        _latency("since due", result.latency),
    ]
    if result.rate_asked is not None:
        lines.append(_latency("since sent", result.latency_from_send))
    if result.latency_of_errors.count:
        lines.append(_latency("of errors", result.latency_of_errors))
    if result.first_error:
        lines += ["", f"  the first error was {result.first_error}"]
    if result.connections_lost:
        lines.append(f"  {result.connections_lost} connections were lost")
    if result.is_interrupted:
        lines.append(f"  interrupted; {result.unanswered} calls were still open")
    if result.is_void:
        lines += ["", f"  VOID: {result.sent} of {result.due} due requests were sent"]
    return "\n".join(lines)


def _counts(counts: Any) -> str:
    listed = sorted(counts.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name or '(none)'} {count}" for name, count in listed) or "none"


def _latency(name: str, found: "Latency") -> str:
    figures = (found.mean_us, found.p50_us, found.p90_us, found.p99_us, found.p999_us)
    return f"  {name:<14}" + "".join(f"{us:>10.0f}" for us in (*figures, found.max_us))
