"""Objectives: what is good, per variant and minute, and when a budget burns too fast.

Good and bad come from the engine's own counters, so that the router's alerts and the
Prometheus rules it exports (`rules_of`) count the same. A latency objective is rounded
up to the next edge of the exported histogram, half an octave apart, because that is all
Prometheus can see. Client mistakes and cancelled calls are neither good nor bad.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.analysis.burnrate import BURN_RULES, Minutes, add_minute, judge_burn
from router.config.alerts import Alerts, Slo
from router.notify.event import Event, Severity

BAD_CODES = (
    "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN",
)  # fmt: skip
# The histogram's exported edges: 2**(i/32) s, every 16th of these.
STEPS, EDGE_STEP, EDGE_FIRST, EDGE_LAST = 32, 16, -512, 96
MINUTE_S = 60.0
RECORD = "router:slo_errors:ratio_rate"


@dataclass(frozen=True, slots=True)
class Watched:
    """An objective and one variant it is watched for."""

    slo: str
    model: str
    version: str
    variant: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Bad requests, and all that are good or bad, since the start of the process."""

    bad: int
    all: int


def edge_of(latency_s: float) -> int:
    """The index of the exported edge at or above a time."""
    exact = math.log2(latency_s) * STEPS / EDGE_STEP
    at = math.ceil(exact - 1e-9) * EDGE_STEP
    return min(max(at, EDGE_FIRST), EDGE_LAST)


def edge_text(edge: int) -> str:
    """The edge as the label `le` has it."""
    return repr(2.0 ** (edge / STEPS))


def tallies(slos: Iterable[Slo], snapshot: Mapping[str, Any]) -> dict[Watched, Tally]:
    """Every objective's counts, for each variant that the snapshot knows."""
    found: dict[Watched, Tally] = {}
    for slo in slos:
        for entry in snapshot["variants"]:
            if entry["model"] != slo.model:
                continue
            version = str(entry["version"] or "")
            key = Watched(slo.name, slo.model, version, entry["variant"])
            before = found.get(key, Tally(0, 0))
            now = _tally(slo, entry)
            found[key] = Tally(before.bad + now.bad, before.all + now.all)
    return found


def _tally(slo: Slo, entry: Mapping[str, Any]) -> Tally:
    if slo.latency is None:
        codes = entry["codes"]
        bad = sum(codes.get(code, 0) for code in BAD_CODES)
        return Tally(bad, bad + codes.get("OK", 0))
    edge = edge_of(slo.latency)
    buckets = entry["stages"]["total"]["buckets"]
    slow = sum(count for index, count in buckets if index > edge)
    return Tally(slow, sum(count for _, count in buckets))


