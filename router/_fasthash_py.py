"""What routing means, in plain Python: the specification the kernel is tested against.

`read_table` turns the bytes of a routing table into frozen values, `Table.route`
decides one request by them, `Table.explain` also says which rules were tried and which
tests were asked. Every test of routing runs on this file and on `_fasthash.pyx`; where
they differ, this one is right. It reads only tables that the kernel's `check` has
accepted, and is hundreds of times slower: nothing on a request's path may call it.
"""

import re
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from router._fasthash_bytes import (
    ACCEPT,
    BUCKET_COUNT,
    CONTINUE,
    REJECT,
    Attribute,
    Model,
    Node,
    Rule,
    Shadow,
    read_models,
    revision_of,
)

CERTAIN_BP = 10_000  # the propensity of a variant that nothing else could have been
VALUE_LENGTH_MAX = 64  # bytes; a longer value is neither a number nor a time

Value = str | bytes | bool | int | float
Regex = Callable[[bytes, bytes], bool]  # (pattern, value) -> whether all of it matches


class Op(IntEnum):
    PRESENT = 0
    IN = 1
    PREFIX = 2
    SUFFIX = 3
    CONTAINS = 4
    REGEX = 5
    RANGE = 6
    BETWEEN = 7
    EQUAL = 8
    SEMVER = 9
    BEFORE = 10
    AFTER = 11


class Reason(IntEnum):
    STATIC = 0
    OVERRIDE = 1
    HOLDOUT = 2
    TARGETING_MATCH = 3
    SPLIT = 4
    DEFAULT = 5
    FALLBACK = 6
    DISABLED = 7


class Outcome(IntEnum):
    ROUTED = 0
    REFUSED_UNIT = 1
    PIN_UNKNOWN = 2
    PIN_DENIED = 3
    PIN_DISABLED = 4


class UnitSource(IntEnum):
    PARAMETER = 0
    METADATA = 1
    TENSOR = 2
    SEQUENCE = 3
    NONE = 4


MISSING_RANDOM, MISSING_REJECT = 0, 2
PINS_IGNORE, PINS_DENY = 1, 2


@dataclass(frozen=True, slots=True)
class Decision:
    """Who serves a request and why.

    `variant` is the position in the model's variants, `rule` the position in the table,
    None when no rule answered. `bucket` is None and `digest` 0 when none was drawn.
    `propensity_bp` is the chance, in basis points, that a unit like this got this
    variant from this rule. When `outcome` is not ROUTED the request is refused: the
    other fields name stable (or the pinned variant) and must not be counted.
    """

    outcome: int
    reason: int
    variant: int
    rule: int | None
    bucket: int | None
    propensity_bp: int
    digest: int
    cell: int
    rollout_revision: int
    unit_source: int


# -- digest, bucket, claim order ------------------------------------------------------

_MASK = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _rotate(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> (64 - bits)) & _MASK


