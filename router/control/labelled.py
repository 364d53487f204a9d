"""Labels as tests see them: by cohort and stratum, one outcome for each unit.

A cell is what one variant's units of one hour came to under one bucket map. Cohorts are
the ticks of the tests, in the order in which the predictions were made; the chance of a
stratum is that of the decisions, however late the label came. Everything here is a
function of the stored labels: a restart reads them again and comes to the same, so
there is no state of a test to save and none to lose.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from router.analysis.aipw import EffectState, Moments, Outcome, step_effect
from router.analysis.labelbet import LabelBet, start_label_bet, step_label_bet
from router.analysis.margin import MarginBet, start_margin_bet, step_margin_bet
from router.analysis.srm import Split
from router.control.strata import Stratum
from router.feedback.sums import NOTHING, Sum, Sums, merge

Place = tuple[str, int, bool]  # rule, rollout revision, whether units are sticky


@dataclass(frozen=True, slots=True)
class Cell:
    """One version's units of one cohort in one stratum; `negatives` are first ones."""

    cohort: int
    place: Place
    stratum: Stratum
    version: int
    sums: Sums
    negatives: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate and stable in one stratum of one cohort, and rho."""

    candidate: Sums
    stable: Sums
    negatives: tuple[int, int]
    rho: float


Tick = tuple[Pair, ...]


def ticks_of(cells: Iterable[Cell], version: int, within: str) -> tuple[Tick, ...]:
    """A candidate against stable, cohort by cohort; everybody when `within` is ""."""
    found: dict[int, dict[Place, Pair]] = {}
    for cell in cells:
        if within and cell.stratum.within != within:
            continue
        is_candidate = cell.version == version
        if not is_candidate and cell.version != cell.stratum.stable:
            continue
        pairs = found.setdefault(cell.cohort, {})
        rho = cell.stratum.rho(version, baseline_only=False)
        was = pairs.get(cell.place, Pair(NOTHING, NOTHING, (0, 0), rho))
        left, right = was.negatives
        pairs[cell.place] = (
            Pair(merge(was.candidate, cell.sums), was.stable,
                 (left + cell.negatives, right), rho)
            if is_candidate
            else Pair(was.candidate, merge(was.stable, cell.sums),
                      (left, right + cell.negatives), rho)
        )  # fmt: skip
    return tuple(
        tuple(pairs[place] for place in sorted(pairs))
        for _, pairs in sorted(found.items())
    )


def total_of(ticks: Iterable[Tick]) -> tuple[Sums, Sums]:
    """All of a candidate's units, and all of stable's: for people and for limits."""
    candidate, stable = NOTHING, NOTHING
    for tick in ticks:
        for pair in tick:
            candidate = merge(candidate, pair.candidate)
            stable = merge(stable, pair.stable)
    return candidate, stable


# -- binary outcomes -------------------------------------------------------------------

Counted = Callable[[Sums], tuple[int, int]]  # units, and how many of them were bad


def wrong(sums: Sums) -> tuple[int, int]:
    """Labels, and how many the prediction got wrong."""
    return int(sums[Sum.LABELS]), int(sums[Sum.LABELS] - sums[Sum.RIGHT])


def missed(sums: Sums) -> tuple[int, int]:
    """Units that are positive, and how many were not found: what recall lacks.

    The truth decides who is counted, and no variant can touch it.
    """
    positive = sums[Sum.TRUE_POSITIVE] + sums[Sum.FALSE_NEGATIVE]
    return int(positive), int(sums[Sum.FALSE_NEGATIVE])


def unconverted(sums: Sums) -> tuple[int, int]:
    """Units with an outcome, and how many did not convert."""
    return int(sums[Sum.VALUES]), int(sums[Sum.VALUES] - sums[Sum.CONVERTED])


def bet_on_margin(
    ticks: Iterable[Tick], counted: Counted, worse_by: float
) -> MarginBet:
    """The gambler against "bad outcomes are at most so much more frequent".

    All cohorts are one tick: labels come in any order, and the wealth must not depend
    on it.
    """
    strata = []
    for tick in ticks:
        for pair in tick:
            n_b, x_b = counted(pair.candidate)
            n_a, x_a = counted(pair.stable)
            strata.append((n_b, x_b, n_a, x_a, pair.rho))
    return step_margin_bet(start_margin_bet(worse_by), *strata)


def bet_on_negatives(ticks: Iterable[Tick]) -> LabelBet:
    """The gambler against "wrong predictions come from the candidate by its share"."""
    strata = [(*pair.negatives, pair.rho) for tick in ticks for pair in tick]
    return step_label_bet(start_label_bet(), *strata)


# -- measured outcomes -----------------------------------------------------------------

Measured = Callable[[Sums], Moments]


def moments_of(count: Sum, y: Sum, yy: Sum) -> Measured:
    """Outcomes by the places of their sums; without a covariate."""
    return lambda s: Moments(int(s[count]), s[y], s[yy])


def values_with_before(sums: Sums) -> Moments:
    """Values, with the unit's value from before the experiment as the covariate."""
    return Moments(
        int(sums[Sum.VALUES]), sums[Sum.VALUE], sums[Sum.VALUE_SQUARES],
        sums[Sum.BEFORE], sums[Sum.BEFORE_SQUARES], sums[Sum.BEFORE_VALUE],
    )  # fmt: skip


def squared_errors(sums: Sums) -> Moments:
    """Squared errors: what the root mean square error is made of."""
    return Moments(
        int(sums[Sum.LABELS]), sums[Sum.ERROR_SQUARES], sums[Sum.ERROR_FOURTHS]
    )


def share_of_outcomes(counted: Counted) -> Measured:
    """Binary outcomes as numbers: 1 for a bad one."""

    def measured(sums: Sums) -> Moments:
        units, bad = counted(sums)
        return Moments(units, float(bad), float(bad))

    return measured


def effect_of(ticks: Iterable[Tick], measured: Measured) -> EffectState:
    """The candidate's mean minus stable's; each cohort is guessed by earlier ones."""
    state = EffectState()
    for tick in ticks:
        outcomes = (
            Outcome(measured(pair.candidate), measured(pair.stable), pair.rho)
            for pair in tick
        )
        state = step_effect(state, *outcomes)
    return state


# -- the split -------------------------------------------------------------------------


def splits_of(cells: Iterable[Cell], candidates: tuple[int, ...]) -> tuple[Split, ...]:
    """How units with a label are split over the variants, by stratum."""
    counts: dict[Place, dict[int, int]] = {}
    strata: dict[Place, Stratum] = {}
    for cell in cells:
        strata[cell.place] = cell.stratum
        mine = counts.setdefault(cell.place, {})
        mine[cell.version] = mine.get(cell.version, 0) + int(cell.sums[Sum.JOINED])
    splits = []
    for place, found in sorted(counts.items()):
        shares = _shares(strata[place])
        versions = tuple(v for v in (*candidates, strata[place].stable) if v in shares)
        total = sum(shares[version] for version in versions)
        if len(versions) < 2 or not total:
            continue
        rule, revision, is_sticky = place
        name = f"{rule} r{revision}{'' if is_sticky else ' by request'}"
        planned = tuple(shares[version] / total for version in versions)
        counted = tuple(found.get(version, 0) for version in versions)
        splits.append(Split(name, planned, counted))
    return tuple(splits)


def _shares(stratum: Stratum) -> Mapping[int, int]:
    """Basis points by version; the baseline slice is stable's."""
    shares: dict[int, int] = {}
    for (version, _), share in stratum.shares.items():
        shares[version] = shares.get(version, 0) + share
    return shares
