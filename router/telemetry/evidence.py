"""Gauges of what tests of rollouts have come to: the last points of their reports.

`router_evidence_log_e` is ln of the odds against a candidate; beyond `ln(1/alpha)`
(`router_evidence_log_bar`) it has been shown to be worse. Bounds are of effects, and
hold at every look. Series are bounded: those of a rollout that has ended stay until its
scope is gone from the file, so an alert can still see why.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from router.telemetry.counted import Counted

LABELS = ("rollout", "criterion", "version", "slice")
ROWS_MAX = 2_000
Rows = list[tuple[tuple[str, ...], float]]


def evidence_metrics(
    latest: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> tuple[Counted, ...]:
    """The gauges; `latest` is what each scope is about, and its last point."""
    odds: Rows = []
    effects: Rows = []
    bars: Rows = []
    for about, point in latest:
        scope = str(about["scope"])
        bars.append(((scope,), -math.log(about["alpha_each"])))
        for key, (_, log_e, estimate, lower, upper) in point["tests"].items():
            criterion, version, _, within = key.split("|", 3)
            labels = (scope, criterion, version, within)
            if log_e is not None:
                odds.append((labels, log_e))
            for bound, value in (
                ("estimate", estimate), ("lower", lower), ("upper", upper)
            ):  # fmt: skip
                if value is not None:
                    effects.append(((*labels, bound), value))
    return (
        _gauge("router_evidence_log_e", "ln of the odds against the candidate.",
               LABELS, odds),
        _gauge("router_evidence_log_bar", "ln of the odds that a test acts at.",
               ("rollout",), bars),
        _gauge("router_evidence_effect", "The candidate minus stable, with its bounds.",
               (*LABELS, "bound"), effects),
    )  # fmt: skip


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Counted:
    return Counted(name, text, labels, tuple(rows[:ROWS_MAX]), is_gauge=True)
