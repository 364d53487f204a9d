"""One alpha for a rollout, and what several tests at once may claim.

The chance of one false rollback is promised for the whole rollout: it is spread over
the guardrails once and never given again by a step, a restart of the process or a look.
Searching many slices for harm is a different promise, the share of false discoveries,
and e-BH keeps it whatever the slices have in common (Wang and Ramdas 2022).
"""

import math
from collections.abc import Mapping, Sequence

from router.errors import RouterError

ALPHA_ROLLBACK = 0.01  # at most one healthy candidate in a hundred is rolled back
ALPHA_PASS = 0.05
ALPHA_SRM = 0.001  # at 0.05 half of the alarms would be false where mismatches are rare
CALIBRATOR = 0.5


def spread_alpha(
    alpha: float, guardrails: Sequence[str], weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Each guardrail's part of the rollout's alpha; parts add up to the whole.

    Weights say how much a guardrail counts, one where nothing is said.
    """
    if not 0 < alpha < 1:
        raise RouterError(f"alpha must be between 0 and 1 (found {alpha})")
    if len(set(guardrails)) != len(guardrails):
        raise RouterError("a guardrail is named twice, so its alpha would count twice")
    weighed = {name: (weights or {}).get(name, 1.0) for name in guardrails}
    for name, weight in weighed.items():
        if not weight > 0:
            raise RouterError(f"guardrail '{name}': its weight must be above 0")
    unknown = set(weights or {}) - set(guardrails)
    if unknown:
        raise RouterError(f"weights for no guardrail: {', '.join(sorted(unknown))}")
    total = math.fsum(weighed.values())
    return {name: alpha * weight / total for name, weight in weighed.items()}


def e_bh(log_es: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    """The slices in which harm is claimed, strongest first, by their ln E.

    The k strongest, for the largest k at which the weakest of them has
    E >= K / (k alpha).
    """
    ranked = sorted(log_es, key=lambda name: (-log_es[name], name))
    found = 0
    for k, name in enumerate(ranked, start=1):
        if log_es[name] >= math.log(len(ranked) / (k * alpha)):
            found = k
    return tuple(ranked[:found])


def adjusted_p(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini-Hochberg: claim those at most alpha. For tests of one fixed window."""
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    adjusted, least = [0.0] * len(p_values), 1.0
    for rank, i in zip(range(len(p_values), 0, -1), ranked, strict=True):
        least = min(least, p_values[i] * len(p_values) / rank)
        adjusted[i] = least
    return tuple(adjusted)


def log_e_from_p(p_value: float) -> float:
    """ln of the e-value k p**(k - 1), k = 1/2: a p-value among e-values."""
    assert 0 < p_value <= 1
    return math.log(CALIBRATOR) + (CALIBRATOR - 1) * math.log(p_value)
