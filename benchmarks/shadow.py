"""Does a shadow of everything slow the answers it copies?

Two routers with the same two versions; in one, version 2 also runs every request that
version 1 answers. First at a quarter of what a router does at 8x8, so that there is
processor time to spare: p99 and p50 in microseconds. Then at full load, where there is
none: calls a second. Beside them, how much of what the shadow was to run it did run.
A lost call, a wrong answer, or a request that the shadow cannot account for ends the
benchmark with an error.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import h2load, models, servers
from benchmarks.h2load import Load, Measured
from benchmarks.models import MEDIUM, SMALL, Model
from benchmarks.pairs import alternate, compare
from benchmarks.report import Budget, Options, Row, main
from benchmarks.servers import Server

LOAD_SHARE = 0.25
# A p99 needs more calls than a median.
RUN_LENGTHS = 4
SETTLE_TIMEOUT_S = 10.0
SHADOWED = "router_shadow_requests_total"
BUDGETS = {"p99_us": Budget("ratio", 1.05, 200.0), "rate": Budget("ratio", 0.97)}


class LostShadowError(Exception):
    """Requests were answered and no outcome of their shadow was counted."""


@dataclass(frozen=True, slots=True)
class Shadowing:
    """A run, and the calls a second whose shadow has run as well."""

    measured: Measured
    pairs_per_s: float = 0.0


def rows(chosen: Options) -> list[Row]:
    """For each model: the tail with time to spare, goodput without, shadows run."""
    measured = (SMALL,) if chosen.short else (SMALL, MEDIUM)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", measured)
        made = []
        with (
            servers.router(folder, repository, measured, name="alone") as alone,
            servers.router(
                folder, repository, measured, name="shadowed",
                more=shadowing(measured),
            ) as shadowed,
        ):  # fmt: skip
            for model in measured:
                _await_shadow(shadowed, model)
                body = models.write_body(model, folder / model.name)
                made += _rows(alone, shadowed, model, Load(8, 8, body), chosen)
        return made


def shadowing(shadowed: Sequence[Model]) -> dict[str, object]:
    """Version 2 runs everything that version 1 answers."""
    step = {"shadow": {"percent": 100, "for": "24h"}}
    common = {"candidate": 2, "strategy": "shadow", "steps": [step]}
    rollouts = [{"name": m.name, "model": m.name, **common} for m in shadowed]
    return {"rollouts": rollouts}


def _rows(
    alone: Server, shadowed: Server, model: Model, full: Load, chosen: Options
) -> list[Row]:
    paced = h2load.paced(alone, full, chosen.seconds, LOAD_SHARE)
    if chosen.short:
        # Looks for lost calls and wrong answers; a slow machine is not one of them.
        paced = replace(paced, pace_min=0.0)
    spare = _alternated(
        alone, shadowed, model, chosen.rounds,
        (paced, h2load.calls_in(paced, chosen.seconds * RUN_LENGTHS)),
    )  # fmt: skip
    calls = h2load.calls_for(alone, full, chosen.seconds)
    none = _alternated(alone, shadowed, model, chosen.rounds, (full, calls))
    for server in (alone, shadowed):
        server.check(model)
    return [
        _row(f"{model.name} 8x8 paced", "p99_us", spare),
        _row(f"{model.name} 8x8 paced", "p50_us", spare),
        _share_run(f"{model.name} 8x8 paced", spare),
        _row(f"{model.name} 8x8 full", "rate", none),
        _share_run(f"{model.name} 8x8 full", none),
    ]


def _alternated(
    alone: Server, shadowed: Server, model: Model, rounds: int, sent: tuple[Load, int]
) -> dict[str, list[Shadowing]]:
    load, calls = sent

    def without() -> Shadowing:
        return Shadowing(h2load.run(alone, load, calls))

    def beside() -> Shadowing:
        return _shadowing(shadowed, model, lambda: h2load.run(shadowed, load, calls))

    made = {"shadowed": beside, "alone": without}
    return alternate({k: h2load.on_pace(run) for k, run in made.items()}, rounds)


def _shadowing(
    router: Server, model: Model, measure: Callable[[], Measured]
) -> Shadowing:
    """Measure, and see what became of each call's shadow."""
    answered = router.ok_count() or 0
    before, run_before = _ended(router, model), _ended(router, model, outcome="ok")
    measured = measure()
    calls = (router.ok_count() or 0) - answered
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while (ended := _ended(router, model) - before) != calls:
        if ended > calls or time.monotonic() > give_up:
            raise LostShadowError(f"{ended} shadows of {calls} calls came to an end")
        time.sleep(0.01)
    pairs = _ended(router, model, outcome="ok") - run_before
    return Shadowing(measured, measured.rate * pairs / calls)


def _ended(router: Server, model: Model, **labels: str) -> int:
    return router.counted(SHADOWED, model=model.name, **labels) or 0


def _await_shadow(router: Server, model: Model) -> None:
    """Wait until a call has met its shadow, and until that shadow has run."""
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while not _ended(router, model, outcome="ok"):
        if time.monotonic() > give_up:
            raise LostShadowError(f"nothing shadows {model.name}")
        router.check(model)
        time.sleep(0.01)


def _row(case: str, figure: str, runs: dict[str, list[Shadowing]]) -> Row:
    values = {
        name: [getattr(run.measured, figure) for run in runs[name]] for name in runs
    }
    is_rate = figure == "rate"
    return Row(
        case=case,
        figure="calls/s" if is_rate else figure.replace("_", " "),
        subject="shadowed",
        reference="alone",
        better="higher" if is_rate else "lower",
        compared=compare(values["shadowed"], values["alone"]),
        budget=BUDGETS.get(figure),
    )


def _share_run(case: str, runs: dict[str, list[Shadowing]]) -> Row:
    beside = runs["shadowed"]
    return Row(
        case=case,
        figure="calls/s",
        subject="shadows run",
        reference="answered",
        better="higher",
        compared=compare(
            [run.pairs_per_s for run in beside], [run.measured.rate for run in beside]
        ),
    )


if __name__ == "__main__":
    main("shadow", __doc__, rows)
