"""Does a model treat groups alike, and does a new version hurt one of them?

Disparities are read from counts per group. Small groups make the largest gap look
larger than it is, so groups below a minimum are named and left out, every rate has its
interval, and nothing alarms on an estimate: `judge_parity` fails only when two groups'
intervals exclude the rule. That a *new version* hurts a group is the guardrails' own
bet, run inside each group, with `alpha.e_bh` over groups.

True and false positive rates need labels, and labels often exist only for those who
were selected; the selection rate needs none.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

from router.analysis.betabinomial import rate_bounds
from router.analysis.quality import Confusion, ratio
from router.analysis.verdict import Number, Verdict, percent

FOUR_FIFTHS = 0.8  # the US agencies' rule of thumb for adverse impact
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Minimum:
    """How much data a group needs before anything is said about it."""

    decisions: int = 100
    positives: int = 30


@dataclass(frozen=True, slots=True)
class Disparity:
    """The gaps between groups, largest minus smallest or smallest over largest."""

    demographic_parity_difference: float
    demographic_parity_ratio: float
    equalized_odds_difference: float
    equalized_odds_ratio: float
    equal_opportunity_difference: float
    equal_opportunity_ratio: float
    groups: tuple[str, ...]
    insufficient: tuple[str, ...]  # too few decisions: in none of the gaps
    unlabelled: tuple[str, ...]  # too few positive labels: in parity alone


def disparity(
    groups: Mapping[str, Confusion], minimum: Minimum | None = None
) -> Disparity:
    """The gaps between the groups that have enough data; NaN with fewer than two."""
    minimum = minimum or Minimum()
    decided = {n: c for n, c in groups.items() if c.total >= minimum.decisions}
    labelled = {n: c for n, c in decided.items() if c.positive >= minimum.positives}
    selection = [counts.selection_rate for counts in decided.values()]
    found = [counts.recall for counts in labelled.values()]
    false = [counts.false_positive_rate for counts in labelled.values()]
    return Disparity(
        demographic_parity_difference=_gap(selection),
        demographic_parity_ratio=_quotient(selection),
        equalized_odds_difference=max(_gap(found), _gap(false)),
        equalized_odds_ratio=min(_quotient(found), _quotient(false)),
        equal_opportunity_difference=_gap(found),
        equal_opportunity_ratio=_quotient(found),
        groups=tuple(sorted(decided)),
        insufficient=tuple(sorted(set(groups) - set(decided))),
        unlabelled=tuple(sorted(set(decided) - set(labelled))),
    )


def wilson_bounds(events: int, units: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval of a rate, for one look at a report and not for a gate."""
    assert 0 <= events <= units
    if units == 0:
        return 0.0, 1.0
    share, spread = events / units, z * z / units
    middle = (share + spread / 2) / (1 + spread)
    root = math.sqrt(share * (1 - share) / units + spread / (4 * units))
    radius = z * root / (1 + spread)
    return max(0.0, middle - radius), min(1.0, middle + radius)


def judge_parity(
    groups: Mapping[str, Confusion],
    alpha: float,
    rule: float = FOUR_FIFTHS,
    minimum: Minimum | None = None,
    of: Callable[[Confusion], tuple[int, int]] = lambda c: (c.selected, c.total),
) -> Verdict:
    """Say whether a group's rate is surely below `rule` times another's.

    `of` says which events of how many a rate is: selection by default. Alpha is divided
    by the number of groups, so all intervals hold together, at every look.
    """
    minimum = minimum or Minimum()
    bounds = {}
    numbers: dict[str, Number] = {"alpha": alpha, "rule": rule}
    for name, counts in groups.items():
        events, units = of(counts)
        if units < minimum.decisions:
            continue
        bounds[name] = rate_bounds(events, units, alpha / len(groups))
        numbers[f"{name}_lower"], numbers[f"{name}_upper"] = bounds[name]
    if len(bounds) < 2:
        reason = f"Fewer than two groups have {minimum.decisions} decisions."
        return Verdict("inconclusive", reason, numbers)
    pairs = [(a, b) for one in combinations(bounds, 2) for a, b in (one, one[::-1])]
    low, high = min(pairs, key=lambda pair: _most(bounds[pair[0]], bounds[pair[1]]))
    most = _most(bounds[low], bounds[high])
    said = (
        f"{low} between {percent(bounds[low][0])} and {percent(bounds[low][1])}, "
        f"{high} between {percent(bounds[high][0])} and {percent(bounds[high][1])}"
    )
    if most < rule:
        reason = f"{low} is chosen at most {most:.3g} times as often: {said}."
        return Verdict("fail", reason, numbers)
    least = min(ratio(bounds[a][0], bounds[b][1]) for a, b in pairs)
    if least >= rule:
        reason = f"All are chosen at least {least:.3g} times as often as another."
        return Verdict("pass", reason, numbers)
    return Verdict("inconclusive", f"Not known yet: {said}.", numbers)


def _most(low: tuple[float, float], high: tuple[float, float]) -> float:
    """The largest ratio of two rates that their intervals allow."""
    return low[1] / high[0] if high[0] > 0 else math.inf


def _gap(rates: list[float]) -> float:
    return max(rates) - min(rates) if len(rates) > 1 else math.nan


def _quotient(rates: list[float]) -> float:
    return ratio(min(rates), max(rates)) if len(rates) > 1 else math.nan
