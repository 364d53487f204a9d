"""From snapshots to evidence: what has to be remembered between two ticks.

`Observer` owns, for each attempt of a scope, the totals at its start, the last minute,
the units seen and the tests. It decides nothing. What it holds can be saved and taken
up again (`save`, `restore`), so that a restart of the process neither forgets nor
counts twice: the engine begins at nothing then, which shows as counters that went down.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from router.analysis.aipw import EffectState
from router.analysis.binary import OutcomeBet
from router.analysis.labelbet import LabelBet
from router.analysis.margin import MarginBet
from router.analysis.srm import SplitBet, judge_srm, step_split_bet
from router.control.bets import add_units, start_bets, step_bets
from router.control.effects import Effects, step_effects
from router.control.evidence import Bet, Evidence, ShadowCounts, UnitCounts
from router.control.strata import (
    CountKey,
    Counts,
    Stratum,
    StratumKey,
    increments,
    keep_strata,
    latency_of,
    of_scope,
    read_baselines,
    read_firsts,
    splits_of,
    strata_of,
)
from router.control.thresholds import Limit, limits_of
from router.control.traffic import NONE, Key, Totals, Window, read_traffic, traffic_of
from router.plan.plan import Plan
from router.plan.rollout import ScopeState, Spec

SRM_ALPHA = 0.001
TICK_S = 1.0  # of the tests: their windows are fixed, however often somebody looks
BASELINE_S = 60.0  # thresholds come from this much of the baseline's latency
BASELINE_POINTS_MAX = 128
SAVE_FORMAT = 1
Buckets = tuple[tuple[int, int], ...]
_BETS: dict[str, type[LabelBet] | type[MarginBet] | type[OutcomeBet]] = {
    "LabelBet": LabelBet, "MarginBet": MarginBet, "OutcomeBet": OutcomeBet,
}  # fmt: skip


@dataclass(slots=True)
class Attempt:
    """What is remembered of one attempt of a scope."""

    number: int
    base: dict[int, Totals] = field(
        default_factory=dict
    )  # engine's totals at its start
    kept: dict[int, Totals] = field(default_factory=dict)  # of an earlier process
    windows: dict[int, Window] = field(default_factory=dict)
    units: dict[tuple[int, str], UnitCounts] = field(default_factory=dict)
    bets: dict[str, Bet] = field(default_factory=dict)
    shadow_base: dict[int, ShadowCounts] = field(default_factory=dict)
    effects: Effects = field(default_factory=dict)
    split: SplitBet = field(default_factory=SplitBet)
    baselines: deque[tuple[float, Buckets]] = field(default_factory=deque)
    served_at_s: float = 0.0  # when a candidate last had a request
    traffic: dict[int, Totals] = field(default_factory=dict)


class Observer:
    """Owner of what is remembered between ticks; one thread uses it."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._strata: dict[StratumKey, Stratum] = {}
        self._firsts: dict[CountKey, Counts] = {}
        self._stepped_at_s = float("-inf")

    def learn(self, plan: Plan) -> None:
        """A plan was published: know its strata."""
        self._strata = keep_strata(self._strata, strata_of(plan))

    def observe(
        self,
        snapshot: Mapping[str, Any],
        scopes: Sequence[tuple[Spec, ScopeState]],
        now_s: float,
    ) -> dict[str, Evidence]:
        """The evidence of each scope at `now_s` (monotonic seconds)."""
        traffic = read_traffic(snapshot)
        is_tick = now_s - self._stepped_at_s >= TICK_S
        grown: dict[CountKey, Counts] = {}
        baselines = {}
        if is_tick:
            baselines = read_baselines(snapshot)
            self._stepped_at_s = now_s
            firsts = read_firsts(snapshot)
            grown = increments(self._firsts, firsts)
            self._firsts = firsts
        known = {spec.scope for spec, _ in scopes}
        self._attempts = {k: v for k, v in self._attempts.items() if k in known}
        found = {}
        for spec, state in scopes:
            attempt = self._attempt(spec, state, snapshot, traffic, now_s)
            if is_tick and state.is_begun:
                mine = tuple(of_scope(grown, self._strata, spec.scope))
                attempt.units = add_units(spec, attempt.units, mine)
                attempt.bets = step_bets(spec, attempt.bets, mine)
                attempt.effects = step_effects(spec, attempt.effects, mine)
                attempt.split = step_split_bet(attempt.split, *splits_of(mine))
                self._baseline(
                    attempt, baselines.get((spec.scope, state.attempt)), now_s
                )
            found[spec.scope] = self._evidence(
                (spec, state), attempt, snapshot, traffic, now_s
            )
        return found

    def limits(self, scopes: Sequence[tuple[Spec, ScopeState]]) -> list[Limit]:
        """What counts as slow in the next tick, for every scope that is measured."""
        found: list[Limit] = []
        for spec, state in scopes:
            attempt = self._attempts.get(spec.scope)
            if attempt is None or attempt.number != state.attempt or not state.maps:
                continue
            points = attempt.baselines
            recent = (
                latency_of(points[-1][1], points[0][1]) if points else latency_of(())
            )
            found += limits_of(spec, state, recent)
        return found

    @staticmethod
    def _baseline(attempt: Attempt, buckets: Buckets | None, now_s: float) -> None:
        points = attempt.baselines
        if not points:
            points.append((now_s, ()))
        if buckets is not None:
            points.append((now_s, buckets))
        while len(points) > 2 and (
            points[1][0] <= now_s - BASELINE_S or len(points) > BASELINE_POINTS_MAX
        ):
            points.popleft()

    def save(self) -> str:
        """Everything that a later process needs, as text."""
        return json.dumps(
            {
                "format": SAVE_FORMAT,
                "firsts": [
                    [asdict(key), list(counts)] for key, counts in self._firsts.items()
                ],
                "attempts": {name: _dump(one) for name, one in self._attempts.items()},
            }
        )

    def restore(self, text: str) -> None:
        """Take up what an earlier process saved; ValueError when it cannot be read."""
        try:
            stored = json.loads(text)
            if stored["format"] != SAVE_FORMAT:
                raise ValueError(f"format {stored['format']}")
            firsts = {
                CountKey(**{**key, "stratum": StratumKey(**key["stratum"])}): tuple(
                    counts
                )
                for key, counts in stored["firsts"]
            }
            self._attempts = {
                name: _load(one) for name, one in stored["attempts"].items()
            }
            self._firsts = firsts
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not saved evidence: {type(error).__name__}") from error

    def _attempt(
        self,
        spec: Spec,
        state: ScopeState,
        snapshot: Mapping[str, Any],
        traffic: Mapping[Key, Totals],
        now_s: float,
    ) -> Attempt:
        attempt = self._attempts.get(spec.scope)
        if attempt is None or attempt.number != state.attempt:
            versions = (*spec.candidates, spec.stable)
            attempt = Attempt(
                state.attempt,
                base={v: traffic.get((spec.model, v), NONE) for v in versions},
                shadow_base=_read_shadows(snapshot, spec),
                served_at_s=now_s,
            )
            self._attempts[spec.scope] = attempt
        wanted = start_bets(spec)
        if attempt.bets.keys() != wanted.keys():
            # A guardrail that was added starts now; one that stayed keeps its wealth.
            attempt.bets = {
                key: attempt.bets.get(key, bet) for key, bet in wanted.items()
            }
        return attempt

    def _evidence(
        self,
        scope: tuple[Spec, ScopeState],
        attempt: Attempt,
        snapshot: Mapping[str, Any],
        traffic: Mapping[Key, Totals],
        now_s: float,
    ) -> Evidence:
        spec, state = scope
        by_version = {}
        for version in (*spec.candidates, spec.stable):
            now = traffic.get((spec.model, version), NONE)
            base = attempt.base.get(version, NONE)
            if now.numbers[0] < base.numbers[0]:
                attempt.base[version] = base = NONE  # the engine began again
            totals = now.minus(base).plus(attempt.kept.get(version, NONE))
            window = attempt.windows.setdefault(version, Window())
            window.add(now_s, totals)
            attempt.traffic[version] = totals
            by_version[version] = traffic_of(totals, window)
        candidates = {version: by_version[version] for version in spec.candidates}
        is_served = any(one.rate > 0 for one in candidates.values())
        if is_served or by_version[spec.stable].rate == 0 or not awaits_traffic(state):
            attempt.served_at_s = now_s
        return Evidence(
            age_s=0.0,
            candidates=candidates,
            stable=by_version[spec.stable],
            units=dict(attempt.units),
            bets=dict(attempt.bets),
            effects=dict(attempt.effects),
            saturated=_read_saturated(snapshot, spec.scope),
            shadows=_minus(_read_shadows(snapshot, spec), attempt.shadow_base),
            srm=judge_srm(attempt.split, SRM_ALPHA),
            breakers=_read_breakers(snapshot, spec),
            idle_s=now_s - attempt.served_at_s,
        )


