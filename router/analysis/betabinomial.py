"""Bounds on one rate that hold at every look, from zero events on.

{p : ln B(a + k, b + n - k) - ln B(a, b) - k ln p - (n - k) ln(1 - p) < ln(1 / alpha)}

A mixture over all rates (Jeffreys, a = b = 1/2) bets against each p; the interval is
the p it could not ruin (Robbins 1970; Howard et al. 2021). Assumes independent outcomes
with one rate: units, not requests of sticky units, and not totals over a ramp in which
the rate moved. For comparing two variants use the bets.
"""

import math
from functools import lru_cache

JEFFREYS = 0.5
BISECTIONS = 100  # a double has no more than 2**-100 between two rates that matter


@lru_cache(maxsize=1024)  # asked several times a tick, about the same numbers
def rate_bounds(events: float, units: int, alpha: float) -> tuple[float, float]:
    """The lower and upper bound of a rate; (0, 1) when nothing was seen.

    Events may be fractions: for harm between 0 and 1 the bounds of its mean hold too,
    because a gambler gains least on average when harm is 0 or 1.
    """
    assert 0 <= events <= units
    assert 0 < alpha < 1
    if units == 0:
        return 0.0, 1.0
    bar = math.log(1 / alpha)
    return _lower(events, units, bar), 1 - _lower(units - events, units, bar)


def log_e_rate(events: float, units: int, rate: float) -> float:
    """ln E against the claim that the rate is exactly this one."""
    assert 0 < rate < 1
    misses = units - events
    return (
        log_beta(JEFFREYS + events, JEFFREYS + misses)
        - log_beta(JEFFREYS, JEFFREYS)
        - events * math.log(rate)
        - misses * math.log1p(-rate)
    )


def log_beta(a: float, b: float) -> float:
    """ln B(a, b)."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _lower(events: float, units: int, bar: float) -> float:
    """The rate below the estimate at which the evidence reaches the bar.

    Zero is refused for certain once there was an event, so the answer is in between;
    bisection is slow and cannot fail.
    """
    if events == 0:
        return 0.0
    refused, held = 0.0, events / units
    for _ in range(BISECTIONS):
        middle = (refused + held) / 2
        if log_e_rate(events, units, middle) >= bar:
            refused = middle
        else:
            held = middle
    return refused
