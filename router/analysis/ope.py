"""What would another policy have earned? Estimates from logged propensities.

The weight of a unit is the new policy's chance of what was done over the logged one.
Valid only where the logged chance was above zero wherever the new one is, and where it
was recorded when it was decided. Point estimates for reports; the effective sample size
says how much they are worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE_MIN = 100.0  # effective units below which an estimate is not worth printing


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """A policy's mean reward, three ways, and the units its weights are worth."""

    ips: float
    snips: float
    dr: float
    effective_units: float

    @property
    def is_trustworthy(self) -> bool:
        """Whether the weights leave enough units to speak of."""
        return self.effective_units >= SIZE_MIN


@dataclass(frozen=True, slots=True)
class Model:
    """What a reward model predicts: under the policy, and for what was done."""

    policy: Sequence[float]
    logged: Sequence[float]


def policy_value(
    rewards: Sequence[float], weights: Sequence[float], model: Model | None = None
) -> PolicyValue:
    """Inverse propensity, self-normalised and doubly robust estimates.

    Without a reward model the doubly robust estimate is the first one.
    """
    r, w = np.asarray(rewards, float), np.asarray(weights, float)
    assert len(r) == len(w) > 0
    assert np.all(w >= 0)
    total, squares = float(w.sum()), float((w * w).sum())
    ips = float((w * r).mean())
    dr = ips
    if model is not None:
        policy, logged = np.asarray(model.policy), np.asarray(model.logged)
        dr = float((policy + w * (r - logged)).mean())
    return PolicyValue(
        ips=ips,
        snips=float((w * r).sum()) / total if total else 0.0,
        dr=dr,
        effective_units=total * total / squares if squares else 0.0,
    )


def clipped(weights: Sequence[float], floor: float) -> tuple[float, ...]:
    """Weights of at most 1 / floor: less variance, some bias towards what was done."""
    assert 0 < floor <= 1
    return tuple(min(weight, 1 / floor) for weight in weights)


def weighted_mean(values: Sequence[float], inclusion: Sequence[float]) -> float:
    """The mean over everything, from a sample with known chances of inclusion (Hajek).

    For reviews: items are picked by uncertainty, and the plain mean of such a sample is
    the accuracy on hard cases.
    """
    chances = np.asarray(inclusion, float)
    assert len(values) == len(chances) > 0
    assert np.all((chances > 0) & (chances <= 1))
    weights = 1 / chances
    return float((weights * np.asarray(values, float)).sum() / weights.sum())
