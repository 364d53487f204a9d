"""False alarms and detection, by seeded simulation of whole rollouts.

Each scenario is a way in which a test that compares totals per variant goes wrong. The
tolerance of a false-alarm share p-hat from N runs is three standard errors above what
was promised: 0.05 + 3 sqrt(0.05 * 0.95 / N), which is 0.0646 for 2,000 runs. The truth
is well below 5 %, so a pass is no luck and the seeds do not matter.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from router.analysis.aipw import (
    EffectState,
    Outcome,
    effect_bounds,
    moments,
    step_effect,
)
from router.analysis.binary import start_outcome_bet, step_outcome_bet
from router.analysis.detect import Paths, Step, Traffic, first_alarm, log_e_paths
from router.analysis.detector import Detector, watch
from router.analysis.drift import Bins, judge_drift, psi, psi_noise, shares
from router.analysis.labelbet import start_label_bet, step_label_bet
from router.analysis.margin import start_margin_bet, step_margin_bet
from router.analysis.quantile import Histogram, latency_edges, quantile_bounds
from router.analysis.srm import Split, SplitBet, step_split_bet

pytestmark = pytest.mark.slow

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
TICKS = 40  # a step
SHARES = np.repeat([0.01, 0.05, 0.10, 0.25, 0.50], TICKS)
UNITS = 5_000  # a tick
RUNS = 2_000


def promised(runs: int) -> float:
    return ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def check_false_alarms(paths: Paths, ticks: int) -> None:
    for log_e in (paths.plain, paths.shared, paths.average):
        share = float((first_alarm(log_e, ALPHA) < ticks).mean())
        assert share <= promised(len(log_e)), share


def split(
    random: np.random.Generator, rates: Floats, ratio: float = 1.0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Events of both variants, one stratum: (run, tick, 1)."""
    size = (RUNS, len(rates))
    theirs = random.poisson(SHARES * UNITS * rates * ratio, size)
    ours = random.poisson((1 - SHARES) * UNITS * rates, size)
    return theirs[..., None], ours[..., None]