class BurnWatch:
    """Owner of the minutes of each objective and variant. The control thread's."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._minutes: dict[Watched, Minutes] = {}
        self._before: dict[Watched, Tally] = {}
        self._minute_began: float | None = None
        self._passed = 0
        self._burning: dict[Watched, Severity] = {}

    def is_due(self, monotonic_s: float) -> bool:
        """Whether minutes have passed, and `advance` should be given a snapshot."""
        if not self._alerts.slos:
            return False
        if self._minute_began is None:
            self._minute_began, self._passed = monotonic_s, 0
            return True
        self._passed = int((monotonic_s - self._minute_began) // MINUTE_S)
        self._minute_began += self._passed * MINUTE_S
        return self._passed > 0

    def advance(self, snapshot: Mapping[str, Any], now: float) -> tuple[Event, ...]:
        """What has to be told of the minutes that have passed."""
        tallied = tallies(self._alerts.slos, snapshot)
        if not self._passed:  # the first look: what was before is nobody's minute
            self._before = tallied
            return ()
        return tuple(self._advance(tallied, self._passed, now))

    def _advance(
        self, tallied: Mapping[Watched, Tally], passed: int, now: float
    ) -> Iterator[Event]:
        for key in self._minutes.keys() | tallied.keys():
            before = self._before.get(key, Tally(0, 0))
            counted = tallied.get(key, before)
            # A variant that was loaded anew counts from nothing.
            is_restarted = counted.all < before.all or counted.bad < before.bad
            start = Tally(0, 0) if is_restarted else before
            minutes = self._minutes.get(key, Minutes())
            for _ in range(passed - 1):  # a tick came late: the minutes it missed
                minutes = add_minute(minutes, 0, 0)
            bad, every = counted.bad - start.bad, counted.all - start.all
            self._minutes[key] = add_minute(minutes, bad, every)
            yield from self._judge(key, now)
        self._before = dict(tallied)

    def _judge(self, key: Watched, now: float) -> Iterator[Event]:
        slo = next(slo for slo in self._alerts.slos if slo.name == key.slo)
        verdict = judge_burn(
            self._minutes[key], slo.objective / 100, BURN_RULES,
            self._alerts.errors_min, slo.name,
        )  # fmt: skip
        was = self._burning.get(key)
        if verdict.verdict == "fail":
            severity = Severity[str(verdict.numbers["severity"]).upper()]
            self._burning[key] = severity
            if was is not None and severity != was:
                yield _event(key, was, "the burn rate changed", (), now, True)
            numbers = tuple((k, f"{v}") for k, v in verdict.numbers.items())
            yield _event(key, severity, verdict.reason, numbers, now, False)
        elif was is not None:
            del self._burning[key]
            yield _event(key, was, verdict.reason, (), now, True)


def _event(
    key: Watched, severity: Severity, summary: str,
    numbers: tuple[tuple[str, str], ...], now: float, is_resolved: bool,
) -> Event:  # fmt: skip
    where = (
        ("slo", key.slo), ("model", key.model), ("version", key.version),
        ("variant", key.variant),
    )  # fmt: skip
    subject = f"{key.model}/{key.variant or key.version}"
    name = f"slo/{key.slo}/{key.model}/{key.version}/{key.variant}/{severity.name}"
    return Event(
        "slo_burn", severity, subject, summary, where + numbers, name, now, is_resolved
    )


# -- the same, as rules for Prometheus -------------------------------------------------


def rules_of(alerts: Alerts) -> dict[str, Any]:
    """Recording and alerting rules, as the value of a Prometheus rule file."""
    return {
        "groups": [
            {"name": f"router-slo-{slo.name}", "rules": _rules(slo, alerts.errors_min)}
            for slo in alerts.slos
        ]
    }


def _rules(slo: Slo, errors_min: int) -> list[dict[str, Any]]:
    windows = sorted({w for r in BURN_RULES for w in (r.long_minutes, r.short_minutes)})
    labels = {"slo": slo.name}
    rules: list[dict[str, Any]] = [
        {
            "record": f"{RECORD}{_span(minutes)}",
            "expr": f"{_bad(slo, 'rate', minutes)} / {_all(slo, minutes)}",
            "labels": labels,
        }
        for minutes in windows
    ]
    # Rounded, or 1 - 0.999 would be written with sixteen digits of noise.
    budget = round(1 - slo.objective / 100, 12)
    for rule in BURN_RULES:
        limit = f"{round(rule.burn * budget, 12):.12g}"
        chosen = f"{{slo={_quoted(slo.name)}}}"
        parts = [
            f"{RECORD}{_span(minutes)}{chosen} > {limit}"
            for minutes in (rule.long_minutes, rule.short_minutes)
        ]
        errors = _bad(slo, "increase", rule.short_minutes)
        parts.append(f"on (model, version, variant) ({errors} >= {errors_min})")
        rules.append(
            {
                "alert": "RouterSloBurn",
                "expr": " and ".join(parts),
                "labels": {**labels, "severity": rule.severity,
                           "window": _span(rule.long_minutes)},
                "annotations": {
                    "summary": f"{{{{ $labels.model }}}} {{{{ $labels.variant }}}}: the"
                    f" budget of {slo.name} burns more than {rule.burn:g} times too"
                    f" fast over {_span(rule.long_minutes)}",
                },
            }
        )  # fmt: skip
    return rules


def _bad(slo: Slo, function: str, minutes: int) -> str:
    model, span = f"model={_quoted(slo.model)}", _span(minutes)
    if slo.latency is None:
        chosen = f'{model},code=~"{"|".join(BAD_CODES)}"'
        return _sum(f"{function}(router_requests_total{{{chosen}}}[{span}])")
    name = "router_request_duration_seconds"
    edge = edge_text(edge_of(slo.latency))
    every = _sum(f"{function}({name}_count{{{model}}}[{span}])")
    good = _sum(f'{function}({name}_bucket{{{model},le="{edge}"}}[{span}])')
    return f"({every} - {good})"


def _all(slo: Slo, minutes: int) -> str:
    model, span = f"model={_quoted(slo.model)}", _span(minutes)
    if slo.latency is None:
        codes = "|".join(("OK", *BAD_CODES))
        return _sum(f'rate(router_requests_total{{{model},code=~"{codes}"}}[{span}])')
    return _sum(f"rate(router_request_duration_seconds_count{{{model}}}[{span}])")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _sum(text: str) -> str:
    return f"sum by (model, version, variant) ({text})"


def _span(minutes: int) -> str:
    for size, unit in ((24 * 60, "d"), (60, "h")):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