def _mix(lane: int, word: int) -> int:
    return _rotate(lane + word * _P2, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int) -> int:
    """The XXH64 digest of `data`."""
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    striped = len(words) // 4 * 4 if len(data) >= 32 else 0
    if striped:
        lanes = [seed + _P1 + _P2, seed + _P2, seed, seed - _P1]
        for i in range(0, striped, 4):
            lanes = [_mix(lanes[k], words[i + k]) for k in range(4)]
        digest = sum(map(_rotate, lanes, (1, 7, 12, 18)))
        for lane in lanes:
            digest = (digest ^ _mix(0, lane)) * _P1 + _P4 & _MASK
    else:
        digest = seed + _P5
    digest = digest + len(data) & _MASK
    for word in words[striped:]:
        digest = _rotate(digest ^ _mix(0, word), 27) * _P1 + _P4 & _MASK
    rest = data[len(words) * 8 :]
    if len(rest) >= 4:
        digest ^= int.from_bytes(rest[:4], "little") * _P1 & _MASK
        digest = _rotate(digest, 23) * _P2 + _P3 & _MASK
        rest = rest[4:]
    for byte in rest:
        digest = _rotate(digest ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    digest = (digest ^ digest >> 33) * _P2 & _MASK
    digest = (digest ^ digest >> 29) * _P3 & _MASK
    return digest ^ digest >> 32


def seed_of(salt: str) -> int:
    """The seed of a layer or rollout."""
    return xxh64(salt.encode(), 0)


def bucket_of(digest: int) -> int:
    """The slot of a digest: its upper half scaled to the number of buckets."""
    return (digest >> 32) * BUCKET_COUNT >> 32


def bucket(unit: bytes, salt: str) -> int:
    """The slot of a unit in the layer of this salt, 0-9999."""
    return bucket_of(xxh64(unit, seed_of(salt)))


def claim_order(salt: str) -> "array[int]":
    """The buckets in the order a rollout of this salt claims them: unsigned shorts."""
    seed = seed_of(salt)
    keyed = [(xxh64(b.to_bytes(2, "little"), seed), b) for b in range(BUCKET_COUNT)]
    return array("H", [b for _, b in sorted(keyed)])


# -- how a value is read --------------------------------------------------------------

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_TIME = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)"
    rb"(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?)?"
)
_IDENTIFIER = rb"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rb"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    rb"(?:-(" + _IDENTIFIER + rb"(?:\." + _IDENTIFIER + rb")*))?"
    rb"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def read_number(text: bytes) -> float | None:
    """The number in `text`, None when it is not one.

    A decimal with an optional sign, fraction and exponent ("5." and ".5" count), at
    most 64 bytes, correctly rounded; too large is infinite. No spaces,
    underscores, "inf", "nan" or hexadecimals.
    """
    if len(text) > VALUE_LENGTH_MAX or not _NUMBER.fullmatch(text):
        return None
    return float(text)


def read_time(text: bytes) -> float | None:
    """Seconds since 1970 of an RFC 3339 date or date-time, None when it is neither.

    A date alone is its midnight, a time without an offset is UTC, a space may stand for
    the T. Nanoseconds count, anything finer is cut off. There is no leap second.
    """
    found = _TIME.fullmatch(text) if len(text) <= VALUE_LENGTH_MAX else None
    if found is None:
        return None
    *numbers, fraction, sign, east_hours, east_minutes = found.groups(b"0")
    year, month, day, hour, minute, second = map(int, numbers)
    if hour > 23 or minute > 59 or second > 59:
        return None
    if int(east_hours) > 23 or int(east_minutes) > 59:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:  # no such day
        return None
    east = int(east_hours) * 3600 + int(east_minutes) * 60
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second
    seconds += east if sign == b"-" else -east
    return float(seconds) + int(fraction[:9]) / 10.0 ** len(fraction[:9])


def _identifier_key(identifier: bytes) -> tuple[int, int, bytes]:
    # Numbers come before words. Without leading zeros the longer number is the larger.
    if identifier.isdigit():
        return (0, len(identifier), identifier)
    return (1, 0, identifier)


def _semver_key(text: bytes) -> tuple[object, ...] | None:
    found = _SEMVER.fullmatch(text)
    if found is None:
        return None
    *core, prerelease = found.groups()
    numbers = tuple(map(_identifier_key, core))
    if prerelease is None:
        return (numbers, 1, ())
    return (numbers, 0, tuple(map(_identifier_key, prerelease.split(b"."))))


def order_semver(left: bytes, right: bytes) -> int | None:
    """-1, 0 or 1 by precedence (semver.org 2.0.0), None when either is not a version.

    All three numbers are required and "v1.2.3" is not a version; build metadata is
    ignored.
    """
    a, b = _semver_key(left), _semver_key(right)
    if a is None or b is None:
        return None
    return (a > b) - (a < b)


# -- the table and what is asked of it -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What a decision depends on, besides the table."""

    attributes: Mapping[str, Value]
    unit: bytes | None
    unit_source: int
    pin: int
    random: int
    regex: Regex | None


@dataclass(frozen=True, slots=True)
class TestAsked:
    """One test of a rule as it was asked: the value (None: missing) and the answer."""

    node: Node
    value: Value | None
    has_passed: bool


@dataclass(frozen=True, slots=True)
class RuleTried:
    """One rule in the order tried.

    `bucket` is the one drawn and `variant` what the rule gives it; None when none was
    drawn or the rule leaves the bucket to the rules that follow.
    """

    rule: Rule
    tests: tuple[TestAsked, ...]
    is_match: bool
    bucket: int | None
    variant: int | None