def _read_breakers(snapshot: Mapping[str, Any], spec: Spec) -> frozenset[int]:
    return frozenset(
        version["version"]
        for version in snapshot.get("versions", ())
        if version["model"] == spec.model
        and version["version"] in spec.candidates
        and version["breaker"] == "open"
    )


def _read_saturated(snapshot: Mapping[str, Any], scope: str) -> frozenset[str]:
    """The metrics whose filter is too full to tell units apart."""
    metrics = {"error": "error_rate", "invalid": "invalid_rate",
               "fallback": "fallback_rate", "over_p90": "latency_p90",
               "over_p99": "latency_p99", "over_p999": "latency_p999"}  # fmt: skip
    return frozenset(
        metrics.get(one["kind"], one["kind"])
        for one in snapshot.get("filters", ())
        if one["scope"] == scope and one["is_saturated"]
    )


def _read_shadows(snapshot: Mapping[str, Any], spec: Spec) -> dict[int, ShadowCounts]:
    found: dict[int, ShadowCounts] = {}
    for one in snapshot.get("shadows", ()):
        # With several candidates each has a shadow of its own, `scope#version`.
        if one["model"] == spec.model and one["shadow"].split("#")[0] == spec.scope:
            noise = one["noise"]
            found[one["version"]] = ShadowCounts(
                pairs=one["pairs"],
                disagreements=one["disagreements"],
                failed=one["failed"],
                mismatched=one["mismatched"],
                dropped=sum(one["dropped"].values()),
                noise_pairs=noise["pairs"],
                noise_disagreements=noise["disagreements"],
            )
    return found


