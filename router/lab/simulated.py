"""The data plane without requests: the same table in, snapshots out of a traffic model.

`SimulatedEngine` takes what the engine takes (`publish`, `thresholds`) and answers with
the engine's own keys (`snapshot`), so that the controller can be run for weeks within
seconds. Nothing is routed one by one: the table says which share of the requests, or
which units, each variant gets, and chance draws what comes of them. Time passes only by
the clock that was handed in, and only when somebody looks or publishes.

What it does not have: queues, batches, connections, and anything that two versions do
to each other. Its breaker opens when every request of a tick failed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from router._fasthash import Table
from router._fasthash_bytes import Model, Rule, Variant, read_models
from router.clock import Clock
from router.errors import EngineError, TableError
from router.lab.counters import (
    KINDS,
    Counters,
    FirstKey,
    Firsts,
    Pairs,
    VariantKey,
    first_json,
    pairs_json,
    variant_json,
)
from router.lab.dealing import Dealt, Drawn, deal_units, shadow_share, shares
from router.lab.demand import (
    BUCKET_COUNT,
    EDGES_PER_OCTAVE,
    FIRST,
    LAST,
    Behaviour,
    Demand,
    Floats,
    latency_chances,
)

OVER = KINDS.index("over_p90")
FILTER_BITS = 2**26
BITS_A_UNIT = 5
BREAKER_MIN = 5  # requests of a tick that all have to fail
BREAKER_OPEN_S = 5.0
NOISE_SHARE = 0.01  # of the pairs, stable runs once more

Ints = npt.NDArray[np.int64]
Limits = tuple[int | None, ...]
# Scope, attempt, version, ordinal, three indices of histogram buckets.
Threshold = tuple[str, int, int, int, Sequence[int | None]]


@dataclass(frozen=True, slots=True)
class Cell:
    """Where requests of one rule and variant are counted."""

    rule: Rule | None
    variant: Variant
    is_stable: bool
    counters: Counters
    firsts: Firsts | None


@dataclass(frozen=True, slots=True)
class Played:
    """What came of some requests of one cell. `positions` of latency, one a request."""

    count: int
    failed: int
    invalid: int
    latency: Ints


@dataclass(slots=True)
class _Traffic:
    """A model's demand under the current table."""

    demand: Demand
    drawn: Drawn
    units: list[bytes]
    popularity: Floats
    group_of: Ints
    model: Model | None = None
    cells: list[Cell] = field(default_factory=list)
    dealt: dict[Dealt, int] = field(default_factory=dict)
    chances: list[tuple[Ints, Floats]] = field(default_factory=list)  # of each group
    cell_of: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # of each unit


