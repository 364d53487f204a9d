"""Which counters of a snapshot belong to which comparison, with which propensity.

A stratum is one rule under one bucket map: (model, rule, rollout_revision). Within it a
unit was given to a variant with a known chance, the share of buckets. The chances of
old strata are kept for a while, because calls that began under an old table end under
it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.analysis.quantile import Histogram, latency_edges
from router.analysis.srm import Split
from router.plan.plan import Plan

STRATA_MAX = 4_096
LATENCY_EDGES = latency_edges()
_FIRST_EDGE = -640
COUNTED = ("exposure", "error", "invalid", "fallback", "over_p90", "over_p99",
           "over_p999")  # fmt: skip


@dataclass(frozen=True, slots=True)
class StratumKey:
    """A rule under one bucket map."""

    model: str
    rule: str
    revision: int


@dataclass(frozen=True, slots=True)
class Stratum:
    """What is known of it: whose it is, and the basis points of each variant."""

    scope: str
    within: str  # the slice, or ""
    stable: int  # version
    shares: Mapping[tuple[int, int], int]  # (version, ordinal) to basis points

    def rho(self, version: int, *, baseline_only: bool) -> float:
        """The chance that a unit went to the candidate rather than to stable."""
        candidate = self.shares.get((version, 0), 0)
        other = self.shares.get((self.stable, 1), 0)
        if not baseline_only:
            other += self.shares.get((self.stable, 0), 0)
        return candidate / (candidate + other) if candidate + other else 0.0


def strata_of(plan: Plan) -> dict[StratumKey, Stratum]:
    """The strata that a plan makes: its rollout rules."""
    found = {}
    for model in plan.models:
        stable = model.variants[model.stable].version
        for rule in model.rules:
            if not rule.scope or rule.buckets is None:
                continue
            # A disabled variant's buckets are stable's by no deal of chance: the engine
            # counts nobody for them, so they are in nobody's share.
            shares = [
                0 if variant.is_disabled else rule.buckets.count(at)
                for at, variant in enumerate(model.variants)
            ]
            found[StratumKey(model.name, rule.name, rule.rollout_revision)] = Stratum(
                scope=rule.scope,
                within=rule.name.partition("@")[2],
                stable=stable,
                shares={
                    (variant.version, variant.ordinal): share
                    for variant, share in zip(model.variants, shares, strict=True)
                    if share
                },
            )
    return found


@dataclass(frozen=True, slots=True)
class CountKey:
    """One series of first events: a variant in a stratum, sticky units or requests."""

    stratum: StratumKey
    version: int
    ordinal: int
    is_sticky: bool


Counts = tuple[int, ...]  # in the order of COUNTED


def read_firsts(snapshot: Mapping[str, Any]) -> dict[CountKey, Counts]:
    """The first events of a snapshot, as totals since the engine began."""
    found = {}
    for entry in snapshot.get("firsts", ()):
        key = StratumKey(entry["model"], entry["rule"], entry["rollout_revision"])
        for name, is_sticky in (("sticky", True), ("other", False)):
            counts = tuple(int(entry[name].get(kind, 0)) for kind in COUNTED)
            if any(counts):
                found[CountKey(key, entry["version"], entry["ordinal"], is_sticky)] = (
                    counts
                )
    return found


def read_baselines(
    snapshot: Mapping[str, Any],
) -> dict[tuple[str, int], tuple[tuple[int, int], ...]]:
    """The latency of baseline slices, by scope and attempt: (bucket, count)."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for entry in snapshot.get("firsts", ()):
        if entry["ordinal"] == 1:
            counts = found.setdefault((entry["scope"], entry["attempt"]), {})
            for index, count in entry["latency"]["buckets"]:
                counts[int(index)] = counts.get(int(index), 0) + int(count)
    return {key: tuple(sorted(counts.items())) for key, counts in found.items()}


def latency_of(
    after: Iterable[tuple[int, int]], before: Iterable[tuple[int, int]] = ()
) -> Histogram:
    """A histogram of what was added between two readings, edges in seconds."""
    old = dict(before)
    counts = [0] * (len(LATENCY_EDGES) + 1)
    for index, count in after:
        at = min(index - _FIRST_EDGE, len(LATENCY_EDGES))
        counts[at] += max(0, count - old.get(index, 0))
    return Histogram(LATENCY_EDGES, tuple(counts))


def splits_of(
    grown: Iterable[tuple["CountKey", Stratum, "Counts"]],
) -> tuple[Split, ...]:
    """Units that were first seen in a tick, by stratum, beside the planned shares."""
    at = COUNTED.index("exposure")
    seen: dict[tuple[StratumKey, bool], dict[tuple[int, int], int]] = {}
    shares: dict[StratumKey, Mapping[tuple[int, int], int]] = {}
    for key, stratum, counts in grown:
        shares[key.stratum] = stratum.shares
        mine = seen.setdefault((key.stratum, key.is_sticky), {})
        mine[key.version, key.ordinal] = counts[at]
    found = []
    for (stratum_key, is_sticky), mine in seen.items():
        planned = shares[stratum_key]
        total = sum(planned.values())
        if len(planned) > 1 and set(mine) <= set(planned) and any(mine.values()):
            # A variant that is taken out leaves other shares under the same revision.
            who = ", ".join(f"{version}.{ordinal}" for version, ordinal in planned)
            name = f"{stratum_key.rule}#{stratum_key.revision} ({who})"
            found.append(
                Split(
                    name if is_sticky else f"{name} without a unit",
                    tuple(share / total for share in planned.values()),
                    tuple(mine.get(one, 0) for one in planned),
                )
            )
    return tuple(found)


def increments(
    before: Mapping[CountKey, Counts], after: Mapping[CountKey, Counts]
) -> dict[CountKey, Counts]:
    """What was added; a counter that went down began again from nothing."""
    grown = {}
    for key, counts in after.items():
        old = before.get(key, (0,) * len(counts))
        if any(new < was for new, was in zip(counts, old, strict=True)):
            old = (0,) * len(counts)
        more = tuple(new - was for new, was in zip(counts, old, strict=True))
        if any(more):
            grown[key] = more
    return grown


def keep_strata(
    known: Mapping[StratumKey, Stratum], more: Mapping[StratumKey, Stratum]
) -> dict[StratumKey, Stratum]:
    """All strata still worth knowing, the newest last."""
    merged = {**{k: v for k, v in known.items() if k not in more}, **more}
    return dict(list(merged.items())[-STRATA_MAX:])


def of_scope(
    grown: Mapping[CountKey, Counts], strata: Mapping[StratumKey, Stratum], scope: str
) -> Iterable[tuple[CountKey, Stratum, Counts]]:
    """What was added in the strata of one scope."""
    for key, counts in grown.items():
        stratum = strata.get(key.stratum)
        if stratum is not None and stratum.scope == scope:
            yield key, stratum, counts
