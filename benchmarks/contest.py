"""One load put on several servers, and the rows that come of it.

A logged load is about latency and gives median microseconds; any other is about
throughput and gives calls a second. Either gives the processor time of a call in the
server, which tells servers apart that the load generator cannot saturate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.h2load import Load, Measured
from benchmarks.models import Model
from benchmarks.pairs import compare, measure
from benchmarks.report import Budget, Options, Row
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Contest:
    """The runs of each server by name, one a round."""

    case: str
    is_latency: bool
    runs: dict[str, list[Measured]]

    def speed(self, subject: str, reference: str, budget: Budget | None = None) -> Row:
        """The speed that this load is about, beside another's."""
        if self.is_latency:
            return self._row("p50 us", "p50_us", "lower", (subject, reference), budget)
        return self._row("calls/s", "rate", "higher", (subject, reference), budget)

    def cost(self, subject: str, reference: str) -> Row:
        """The processor time of a call, beside another's."""
        return self._row("cpu us/call", "cpu_us", "lower", (subject, reference), None)

    def _row(
        self,
        figure: str,
        field: str,
        better: Literal["higher", "lower"],
        names: tuple[str, str],
        budget: Budget | None,
    ) -> Row:
        series = [[getattr(run, field) for run in self.runs[name]] for name in names]
        return Row(self.case, figure, *names, better, compare(*series), budget)


def contest(
    servers: Sequence[Server], model: Model, load: Load, chosen: Options
) -> Contest:
    """Measure the servers in alternating rounds."""
    runs = measure(servers, model, load, chosen.rounds, chosen.seconds)
    return Contest(f"{model.name} {load.name}", load.logged, runs)
