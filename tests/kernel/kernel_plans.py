"""Plans and requests for the tests of routing: a small one by hand, random ones."""

import random
import re
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from router.plan.plan import (
    BUCKET_COUNT,
    CONTINUE,
    All,
    AnyOf,
    Condition,
    Model,
    Not,
    OnMissing,
    Op,
    Output,
    OutputKind,
    Pins,
    Plan,
    Reason,
    Rule,
    Test,
    Unit,
    Variant,
)

KEYS = ("a", "b", "c")
PATTERNS = (b"[a-c]+", b"1.*", b".*\xff.*")
TEXTS = (
    b"", b"a", b"abc", b"new-york", b"true", b"1", b"-7", b"1.5", b".5", b"1e3", b"nan",
    b"1.2.3", b"1.2.3-rc.1", b"1.10.0", b"v1.2.3", b"2024-02-29",
    b"2024-02-29T12:00:00Z", b"\xff\x00", b"0x10", b"12345678901234567890",
    b"caf\xc3\xa9",
)  # fmt: skip
SEMVERS = (b"1.2.3", b"1.2.3-rc.2", b"1.9.0+build.7")
NUMBERS = (-7.0, 0.0, 1.0, 1.5, 65.0, 1000.0, 1709208000.0, float("inf"), -float("inf"))


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one `route`."""

    model: str
    attributes: dict[str, Any]
    unit: bytes | None
    unit_source: int
    pin: int
    random: int

    def on(self, table: Any) -> Any:
        return table.route(
            self.model, self.attributes, self.unit, self.unit_source, self.pin,
            self.random, full_match,
        )  # fmt: skip


def unhurried(examples: int) -> settings:
    """So many examples, and no failure because the machine was busy."""
    slow = [HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=slow)


def full_match(pattern: bytes, value: bytes) -> bool:
    return re.fullmatch(pattern, value, re.DOTALL) is not None


def buckets_of(*claims: tuple[range, int]) -> bytes:
    """A bucket map in which each range of buckets is a variant's."""
    made = bytearray([CONTINUE]) * BUCKET_COUNT
    for taken, variant in claims:
        made[taken.start : taken.stop] = bytes([variant]) * len(taken)
    return bytes(made)


def plan_of(*rules: Rule, variants: int = 3, **settings: Any) -> Plan:
    """A plan of one model "m", versions 1, 2, ... of which the first is stable."""
    options = tuple(Variant(f"v{n}", n) for n in range(1, variants + 1))
    made = Model("m", settings.pop("options", options), 0, rules, **settings)
    return Plan("test", (made,))


def rule_of(name: str, condition: Condition | None = None, **settings: Any) -> Rule:
    """A rule that gives everyone who matches variant 1, unless told otherwise."""
    given: dict[str, Any] = {
        "salt": "layer", "buckets": None, "variant": 1,
        "reason": Reason.TARGETING_MATCH,
    }  # fmt: skip
    return Rule(name=name, condition=condition, **(given | settings))


def single_tests() -> st.SearchStrategy[Test]:
    key = st.sampled_from(KEYS)
    unit = st.booleans()
    texts = st.lists(st.sampled_from(TEXTS), max_size=12).map(tuple)
    number = st.sampled_from(NUMBERS)
    text_ops = st.sampled_from((Op.IN, Op.PREFIX, Op.SUFFIX, Op.CONTAINS))
    number_ops = st.sampled_from((Op.RANGE, Op.BETWEEN, Op.EQUAL, Op.BEFORE, Op.AFTER))
    one = st.sampled_from(PATTERNS).map(lambda pattern: (pattern,))
    version = st.sampled_from(SEMVERS).map(lambda text: (text,))
    return st.one_of(
        st.builds(Test, key=key, op=st.just(Op.PRESENT), on_unit=unit),
        st.builds(Test, key=key, op=text_ops, operands=texts, on_unit=unit),
        st.builds(Test, key=key, op=st.just(Op.REGEX), operands=one, on_unit=unit),
        st.builds(Test, key=key, op=number_ops, low=number, high=number, on_unit=unit),
        st.builds(
            Test, key=key, op=st.just(Op.SEMVER), operands=version,
            flags=st.integers(0, 7), on_unit=unit,
        ),
    )  # fmt: skip


def conditions() -> st.SearchStrategy[Condition]:
    return st.recursive(
        single_tests(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda of: All(tuple(of))),
            st.lists(inner, max_size=4).map(lambda of: AnyOf(tuple(of))),
            inner.map(Not),
        ),
        max_leaves=12,
    )


