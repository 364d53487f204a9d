"""A rollout in words and shares, for everybody who shows one.

Pure. Console, page and admin answers say the same because they all ask here. Secrets of
the control log stay in it: what is shown of a record is made by `shown_payload`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.config.config import dump_config
from router.config.route import route_name
from router.control.controller import ScopeView, View
from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    PreflightStep,
    ShadowStep,
    Spec,
    Step,
    WeightStep,
)
from router.store.log import Entry

BUCKETS = 10_000
SHOWN_AS_SECRET = frozenset({"key_made"})
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True)
class ShareView:
    """A version's part of who takes part in the current wave."""

    version: int
    asked_bp: int
    claimed_bp: int
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class ResourceView:
    """An audience or a route, and whether the file owns it."""

    name: str
    body: str
    is_of_file: bool


def duration_words(seconds: float) -> str:
    """A time as the file writes it, the largest unit that divides it: `2h`, `90m`."""
    whole = round(seconds)
    if whole <= 0:
        return f"{seconds:g}s"
    for size, unit in _UNITS:
        if whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def percent_words(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def step_words(step: Step) -> str:
    """A step on one line."""
    match step:
        case PreflightStep():
            return f"preflight with {step.replay}"
        case ShadowStep():
            how = "" if step.is_sticky else " of requests"
            return f"shadow {percent_words(step.share_bp)}{how}" + _until(
                step.soak_s, step.min_samples, "samples", len(step.gates)
            )
        case WeightStep():
            shares = sorted(set(step.weights_bp))
            if len({bp for _, bp in shares}) == 1:
                words = percent_words(shares[0][1])
            else:
                words = ", ".join(f"{v}: {percent_words(bp)}" for v, bp in shares)
            end = " until decided" if step.is_open_ended else ""
            until = _until(step.soak_s, step.min_units, "units", len(step.gates))
            return words + end + until
        case ApprovalStep():
            return "approval" + (f" by {step.group}" if step.group else "")
        case BakeStep():
            return "bake" + _until(
                step.soak_s, step.min_units, "units", len(step.gates)
            )


def _until(soak_s: float, count: int, what: str, gates: int) -> str:
    words = f" for {duration_words(soak_s)}" if soak_s else ""
    if count:
        words += f", {count} {what}"
    if gates:
        words += f", {gates} gate{'s' if gates > 1 else ''}"
    return words


def next_step_in_s(view: ScopeView) -> float | None:
    """Seconds the current step still needs at least; None when it needs no time."""
    step = current_step(view.spec, view.state.step)
    soak_s = getattr(step, "soak_s", 0.0)
    return max(0.0, soak_s - view.state.elapsed_s) if soak_s else None


def current_step(spec: Spec, index: int) -> Step | None:
    return spec.steps[index] if 0 <= index < len(spec.steps) else None


def shares_of(view: ScopeView) -> tuple[ShareView, ...]:
    """What each version asked for and holds, stable first.

    The baseline slice is stable's: it is served by stable.
    """
    spec, state = view.spec, view.state
    claims: Mapping[int, tuple[int, ...]] = {}
    if state.maps:
        claims = dict(state.maps[min(state.wave, len(state.maps) - 1)].claims)
    held = {version: len(claims.get(version, ())) for version in spec.candidates}
    asked = {version: state.weights_bp.get(version, 0) for version in spec.candidates}
    rates = {
        version: traffic.rate for version, traffic in view.evidence.candidates.items()
    }
    stable = ShareView(
        spec.stable,
        BUCKETS - sum(asked.values()),
        BUCKETS - sum(held.values()),
        view.evidence.stable.rate,
    )
    return (
        stable,
        *(
            ShareView(version, asked[version], held[version], rates.get(version, 0.0))
            for version in spec.candidates
        ),
    )


def resources_of(view: View, kind: str) -> tuple[ResourceView, ...]:
    """Audiences or routes: the file's, then those that were put beside them."""
    dumped = dump_config(view.routing.file)
    if kind == "audience":
        own = [(one["name"], one) for one in dumped.get("audiences", ())]
    else:
        routes = zip(view.routing.file.routes, dumped.get("routes", ()), strict=True)
        own = [(route_name(route), body) for route, body in routes]
    put = [
        (name, body)
        for (of, name), body in view.routing.state.resources.items()
        if of == kind
    ]
    return (
        *(ResourceView(name, json.dumps(body), True) for name, body in own),
        *(ResourceView(name, json.dumps(dict(body)), False) for name, body in put),
    )


def flags_of(view: View) -> dict[str, bool]:
    """Every switch there is, by name, and whether it is on."""
    names = []
    for one in view.scopes:
        names.append(f"rollout/{one.spec.rollout}")
        if any(isinstance(step, ShadowStep) for step in one.spec.steps):
            names.append(f"shadow/{one.spec.rollout}")
    for model in view.routing.plan.models:
        stable = model.variants[model.stable].version
        names += [
            f"variant/{model.name}/{variant.version}"
            for variant in model.variants
            if variant.version != stable
        ]
    return {name: view.flags.get(name, True) for name in sorted({*names, *view.flags})}


def config_json(view: View) -> str:
    """What is applied, defaults left out."""
    return json.dumps(dump_config(view.routing.file), indent=1)


def shown_payload(entry: Entry) -> str:
    """What may be seen of a record: never a key, never a bucket map's bytes."""
    if entry.record.kind in SHOWN_AS_SECRET:
        return "{}"
    payload = json.loads(entry.record.payload)
    if entry.record.kind == "scope_moved":
        state = {k: v for k, v in payload["state"].items() if k != "maps"}
        payload = {**payload, "state": state}
    elif entry.record.kind == "route_claimed":
        payload = {k: v for k, v in payload.items() if k != "claims"}
    return json.dumps(payload)


def entry_sentence(entry: Entry) -> str:
    """What happened, on one line."""
    record = entry.record
    payload: dict[str, Any] = json.loads(shown_payload(entry))
    match record.kind:
        case "scope_moved":
            words = str(payload["event"]).replace("_", " ")
            return f"{words}: {payload['from']} -> {payload['to']}" + _weights(payload)
        case "flag_set":
            return f"turned {'on' if payload['is_on'] else 'off'}"
        case "frozen_set":
            return "growth frozen" if payload["is_frozen"] else "growth thawed"
        case "variant_set":
            word = "disabled" if payload["is_disabled"] else "enabled"
            return f"version {payload['version']} {word}"
        case "resource_put":
            return f"{payload['kind']} stored"
        case "resource_deleted":
            return f"{payload['kind']} deleted"
        case "config_applied":
            return "configuration applied"
        case _:
            return record.kind.replace("_", " ")


def _weights(payload: Mapping[str, Any]) -> str:
    weights = payload["state"].get("weights_bp") or {}
    shares = ", ".join(f"{v} at {percent_words(bp)}" for v, bp in weights.items())
    return f" ({shares})" if shares else ""