@dataclass(frozen=True, slots=True)
class Table:
    """A routing table, read."""

    revision: int
    models: Mapping[str, Model]

    def route(
        self,
        model: str,
        attributes: Mapping[str, Value],
        unit: bytes | None,
        unit_source: int,
        pin: int = -1,
        random: int = 0,
        regex: Regex | None = None,
    ) -> Decision:
        """Decide one request.

        `unit` is None exactly when `unit_source` is NONE; `random` then stands in for
        it. `pin` is the version the caller asks for, negative when it asks for none.
        Without a `regex` every REGEX test is false.
        """
        request = Request(attributes, unit, unit_source, pin, random, regex)
        return decide(self.models[model], request)[0]

    def shadows(
        self,
        model: str,
        attributes: Mapping[str, Value],
        unit: bytes | None,
        unit_source: int,
        pin: int = -1,
        random: int = 0,
    ) -> tuple[int, ...]:
        """Positions of the shadows that take a request which `route` serves."""
        request = Request(attributes, unit, unit_source, pin, random, None)
        return find_shadows(self.models[model], request)

    def explain(
        self, model: str, request: Request
    ) -> tuple[Decision, tuple[RuleTried, ...]]:
        """Decide one request and say how."""
        return decide(self.models[model], request)


def read_table(data: bytes) -> Table:
    """The table in bytes that the kernel's `check` has accepted."""
    return Table(revision_of(data), read_models(data))


# -- tests ----------------------------------------------------------------------------


def _value(attribute: Attribute, request: Request) -> Value | None:
    value = (
        request.unit if attribute.is_unit else request.attributes.get(attribute.name)
    )
    return value.encode() if isinstance(value, str) else value


