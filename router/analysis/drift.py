"""Has a distribution moved? Distances of binned counts, judged against their own noise.

A distance of two samples from one distribution is not zero: PSI is about
chi-square(bins - 1) times (1/n + 1/m), so "PSI > 0.1" fires on noise where n is small
and never where it is large. A feature has drifted when its PSI is above the threshold
asked for *and* above what noise reaches once in a thousand, and the G-test agrees after
Benjamini-Hochberg over all features of the window.

Bins come from the reference alone; below, above, missing and unseen are bins of their
own. Half a count is added to every bin of both sides, so that an empty one is no
infinity. The tests are for one fixed window; looking every minute needs the alarm
budget that the windows' number implies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.analysis.alpha import adjusted_p
from router.analysis.chisquare import chi_square_quantile, chi_square_tail
from router.analysis.verdict import Number, Verdict

Floats = npt.NDArray[np.float64]

EMPTY_BIN = 0.5  # Jeffreys
NOISE_TAIL = 0.001  # how often noise alone may reach the floor


@dataclass(frozen=True, slots=True)
class Bins:
    """Counts of one feature, in the reference and in the window looked at."""

    reference: Sequence[int]
    current: Sequence[int]

    def __post_init__(self) -> None:
        assert len(self.reference) == len(self.current) >= 2
        assert min(*self.reference, *self.current) >= 0


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """From which PSI a change matters, its false discovery rate, and how much data."""

    psi: float = 0.1
    rate: float = 0.05
    units_min: int = 200


def shares(counts: Sequence[int]) -> Floats:
    """Counts as parts of one, no part zero."""
    smoothed = np.asarray(counts, float) + EMPTY_BIN
    return np.asarray(smoothed / smoothed.sum(), float)


def psi(reference: Floats, current: Floats) -> float:
    """Population stability index, natural logarithm."""
    return float(((current - reference) * np.log(current / reference)).sum())


def psi_noise(reference: int, current: int, bins: int, tail: float) -> float:
    """The PSI that noise alone exceeds with that chance."""
    return chi_square_quantile(tail, bins - 1) * (1 / reference + 1 / current)


def kl_divergence(p: Floats, q: Floats) -> float:
    """Kullback-Leibler divergence of p from q, in nats."""
    return float((p * np.log(p / q)).sum())


def js_divergence(p: Floats, q: Floats) -> float:
    """Jensen-Shannon divergence in nats; its root is the distance."""
    middle = (p + q) / 2
    return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


def js_distance_base2(p: Floats, q: Floats) -> float:
    """Jensen-Shannon distance to base 2, from 0 to 1."""
    return math.sqrt(max(0.0, js_divergence(p, q)) / math.log(2))


def hellinger(p: Floats, q: Floats) -> float:
    """Hellinger distance, from 0 to 1."""
    return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))


def total_variation(p: Floats, q: Floats) -> float:
    """The largest difference in probability of any set of bins."""
    return float(np.abs(p - q).sum() / 2)


def chi_square_two_sample(reference: Sequence[int], current: Sequence[int]) -> float:
    """Pearson's statistic that two rows of counts have one distribution."""
    table = np.asarray([reference, current], float)
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def g_test(reference: Sequence[int], current: Sequence[int]) -> tuple[float, float]:
    """The likelihood-ratio statistic of the same, and its p-value."""
    table = np.asarray([reference, current], float)
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    filled = table > 0
    ratio = np.log(table[filled] / expected[filled])
    statistic = max(0.0, float(2 * (table[filled] * ratio).sum()))
    df = table.shape[1] - 1
    return statistic, chi_square_tail(statistic, df) if df else 1.0


def ks_statistic(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest gap between two empirical distribution functions."""
    a, b = np.sort(np.asarray(first, float)), np.sort(np.asarray(second, float))
    points = np.concatenate([a, b])
    below_a = np.searchsorted(a, points, side="right") / len(a)
    below_b = np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def ks_tail(statistic: float, first: int, second: int) -> float:
    """The chance of a gap as large from one distribution (Kolmogorov's limit).

    Asymptotic, and too careful for values with ties or in bins.
    """
    scaled = statistic * math.sqrt(first * second / (first + second))
    if scaled < 0.2:
        return 1.0  # the series needs many terms there, and its sum is 1 to 12 digits
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def wasserstein(first: Sequence[float], second: Sequence[float]) -> float:
    """How far values must move, on average, to turn one sample into the other."""
    a, b = np.sort(np.asarray(first, float)), np.sort(np.asarray(second, float))
    points = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(a, points[:-1], side="right") / len(a)
    below_b = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float((np.abs(below_a - below_b) * np.diff(points)).sum())


def judge_drift(
    features: Mapping[str, Bins], limits: DriftLimits | None = None
) -> Mapping[str, Verdict]:
    """Say of every feature whether it moved in this window.

    `fail` is drift. Both hurdles count: large enough to matter and not noise.
    """
    limits = limits or DriftLimits()
    assert limits.units_min > 0, "no data is never enough"
    ready = {
        name: bins
        for name, bins in features.items()
        if min(sum(bins.reference), sum(bins.current)) >= limits.units_min
    }
    p_values = [g_test(bins.reference, bins.current)[1] for bins in ready.values()]
    adjusted = dict(zip(ready, adjusted_p(p_values), strict=True))
    return {
        name: _judge_feature(name, bins, limits, adjusted.get(name))
        for name, bins in features.items()
    }


def _judge_feature(
    name: str, bins: Bins, limits: DriftLimits, p_value: float | None
) -> Verdict:
    reference, current = sum(bins.reference), sum(bins.current)
    numbers: dict[str, Number] = {
        "units": current, "reference": reference, "psi_limit": limits.psi,
    }  # fmt: skip
    if p_value is None:
        reason = (
            f"{name}: {current} values against {reference} in the reference, "
            f"{limits.units_min} of each are wanted."
        )
        return Verdict("inconclusive", reason, numbers)
    p, q = shares(bins.reference), shares(bins.current)
    moved = psi(p, q)
    noise = psi_noise(reference, current, len(bins.current), NOISE_TAIL)
    numbers |= {"psi": moved, "psi_noise": noise, "p_adjusted": p_value,
                "js_distance_base2": js_distance_base2(p, q)}  # fmt: skip
    said = (
        f"{name}: PSI {moved:.3g} from {current} values, noise reaches {noise:.3g} "
        f"once in {1 / NOISE_TAIL:g}, from {limits.psi:g} it matters, p {p_value:.2g}"
    )
    if moved >= max(limits.psi, noise) and p_value <= limits.rate:
        return Verdict("fail", f"{said}: it moved.", numbers)
    return Verdict("pass", f"{said}.", numbers)
