"""Which share of a group, or which of its units, a routing table gives to whom.

The simulated engine asks once a table. The bucket maps and programs are the table's
own and tests are asked by the kernel's twin; only the order of the work differs from
the kernel's `route`, so that a million requests need no million decisions. Nothing here
is drawn by chance.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router._fasthash import xxh64
from router._fasthash_bytes import BUCKET_COUNT, CONTINUE, Model, Rule, Shadow
from router._fasthash_py import MISSING_RANDOM, Request, ask, bucket_of

Ints = npt.NDArray[np.int64]
NOWHERE = -1  # no rule answered: the default


@dataclass(frozen=True, slots=True)
class Dealt:
    """A rule (its position, or NOWHERE) and the position of the variant it gave."""

    rule: int
    variant: int


def request_of(attributes: Mapping[str, str], unit: bytes | None = None) -> Request:
    """A request with these attributes, as the kernel's twin reads it."""
    values = {name: value.encode() for name, value in attributes.items()}
    return Request(values, unit, 0, -1, 0, None)


def shares(model: Model, attributes: Mapping[str, str]) -> dict[Dealt, float]:
    """The chance of each outcome for a request without a unit.

    Exact: buckets of one seed that are dealt alike by all its rules are one case, and
    different seeds are independent.
    """
    rules = list(_matching(model, request_of(attributes)))
    if model.on_missing != MISSING_RANDOM:
        rules = []
    seeds = dict.fromkeys(rule.seed for rule in rules if rule.buckets is not None)
    cases = [_cases(rules, seed) for seed in seeds]
    found: dict[Dealt, float] = {}
    for drawn in itertools.product(*cases):
        chance = 1.0
        bucket_at = {}
        for seed, (bucket, count) in zip(seeds, drawn, strict=True):
            chance *= count / BUCKET_COUNT
            bucket_at[seed] = bucket
        dealt = _deal(model, rules, bucket_at)
        found[dealt] = found.get(dealt, 0.0) + chance
    return found


def deal_units(
    model: Model, attributes: Mapping[str, str], units: Sequence[bytes], drawn: "Drawn"
) -> list[Dealt]:
    """What each unit of a group is given."""
    given: list[Dealt | None] = [None] * len(units)
    left = np.arange(len(units))
    for rule in model.rules:
        if not len(left):
            break
        mine = _who_match(rule, attributes, units, left)
        if rule.buckets is None:
            variants = np.full(len(mine), rule.variant)
        else:
            table = np.frombuffer(rule.buckets, np.uint8)
            variants = table[drawn.buckets(rule.seed)[mine]].astype(np.int64)
            mine, variants = mine[variants != CONTINUE], variants[variants != CONTINUE]
        for unit, variant in zip(mine.tolist(), variants.tolist(), strict=True):
            given[unit] = Dealt(rule.index, variant)
        left = np.setdiff1d(left, mine, assume_unique=True)
    nobody = Dealt(NOWHERE, model.stable)
    return [one or nobody for one in given]


def shadow_share(shadow: Shadow, attributes: Mapping[str, str]) -> float:
    """The chance that a shadow takes a request of a group."""
    if not ask(shadow, request_of(attributes))[0]:
        return 0.0
    if shadow.buckets is not None:
        return shadow.buckets.count(1) / BUCKET_COUNT
    return shadow.sample_bp / BUCKET_COUNT


class Drawn:
    """Owner of the buckets of units, by seed: they never change."""

    def __init__(self, units: Sequence[bytes]) -> None:
        self._units = units
        self._buckets: dict[int, Ints] = {}

    def buckets(self, seed: int) -> Ints:
        """The bucket of each unit in the layer of this seed."""
        if seed not in self._buckets:
            drawn = [bucket_of(xxh64(unit, seed)) for unit in self._units]
            self._buckets[seed] = np.asarray(drawn, np.int64)
        return self._buckets[seed]


def _matching(model: Model, request: Request) -> Iterator[Rule]:
    return (rule for rule in model.rules if ask(rule, request)[0])


def _cases(rules: Sequence[Rule], seed: int) -> list[tuple[int, int]]:
    """Buckets that stand for all that are dealt like them, and how many those are."""
    maps = [
        np.frombuffer(rule.buckets, np.uint8)
        for rule in rules
        if rule.seed == seed and rule.buckets is not None
    ]
    _, first, counts = np.unique(
        np.stack(maps), axis=1, return_index=True, return_counts=True
    )
    return list(zip(first.tolist(), counts.tolist(), strict=True))


def _deal(model: Model, rules: Sequence[Rule], bucket_at: Mapping[int, int]) -> Dealt:
    for rule in rules:
        if rule.buckets is None:
            return Dealt(rule.index, rule.variant)
        variant = rule.buckets[bucket_at[rule.seed]]
        if variant != CONTINUE:
            return Dealt(rule.index, variant)
    return Dealt(NOWHERE, model.stable)


def _who_match(
    rule: Rule, attributes: Mapping[str, str], units: Sequence[bytes], left: Ints
) -> Ints:
    """Which of the units that are left the rule is for."""
    if any(node.attribute.is_unit for node in rule.program):
        passed = [
            unit
            for unit in left.tolist()
            if ask(rule, request_of(attributes, units[unit]))[0]
        ]
        return np.asarray(passed, np.int64)
    return left if ask(rule, request_of(attributes))[0] else left[:0]
