"""One load put on several servers, and the rows that come of it.

A logged load is about latency and gives median microseconds; any other is about
throughput and gives calls a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.h2load import Load
from benchmarks.models import Model
from benchmarks.pairs import compare, measure
from benchmarks.report import Budget, Options, Row
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Contest:
    """A figure of each server by name, one a round."""

    case: str
    is_latency: bool
    figures: dict[str, list[float]]

    def row(self, subject: str, reference: str, budget: Budget | None = None) -> Row:
        """One server beside another."""
        return Row(
            case=self.case,
            figure="p50 us" if self.is_latency else "calls/s",
            subject=subject,
            reference=reference,
            better="lower" if self.is_latency else "higher",
            compared=compare(self.figures[subject], self.figures[reference]),
            budget=budget,
        )


def contest(
    servers: Sequence[Server], model: Model, load: Load, chosen: Options
) -> Contest:
    """Measure the servers in alternating rounds."""
    runs = measure(servers, model, load, chosen.rounds, chosen.seconds)
    figures = {
        name: [run.p50_us if load.logged else run.rate for run in series]
        for name, series in runs.items()
    }
    return Contest(f"{model.name} {load.name}", load.logged, figures)