def _text(value: Value) -> bytes | None:
    """The value as text. A float has no one spelling, so it has none."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode() if isinstance(value, int) else None


def _text_passes(node: Node, text: bytes, regex: Regex | None) -> bool:
    if node.op == Op.IN:
        return text in node.operands
    if node.op == Op.PREFIX:
        return text.startswith(node.operands)
    if node.op == Op.SUFFIX:
        return text.endswith(node.operands)
    if node.op == Op.CONTAINS:
        return any(operand in text for operand in node.operands)
    if node.op == Op.REGEX:
        return regex is not None and bool(regex(node.operands[0], text))
    order = order_semver(text, node.operands[0])
    return order is not None and bool(node.flags & {-1: 1, 0: 2, 1: 4}[order])


def _number_passes(node: Node, value: Value) -> bool:
    number = read_number(value) if isinstance(value, bytes) else float(value)
    if isinstance(value, bytes) and number is None and node.op >= Op.BEFORE:
        number = read_time(value)
    if number is None:
        return False
    if node.op == Op.RANGE:
        return node.low <= number <= node.high
    if node.op == Op.BETWEEN:
        return node.low < number < node.high
    if node.op == Op.EQUAL:
        return number == node.low
    return number < node.low if node.op == Op.BEFORE else number > node.low


def passes(node: Node, value: Value | None, regex: Regex | None) -> bool:
    """Whether the test is true of the value. Nothing is true of a missing one."""
    if value is None:
        return False
    if node.op == Op.PRESENT:
        return True
    if node.op <= Op.REGEX or node.op == Op.SEMVER:
        text = _text(value)
        return text is not None and _text_passes(node, text, regex)
    return _number_passes(node, value)


def ask(rule: Rule | Shadow, request: Request) -> tuple[bool, tuple[TestAsked, ...]]:
    """Whether the program accepts, and the tests that decided it."""
    asked = []
    at = 0 if rule.program else ACCEPT
    while at < REJECT:
        node = rule.program[at]
        value = _value(node.attribute, request)
        asked.append(TestAsked(node, value, passes(node, value, request.regex)))
        at = node.yes if asked[-1].has_passed else node.no
    return at == ACCEPT, tuple(asked)


# -- decision -------------------------------------------------------------------------


def _without_rule(
    request: Request, variant: int, cell_first: int, reason: Reason, outcome: Outcome
) -> Decision:
    return Decision(
        outcome=outcome,
        reason=reason,
        variant=variant,
        rule=None,
        bucket=None,
        propensity_bp=CERTAIN_BP,
        digest=0,
        cell=cell_first + variant,
        rollout_revision=0,
        unit_source=request.unit_source,
    )


def _by_pin(model: Model, request: Request) -> Decision:
    variant, outcome = model.stable, Outcome.PIN_UNKNOWN
    if model.pins == PINS_DENY:
        outcome = Outcome.PIN_DENIED
    else:
        versions = [variant.version for variant in model.variants]
        if (
            request.pin in versions
        ):  # variants are sorted: the first has the least ordinal
            variant = versions.index(request.pin)
            is_disabled = model.variants[variant].is_disabled
            outcome = Outcome.PIN_DISABLED if is_disabled else Outcome.ROUTED
    return _without_rule(request, variant, model.cell_static, Reason.STATIC, outcome)


def digest_of(rule: Rule, request: Request) -> int:
    """The unit's digest in the rule's layer; a random number is a unit of its own."""
    if request.unit is None:
        return xxh64(request.random.to_bytes(8, "little"), rule.seed)
    return xxh64(request.unit, rule.seed)


def _by_rule(model: Model, rule: Rule, request: Request, drawn: int | None) -> Decision:
    """The answer of a rule that matched; `drawn` is the bucket, if one was."""
    buckets = rule.buckets
    variant = rule.variant if buckets is None or drawn is None else buckets[drawn]
    is_disabled = model.variants[variant].is_disabled
    if is_disabled:
        variant = model.stable
    return Decision(
        outcome=Outcome.ROUTED,
        reason=Reason.DISABLED if is_disabled else rule.reason,
        variant=variant,
        rule=rule.index,
        bucket=drawn,
        propensity_bp=CERTAIN_BP if drawn is None else rule.shares[variant],
        digest=0 if drawn is None else digest_of(rule, request),
        cell=rule.cell_first + variant,
        rollout_revision=rule.rollout_revision,
        unit_source=request.unit_source,
    )


def try_rule(rule: Rule, request: Request) -> RuleTried:
    """Ask a rule about a request."""
    is_match, tests = ask(rule, request)
    if not is_match:
        return RuleTried(rule, tests, False, None, None)
    if rule.buckets is None:
        return RuleTried(rule, tests, True, None, rule.variant)
    drawn = bucket_of(digest_of(rule, request))
    claimed = rule.buckets[drawn]
    return RuleTried(rule, tests, True, drawn, None if claimed == CONTINUE else claimed)


def decide(model: Model, request: Request) -> tuple[Decision, tuple[RuleTried, ...]]:
    """Who serves this request: pin, then the rules in order, then stable."""
    if request.pin >= 0 and model.pins != PINS_IGNORE:
        return _by_pin(model, request), ()
    tried: list[RuleTried] = []
    outcome = Outcome.ROUTED
    if request.unit is not None or model.on_missing == MISSING_RANDOM:
        for rule in model.rules:
            tried.append(try_rule(rule, request))
            if tried[-1].variant is not None:
                return _by_rule(model, rule, request, tried[-1].bucket), tuple(tried)
    elif model.on_missing == MISSING_REJECT:
        outcome = Outcome.REFUSED_UNIT
    return (
        _without_rule(
            request, model.stable, model.cell_default, Reason.DEFAULT, outcome
        ),
        tuple(tried),
    )


def takes(shadow: Shadow, request: Request) -> bool:
    """Whether a shadow takes the request: by the unit's bucket, or drawn anew."""
    if not ask(shadow, request)[0]:
        return False
    random = request.random.to_bytes(8, "little")
    if shadow.buckets is not None:
        unit = random if request.unit is None else request.unit
        return bool(shadow.buckets[bucket_of(xxh64(unit, shadow.seed))])
    # Not the seed itself: without a unit a rule of that salt draws its bucket by it.
    return bucket_of(xxh64(random, shadow.seed ^ _MASK)) < shadow.sample_bp


def find_shadows(model: Model, request: Request) -> tuple[int, ...]:
    """The shadows that take a request. None runs what answers anyway, and none runs for
    a request that is refused."""
    decision, _ = decide(model, request)
    if decision.outcome != Outcome.ROUTED:
        return ()
    return tuple(
        position
        for position, shadow in enumerate(model.shadows)
        if shadow.variant != decision.variant
        and not model.variants[shadow.variant].is_disabled
        and takes(shadow, request)
    )
