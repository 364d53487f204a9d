"""Conditions compiled to programs: tests with two forward jumps each.

A program is a list of steps; each asks one test and goes on at `yes` or `no`, a later
step or the end. All, any and not leave no trace but in the jumps: `not` swaps them. The
work list is explicit because conditions nest as deep as their authors like.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from router.plan.plan import All, Condition, Not, Test

ACCEPT = 0xFFFF
REJECT = 0xFFFE


@dataclass(frozen=True, slots=True)
class Step:
    """One test, and the steps (or ends) that follow its two answers."""

    test: Test
    yes: int
    no: int


@dataclass(slots=True)
class _Label:
    """Where a part of the program begins, known once that part is compiled."""

    target: int | None = None


@dataclass(slots=True)
class _Part:
    condition: Condition
    yes: _Label
    no: _Label
    start: _Label = field(default_factory=_Label)


def compile_condition(condition: Condition | None) -> tuple[Step, ...] | None:
    """The program of a condition: empty when everyone matches, None when nobody can.

    Compiled from the last test to the first, so that every jump's target exists before
    the jump: steps are numbered backwards and turned round at the end.
    """
    if condition is None:
        return ()
    backwards: list[Step] = []
    whole = _Part(condition, _Label(ACCEPT), _Label(REJECT))
    parts = [whole]
    while parts:
        part = parts.pop()
        _compile_part(part, parts, backwards)
    entry = _resolved(whole.start)
    if entry >= REJECT:
        return () if entry == ACCEPT else None
    return _turned_round(entry, backwards)


def _compile_part(part: _Part, parts: list[_Part], backwards: list[Step]) -> None:
    """Emit a test, or put the members of a combination on the list, the last on top."""
    condition, yes, no = part.condition, part.yes, part.no
    while isinstance(condition, Not):
        condition, yes, no = condition.of, no, yes
    if isinstance(condition, Test):
        backwards.append(Step(condition, _resolved(yes), _resolved(no)))
        part.start.target = len(backwards) - 1
        return
    members = condition.of
    next_is = yes if isinstance(condition, All) else no
    if not members:
        part.start.target = _resolved(next_is)
        return
    starts = [part.start, *(_Label() for _ in members[1:]), next_is]
    for member, (start, after) in zip(members, pairwise(starts), strict=True):
        if isinstance(condition, All):
            parts.append(_Part(member, after, no, start))
        else:
            parts.append(_Part(member, yes, after, start))


def _resolved(label: _Label) -> int:
    assert label.target is not None, "a jump was compiled before its target"
    return label.target


def _turned_round(entry: int, backwards: list[Step]) -> tuple[Step, ...]:
    """The steps that can be reached from `entry`, first to last."""
    reached = {entry}
    for index in range(entry, -1, -1):
        if index in reached:
            reached.update((backwards[index].yes, backwards[index].no))
    kept = [index for index in range(entry, -1, -1) if index in reached]
    place = {index: at for at, index in enumerate(kept)}
    place |= {ACCEPT: ACCEPT, REJECT: REJECT}
    return tuple(
        Step(backwards[i].test, place[backwards[i].yes], place[backwards[i].no])
        for i in kept
    )


def tests_of(condition: Condition | None) -> tuple[Test, ...]:
    """Every test of a condition, in the order written."""
    found: list[Test] = []
    rest = [condition] if condition is not None else []
    while rest:
        one = rest.pop()
        if isinstance(one, Test):
            found.append(one)
        elif isinstance(one, Not):
            rest.append(one.of)
        else:
            rest.extend(reversed(one.of))
    return tuple(found)