def _minus(
    now: Mapping[int, ShadowCounts], base: Mapping[int, ShadowCounts]
) -> dict[int, ShadowCounts]:
    left = {}
    for version, counts in now.items():
        before = base.get(version, ShadowCounts())
        if counts.pairs < before.pairs:
            before = ShadowCounts()
        left[version] = ShadowCounts(
            *(
                getattr(counts, name) - getattr(before, name)
                for name in ShadowCounts.__slots__
            )
        )
    return left


def _dump(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "split": attempt.split.as_dict(),
        "totals": {str(v): asdict(one) for v, one in attempt.traffic.items()},
        "units": [[v, within, asdict(c)] for (v, within), c in attempt.units.items()],
        "bets": {
            key: [type(bet).__name__, bet.as_dict()]
            for key, bet in attempt.bets.items()
        },
        "effects": [[v, w, one.as_dict()] for (v, w), one in attempt.effects.items()],
    }


def _load(stored: Mapping[str, Any]) -> Attempt:
    def totals(one: Mapping[str, Any]) -> Totals:
        latency = tuple((int(i), int(n)) for i, n in one["latency"])
        return Totals(tuple(one["numbers"]), latency, int(one["memory_bytes"]))

    kept = {int(v): totals(one) for v, one in stored["totals"].items()}
    return Attempt(
        number=int(stored["number"]),
        split=SplitBet.from_dict(stored["split"]),
        base=dict.fromkeys(kept, NONE),
        kept=kept,
        units={
            (int(v), str(within)): UnitCounts(**counts)
            for v, within, counts in stored["units"]
        },
        bets={
            key: _BETS[kind].from_dict(bet)
            for key, (kind, bet) in stored["bets"].items()
        },
        effects={
            (int(v), str(within)): EffectState.from_dict(one)
            for v, within, one in stored.get("effects", ())
        },
    )


def silent(evidence: Evidence, state: ScopeState, spec: Spec) -> bool:
    """Whether candidates that should have traffic have had none for too long."""
    return awaits_traffic(state) and evidence.idle_s > spec.silence_s


def awaits_traffic(state: ScopeState) -> bool:
    """Whether candidates have a share, so that requests should come."""
    is_out = state.is_off or state.is_retired or not state.maps
    return any(state.weights_bp.values()) and not is_out
