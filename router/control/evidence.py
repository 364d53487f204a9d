"""What is known about a scope at a tick, as frozen numbers.

Two kinds of numbers, never mixed up. *Traffic* counts every request of a version; it
feeds hard limits, absolute ceilings and what people look at. *Bets* are sequential
tests on first events per unit, one for each criterion and candidate, which live as long
as the attempt and are never reset by a step. `gates.py` turns both into verdicts;
`observe.py` makes them from snapshots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.analysis.aipw import EffectState
from router.analysis.binary import OutcomeBet
from router.analysis.labelbet import LabelBet
from router.analysis.margin import MarginBet
from router.analysis.quantile import Histogram
from router.analysis.verdict import Verdict

Bet = LabelBet | MarginBet | OutcomeBet


@dataclass(frozen=True, slots=True)
class Traffic:
    """All requests of one variant since the attempt began, and in the last minute.

    `failures` are attempts that failed, were late or answered nonsense: charged to the
    variant that was assigned, whoever answered in the end.
    """

    requests: int = 0
    failures: int = 0
    invalid: int = 0
    fallbacks: int = 0
    recent_requests: int = 0
    recent_failures: int = 0
    latency: Histogram | None = None
    cpu_us_per_request: float = 0.0
    memory_bytes: int = 0
    rate: float = 0.0  # requests a second, lately
    score_count: int = 0
    score_sum: float = 0.0
    score_squares: float = 0.0


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Units seen by a test, of a candidate and of what it is compared with."""

    candidate: int = 0
    stable: int = 0
    baseline: int = 0


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Pairs of the scope's shadow, and of stable against itself (the noise floor)."""

    pairs: int = 0
    disagreements: int = 0
    failed: int = 0
    mismatched: int = 0
    dropped: int = 0
    noise_pairs: int = 0
    noise_disagreements: int = 0


@dataclass(frozen=True, slots=True)
class External:
    """What a query or webhook last said; an empty answer has neither."""

    age_s: float
    value: float | None = None
    verdict: Literal["pass", "fail", "inconclusive", "error"] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a decision about one scope may rest on."""

    age_s: float = 0.0
    """How old the numbers are; growth wants fresh ones."""
    candidates: Mapping[int, Traffic] = field(default_factory=dict)
    stable: Traffic = Traffic()
    units: Mapping[tuple[int, str], UnitCounts] = field(default_factory=dict)
    """By candidate and slice ("" for all)."""
    bets: Mapping[str, Bet] = field(default_factory=dict)
    """By `bet_key`."""
    effects: Mapping[tuple[int, str], EffectState] = field(default_factory=dict)
    """On the error rate, by candidate and slice; nothing is decided by it."""
    saturated: frozenset[str] = frozenset()
    """Kinds of first events whose filter is half full: not to be believed any more."""
    shadows: Mapping[int, ShadowCounts] = field(default_factory=dict)
    external: Mapping[str, External] = field(default_factory=dict)
    """By the criterion's name."""
    labels: Mapping[str, Verdict] = field(default_factory=dict)
    """Verdicts on feedback metrics, by `bet_key`."""
    srm: Verdict | None = None
    breakers: frozenset[int] = frozenset()
    """Candidates that the data plane has taken out."""
    unavailable: Mapping[int, str] = field(default_factory=dict)
    """Candidates that are not loaded, and why."""
    disabled: frozenset[int] = frozenset()
    """Candidates that an operator took out."""
    idle_s: float = 0.0
    """How long candidates with a share have seen no request while stable did."""
    preflight: Verdict | None = None


def bet_key(criterion: str, version: int, part: str = "", within: str = "") -> str:
    """The name of a bet: criterion, candidate, and a quantile or a slice."""
    return "|".join((criterion, str(version), part, within))