BASELINES: dict[str, Callable[[Floats], Floats]] = {
    "flat": lambda t: np.full_like(t, 0.005),
    "diurnal": lambda t: 0.005 * (1 + 0.5 * np.sin(6 * np.pi * t)),
    "rising": lambda t: 0.003 + 0.006 * t,
    "falling": lambda t: 0.009 - 0.006 * t,
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_healthy_candidate_is_seldom_accused_whatever_the_baseline_does(
    name: str,
) -> None:
    rates = BASELINES[name](np.linspace(0, 1, len(SHARES)))
    theirs, ours = split(np.random.default_rng(1), rates)
    check_false_alarms(log_e_paths(theirs, ours, SHARES[:, None]), len(SHARES))


def test_totals_per_variant_accuse_on_a_ramp_what_the_bets_do_not() -> None:
    # The same events pooled, by a z test at the end alone: no peeking, and yet wrong.
    rates = BASELINES["rising"](np.linspace(0, 1, len(SHARES)))
    theirs, ours = split(np.random.default_rng(1), rates)
    n_b, n_a = SHARES.sum() * UNITS, (1 - SHARES).sum() * UNITS
    p_b, p_a = theirs.sum(axis=(1, 2)) / n_b, ours.sum(axis=(1, 2)) / n_a
    z = (p_b - p_a) / np.sqrt(p_b / n_b + p_a / n_a)
    assert (z > 1.645).mean() > 0.9


def test_slices_with_their_own_shares_and_rates_do_not_accuse() -> None:
    # One slice ramps sooner and errs more: pooled, the candidate has its errors.
    random = np.random.default_rng(2)
    rhos = np.stack([SHARES, np.minimum(0.9, 4 * SHARES)], axis=1)
    rates = np.array([0.002, 0.012]) * (1 + np.linspace(0, 1, len(SHARES)))[:, None]
    theirs = random.poisson(rhos * UNITS / 2 * rates, (RUNS, *rhos.shape))
    ours = random.poisson((1 - rhos) * UNITS / 2 * rates, (RUNS, *rhos.shape))
    check_false_alarms(log_e_paths(theirs, ours, rhos), len(SHARES))


UNIT_KEYS = 3_000


def sticky(random: np.random.Generator, runs: int) -> tuple[Floats, Floats]:
    """Sticky units by Zipf: each one's place in [0, 1) and rate of errors a tick."""
    traffic = 1 / np.arange(1, UNIT_KEYS + 1) ** 1.1
    traffic *= UNITS / traffic.sum()
    place = random.random((runs, UNIT_KEYS))
    rates = random.gamma(0.2, 1 / 0.2, (runs, UNIT_KEYS)) * 0.003 * traffic
    return place, rates


def test_first_events_of_sticky_units_do_not_accuse() -> None:
    random = np.random.default_rng(3)
    trend = np.cumsum(1 + 2 * np.linspace(0, 1, len(SHARES)))
    runs, size = 600, len(SHARES)
    place, rates = sticky(random, runs)
    # A unit's first error comes when its hazard reaches a standard exponential.
    when = np.searchsorted(trend, random.exponential(size=place.shape) / rates)
    theirs, ours = np.zeros((2, runs, size), np.int64)
    for run in range(runs):
        seen = when[run] < size
        ticks = when[run][seen]
        is_b = place[run][seen] < SHARES[ticks]
        theirs[run] = np.bincount(ticks[is_b], minlength=size)
        ours[run] = np.bincount(ticks[~is_b], minlength=size)
    paths = log_e_paths(theirs[..., None], ours[..., None], SHARES[:, None])
    check_false_alarms(paths, size)


@pytest.mark.parametrize("ratio", [0.4, 0.7])
def test_a_better_candidate_is_not_accused_because_its_units_err_later(
    ratio: float,
) -> None:
    # Units of the baseline use up their first errors sooner, so late ones are more
    # often the candidate's than its share says. The mixtures must bear that.
    random = np.random.default_rng(20)
    runs, size = 150, len(SHARES)
    place, rates = sticky(random, runs)
    trend = 1 + 2 * np.linspace(0, 1, size)
    theirs, ours = np.zeros((2, runs, size), np.int64)
    for run in range(runs):
        is_b = place[run][:, None] < SHARES
        hazard = np.cumsum(trend * np.where(is_b, ratio, 1.0), axis=1)
        bar = random.exponential(size=UNIT_KEYS) / rates[run]
        when = (hazard < bar[:, None]).sum(axis=1)
        seen = when < size
        of_b = is_b[np.flatnonzero(seen), when[seen]]
        theirs[run] = np.bincount(when[seen][of_b], minlength=size)
        ours[run] = np.bincount(when[seen][~of_b], minlength=size)
    paths = log_e_paths(theirs[..., None], ours[..., None], SHARES[:, None])
    check_false_alarms(paths, size)


def test_every_error_of_sticky_units_would_accuse() -> None:
    # The same units with every error counted: why first events are needed.
    random = np.random.default_rng(3)
    runs, size = 300, len(SHARES)
    place, rates = sticky(random, runs)
    trend = 1 + 2 * np.linspace(0, 1, size)
    theirs, ours = np.zeros((2, runs, size), np.int64)
    for run in range(runs):
        of_b = np.array([rates[run][place[run] < s].sum() for s in SHARES])
        theirs[run] = random.poisson(of_b * trend)
        ours[run] = random.poisson((rates[run].sum() - of_b) * trend)
    paths = log_e_paths(theirs[..., None], ours[..., None], SHARES[:, None])
    assert (first_alarm(paths.average, ALPHA) < size).mean() > 0.15


def delayed(
    random: np.random.Generator, ramp: Floats, by_decision: bool
) -> npt.NDArray[np.float64]:
    """Paths of ln E when labels arrive about 30 ticks after their decision."""
    size, runs = len(ramp), 1_000
    rates = 0.003 + 0.006 * np.linspace(0, 1, size)
    counts = np.zeros((2, runs, size, size // TICKS), np.int64)
    for t in range(size):
        for arm, share in enumerate((ramp[t], 1 - ramp[t])):
            events = random.poisson(share * UNITS * rates[t], runs)
            late = random.geometric(1 / 30, (runs, int(events.max())))
            is_event = np.arange(late.shape[1]) < events[:, None]
            arrival = np.where(is_event, t + late, size)
            for run in range(runs):
                ticks = arrival[run][arrival[run] < size]
                counts[arm, run, :, t // TICKS] += np.bincount(ticks, minlength=size)
    if by_decision:
        rhos = np.tile(ramp[::TICKS], (size, 1))
        return log_e_paths(counts[0], counts[1], rhos).average
    pooled = counts.sum(axis=3, keepdims=True)
    return log_e_paths(pooled[0], pooled[1], ramp[:, None]).average


@pytest.mark.parametrize("ramp", [SHARES, SHARES[::-1]], ids=["grows", "shrinks"])
def test_late_labels_do_not_accuse_when_each_has_the_share_of_its_decision(
    ramp: Floats,
) -> None:
    paths = delayed(np.random.default_rng(4), ramp, by_decision=True)
    share = (first_alarm(paths, ALPHA) < paths.shape[1]).mean()
    assert share <= promised(len(paths))


def test_late_labels_with_the_share_of_their_arrival_would_accuse() -> None:
    # While the share shrinks, labels of its larger past look like too many.
    paths = delayed(np.random.default_rng(5), SHARES[::-1], by_decision=False)
    assert (first_alarm(paths, ALPHA) < paths.shape[1]).mean() > 0.5


# Candidate's requests until the alarm, median: 5,000 a tick, the steps above, baseline
# rising from 0.3 to 0.9 %, alpha 5 %, one-sided. (ratio, plain mixture, fixed share)
REFERENCE = [(1.5, 8_000, 9_375), (2.0, 2_500, 3_250), (4.0, 400, 450)]


@pytest.mark.parametrize(("ratio", "plain", "shared"), REFERENCE)
def test_harm_is_found_within_the_reference_requests(
    ratio: float, plain: int, shared: int
) -> None:
    rates = BASELINES["rising"](np.linspace(0, 1, len(SHARES)))
    theirs, ours = split(np.random.default_rng(6), rates, ratio)
    paths = log_e_paths(theirs, ours, SHARES[:, None])
    requests = np.append(np.cumsum(SHARES * UNITS), np.inf)
    for log_e, wanted in (
        (paths.plain, plain), (paths.shared, shared), (paths.average, plain)
    ):  # fmt: skip
        median = np.median(requests[first_alarm(log_e, ALPHA)])
        assert median <= 1.5 * wanted, median


def test_harm_that_begins_late_is_found_within_the_reference_requests() -> None:
    rates = BASELINES["rising"](np.linspace(0, 1, len(SHARES)))
    begun = 3 * TICKS
    theirs, ours = split(np.random.default_rng(7), rates)
    worse, _ = split(np.random.default_rng(8), rates, 2.0)
    theirs[:, begun:] = worse[:, begun:]
    paths = log_e_paths(theirs, ours, SHARES[:, None])
    requests = np.append(np.cumsum(SHARES * UNITS), np.inf)
    for log_e, wanted in ((paths.plain, 12_500), (paths.shared, 6_250)):
        first = first_alarm(log_e, ALPHA)
        found = requests[first[first >= begun]] - requests[begun - 1]
        assert np.median(found) <= 1.5 * wanted, np.median(found)
    average = first_alarm(paths.average, ALPHA)
    gate = np.median(requests[average[average >= begun]] - requests[begun - 1])
    assert gate <= 1.5 * 6_250, gate


def test_non_inferiority_takes_no_more_events_than_published() -> None:
    # Equal rates, rho 0.1, alpha 5 %: medians 1,340 for +25 % and 360 for +50 %.
    random = np.random.default_rng(9)
    for margin, median in ((0.25, 1_340), (0.5, 360), (1.0, 104)):
        needed = []
        for _ in range(60):
            bet, events = start_label_bet(margin, "no worse"), 0
            while bet.mixture.log_plain < math.log(20) and events < 20 * median:
                theirs = int(random.binomial(median // 20, 0.1))
                bet = step_label_bet(bet, (theirs, median // 20 - theirs, 0.1))
                events += median // 20
            needed.append(events)
        assert np.median(needed) <= 1.5 * median, np.median(needed)


def test_a_candidate_at_the_margin_seldom_passes_for_not_inferior() -> None:
    random = np.random.default_rng(10)
    runs, passed = 400, 0
    null = 0.1 * 1.5 / (0.1 * 1.5 + 0.9)
    for _ in range(runs):
        bet = start_label_bet(0.5, "no worse")
        for _ in range(60):
            theirs = int(random.binomial(20, null))
            bet = step_label_bet(bet, (theirs, 20 - theirs, 0.1))
        passed += bet.mixture.log_peak >= math.log(1 / ALPHA)
    assert passed / runs <= promised(runs)


def counted(
    random: np.random.Generator, rates: Floats, extra: float
) -> list[tuple[int, int, int, int, float]]:
    """A ramp of 20 ticks a step: n_b, x_b, n_a, x_a, rho."""
    found = []
    for share, rate in zip(SHARES[::2], rates[::2], strict=True):
        n_b = int(random.binomial(1_000, share))
        x_b = int(random.binomial(n_b, rate + extra))
        x_a = int(random.binomial(1_000 - n_b, rate))
        found.append((n_b, x_b, 1_000 - n_b, x_a, float(share)))
    return found


def test_conversions_and_margins_do_not_accuse_on_a_ramp_with_a_trend() -> None:
    random = np.random.default_rng(11)
    runs, rates = 300, 0.3 + 0.2 * np.linspace(0, 1, len(SHARES))
    accused = [0, 0]
    for _ in range(runs):
        outcome, margin = start_outcome_bet(), start_margin_bet(0.02)
        for tick in counted(random, rates, 0.0):
            outcome = step_outcome_bet(outcome, tick)
        for tick in counted(random, rates, 0.02):
            margin = step_margin_bet(margin, tick)
        for i, bet in enumerate((outcome, margin)):
            accused[i] += bet.mixture.log_peak >= math.log(1 / ALPHA)
    assert accused[0] / runs <= promised(runs)
    assert accused[1] / runs <= promised(runs)


def test_an_absolute_margin_is_seen_to_be_crossed() -> None:
    # 0.5 % errors and 0.2 points tolerated; 1.2 % is 0.5 points beyond.
    random = np.random.default_rng(12)
    needed = []
    for _ in range(40):
        bet, units = start_margin_bet(0.002), 0
        while bet.mixture.log_e < math.log(20) and units < 50_000:
            n_b = int(random.binomial(5_000, 0.1))
            x_b = int(random.binomial(n_b, 0.012))
            x_a = int(random.binomial(5_000 - n_b, 0.005))
            bet = step_margin_bet(bet, (n_b, x_b, 5_000 - n_b, x_a, 0.1))
            units += n_b
        needed.append(units)
    # The best fixed bet takes ln 20 over its growth. For lambda and p_b, p_a:
    # g = rho p_b ln(1 + lambda (1 / rho - d)) + ..., maximised: 1.3e-4 a unit of either
    # variant, so 23,000 units, 2,300 of the candidate's; a mixture may take twice that.
    assert np.median(needed) <= 2 * 2_300, np.median(needed)


def test_latency_that_drifts_for_everybody_does_not_accuse() -> None:
    # +-30 % by the hour and 35 % up over the ramp; thresholds from the tick before.
    random = np.random.default_rng(13)
    t = np.linspace(0, 1, len(SHARES))
    scale = (1 + 0.3 * np.sin(6 * np.pi * t)) * (1 + 0.35 * t)
    runs, accused = 100, 0
    edges = np.array(latency_edges())
    for _ in range(runs):
        bets = [start_label_bet() for _ in range(3)]
        before = None
        for share, now in zip(SHARES, scale, strict=True):
            values = 0.01 * now * random.lognormal(0, 0.5, 1_000)
            is_b = random.random(1_000) < share
            if before is not None:
                for i, quantile in enumerate((0.9, 0.99, 0.999)):
                    place = np.searchsorted(edges, np.quantile(before, quantile))
                    over = values > edges[place]
                    theirs, ours = int((over & is_b).sum()), int((over & ~is_b).sum())
                    bets[i] = step_label_bet(bets[i], (theirs, ours, float(share)))
            before = values[~is_b]
        # Three times the bar for one of three implies the average's bar, at some tick.
        accused += any(b.mixture.log_peak >= math.log(3 / ALPHA) for b in bets)
    assert accused / runs <= promised(runs)


def test_splits_as_planned_are_seldom_called_wrong_over_a_ramp() -> None:
    random = np.random.default_rng(14)
    runs, accused = 1_000, 0
    for _ in range(runs):
        bet = SplitBet(concentration=400.0)
        for step, share in enumerate((0.01, 0.05, 0.1, 0.25, 0.5)):
            for _ in range(20):
                n_b = int(random.binomial(500, share))
                one = Split(str(step), (share, 1 - share), (n_b, 500 - n_b))
                bet = step_split_bet(bet, one)
        accused += bet.log_peak >= math.log(1 / ALPHA)
    assert accused / runs <= promised(runs)


def test_the_interval_of_an_effect_covers_at_every_look_of_a_ramp_with_a_trend() -> (
    None
):
    random = np.random.default_rng(15)
    runs, missed = 300, 0
    for _ in range(runs):
        state, ever = EffectState(), False
        for t, share in enumerate(SHARES[::2]):
            x = random.normal(size=200)
            is_b = random.random(200) < share
            y = 3 * t / 100 + x + random.normal(size=200) + 0.5 * is_b
            sides = (moments(y[s], x[s]) for s in (is_b, ~is_b))
            state = step_effect(state, Outcome(*sides, float(share)))
            if state.effect.units >= 500 and state.candidate.units >= 50:
                lower, upper = effect_bounds(state.effect, ALPHA, state.precision)
                ever = ever or not lower <= 0.5 <= upper
        missed += ever
    assert missed / runs <= promised(runs)


def test_quantile_bounds_cover_at_every_look() -> None:
    random = np.random.default_rng(16)
    edges = tuple(i / 100 for i in range(1, 100))
    runs, missed = 300, 0
    for _ in range(runs):
        counts, ever = np.zeros(100, int), False
        for _ in range(40):
            counts += np.bincount(
                np.ceil(random.random(100) * 100).astype(int) - 1, minlength=100
            )
            lower, upper = quantile_bounds(
                Histogram(edges, counts.tolist()), 0.9, ALPHA
            )
            ever = ever or not lower <= 0.9 <= upper
        missed += ever
    assert missed / runs <= promised(runs)


def test_the_detector_keeps_its_alarm_budget() -> None:
    # A = 500: the mean run is at least 500. Runs last about 1 / (1 - e^-1) times a
    # spread as large as the mean, so 200 of them have a standard error of some 7 %.
    random = np.random.default_rng(17)
    lengths = []
    for _ in range(200):
        state = Detector(0.05)
        while state.log_m < math.log(500) and state.outcomes < 5_000:
            state = watch(state, [bool(random.random() < 0.05)])
        lengths.append(state.outcomes)
    mean = float(np.mean(lengths))
    assert mean >= 500 - 3 * float(np.std(lengths)) / math.sqrt(len(lengths))


def test_noise_reaches_the_floor_of_psi_as_often_as_it_says() -> None:
    # 2,000 samples, tail 5 %: standard error 0.5 %. Half a count in a bin lowers PSI.
    random = np.random.default_rng(18)
    over = 0
    for _ in range(2_000):
        p, q = random.multinomial(500, [0.1] * 10, size=2)
        over += psi(shares(p), shares(q)) > psi_noise(500, 500, 10, 0.05)
    assert 0.03 <= over / 2_000 <= 0.05 + 3 * 0.005


def test_features_that_stay_are_seldom_said_to_move() -> None:
    random = np.random.default_rng(19)
    moved = 0
    for _ in range(300):
        draws = random.multinomial(300, [0.05] * 20, size=(10, 2))
        features = {
            str(i): Bins(one.tolist(), other.tolist())
            for i, (one, other) in enumerate(draws)
        }
        verdicts = judge_drift(features)
        moved += sum(verdict.verdict == "fail" for verdict in verdicts.values())
    # A thousandth of 3,000 features is 3; 3 standard errors more are 8.2.
    assert moved <= 8


def test_a_forecast_of_the_reference_ramp_agrees_with_the_table() -> None:
    from router.analysis.detect import forecast

    steps = tuple(Step(share, TICKS) for share in (0.01, 0.05, 0.1, 0.25, 0.5))
    found = forecast(Traffic(steps, UNITS, 0.003, 0.009), 2.0, ALPHA, runs=1_000)
    assert 2_000 <= found.units_median <= 1.5 * 2_500
