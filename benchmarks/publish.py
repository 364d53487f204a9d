"""Does publishing a new table under load lose a call or slow the slowest?

One router under a paced load, a quarter of what it can do at 8x8: the tail is about
publishing, not about a full machine. In every other run the configuration file is
rewritten with other weights every 100 ms and SIGHUP sent. Figures: microseconds with
publishing beside without, and tables published a second beside how many were asked for.
A lost call, a wrong answer, or no new table at all ends the benchmark with an error.
"""

import itertools
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from benchmarks import h2load, models, servers
from benchmarks.h2load import Load, Measured
from benchmarks.models import SMALL
from benchmarks.pairs import alternate, compare
from benchmarks.report import Budget, Options, Row, main, paced_row
from benchmarks.servers import Server

ONLY = (SMALL,)
PERIOD_S = 0.1
LOAD_SHARE = 0.25
# A p99 needs more calls than a median, and a run has to hold many publishes.
RUN_LENGTHS = 4
SETTLE_TIMEOUT_S = 10.0
WEIGHTS = range(10, 90)
TABLES = "router_published_tables_total"
BUDGETS = {"p99_us": Budget("ratio", 1.25), "tables_per_s": Budget("ratio", 0.9)}


class StaleTableError(Exception):
    """The configuration was changed under load and no new table was published."""


@dataclass(frozen=True, slots=True)
class Published:
    """A run, and the tables a second that were asked for and published during it."""

    measured: Measured
    asked_per_s: float
    tables_per_s: float


def rows(chosen: Options) -> list[Row]:
    """p99 and p50 with publishing beside without, and how much was published."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", ONLY)
        body = models.write_body(SMALL, folder / "body")
        with servers.router(folder, repository, ONLY, {2: 50, 1: 50}) as router:
            load, count = _paced(router, body, chosen)
            texts = itertools.cycle(_texts(router))

            def quiet() -> Published:
                return Published(h2load.run(router, load, count), 0, 0)

            def publishing() -> Published:
                return published(router, texts, lambda: h2load.run(router, load, count))

            runs = alternate(
                {
                    "publishing": h2load.on_pace(publishing),
                    "quiet": h2load.on_pace(quiet),
                },
                chosen.rounds,
            )
            router.check(SMALL)
    asked = [run.asked_per_s for run in runs["publishing"]]
    done = [run.tables_per_s for run in runs["publishing"]]
    return [
        paced_row(runs, "p99_us", "publishing", BUDGETS),
        paced_row(runs, "p50_us", "publishing", BUDGETS),
        Row(
            case="small 8x8 paced",
            figure="tables/s",
            subject="published",
            reference="asked",
            better="higher",
            compared=compare(done, asked),
            budget=BUDGETS["tables_per_s"],
        ),
    ]


def _paced(router: Server, body: Path, chosen: Options) -> tuple[Load, int]:
    full = Load(8, 8, body)
    paced = h2load.paced(router, full, chosen.seconds, LOAD_SHARE)
    if chosen.short:
        # Looks for lost calls and wrong answers; a slow machine is not one of them.
        paced = replace(paced, pace_min=0.0)
    return paced, h2load.calls_in(paced, chosen.seconds * RUN_LENGTHS)


def published(
    router: Server, texts: Iterator[str], measure: Callable[[], Measured]
) -> Published:
    """Measure while another configuration is published every period."""
    finished = threading.Event()
    asked = 0

    def publish() -> None:
        nonlocal asked
        while not finished.wait(PERIOD_S):
            rewrite(router, next(texts))
            asked += 1

    before = router.counted(TABLES) or 0
    publisher = threading.Thread(target=publish, name="publisher")
    publisher.start()
    begun = time.monotonic()
    try:
        measured = measure()
    finally:
        finished.set()
        publisher.join()
    took_s = time.monotonic() - begun
    tables = _await_tables(router, before, asked) - before
    return Published(measured, asked / took_s, tables / took_s)


def _texts(router: Server) -> list[str]:
    """Configurations that differ in a weight; made before anything is timed, because
    writing YAML takes a core that the router is measured on."""
    assert router.config is not None
    config = yaml.safe_load(router.config.read_text())
    texts = []
    for weight in WEIGHTS:
        config["routes"][-1]["split"] = [
            {"version": 2, "weight": weight},
            {"version": 1, "weight": 100 - weight},
        ]
        texts.append(yaml.safe_dump(config, sort_keys=False))
    return texts


def rewrite(router: Server, text: str) -> None:
    """Replace the configuration in one step, and tell the router."""
    assert router.config is not None
    partial = router.config.with_suffix(".tmp")
    partial.write_text(text)
    partial.replace(router.config)
    router.process.send_signal(signal.SIGHUP)


def _await_tables(router: Server, before: int, asked: int) -> int:
    # The last one may still be on its way; several signals at once may make one table.
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while (now := router.counted(TABLES) or 0) < before + asked:
        if time.monotonic() > give_up:
            if now == before:
                raise StaleTableError(f"{asked} changes, no table published")
            break
        time.sleep(PERIOD_S)
    return now


if __name__ == "__main__":
    main("publish", __doc__, rows)
