"""How fast is an error budget burning? Several windows over minutes that add up.

Burn is the error rate over the rate that the objective allows: at 1 the budget lasts
exactly its period. An alert needs a long window (so that it matters) and a short one
of a twelfth (so that it ends when the trouble ends) above the same burn: the
multi-window scheme of the SRE workbook. Short windows also need a few errors, because
one error in three requests is no 33 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from router.analysis.verdict import Number, Verdict, percent

ERRORS_MIN = 5
MINUTES_KEPT = 72 * 60  # what the longest window of the default rules looks back


@dataclass(frozen=True, slots=True)
class BurnRule:
    """One alert: from which burn, over how many minutes, how loudly."""

    burn: float
    long_minutes: int
    short_minutes: int
    severity: Literal["page", "ticket"]

    def __post_init__(self) -> None:
        assert self.burn > 0
        assert 0 < self.short_minutes <= self.long_minutes <= MINUTES_KEPT


# For an objective over 30 days: 2 % of the budget in an hour, 5 % in six, 10 % in
# three days.
BURN_RULES = (
    BurnRule(14.4, 60, 5, "page"),
    BurnRule(6.0, 6 * 60, 30, "page"),
    BurnRule(1.0, 3 * 24 * 60, 6 * 60, "ticket"),
)


@dataclass(frozen=True, slots=True)
class Minutes:
    """Errors and requests of each minute, the last one last."""

    errors: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.errors) == len(self.requests)

    def window(self, minutes: int) -> tuple[int, int]:
        """Errors and requests of the last so many minutes, or of all there are."""
        return sum(self.errors[-minutes:]), sum(self.requests[-minutes:])

    def burn(self, minutes: int, objective: float) -> float:
        """How many times too fast the budget burnt in that window; 0 of nothing."""
        errors, requests = self.window(minutes)
        return errors / requests / (1 - objective) if requests else 0.0


def add_minute(minutes: Minutes, errors: int, requests: int) -> Minutes:
    """The minutes after one more; those beyond three days are forgotten."""
    return Minutes(
        (*minutes.errors, errors)[-MINUTES_KEPT:],
        (*minutes.requests, requests)[-MINUTES_KEPT:],
    )


def judge_burn(
    minutes: Minutes,
    objective: float,
    rules: Sequence[BurnRule] = BURN_RULES,
    errors_min: int = ERRORS_MIN,
    name: str = "errors",
) -> Verdict:
    """Say whether a budget burns too fast: the first rule that fires, loudest first."""
    assert 0 < objective < 1
    if not sum(minutes.requests[-MINUTES_KEPT:]):
        return Verdict("inconclusive", f"{name}: no request to judge.")
    numbers: dict[str, Number] = {"objective": objective}
    for rule in rules:
        long = minutes.burn(rule.long_minutes, objective)
        short = minutes.burn(rule.short_minutes, objective)
        errors, requests = minutes.window(rule.short_minutes)
        numbers[f"burn_{rule.long_minutes}m"] = long
        numbers[f"burn_{rule.short_minutes}m"] = short
        if long > rule.burn and short > rule.burn and errors >= errors_min:
            reason = (
                f"{name}: the budget of {percent(1 - objective)} burns {long:.3g} "
                f"times too fast over {rule.long_minutes} minutes and {short:.3g} "
                f"times over {rule.short_minutes} ({errors} of {requests} requests)."
            )
            found: dict[str, Number] = {
                "severity": rule.severity, "burn_limit": rule.burn, "errors": errors,
            }  # fmt: skip
            return Verdict("fail", reason, numbers | found)
    reason = f"{name}: the budget of {percent(1 - objective)} lasts."
    return Verdict("pass", reason, numbers)
