"""Whatever is asked for is had to a basis point, or is an error."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rollout_plans import Moves, candidates_of, config, held, rollout

from router.errors import ClaimError
from router.plan.encode import encode, shares_of

WEIGHTS = st.integers(0, 10_000)
AUDIENCES = st.sampled_from([None, "new-york", "california", "adults"])


@st.composite
def splits(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Routes, each with shares that add up."""
    routes: list[dict[str, Any]] = []
    for audience in draw(st.lists(AUDIENCES, max_size=3, unique=True)):
        cuts = sorted(draw(st.lists(WEIGHTS, min_size=1, max_size=3)))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        split = {at + 1: part / 100 for at, part in enumerate(parts)}
        route: dict[str, Any] = {"model": "credit", "split": split}
        routes.append(route | ({"audience": audience} if audience else {}))
    return sorted(routes, key=lambda route: "audience" not in route)


@st.composite
def rollouts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to three, of one candidate or two, that may want the same units."""
    made = []
    for at in range(draw(st.integers(0, 3))):
        several = {"candidates": [2, 3]} if draw(st.booleans()) else {}
        audience = draw(AUDIENCES)
        narrowed = {"audience": audience} if audience else {}
        made.append(rollout(f"r{at}", **several, **narrowed))
    return made


def check_shares(
    routes: list[dict[str, Any]], moving: list[dict[str, Any]], asked: list[list[int]]
) -> None:
    try:
        made = config(*moving, routes=routes)
    except ValidationError:
        return  # said, not guessed at
    moves = Moves(made)
    scopes = [spec for spec, _ in moves.scopes()]
    dealt: dict[str, dict[int, int]] = {}
    for at, weights in enumerate(asked[:6] if scopes else []):
        spec = scopes[at % len(scopes)]
        wanted = dict(zip(spec.candidates, weights, strict=False))
        before = moves.states.scopes.get(spec.scope)
        try:
            moves.set(spec.scope, wanted)
        except ClaimError:
            assert moves.states.scopes.get(spec.scope) == before
            continue
        (buckets,) = moves.state(spec.scope).maps
        assert {v: len(held(buckets, v)) for v in wanted} == wanted
        was, now = dealt.get(spec.scope, {}), candidates_of(buckets)
        given = {v: sum(held == v for held in was.values()) for v in wanted}
        if all(given[v] <= wanted[v] for v in wanted):  # nobody flips while all grow
            assert all(now[b] == v for b, v in was.items())
        dealt[spec.scope] = now
    assert encode(moves.plan()) == encode(moves.plan())
    model = moves.model()
    rules = {rule.name: rule for rule in model.rules}
    for route in made.routes:
        rule = rules[f"credit/{route.audience}" if route.audience else "credit"]
        if route.split is None or rule.buckets is None:
            continue
        requested = {share.version: share.weight for share in route.split}
        got = dict.fromkeys(requested, 0)
        shares = shares_of(model, rule.buckets)
        for variant, share in zip(model.variants, shares, strict=True):
            if variant.ordinal == 0 and (share or variant.version in got):
                got[variant.version] = got.get(variant.version, 0) + share
        assert got == requested


ASKED = splits(), rollouts(), st.lists(st.lists(WEIGHTS, min_size=2, max_size=2))
ANY: Any = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.slow
@settings(max_examples=300, **ANY)
@given(*ASKED)
def test_effective_shares_are_the_requested_ones_or_it_is_an_error(
    routes: list[dict[str, Any]], moving: list[dict[str, Any]], asked: list[list[int]]
) -> None:
    check_shares(routes, moving, asked)


@pytest.mark.soak
@settings(max_examples=10_000, **ANY)
@given(*ASKED)
def test_so_they_are_ten_thousand_times(
    routes: list[dict[str, Any]], moving: list[dict[str, Any]], asked: list[list[int]]
) -> None:
    check_shares(routes, moving, asked)
