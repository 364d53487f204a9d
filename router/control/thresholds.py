"""What counts as slow in the next tick: the baseline's own quantiles, just now.

Latency is tested by how often units wait longer than the baseline's p90, p99 or p99.9
of the minute before. The bound is fixed before the data it judges, lies on a bucket
edge so that counting is exact, and is higher for the candidate by the margin that the
criterion allows. A fixed limit (an SLO) is the same for both.
"""

import math
from collections.abc import Mapping, Sequence

from router.analysis.exceedance import thresholds
from router.analysis.quantile import Histogram
from router.config.steps import Criterion
from router.control.bets import slots_of
from router.control.gates import QUANTILES, name_of, seconds_of, share_of, tests_of
from router.plan.rollout import ScopeState, Spec

EDGES_PER_OCTAVE = 32
FIRST, LAST = -640, 223
# Scope, attempt, version, ordinal, and three indices of histogram buckets.
Limit = tuple[str, int, int, int, Sequence[int | None]]


def limits_of(spec: Spec, state: ScopeState, baseline: Histogram) -> tuple[Limit, ...]:
    """The thresholds of a scope's variants, given the baseline's latest latency."""
    slots = slots_of(spec)
    ours: list[int | None] = [None, None, None]
    theirs: list[int | None] = [None, None, None]
    for name, criterion in _by_name(spec).items():
        if name in slots:
            ours[slots[name]], theirs[slots[name]] = _pair(criterion, baseline)
    attempt = state.attempt
    return (
        (spec.scope, attempt, spec.stable, 0, ours),
        (spec.scope, attempt, spec.stable, 1, ours),
        *((spec.scope, attempt, version, 0, theirs) for version in spec.candidates),
    )


def index_of(seconds: float) -> int:
    """The bucket whose upper edge is the first at or above a time."""
    index = math.ceil(math.log2(seconds) * EDGES_PER_OCTAVE - 1e-9)
    return min(max(index, FIRST), LAST)


def _by_name(spec: Spec) -> Mapping[str, Criterion]:
    return {name_of(criterion): criterion for criterion, _, _ in tests_of(spec)}


def _pair(criterion: Criterion, baseline: Histogram) -> tuple[int | None, int | None]:
    """The threshold of stable and the candidate's; none while nothing is known."""
    if criterion.metric == "slo_exceedance":
        assert criterion.threshold_ms is not None
        limit = index_of(criterion.threshold_ms / 1e3)
        return limit, limit
    assert criterion.worse_by is not None
    is_relative = criterion.worse_by.unit in ("%", "pp", "")
    margin = share_of(criterion.worse_by) if is_relative else 0.0
    pair = thresholds(baseline, QUANTILES[criterion.metric], margin)
    if pair is None:
        return None, None
    ours, theirs = pair
    if not is_relative:
        theirs = ours + seconds_of(criterion.worse_by)
    return index_of(ours), index_of(theirs)
