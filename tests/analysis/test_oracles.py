"""Our arithmetic against other people's: scipy, statsmodels, ville, fairlearn, sklearn.

They are slow to import and no part of the router, so these run with the slow tests.
"""

import math

import numpy as np
import pytest

from router.analysis.aipw import Effect, effect_radius
from router.analysis.alpha import adjusted_p, e_bh
from router.analysis.betabinomial import log_e_rate, rate_bounds
from router.analysis.chisquare import chi_square_quantile, chi_square_tail
from router.analysis.drift import (
    chi_square_two_sample,
    g_test,
    js_divergence,
    ks_statistic,
    ks_tail,
    wasserstein,
)
from router.analysis.fairness import Minimum, disparity, wilson_bounds
from router.analysis.pairs import Discordant, log_e_discordant
from router.analysis.quality import Confusion, Probabilities, confused, foreseen
from router.analysis.srm import Split, chi_square_statistic, log_e_split

pytestmark = pytest.mark.slow

SAMPLES = [(0, 40), (3, 40), (40, 40), (120, 900), (899, 900)]


def coins(events: int, units: int) -> np.ndarray:
    return np.array([1] * events + [0] * (units - events), float)


@pytest.mark.parametrize(("events", "units"), SAMPLES)
def test_bounds_of_a_rate_agree_with_ville(events: int, units: int) -> None:
    import ville

    oracle = ville.BernoulliCS(alpha=0.05, prior=(0.5, 0.5), intersect=False)
    oracle.fit(coins(events, units))
    found = rate_bounds(events, units, 0.05)
    assert found == pytest.approx((oracle.lower_[-1], oracle.upper_[-1]), abs=1e-9)


@pytest.mark.parametrize(("events", "units"), SAMPLES)
def test_evidence_about_a_rate_agrees_with_ville(events: int, units: int) -> None:
    import ville

    for rate in (0.1, 0.5):
        oracle = ville.BernoulliTest(rate, prior=(0.5, 0.5)).fit(coins(events, units))
        expected = oracle.log_e_values_[-1]
        assert log_e_rate(events, units, rate) == pytest.approx(expected, rel=1e-9)
    pairs = Discordant(events, units - events)
    assert log_e_discordant(pairs) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_an_effect_is_the_normal_mixture_of_ville() -> None:
    from ville._boundaries import normal_mixture

    for squares, precision in ((5.0, 0.05), (900.0, 0.01), (1e6, 1e-5)):
        effect = Effect(700, 1.0, squares)
        expected = normal_mixture(squares, 0.05, 1 / precision) / 700
        found = effect_radius(effect, 0.05, precision)
        assert found == pytest.approx(float(expected), rel=1e-9)


def test_discoveries_agree_with_ville_and_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests
    from ville.evalues import ebh

    random = np.random.default_rng(1)
    for _ in range(50):
        log_es = random.normal(1, 2.5, 30)
        ours = e_bh({f"{i:02}": float(e) for i, e in enumerate(log_es)}, 0.05)
        assert {int(name) for name in ours} == set(
            np.flatnonzero(ebh(np.exp(log_es), 0.05))
        )
        p_values = random.beta(0.4, 2, 30)
        _, expected, _, _ = multipletests(p_values, method="fdr_bh")
        assert adjusted_p(p_values.tolist()) == pytest.approx(expected)


def test_chi_square_agrees_with_scipy() -> None:
    from scipy import stats

    for df in (1, 2, 3, 10, 99, 1000):
        for tail in (0.999, 0.3, 0.05, 1e-3, 1e-12):
            value = stats.chi2.isf(tail, df)
            assert chi_square_quantile(tail, df) == pytest.approx(value, rel=1e-9)
            assert chi_square_tail(value, df) == pytest.approx(tail, rel=1e-9)


def test_two_samples_agree_with_scipy() -> None:
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    random = np.random.default_rng(2)
    for _ in range(20):
        a, b = random.normal(size=70), random.normal(0.3, 1.2, size=110)
        assert ks_statistic(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
        expected = stats.ks_2samp(a, b, method="asymp").pvalue
        scaled = ks_statistic(a, b) * math.sqrt(70 * 110 / 180)
        assert ks_tail(ks_statistic(a, b), 70, 110) == pytest.approx(
            stats.kstwobign.sf(scaled), rel=1e-6
        )
        assert expected == pytest.approx(stats.kstwobign.sf(scaled), rel=0.2, abs=0.02)
        assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))
        p, q = random.multinomial(300, [0.2] * 5, size=2) + 1
        pearson = stats.chi2_contingency([p, q], correction=False)
        assert chi_square_two_sample(p, q) == pytest.approx(pearson.statistic)
        ratio = stats.chi2_contingency(
            [p, q], correction=False, lambda_="log-likelihood"
        )
        assert g_test(p, q) == pytest.approx((ratio.statistic, ratio.pvalue))
        found = js_divergence(p / p.sum(), q / q.sum())
        assert math.sqrt(found) == pytest.approx(jensenshannon(p, q))


def test_splits_agree_with_scipys_dirichlet_multinomial() -> None:
    from scipy import stats

    counts, planned = (40, 129, 233), (0.1, 0.4, 0.5)
    mixture = stats.dirichlet_multinomial(100 * np.array(planned), 402)
    plan = stats.multinomial(402, planned)
    expected = mixture.logpmf(counts) - plan.logpmf(counts)
    found = log_e_split(Split("s", planned, counts), 100)
    assert found == pytest.approx(expected, rel=1e-9)
    pearson = stats.chisquare(counts, 402 * np.array(planned))
    assert chi_square_statistic(counts, planned) == pytest.approx(pearson.statistic)


def test_wilson_agrees_with_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for events, units in SAMPLES:
        expected = proportion_confint(events, units, method="wilson")
        assert wilson_bounds(events, units) == pytest.approx(expected, abs=1e-9)


def test_disparities_agree_with_fairlearn() -> None:
    from fairlearn import metrics

    random = np.random.default_rng(3)
    y = random.random(600) < 0.4
    group = random.integers(0, 3, 600)
    predicted = random.random(600) < 0.2 + 0.3 * y + 0.1 * group
    groups: dict[str, Confusion] = {}
    for truth, guess, name in zip(y, predicted, group, strict=True):
        was = groups.get(str(name), Confusion())
        groups[str(name)] = was + confused(bool(guess), bool(truth))
    found = disparity(groups, Minimum(1, 1))
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
        "equal_opportunity_difference",
        "equal_opportunity_ratio",
    ):
        expected = getattr(metrics, name)(y, predicted, sensitive_features=group)
        assert getattr(found, name) == pytest.approx(expected), name


def test_quality_agrees_with_sklearn() -> None:
    from sklearn import metrics

    random = np.random.default_rng(4)
    probability = random.random(400)
    y = random.random(400) < probability**2
    sums, counts = Probabilities(), Confusion()
    for p, truth in zip(probability, y, strict=True):
        sums += foreseen(float(p), bool(truth))
        counts += confused(bool(p >= 0.5), bool(truth))
    guess = probability >= 0.5
    assert sums.log_loss == pytest.approx(metrics.log_loss(y, probability))
    assert sums.brier == pytest.approx(metrics.brier_score_loss(y, probability))
    assert counts.accuracy == pytest.approx(metrics.accuracy_score(y, guess))
    assert counts.precision == pytest.approx(metrics.precision_score(y, guess))
    assert counts.recall == pytest.approx(metrics.recall_score(y, guess))
