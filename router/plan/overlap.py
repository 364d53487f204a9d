"""Whether two conditions can both be true of one request, as far as that can be proved.

Conservative: "no" is proved, anything else is "perhaps". The proof takes a condition
apart into sets of tests that would all have to hold and looks for two of a set that
never do: two exact values of one key, a prefix and a value without it, ranges that do
not meet, a test and its negation. Three tests that only contradict each other together
are not found, and neither are expressions or semantic versions that exclude each other.
"""

from dataclasses import dataclass
from math import inf

from router._fasthash import read_number
from router.plan.plan import All, AnyOf, Condition, Not, Op, Test

# Sets of tests looked at before giving up: conditions that people write need a handful.
ATTEMPTS_MAX = 5_000

_INTERVALS = frozenset({Op.RANGE, Op.BETWEEN, Op.EQUAL, Op.BEFORE, Op.AFTER})
_TEXTS = frozenset({Op.PREFIX, Op.SUFFIX, Op.CONTAINS})


@dataclass(frozen=True, slots=True)
class _Literal:
    """One test that has to be true, or false."""

    test: Test
    is_wanted: bool


def can_meet(left: Condition | None, right: Condition | None) -> bool:
    """Whether a request may match both; None is everyone."""
    members = tuple(c for c in (left, right) if c is not None)
    return is_possible(All(members))


def is_possible(condition: Condition | None) -> bool:
    """Whether any request may match."""
    if condition is None:
        return True
    # A stack of half-proved cases: what is still to be taken apart, and the tests that
    # have to hold so far.
    cases: list[tuple[tuple[Condition, ...], tuple[_Literal, ...]]] = [
        ((condition,), ())
    ]
    for _ in range(ATTEMPTS_MAX):
        if not cases:
            return False
        waiting, literals = cases.pop()
        if not waiting:
            return True
        _take_apart(waiting[0], waiting[1:], literals, cases)
    return True


def _take_apart(
    first: Condition,
    rest: tuple[Condition, ...],
    literals: tuple[_Literal, ...],
    cases: list[tuple[tuple[Condition, ...], tuple[_Literal, ...]]],
) -> None:
    """Put on the stack what is left of a case once its first condition is resolved."""
    match first:
        case Test():
            found: _Literal | None = _Literal(first, True)
        case Not(of=Test() as test):
            found = _Literal(test, False)
        case All(of=members) | Not(of=AnyOf(of=members)):
            found = None
            parts = members if isinstance(first, All) else tuple(map(Not, members))
            # Alternatives last: tests that contradict end a case before it forks.
            forks = tuple(part for part in parts if _is_fork(part))
            plain = tuple(part for part in parts if not _is_fork(part))
            cases.append(((*plain, *rest, *forks), literals))
        case AnyOf(of=members) | Not(of=All(of=members)):
            found = None
            parts = members if isinstance(first, AnyOf) else tuple(map(Not, members))
            cases.extend(((part, *rest), literals) for part in parts)
        case Not(of=Not(of=inner)):
            found = None
            cases.append(((inner, *rest), literals))
    if found is not None and _is_free_of(found, literals):
        cases.append((rest, (*literals, found)))


def _is_fork(condition: Condition) -> bool:
    match condition:
        case AnyOf() | Not(of=All()):
            return True
        case _:
            return False


def _is_free_of(found: _Literal, literals: tuple[_Literal, ...]) -> bool:
    """Whether a test may hold beside those that already have to."""
    if found.is_wanted and _is_empty(found.test):
        return False
    return not any(_contradict(found, other) for other in literals)


def _contradict(left: _Literal, right: _Literal) -> bool:
    if (left.test.key, left.test.on_unit) != (right.test.key, right.test.on_unit):
        return False
    if left.is_wanted and right.is_wanted:
        return _exclude(left.test, right.test) or _exclude(right.test, left.test)
    if left.is_wanted != right.is_wanted:
        wanted, refused = (left, right) if left.is_wanted else (right, left)
        return _implies(wanted.test, refused.test)
    return False


def _is_empty(test: Test) -> bool:
    """No value passes."""
    if test.op in _INTERVALS:
        return _meet(test, test) is False
    return test.op in {Op.IN, *_TEXTS} and not test.operands


def _exclude(left: Test, right: Test) -> bool:
    """No value passes both."""
    if left.op == Op.IN:
        return all(not _may_pass(right, operand) for operand in left.operands)
    if left.op == right.op == Op.PREFIX:
        return all(
            not a.startswith(b) and not b.startswith(a)
            for a in left.operands
            for b in right.operands
        )
    return left.op in _INTERVALS and right.op in _INTERVALS and not _meet(left, right)


def _implies(wanted: Test, refused: Test) -> bool:
    """Every value that passes the first passes the second."""
    if wanted == refused or refused.op == Op.PRESENT:
        return True
    if wanted.op == Op.IN:
        return all(_must_pass(refused, operand) for operand in wanted.operands)
    if wanted.op not in _INTERVALS or refused.op not in _INTERVALS:
        return False
    # The dates that BEFORE and AFTER read are no numbers to the others.
    is_read_by_both = _is_time(refused) or not _is_time(wanted)
    return is_read_by_both and _holds(_interval(refused), _interval(wanted))


def _is_time(test: Test) -> bool:
    return test.op in {Op.BEFORE, Op.AFTER}


def _may_pass(test: Test, operand: bytes) -> bool:
    """Whether this text may pass; perhaps when only the kernel could say."""
    if test.op in {Op.IN, *_TEXTS}:
        return _text_passes(test, operand)
    if test.op in _INTERVALS and not _is_time(test):
        # A truth is 1 or 0 to a comparison when it comes in a tensor.
        truth = {b"true": b"1", b"false": b"0"}.get(operand, operand)
        return _number_passes(test, truth)
    return True


def _must_pass(test: Test, operand: bytes) -> bool:
    if test.op in {Op.IN, *_TEXTS}:
        return _text_passes(test, operand)
    return test.op in _INTERVALS and _number_passes(test, operand)


def _text_passes(test: Test, text: bytes) -> bool:
    match test.op:
        case Op.IN:
            return text in test.operands
        case Op.PREFIX:
            return text.startswith(test.operands)
        case Op.SUFFIX:
            return text.endswith(test.operands)
        case _:
            return any(operand in text for operand in test.operands)


def _number_passes(test: Test, text: bytes) -> bool:
    number = read_number(text)
    return number is not None and _holds(_interval(test), (number, True, number, True))


# -- intervals: low, is low included, high, is high included ---------------------------

_Interval = tuple[float, bool, float, bool]


def _interval(test: Test) -> _Interval:
    match test.op:
        case Op.RANGE:
            return test.low, True, test.high, True
        case Op.BETWEEN:
            return test.low, False, test.high, False
        case Op.EQUAL:
            return test.low, True, test.low, True
        case Op.BEFORE:
            return -inf, True, test.low, False
        case _:
            return test.low, False, inf, True


def _meet(left: Test, right: Test) -> bool:
    (a, a_in, b, b_in), (c, c_in, d, d_in) = _interval(left), _interval(right)
    low, high = max(a, c), min(b, d)
    if low != high:
        return low < high
    lows = (a_in or a < low) and (c_in or c < low)
    return lows and (b_in or b > high) and (d_in or d > high)


def _holds(outer: _Interval, inner: _Interval) -> bool:
    (a, a_in, b, b_in), (c, c_in, d, d_in) = outer, inner
    is_low = a < c or (a == c and (a_in or not c_in))
    return is_low and (b > d or (b == d and (b_in or not d_in)))