class SimulatedEngine:
    """Owner of the counters. One thread uses it, as a ticker does."""

    def __init__(self, clock: Clock, demands: Sequence[Demand], seed: int = 0) -> None:
        self._clock = clock
        self._random = np.random.default_rng(seed)
        self._began_s = self._last_s = clock.monotonic()
        self._traffic = [_start(demand, self._random) for demand in demands]
        self._variants: dict[VariantKey, Counters] = {}
        self._firsts: dict[FirstKey, Firsts] = {}
        self._seen: dict[tuple[str, int, int], npt.NDArray[np.bool_]] = {}
        self._pairs: dict[VariantKey, Pairs] = {}
        self._limits: dict[tuple[str, int, int, int], Limits] = {}
        self._open_until_s: dict[tuple[str, int], float] = {}
        self._cpu_s: dict[tuple[str, int], float] = {}
        self._revision = ""
        self.tables = 0

    def publish(self, table: bytes) -> None:
        """Swap the routing table; EngineError when it does not check."""
        try:
            revision = Table(table).revision
        except TableError as error:
            raise EngineError(str(error)) from error
        self.advance()
        models = read_models(table)
        for traffic in self._traffic:
            self._deal(traffic, models.get(traffic.demand.model))
        self._revision = f"{revision:016x}"
        self.tables += 1

    def thresholds(self, thresholds: Iterable[Threshold]) -> None:
        """Set the latencies that are too long, as the engine does."""
        self.advance()
        for scope, attempt, version, ordinal, limits in thresholds:
            self._limits[scope, attempt, version, ordinal] = tuple(limits)

    def behave(self, model: str, demand: Demand) -> None:
        """From now on the model's versions, or its callers, do otherwise."""
        self.advance()
        for traffic in self._traffic:
            if traffic.demand.model == model:
                assert demand.units == traffic.demand.units
                assert len(demand.groups) == len(traffic.demand.groups)
                traffic.demand = demand

    def advance(self) -> None:
        """Let what was asked since the last time come to pass."""
        now_s = self._clock.monotonic()
        past_s, self._last_s = now_s - self._last_s, now_s
        if past_s <= 0:
            return
        at_s = now_s - self._began_s - past_s / 2
        for traffic in self._traffic:
            if traffic.model is not None:
                count = self._random.poisson(traffic.demand.rate_at(at_s) * past_s)
                self._play(traffic, traffic.model, int(count), at_s)

    def snapshot(self) -> dict[str, Any]:
        """All counters, under the engine's names."""
        self.advance()
        return {
            "time_s": self._clock.now(),
            "uptime_s": self._last_s - self._began_s,
            "table_revision": self._revision,
            "versions": self._versions(),
            "variants": [
                variant_json(key, counters) for key, counters in self._variants.items()
            ],
            "firsts": [first_json(key, one) for key, one in self._firsts.items()],
            "filters": self._filters(),
            "shadows": [pairs_json(key, one) for key, one in self._pairs.items()],
            "tape": {"waiting_bytes": 0, "written": {}, "dropped": {}},
        }

    # -- from a table to cells -------------------------------------------------------

    def _deal(self, traffic: _Traffic, model: Model | None) -> None:
        traffic.model, traffic.cells, traffic.dealt = model, [], {}
        if model is None:
            return
        traffic.chances = []
        traffic.cell_of = np.zeros(len(traffic.units), np.int64)
        for at, group in enumerate(traffic.demand.groups):
            if not traffic.units:
                found = shares(model, group.attributes)
                cells = [self._cell(traffic, model, one) for one in found]
                chances = np.asarray(list(found.values()))
                traffic.chances.append((np.asarray(cells), chances / chances.sum()))
                continue
            mine = np.flatnonzero(traffic.group_of == at)
            keys = [traffic.units[unit] for unit in mine]
            dealt = deal_units(
                model, group.attributes, keys, _Part(traffic.drawn, mine)
            )
            for unit, one in zip(mine.tolist(), dealt, strict=True):
                traffic.cell_of[unit] = self._cell(traffic, model, one)

    def _cell(self, traffic: _Traffic, model: Model, dealt: Dealt) -> int:
        """The position of a cell among the traffic's."""
        known = traffic.dealt.get(dealt)
        if known is not None:
            return known
        rule = next((r for r in model.rules if r.index == dealt.rule), None)
        given = model.variants[dealt.variant]
        # The share of a disabled variant is stable's, and nothing is compared.
        variant = model.variants[model.stable] if given.is_disabled else given
        key = (model.name, variant.name, variant.version, variant.ordinal)
        firsts = None
        if rule is not None and rule.scope and not given.is_disabled:
            first_key = (
                rule.scope, rule.attempt, rule.rollout_revision, model.name, rule.name,
                variant.name, variant.version, variant.ordinal,
            )  # fmt: skip
            firsts = self._firsts.setdefault(first_key, Firsts())
        is_stable = variant.version == model.variants[model.stable].version
        counters = self._variants.setdefault(key, Counters())
        traffic.cells.append(Cell(rule, variant, is_stable, counters, firsts))
        traffic.dealt[dealt] = len(traffic.cells) - 1
        return len(traffic.cells) - 1

    # -- what comes of requests ------------------------------------------------------

    def _play(self, traffic: _Traffic, model: Model, count: int, at_s: float) -> None:
        if traffic.units:
            self._play_units(traffic, count, at_s)
        groups = self._random.multinomial(count, _shares_of(traffic.demand))
        for group, asked in enumerate(groups.tolist()):
            if not traffic.units:
                cells, chances = traffic.chances[group]
                drawn = self._random.multinomial(asked, chances)
                for cell, mine in zip(cells.tolist(), drawn.tolist(), strict=True):
                    if mine:
                        self._play_cell(traffic, traffic.cells[cell], group, mine, at_s)
            self._shadow(traffic, model, group, asked)

    def _play_cell(
        self, traffic: _Traffic, cell: Cell, group: int, count: int, at_s: float
    ) -> None:
        """Requests without a unit: only how many of each kind matters."""
        demand, version = traffic.demand, cell.variant.version
        behaviour = demand.behaviour_of(version, group)
        if self._is_open(demand.model, version):
            self._skip(cell, count)
            if cell.firsts is not None:
                cell.firsts.other[:OVER] += (count, count, 0, count)
            return
        factor = demand.error_factor(at_s)
        failed = int(
            self._random.binomial(count, _at_most(behaviour.error_rate, factor))
        )
        wrong = _at_most(behaviour.invalid_rate, factor)
        invalid = int(self._random.binomial(count - failed, wrong))
        chances = latency_chances(behaviour, demand.latency_factor(at_s))
        latency = self._random.multinomial(count, chances)
        self._count(traffic, cell, behaviour, Played(count, failed, invalid, latency))
        if cell.firsts is not None:
            bad = failed + invalid
            other = cell.firsts.other
            is_saved = demand.has_fallback and not cell.is_stable
            other[:OVER] += (count, bad, invalid, bad if is_saved else 0)
            for at, limit in enumerate(self._limits_of(cell)):
                if limit is not None:
                    other[OVER + at] += int(latency[limit - FIRST + 1 :].sum())

    def _play_units(self, traffic: _Traffic, count: int, at_s: float) -> None:
        random = self._random
        asking = np.searchsorted(traffic.popularity, random.random(count))
        cells = traffic.cell_of[asking]
        groups = traffic.group_of[asking]
        for cell_at, cell in enumerate(traffic.cells):
            for group in range(len(traffic.demand.groups)):
                mine = asking[(cells == cell_at) & (groups == group)]
                if len(mine):
                    self._play_mine(traffic, cell, group, mine, at_s)

    def _play_mine(
        self, traffic: _Traffic, cell: Cell, group: int, units: Ints, at_s: float
    ) -> None:
        """Requests of units, one each: first events are told from later ones."""
        demand, random = traffic.demand, self._random
        behaviour = demand.behaviour_of(cell.variant.version, group)
        if self._is_open(demand.model, cell.variant.version):
            self._skip(cell, len(units))
            if cell.firsts is not None:
                for kind in (0, 1, 3):  # exposed, failed, answered by stable
                    cell.firsts.sticky[kind] += self._new(traffic, cell, kind, units)
            return
        factor = demand.error_factor(at_s)
        chance = random.random(len(units))
        error_rate = _at_most(behaviour.error_rate, factor)
        failed = chance < error_rate
        invalid = ~failed & (
            random.random(len(units)) < _at_most(behaviour.invalid_rate, factor)
        )
        middle = np.log(behaviour.latency_ms / 1e3 * demand.latency_factor(at_s))
        latency_s = random.normal(middle, behaviour.latency_spread, len(units))
        positions = np.ceil(latency_s / np.log(2) * EDGES_PER_OCTAVE).astype(np.int64)
        positions = np.clip(positions, FIRST, LAST)
        counts = np.bincount(positions - FIRST, minlength=BUCKET_COUNT)
        played = Played(len(units), int(failed.sum()), int(invalid.sum()), counts)
        self._count(traffic, cell, behaviour, played)
        if cell.firsts is None:
            return
        bad = failed | invalid
        is_saved = demand.has_fallback and not cell.is_stable
        happened = [np.ones(len(units), bool), bad, invalid, bad & is_saved]
        happened += [
            np.zeros(len(units), bool) if limit is None else positions > limit
            for limit in self._limits_of(cell)
        ]
        for kind, whose in enumerate(happened):
            if whose.any():
                cell.firsts.sticky[kind] += self._new(traffic, cell, kind, units[whose])

    def _new(self, traffic: _Traffic, cell: Cell, kind: int, units: Ints) -> int:
        """How many of these units had no such event in the attempt before."""
        assert cell.rule is not None
        key = cell.rule.scope, cell.rule.attempt, kind
        if key not in self._seen:
            self._seen[key] = np.zeros(len(traffic.units), bool)
        seen = self._seen[key]
        fresh = np.unique(units[~seen[units]])
        seen[fresh] = True
        return len(fresh)

    def _skip(self, cell: Cell, count: int) -> None:
        """The breaker is open: stable answers, and the variant is charged."""
        for counters in _counters(cell):
            counters.requests += count
            counters.ok += count
            counters.fallbacks += count
            counters.skipped += count

    def _count(
        self, traffic: _Traffic, cell: Cell, behaviour: Behaviour, played: Played
    ) -> None:
        bad = played.failed + played.invalid
        is_saved = traffic.demand.has_fallback and not cell.is_stable
        good = played.count - bad
        draw = self._random.normal(0, 1)
        total = good * behaviour.score + draw * behaviour.score_spread * good**0.5
        squares = good * (behaviour.score**2 + behaviour.score_spread**2)
        for counters in _counters(cell):
            counters.requests += played.count
            counters.ok += played.count if is_saved else good
            counters.failures += played.failed
            counters.invalid += played.invalid
            counters.fallbacks += bad if is_saved else 0
            counters.scores += good
            counters.score_sum += total
            counters.score_squares += squares
            counters.latency += played.latency
        key = traffic.demand.model, cell.variant.version
        busy_s = played.count * behaviour.latency_ms / 1e3
        self._cpu_s[key] = self._cpu_s.get(key, 0.0) + busy_s
        if bad == played.count >= BREAKER_MIN and not cell.is_stable:
            self._open_until_s[key] = self._last_s + BREAKER_OPEN_S

    def _shadow(self, traffic: _Traffic, model: Model, group: int, asked: int) -> None:
        demand, random = traffic.demand, self._random
        for shadow in model.shadows:
            variant = model.variants[shadow.variant]
            if variant.is_disabled:
                continue
            share = shadow_share(shadow, demand.groups[group].attributes)
            taken = int(random.binomial(asked, share))
            behaviour = demand.behaviour_of(variant.version, group)
            broken = _at_most(behaviour.error_rate + behaviour.invalid_rate, 1.0)
            failed = int(random.binomial(taken, broken))
            differing = _at_most(behaviour.disagreement + demand.noise, 1.0)
            key = (model.name, shadow.name, variant.version, shadow.variant)
            mine = self._pairs.setdefault(key, Pairs())
            mine.failed += failed
            mine.pairs += taken - failed
            mine.disagreements += int(random.binomial(taken - failed, differing))
            again = int(random.binomial(taken, NOISE_SHARE))
            mine.noise_pairs += again
            mine.noise_disagreements += int(random.binomial(again, demand.noise))

    def _limits_of(self, cell: Cell) -> Limits:
        assert cell.rule is not None
        version, ordinal = cell.variant.version, cell.variant.ordinal
        key = cell.rule.scope, cell.rule.attempt, version, ordinal
        return self._limits.get(key, ())

    def _is_open(self, model: str, version: int) -> bool:
        return self._last_s < self._open_until_s.get((model, version), -1.0)

    # -- what a snapshot says --------------------------------------------------------

    def _versions(self) -> list[dict[str, Any]]:
        known = dict.fromkeys((model, v) for model, _, v, _ in self._variants)
        for model, _, version, _ in self._pairs:
            known.setdefault((model, version))
        return [
            {
                "model": model, "version": version, "is_ready": True,
                "breaker": "open" if self._is_open(model, version) else "closed",
                "memory_bytes": 0,
                "cpu_ns": int(self._cpu_s.get((model, version), 0.0) * 1e9),
            }
            for model, version in known
        ]  # fmt: skip

    def _filters(self) -> list[dict[str, Any]]:
        found = []
        for (scope, attempt, kind), seen in self._seen.items():
            fill = 1 - (1 - 1 / FILTER_BITS) ** (BITS_A_UNIT * int(seen.sum()))
            found.append(
                {
                    "scope": scope, "attempt": attempt, "kind": KINDS[kind],
                    "fill": fill, "is_saturated": fill >= 0.5,
                }
            )  # fmt: skip
        return found


class _Part(Drawn):
    """The buckets of some of the units."""

    def __init__(self, whole: Drawn, units: Ints) -> None:
        self._whole, self._mine = whole, units

    def buckets(self, seed: int) -> Ints:
        return self._whole.buckets(seed)[self._mine]


def _start(demand: Demand, random: np.random.Generator) -> _Traffic:
    units = [f"unit-{n}".encode() for n in range(demand.units)]
    drawn = random.choice(len(demand.groups), demand.units, p=_shares_of(demand))
    popularity = demand.popularity() if units else np.zeros(0)
    return _Traffic(demand, Drawn(units), units, popularity, drawn.astype(np.int64))


def _shares_of(demand: Demand) -> list[float]:
    return [group.share for group in demand.groups]


def _at_most(rate: float, factor: float) -> float:
    return min(1.0, rate * factor)


def _counters(cell: Cell) -> tuple[Counters, ...]:
    if cell.firsts is None:
        return (cell.counters,)
    return cell.counters, cell.firsts.counters