def deal_condition(dealer: random.Random, depth: int = 3) -> Condition:
    kind = dealer.randrange(6) if depth else 5
    if kind == 0:
        return Not(deal_condition(dealer, depth - 1))
    if kind <= 2:
        members = range(dealer.randrange(4))
        combine = All if kind == 1 else AnyOf
        return combine(tuple(deal_condition(dealer, depth - 1) for _ in members))
    key, op, on_unit = (
        dealer.choice(KEYS),
        dealer.choice(list(Op)),
        not dealer.randrange(4),
    )
    if op in (Op.IN, Op.PREFIX, Op.SUFFIX, Op.CONTAINS):
        operands = tuple(dealer.choices(TEXTS, k=dealer.randrange(12)))
        return Test(key, op, operands, on_unit=on_unit)
    if op == Op.REGEX:
        return Test(key, op, (dealer.choice(PATTERNS),), on_unit=on_unit)
    if op == Op.SEMVER:
        flags = dealer.randrange(8)
        return Test(key, op, (dealer.choice(SEMVERS),), flags=flags, on_unit=on_unit)
    low, high = dealer.choice(NUMBERS), dealer.choice(NUMBERS)
    return Test(key, op, (), low, high, on_unit=on_unit)


def deal_rule(dealer: random.Random, name: str, variant_count: int) -> Rule:
    options = dealer.choices([*range(variant_count), CONTINUE], k=3)
    buckets = bytes(dealer.choices(options, k=BUCKET_COUNT // 100)) * 100
    return Rule(
        name,
        dealer.choice((None, deal_condition(dealer))),
        dealer.choice("xyz"),
        dealer.choice((None, buckets)),
        dealer.randrange(variant_count),
        dealer.choice(list(Reason)),
        dealer.getrandbits(32),
    )


def deal_model(dealer: random.Random, name: str) -> Model:
    count = dealer.randint(1, 4)
    stable = dealer.randrange(count)
    variants = tuple(
        # Two variants share a version now and then: ordinals 0 and 1.
        Variant(f"v{i}", i // 2, i % 2, i != stable and not dealer.randrange(3))
        for i in range(count)
    )
    rules = tuple(deal_rule(dealer, f"r{i}", count) for i in range(dealer.randrange(5)))
    output = dealer.choice((None, Output("p", 1, OutputKind.PROBABILITY, 0.0, 1.0)))
    unit = Unit(on_missing=dealer.choice(list(OnMissing)))
    return Model(name, variants, stable, rules, unit, output, dealer.choice(list(Pins)))


def deal_plan(dealer: random.Random) -> Plan:
    """A random plan of two models. Dealt: Hypothesis draws one in half a second."""
    return Plan("random", (deal_model(dealer, "m"), deal_model(dealer, "n")))


def deal_call(dealer: random.Random) -> Call:
    def value() -> Any:
        return dealer.choice(
            (dealer.choice(TEXTS), dealer.randint(-10, 100), dealer.gauss(0, 100), True,
             dealer.choice(TEXTS), dealer.choice(TEXTS).decode(errors="replace"))
        )  # fmt: skip

    unit = dealer.choice((None, dealer.choice(TEXTS), dealer.randbytes(9)))
    return Call(
        model=dealer.choice("mn"),
        attributes={key: value() for key in KEYS if dealer.randrange(4)},
        unit=unit,
        unit_source=4 if unit is None else dealer.randrange(4),
        pin=dealer.choice((-1, -1, -1, 0, 1, 7, 2**40)),
        random=dealer.getrandbits(64),
    )


@st.composite
def calls(draw: st.DrawFn) -> Call:
    value = st.one_of(
        st.sampled_from(TEXTS), st.text(max_size=8), st.booleans(), st.floats(),
        st.integers(-(2**63), 2**63 - 1), st.integers(-10, 100),
    )  # fmt: skip
    unit = draw(st.none() | st.binary(max_size=40) | st.sampled_from(TEXTS))
    return Call(
        model=draw(st.sampled_from(("m", "n"))),
        attributes=draw(st.dictionaries(st.sampled_from(KEYS), value)),
        unit=unit,
        unit_source=4 if unit is None else draw(st.integers(0, 3)),
        pin=draw(st.sampled_from((-1, -1, -1, 0, 1, 7, 2**40))),
        random=draw(st.integers(0, 2**64 - 1)),
    )
