"""How many nanoseconds do `route` and `count` take without the interpreter?

Budgets: 60 ns for a sticky split, 250 ns with ten audiences of two conditions each, all
of which are asked and fail, 2 ns for a cell update. Every loop goes through the
pointers that the engine uses; the median of the rounds counts. Prints JSON.
`python benchmarks/kernel/loop.py`
"""

import json
import platform
import statistics

from kernel_cases import AUDIENCE_CALLS, SPLIT_CALLS, table_bytes

from router._fasthash import Table, time_count

ROUNDS = 21
DECISIONS = 200_000
COUNTS = 5_000_000
BUDGET_NS = {"split": 60.0, "audiences": 250.0, "count": 2.0}


def measure() -> dict[str, list[float]]:
    """Nanoseconds of one call, a figure a round; the rounds of all cases alternate."""
    table = Table(table_bytes())
    cases = {
        "split": lambda: table.time_route(DECISIONS, "split", SPLIT_CALLS) / DECISIONS,
        "audiences": lambda: (
            table.time_route(DECISIONS, "audiences", AUDIENCE_CALLS) / DECISIONS
        ),
        "count": lambda: time_count(COUNTS) / COUNTS,
    }
    for run in cases.values():  # warm-up
        run()
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, run in cases.items():
            figures[name].append(run() * 1e9)
    return figures


def report(figures: dict[str, list[float]]) -> dict[str, object]:
    return {
        "question": "nanoseconds of one call without the interpreter",
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cases": {
            name: {
                "median_ns": round(statistics.median(values), 2),
                "quartiles_ns": [
                    round(cut, 2) for cut in statistics.quantiles(values)[::2]
                ],
                "budget_ns": BUDGET_NS[name],
                "is_met": statistics.median(values) <= BUDGET_NS[name],
            }
            for name, values in figures.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(report(measure()), indent=2))
