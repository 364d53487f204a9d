"""Is traffic split as planned, and does the split survive down to the labels?

Sample-ratio mismatch, sequentially (Lindon and Malek 2022): for each stratum the counts
of the variants are compared with the planned shares by a Dirichlet mixture,

    ln E = lnG(k) - lnG(k + n) + sum(lnG(k p_i + x_i) - lnG(k p_i)) - sum(x_i ln p_i)

and strata multiply, each with a fresh mixture and its own shares. Test it where units
can be lost: assigned, served, recorded, joined with a label. Units must be independent,
so count each once; requests of sticky units are no units.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from router.analysis.verdict import Number, Verdict, times

# Most sensitive to a relative deviation r of a share rho when (1 - rho) / (rho r^2):
# 10,000 is a deviation of 1 % at an even split and of 10 % at 1 %.
CONCENTRATION = 10_000.0
STRATA_OPEN_MAX = 64  # older ones are closed: their evidence stays, their counts go


@dataclass(frozen=True, slots=True)
class Split:
    """Counts of one stratum: what was planned (adding up to 1) and what came."""

    stratum: str
    planned: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.planned) == len(self.counts)
        assert math.isclose(math.fsum(self.planned), 1)
        assert all(share >= 0 for share in self.planned)


@dataclass(frozen=True, slots=True)
class SplitBet:
    """A gambler on splits: the strata still open, and what closed ones brought (ln)."""

    open: tuple[Split, ...] = ()
    log_closed: float = 0.0
    log_peak: float = 0.0
    closed: int = 0
    concentration: float = CONCENTRATION

    @property
    def log_e(self) -> float:
        """ln E that the split is not the planned one."""
        return self.log_closed + math.fsum(
            log_e_split(split, self.concentration) for split in self.open
        )

    def as_dict(self) -> dict[str, Any]:
        """The gambler as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "SplitBet":
        """The gambler that `as_dict` wrote."""
        splits = tuple(
            Split(one["stratum"], tuple(one["planned"]), tuple(one["counts"]))
            for one in stored["open"]
        )
        return cls(**{**stored, "open": splits})


def step_split_bet(bet: SplitBet, *splits: Split) -> SplitBet:
    """The gambler after one tick's counts; a stratum keeps its planned shares."""
    known = {split.stratum: split for split in bet.open}
    for split in splits:
        was = known.pop(split.stratum, replace(split, counts=(0,) * len(split.counts)))
        assert was.planned == split.planned, "new shares are a new stratum"
        counts = tuple(a + b for a, b in zip(was.counts, split.counts, strict=True))
        known[split.stratum] = replace(split, counts=counts)
    order = tuple(known.values())
    kept, gone = order[-STRATA_OPEN_MAX:], order[:-STRATA_OPEN_MAX]
    after = replace(
        bet,
        open=kept,
        closed=bet.closed + len(gone),
        log_closed=bet.log_closed
        + math.fsum(log_e_split(split, bet.concentration) for split in gone),
    )
    return replace(after, log_peak=max(bet.log_peak, after.log_e))


def log_e_split(split: Split, concentration: float = CONCENTRATION) -> float:
    """ln E of one stratum. Infinite when a variant without a share was served."""
    cells = [
        (share, count)
        for share, count in zip(split.planned, split.counts, strict=True)
        if share > 0
    ]
    if sum(split.counts) != sum(count for _, count in cells):
        return math.inf
    total = sum(count for _, count in cells)
    return (
        math.lgamma(concentration)
        - math.lgamma(concentration + total)
        + math.fsum(
            math.lgamma(concentration * share + count)
            - math.lgamma(concentration * share)
            - count * math.log(share)
            for share, count in cells
        )
    )


def judge_srm(
    bet: SplitBet, alpha: float, units_min: int = 100, where: str = "assignment"
) -> Verdict:
    """Say whether the observed split contradicts the plan.

    When it does, nothing else about this rollout can be believed: hold.
    """
    units = sum(sum(split.counts) for split in bet.open)
    numbers: dict[str, Number] = {
        "units": units,
        "strata": len(bet.open) + bet.closed,
        "log_e": bet.log_e,
        "log_e_peak": bet.log_peak,
        "p_value": math.exp(-bet.log_peak),
        "alpha": alpha,
    }
    last = _said(bet.open[-1]) if bet.open else "nothing was counted"
    if bet.log_peak >= math.log(1 / alpha):
        reason = (
            f"The split at {where} contradicts the plan, odds of {times(bet.log_peak)} "
            f"(the bar is {1 / alpha:.4g}): {last}."
        )
        return Verdict("fail", reason, numbers)
    if units < units_min:
        reason = f"Too few units at {where} to see a wrong split: {last}."
        return Verdict("inconclusive", reason, numbers)
    return Verdict("pass", f"The split at {where} is as planned: {last}.", numbers)


def chi_square_statistic(observed: Sequence[int], planned: Sequence[float]) -> float:
    """Pearson's statistic of one look; variants without a share are left out.

    Its p-value must not be looked at repeatedly: peeking multiplies false alarms.
    """
    total = sum(observed)
    return math.fsum(
        (count - total * share) ** 2 / (total * share)
        for count, share in zip(observed, planned, strict=True)
        if share > 0
    )


def _said(split: Split) -> str:
    shares = " : ".join(f"{share:.4g}" for share in split.planned)
    counts = " : ".join(str(count) for count in split.counts)
    return f"planned {shares}, counted {counts} in stratum {split.stratum}"
