"""Rollouts that want the same units, and rollouts that are never reached.

What the schema's checks cannot see, because it takes conditions apart: which audiences
may overlap. It looks at a configuration whose names are all known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from router.config.config import Config
from router.config.problems import Finding
from router.config.route import route_name
from router.plan.condition import compile_audiences
from router.plan.layers import can_meet_any, held_out, widest_bp
from router.plan.overlap import is_possible
from router.plan.plan import BUCKET_COUNT, Condition, Not
from router.plan.rollout import Spec
from router.plan.scopes import (
    Conditions,
    both,
    has_arrived,
    specs_of,
    wave_conditions,
)

Finder = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class _Looked:
    """A configuration, interpreted."""

    config: Config
    specs: tuple[Spec, ...]
    audiences: Conditions


def check_shares(
    config: Config, versions: Mapping[str, tuple[int, ...]], skip: frozenset[int]
) -> Finder:
    """Every rollout that cannot have its share; `skip` are those (by place in the file)
    that have other problems."""
    places = {rollout.name: i for i, rollout in enumerate(config.rollouts)}
    sound = tuple(r for i, r in enumerate(config.rollouts) if i not in skip)
    config = config.model_copy(update={"rollouts": sound})
    specs = tuple(spec for spec in specs_of(config, versions) if not has_arrived(spec))
    looked = _Looked(config, specs, compile_audiences(config.audiences))
    reported: set[tuple[int, str]] = set()
    for spec in specs:
        for found in (
            *_check_reach(spec, looked),
            *_check_layer(spec, looked),
            *_check_sum(spec, looked),
        ):
            at = places[spec.rollout]
            if (at, found.message) not in reported:
                reported.add((at, found.message))
                path = ("rollouts", at, *found.path)
                yield Finding(path, found.message, found.value, found.remedy)


def rivals(spec: Spec, looked: _Looked) -> Iterator[Spec]:
    """Scopes that may match the same requests, or claim the same buckets."""
    mine = wave_conditions(spec, looked.audiences)
    for other in looked.specs:
        is_near = other.model == spec.model or other.layer_salt == spec.layer_salt
        if other.rollout == spec.rollout or not is_near:
            continue
        if any(can_meet_any(wave, (other,), looked.audiences) for wave in mine):
            yield other


def _check_reach(spec: Spec, looked: _Looked) -> Finder:
    """Routes answer before rollouts do."""
    before = [route for route in looked.config.routes if route.model == spec.model]
    left = [
        Not(_condition(looked, route.audience)) for route in before if route.audience
    ]
    everyone = next((route for route in before if route.audience is None), None)
    waves = wave_conditions(spec, looked.audiences)
    if everyone is not None:
        yield Finding(
            (), f"never reached: route '{route_name(everyone)}' answers everyone", "",
            "remove the route, or give it an audience",
        )  # fmt: skip
    elif before and not any(is_possible(both(wave, *left)) for wave in waves):
        names = ", ".join(f"'{route_name(route)}'" for route in before)
        yield Finding(
            (), f"never reached: routes {names} answer all of its audience", "",
            "remove the routes, or take another audience",
        )  # fmt: skip
    elif not any(map(is_possible, waves)):
        yield Finding(
            (), "nobody can match: its conditions exclude each other", "",
            "look at audience, waves and channels",
        )  # fmt: skip


def _condition(looked: _Looked, name: str) -> Condition:
    return looked.audiences[name]


def _check_layer(spec: Spec, looked: _Looked) -> Finder:
    """One request is answered once: in two layers the second rollout would get a share
    of what the first one leaves."""
    for other in rivals(spec, looked):
        is_second = looked.specs.index(other) < looked.specs.index(spec)
        if is_second and other.layer_salt != spec.layer_salt:
            yield Finding(
                ("layer",), f"'{other.rollout}' may answer the same requests and is in"
                f" layer '{other.layer_salt}'", repr(spec.layer_salt),
                "put both in one layer, or give them audiences that exclude each other",
            )  # fmt: skip


def _check_sum(spec: Spec, looked: _Looked) -> Finder:
    """Rollouts that may meet share their layer's buckets."""
    needs: dict[str, tuple[int, str]] = {}
    for other in rivals(spec, looked):
        if other.layer_salt == spec.layer_salt:
            need = (widest_bp(other), other.rollout)
            # Those that claim in one order hold the same buckets.
            needs[other.claim_salt] = max(need, needs.get(other.claim_salt, need))
    kept = len(held_out(spec, looked.config.holdouts))
    total = widest_bp(spec) + sum(bp for bp, _ in needs.values()) + kept
    names = ", ".join(
        f"'{name}' {bp / 100:g} percent" for bp, name in sorted(needs.values())
    )
    if total > BUCKET_COUNT and (needs or kept):
        also = [names] if names else []
        also += [f"holdouts {kept / 100:g} percent"] if kept else []
        yield Finding(
            (), f"wants {widest_bp(spec) / 100:g} percent of layer '{spec.layer_salt}',"
            f" where units may also be asked for by {' and '.join(also)}",
            f"{total / 100:g} percent",
            "give them audiences that exclude each other, smaller shares, or one after"
            " the other",
        )  # fmt: skip
