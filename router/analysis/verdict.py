"""What a judge answers: pass, fail, inconclusive or error, with its numbers.

A verdict is a value: it can be stored beside the act it caused and read back years
later. Missing data is `inconclusive`, never `pass`; `error` means that the evidence
contradicts itself (more events than units), so nobody may act on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from types import MappingProxyType
from typing import Any, Literal, get_args

Answer = Literal["pass", "fail", "inconclusive", "error"]
Number = float | int | str
ANSWERS: tuple[Answer, ...] = get_args(Answer)
LOG_MILLION = math.log(1e6)  # odds beyond a million to one are all the same to a reader


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, one plain sentence why, and every number it rests on."""

    verdict: Answer
    reason: str
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.verdict in ANSWERS, self.verdict
        assert self.reason, "a verdict says why"
        known = {name: storable(value) for name, value in self.numbers.items()}
        object.__setattr__(self, "numbers", MappingProxyType(known))

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON can hold it."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "numbers": dict(self.numbers),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Verdict":
        """The verdict that `as_dict` wrote."""
        return cls(stored["verdict"], stored["reason"], stored["numbers"])


def storable(value: Number) -> Number:
    """The number as JSON can hold it: no numpy type, no infinity, no NaN."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    return float(value)


def percent(rate: float) -> str:
    """A rate as people say it: 0.0123 is `1.23 %`."""
    return f"{100 * rate:.3g} %"


def times(log_e: float) -> str:
    """How strongly evidence speaks, as odds that people can compare with 1/alpha."""
    if log_e > LOG_MILLION:
        return "over a million times"
    return f"{math.exp(log_e):.3g} times"
