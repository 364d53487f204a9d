"""The sequential tests of one attempt: which there are, and how a tick moves them.

A test lives as long as the attempt. `start` makes those that the specification asks
for; `step` gives each the events of one tick, stratum by stratum, with the propensity
that held when the units were dealt. Pure.

Errors are compared with all of stable, latency with the baseline slice only. A relative
margin becomes a bet on labels, an absolute one (percentage points) a bet on the
difference; a latency margin is in the thresholds, so its bet has none.
"""

from collections.abc import Iterable, Mapping

from router.analysis.labelbet import LabelBet, start_label_bet, step_label_bet
from router.analysis.margin import MarginBet, start_margin_bet, step_margin_bet
from router.config.steps import Criterion
from router.control.evidence import Bet, UnitCounts, bet_key
from router.control.gates import QUANTILES, name_of, share_of, tests_of
from router.control.strata import COUNTED, CountKey, Counts, Stratum
from router.plan.rollout import Spec

KINDS = {"error_rate": "error", "invalid_rate": "invalid", "fallback_rate": "fallback"}
SLOTS = ("over_p90", "over_p99", "over_p999")
Grown = Iterable[tuple[CountKey, Stratum, Counts]]


def slots_of(spec: Spec) -> dict[str, int]:
    """Which of the engine's three latency thresholds each criterion's name has."""
    found: dict[str, int] = {}
    for criterion, _, _ in tests_of(spec):
        name = name_of(criterion)
        is_latency = (
            criterion.metric in QUANTILES or criterion.metric == "slo_exceedance"
        )
        if is_latency and name not in found and len(found) < len(SLOTS):
            found[name] = len(found)
    return found


def start_bets(spec: Spec) -> dict[str, Bet]:
    """Every test of the specification, before any event."""
    bets: dict[str, Bet] = {}
    slots = slots_of(spec)
    for criterion, version, within in tests_of(spec):
        key = key_of(criterion, version, within)
        if name_of(criterion) in slots:
            bets[key] = start_label_bet()
        elif criterion.metric in KINDS and criterion.worse_by is not None:
            margin = share_of(criterion.worse_by)
            if criterion.test == "non_inferior":
                bets[key] = start_label_bet(margin, "no worse")
            elif criterion.worse_by.unit == "%":
                bets[key] = start_label_bet(margin)
            else:
                bets[key] = start_margin_bet(margin)
    return bets


def key_of(criterion: Criterion, version: int, within: str) -> str:
    """The key of a criterion's bet."""
    part = criterion.metric.removeprefix("latency_")
    part = part if criterion.metric in QUANTILES else ""
    return bet_key(name_of(criterion), version, part, within)


def step_bets(spec: Spec, bets: Mapping[str, Bet], grown: Grown) -> dict[str, Bet]:
    """The tests after one tick; every test sees every tick, also an empty one."""
    grown = tuple(grown)
    slots = slots_of(spec)
    stepped = dict(bets)
    for criterion, version, within in tests_of(spec):
        key = key_of(criterion, version, within)
        bet = bets.get(key)
        if bet is None:
            continue
        name = name_of(criterion)
        kind = SLOTS[slots[name]] if name in slots else KINDS[criterion.metric]
        table = tabulate(grown, version, within, kind, baseline_only=name in slots)
        if isinstance(bet, LabelBet):
            strata = [(x_b, x_a, rho) for _, x_b, _, x_a, rho in table]
            stepped[key] = step_label_bet(bet, *strata)
        elif isinstance(bet, MarginBet):
            # A unit may fail long after it was first seen; it counted as quiet then.
            outcomes = [
                (max(n_b, x_b), x_b, max(n_a, x_a), x_a, rho)
                for n_b, x_b, n_a, x_a, rho in table
            ]
            stepped[key] = step_margin_bet(bet, *outcomes)
    return stepped


def add_units(
    spec: Spec, units: Mapping[tuple[int, str], UnitCounts], grown: Grown
) -> dict[tuple[int, str], UnitCounts]:
    """Units seen so far, by candidate and slice."""
    grown = tuple(grown)
    found = dict(units)
    at = COUNTED.index("exposure")
    for version in spec.candidates:
        for within in ("", *spec.slices):
            was = found.get((version, within), UnitCounts())
            more = [0, 0, 0]
            for key, stratum, counts in grown:
                if within and stratum.within != within:
                    continue
                if key.version == version:
                    more[0] += counts[at]
                elif key.version == stratum.stable:
                    more[2 if key.ordinal else 1] += counts[at]
            found[version, within] = UnitCounts(
                was.candidate + more[0], was.stable + more[1], was.baseline + more[2]
            )
    return found


def tabulate(
    grown: Grown, version: int, within: str, kind: str, *, baseline_only: bool
) -> list[tuple[int, int, int, int, float]]:
    """(units, events) of the candidate, of stable, and rho, a stratum each."""
    at, seen = COUNTED.index(kind), COUNTED.index("exposure")
    table: dict[tuple[object, bool], list[float]] = {}
    for key, stratum, counts in grown:
        if within and stratum.within != within:
            continue
        rho = stratum.rho(version, baseline_only=baseline_only)
        row = table.setdefault((key.stratum, key.is_sticky), [0, 0, 0, 0, rho])
        if key.version == version:
            row[0] += counts[seen]
            row[1] += counts[at]
        elif key.version == stratum.stable and (key.ordinal or not baseline_only):
            row[2] += counts[seen]
            row[3] += counts[at]
    return [
        (int(n_b), int(x_b), int(n_a), int(x_a), rho)
        for n_b, x_b, n_a, x_a, rho in table.values()
    ]
