"""From evidence to verdicts: one judge for each kind of criterion.

Pure. A criterion compared with stable (`worse_by`) is a sequential test on units; an
absolute one (`max`, `min`) is judged by an interval and never by a point estimate. No
data is inconclusive. One alpha is spread over everything that can end a rollout.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.analysis.ceiling import (
    Ceiling,
    QuantileCeiling,
    judge_ceiling,
    judge_quantile,
)
from router.analysis.exceedance import judge_exceedance
from router.analysis.guardrail import Soak, Units, judge_error_rate
from router.analysis.labelbet import LabelBet
from router.analysis.noninferiority import judge_noninferior
from router.analysis.pairs import Pairs, judge_disagreement
from router.analysis.slices import judge_slices
from router.analysis.verdict import Verdict
from router.config.steps import Amount, Criterion
from router.control.evidence import (
    Bet,
    Evidence,
    ShadowCounts,
    Traffic,
    bet_key,
)
from router.plan.rollout import (
    BakeStep,
    ScopeState,
    ShadowStep,
    Spec,
    WeightStep,
)

QUANTILES = {
    "latency_p50": 0.5, "latency_p90": 0.9, "latency_p99": 0.99, "latency_p999": 0.999,
}  # fmt: skip
EVENTS = {
    "error_rate": "failures", "invalid_rate": "invalid", "fallback_rate": "fallbacks",
}  # fmt: skip
RESOURCES = ("cpu_per_request", "memory", "score_mean")
# What the engine measures; every other metric is told by feedback.
MEASURED = frozenset({*EVENTS, *QUANTILES, *RESOURCES, "slo_exceedance"})

# Circuit breakers, not statistics: this many failures in a minute, this often, and this
# much more often than stable, and nobody waits for a test.
HARD_FAILURES = 20
HARD_SHARE = 0.05
HARD_RATIO = 5.0
# A candidate with few failures passes a step when its rate is surely below this, or
# below three times stable's where stable itself fails more often.
CEILING = 0.05
CEILING_RATIO = 3.0
EXTERNAL_AGE_MAX_S = 120.0
ALPHA_SHADOW = 0.05  # nobody is exposed to a shadow
ANY_RATE = Soak(units_min=1, ceiling=1.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """A criterion, what it came to, and what that would lead to."""

    name: str
    role: str  # "guardrail", "gate", "limit" or "sample ratio"
    version: int
    verdict: Verdict
    action: str
    is_dry_run: bool = False
    within: str = ""  # a slice

    def as_dict(self) -> dict[str, Any]:
        """The judgement as it is stored."""
        return {
            "criterion": self.name, "role": self.role, "version": self.version,
            "action": self.action, "dry_run": self.is_dry_run, "slice": self.within,
            **self.verdict.as_dict(),
        }  # fmt: skip


def judge_scope(
    spec: Spec, state: ScopeState, evidence: Evidence
) -> tuple[Judged, ...]:
    """Every criterion of a scope that applies at its present step."""
    return (
        *_limits(spec, evidence),
        *_guardrails(spec, evidence),
        *_gates(spec, state, evidence),
        *_sample_ratio(evidence),
    )


def alpha_of(spec: Spec) -> float:
    """What one test may spend: the rollout's alpha, spread over all it has.

    All slices of a criterion are one test: e-BH over them keeps its part.
    """
    tests = {
        (name_of(criterion), version, bool(within))
        for criterion, version, within in tests_of(spec)
    }
    return spec.alpha / max(1, len(tests))


def tests_of(spec: Spec) -> Iterator[tuple[Criterion, int, str]]:
    """Everything tested against stable: criterion, candidate, slice."""
    seen: set[str] = set()
    gates = [
        gate
        for step in spec.steps
        if isinstance(step, WeightStep | BakeStep)
        for gate in step.gates
    ]
    for criterion in (*spec.guardrails, *gates):
        name = name_of(criterion)
        if name in seen or criterion.worse_by is None:
            continue
        seen.add(name)
        for version in spec.candidates:
            for within in ("", *spec.slices):
                yield criterion, version, within


def name_of(criterion: Criterion) -> str:
    """How a criterion is called: its name, else its metric and how it is compared."""
    if criterion.name is not None:
        return criterion.name
    if criterion.metric == "slo_exceedance":
        return f"slower than {criterion.threshold_ms:g} ms"
    return criterion.metric


def _limits(spec: Spec, evidence: Evidence) -> Iterator[Judged]:
    for version in spec.candidates:
        verdict = judge_limits(
            evidence.candidates.get(version, Traffic()),
            evidence.stable,
            is_open=version in evidence.breakers,
        )
        yield Judged("circuit breaker", "limit", version, verdict, "rollback")


def judge_limits(candidate: Traffic, stable: Traffic, *, is_open: bool) -> Verdict:
    """Say whether a candidate fails so plainly that no test is waited for."""
    failed, of = candidate.recent_failures, candidate.recent_requests
    share = failed / of if of else 0.0
    usual = (
        stable.recent_failures / stable.recent_requests
        if stable.recent_requests
        else 0.0
    )
    numbers = {"failures": failed, "requests": of, "stable_share": usual}
    if is_open:
        reason = f"the breaker is open: {failed} of {of} requests failed in a minute."
        return Verdict("fail", reason, numbers)
    if failed >= HARD_FAILURES and share >= HARD_SHARE and share >= HARD_RATIO * usual:
        reason = f"{failed} of {of} requests failed within a minute."
        return Verdict("fail", reason, numbers)
    if not of:
        return Verdict("inconclusive", "no request in the last minute.", numbers)
    return Verdict("pass", f"{failed} of {of} failed in the last minute.", numbers)


def _guardrails(spec: Spec, evidence: Evidence) -> Iterator[Judged]:
    for criterion in spec.guardrails:
        yield from _judge(criterion, "guardrail", spec, evidence)


def _gates(spec: Spec, state: ScopeState, evidence: Evidence) -> Iterator[Judged]:
    if state.step >= len(spec.steps):
        return
    step = spec.steps[state.step]
    if isinstance(step, ShadowStep | WeightStep | BakeStep):
        for criterion in step.gates:
            yield from _judge(criterion, "gate", spec, evidence)


def _sample_ratio(evidence: Evidence) -> Iterator[Judged]:
    at_labels = evidence.labels.get("srm")
    for name, verdict in (
        ("sample ratio", evidence.srm), ("sample ratio of labels", at_labels)
    ):  # fmt: skip
        if verdict is not None:
            yield Judged(name, "sample ratio", 0, verdict, "hold")


def _judge(
    criterion: Criterion, role: str, spec: Spec, evidence: Evidence
) -> Iterator[Judged]:
    for version in spec.candidates:
        judged = [("", judge_criterion(criterion, version, "", spec, evidence))]
        if criterion.worse_by is not None and spec.slices:
            judged += _judge_within(criterion, version, spec, evidence)
        for within, verdict in judged:
            yield Judged(
                name_of(criterion), role, version, verdict, criterion.action,
                criterion.dry_run, within,
            )  # fmt: skip


def _judge_within(
    criterion: Criterion, version: int, spec: Spec, evidence: Evidence
) -> list[tuple[str, Verdict]]:
    """The slices: those with a gambler together, by e-BH; others each by itself."""
    name = name_of(criterion)
    part = criterion.metric.removeprefix("latency_")
    part = part if criterion.metric in QUANTILES else ""
    bets = {
        within: bet
        for within in spec.slices
        if (bet := evidence.bets.get(bet_key(name, version, part, within)))
    }
    if bets and criterion.metric not in evidence.saturated:
        return [(", ".join(bets), judge_slices(bets, alpha_of(spec), name))]
    return [
        (within, judge_criterion(criterion, version, within, spec, evidence))
        for within in spec.slices
    ]


def judge_criterion(
    criterion: Criterion, version: int, within: str, spec: Spec, evidence: Evidence
) -> Verdict:
    """One criterion about one candidate, perhaps within one slice."""
    name = name_of(criterion)
    if criterion.prometheus is not None or criterion.webhook is not None:
        return _judge_external(criterion, evidence)
    if criterion.metric == "disagreement":
        return _judge_shadow(criterion, version, evidence)
    if criterion.metric not in MEASURED:
        missing = Verdict("inconclusive", f"{name}: no feedback yet.")
        return evidence.labels.get(bet_key(name, version, within=within), missing)
    candidate = evidence.candidates.get(version, Traffic())
    if candidate.requests < criterion.min_samples:
        reason = (
            f"{name}: {candidate.requests} requests of version {version},"
            f" {criterion.min_samples} are wanted."
        )
        return Verdict("inconclusive", reason, {"requests": candidate.requests})
    if criterion.worse_by is not None:
        return _judge_compared(criterion, version, within, spec, evidence)
    return _judge_absolute(criterion, candidate, alpha_of(spec))


def _judge_compared(
    criterion: Criterion, version: int, within: str, spec: Spec, evidence: Evidence
) -> Verdict:
    name, alpha = name_of(criterion), alpha_of(spec)
    if criterion.metric in evidence.saturated:
        return Verdict("inconclusive", f"{name}: more units than can be told apart.")
    if criterion.metric in RESOURCES:
        return _judge_resource(criterion, evidence.candidates[version], evidence.stable)
    units = evidence.units.get((version, within))
    if units is None:
        return Verdict("inconclusive", f"{name}: no unit was seen yet.")
    if criterion.metric in QUANTILES:
        part = criterion.metric.removeprefix("latency_")
        bet = evidence.bets.get(bet_key(name, version, part, within))
        bets = {part: bet} if isinstance(bet, LabelBet) else {}
        compared = _seen(units.candidate, units.baseline, tuple(bets.values()))
        return judge_exceedance(bets, compared, alpha, 1, name)
    bet = evidence.bets.get(bet_key(name, version, within=within))
    if bet is None:
        return Verdict("inconclusive", f"{name}: no event could be compared yet.")
    compared = _seen(units.candidate, units.stable + units.baseline, (bet,))
    if isinstance(bet, LabelBet) and bet.claim == "no worse":
        return judge_noninferior(bet, compared, alpha, name)
    verdict = judge_error_rate(bet, compared, alpha, ANY_RATE, name)
    if verdict.verdict != "pass":
        return verdict
    return _under_ceiling(criterion, verdict, evidence.candidates[version], evidence)


def _seen(candidate: int, other: int, bets: Sequence[Bet]) -> Units:
    """Units of both sides, at least as many as had the event.

    A unit is counted where it was first seen: one that came from stable may err, or
    wait too long, here for the first time.
    """
    return Units(
        max([candidate, *(math.ceil(bet.events_candidate) for bet in bets)]),
        max([other, *(math.ceil(bet.events_baseline) for bet in bets)]),
    )


def _under_ceiling(
    criterion: Criterion, verdict: Verdict, candidate: Traffic, evidence: Evidence
) -> Verdict:
    """Not shown to be worse, and surely not bad by itself: that passes a step."""
    stable, events = evidence.stable, EVENTS.get(criterion.metric)
    if events is None:
        return verdict
    usual = getattr(stable, events) / stable.requests if stable.requests else 0.0
    limit = min(0.999, max(CEILING, CEILING_RATIO * usual))
    if criterion.max is not None:
        limit = share_of(criterion.max)
    ceiling = Ceiling(limit, criterion.min_samples)
    known = judge_ceiling(
        getattr(candidate, events),
        candidate.requests,
        ceiling,
        0.05,
        name_of(criterion),
    )
    numbers = {**verdict.numbers, **known.numbers}
    if known.verdict == "pass":
        return Verdict("pass", f"no sign of harm; {known.reason}", numbers)
    is_limit = criterion.max is not None and known.verdict == "fail"
    return Verdict("fail" if is_limit else "inconclusive", known.reason, numbers)


def _judge_absolute(criterion: Criterion, candidate: Traffic, alpha: float) -> Verdict:
    name = name_of(criterion)
    if criterion.metric in EVENTS and criterion.max is not None:
        ceiling = Ceiling(share_of(criterion.max), criterion.min_samples)
        events = getattr(candidate, EVENTS[criterion.metric])
        return judge_ceiling(events, candidate.requests, ceiling, alpha, name)
    if criterion.metric in QUANTILES and criterion.max is not None:
        if candidate.latency is None:
            return Verdict("inconclusive", f"{name}: not measured yet.")
        limit = QuantileCeiling(
            QUANTILES[criterion.metric],
            seconds_of(criterion.max),
            criterion.min_samples,
        )
        return judge_quantile(candidate.latency, limit, alpha, name)
    if criterion.metric == "slo_exceedance" and criterion.max is not None:
        return _judge_slo(criterion, candidate, alpha)
    assert criterion.metric in RESOURCES, "refused when the configuration was checked"
    return _judge_resource(criterion, candidate, Traffic())


def _judge_slo(criterion: Criterion, candidate: Traffic, alpha: float) -> Verdict:
    """A limit on how many are slow is one on a quantile: 1 % slower is the p99."""
    assert criterion.max is not None
    assert criterion.threshold_ms is not None
    share = share_of(criterion.max)
    if candidate.latency is None or not 0 < share < 1:
        return Verdict("inconclusive", f"{name_of(criterion)}: not measured yet.")
    limit = QuantileCeiling(
        1 - share, criterion.threshold_ms / 1e3, criterion.min_samples
    )
    return judge_quantile(candidate.latency, limit, alpha, name_of(criterion))


def _judge_resource(criterion: Criterion, own: Traffic, stable: Traffic) -> Verdict:
    """Processor time, memory and the mean score: measured, not sampled events."""
    name = name_of(criterion)
    value, usual = (
        {
            "cpu_per_request": one.cpu_us_per_request,
            "memory": float(one.memory_bytes),
            "score_mean": one.score_sum / one.score_count if one.score_count else 0.0,
        }.get(criterion.metric, 0.0)
        for one in (own, stable)
    )
    low = plain_of(criterion.min) if criterion.min is not None else float("-inf")
    high = plain_of(criterion.max) if criterion.max is not None else float("inf")
    if criterion.worse_by is not None:
        if not stable.requests or not usual:
            return Verdict("inconclusive", f"{name}: stable was not measured yet.")
        high = usual * (1 + share_of(criterion.worse_by))
    numbers = {"value": value, "low": low, "high": high, "stable": usual}
    said = f"{name}: {value:.6g}, allowed are {low:.6g} to {high:.6g}."
    return Verdict("pass" if low <= value <= high else "fail", said, numbers)


def _judge_external(criterion: Criterion, evidence: Evidence) -> Verdict:
    """What a query or webhook said; silence, age and nonsense never pass."""
    name = name_of(criterion)
    said = evidence.external.get(name)
    if said is None or said.age_s > max(EXTERNAL_AGE_MAX_S, 3 * criterion.every):
        return Verdict("inconclusive", f"{name}: no recent answer.")
    if said.verdict is not None:
        return Verdict(said.verdict, f"{name}: {said.reason or said.verdict}.")
    if said.value is None:
        return Verdict("inconclusive", f"{name}: {said.reason or 'an empty answer'}.")
    low = plain_of(criterion.min) if criterion.min is not None else float("-inf")
    high = plain_of(criterion.max) if criterion.max is not None else float("inf")
    numbers = {"value": said.value, "low": low, "high": high}
    answer = f"{name}: {said.value:g}, allowed are {low:g} to {high:g}."
    if said.value != said.value:
        return Verdict("inconclusive", f"{name}: not a number.", numbers)
    return Verdict("pass" if low <= said.value <= high else "fail", answer, numbers)


def _judge_shadow(criterion: Criterion, version: int, evidence: Evidence) -> Verdict:
    """How often a shadow disagrees, beyond what stable disagrees with itself."""
    counts, name = evidence.shadows.get(version, ShadowCounts()), name_of(criterion)
    if counts.pairs < criterion.min_samples:
        reason = f"{name}: {counts.pairs} pairs, {criterion.min_samples} are wanted."
        return Verdict("inconclusive", reason, {"pairs": counts.pairs})
    limit = share_of(criterion.max or criterion.worse_by or Amount(value=0.0))
    noise = (
        counts.noise_disagreements / counts.noise_pairs if counts.noise_pairs else 0.0
    )
    # Pairs that could not be compared are among the disagreements.
    pairs = Pairs(counts.pairs, counts.disagreements)
    verdict = judge_disagreement(
        pairs, min(1.0, limit + noise), ALPHA_SHADOW, criterion.min_samples
    )
    return replace(verdict, reason=f"{name}: {verdict.reason}")


def share_of(amount: Amount) -> float:
    """A share: 1 % is 0.01, and so are 1pp and the bare number 0.01."""
    return amount.value / 100 if amount.unit in ("%", "pp") else amount.value


def seconds_of(amount: Amount) -> float:
    """Seconds; a bare number is milliseconds."""
    return amount.value * {"us": 1e-6, "s": 1.0}.get(amount.unit, 1e-3)


def plain_of(amount: Amount) -> float:
    """The number in the unit it is measured in: bytes, microseconds, shares."""
    scale = {
        "%": 0.01, "pp": 0.01, "MiB": 2.0**20, "GiB": 2.0**30, "ms": 1e3, "s": 1e6,
    }.get(amount.unit, 1.0)  # fmt: skip
    return amount.value * scale
