"""What does routing cost, against the same router with nothing to decide?

Routing off is one version and no route. "routed" evaluates an audience and a sticky
split that sends every call to one version, so nothing differs but the decision. "split"
shares the calls 50/50 between two versions, which also halves every batch: what a user
of a split pays in all. "envoy" is a weighted split by Envoy before the router with
routing off: what the usual way of splitting costs. Figures: calls a second at 8x8,
median microseconds at 1x1.
"""

import tempfile
from pathlib import Path

from benchmarks import envoy_server, models, servers
from benchmarks.contest import contest
from benchmarks.h2load import Load
from benchmarks.models import SMALL
from benchmarks.report import Budget, Options, Row, main

ONLY = (SMALL,)
REFERENCE = "off"
BUDGETS = {
    ("routed", False): Budget("ratio", 0.98),
    ("routed", True): Budget("difference", 1.0),
}


def rows(chosen: Options) -> list[Row]:
    """Two rows for each way of routing: throughput and latency."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = models.write_models(folder / "both", ONLY)
        one = models.write_models(folder / "one", ONLY, versions=(1,))
        with (
            servers.router(folder, one, ONLY, name=REFERENCE) as off,
            servers.router(folder, both, ONLY, {2: 100}, name="routed") as routed,
            servers.router(folder, both, ONLY, {2: 50, 1: 50}, name="split") as split,
            envoy_server.envoy(folder, off, ONLY) as envoy,
        ):
            body = models.write_body(SMALL, folder / "body")
            made = []
            for load in (Load(8, 8, body), Load(1, 1, body, logged=True)):
                held = contest((off, routed, split, envoy), SMALL, load, chosen)
                made += [
                    held.speed(name, REFERENCE, BUDGETS.get((name, load.logged)))
                    for name in ("routed", "split", "envoy")
                ]
                made += [held.cost(name, REFERENCE) for name in ("routed", "split")]
            return made


if __name__ == "__main__":
    main("routing_cost", __doc__, rows)
