"""From a configuration to the scopes that move, each with everything it needs to know.

A rollout without channels is one scope of its own name; with channels it is one for
each, `name/channel`. Policies, strategies, aliases and layers are worked in here, once:
who reads a `Spec` never looks into the file again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from router.config.config import Config
from router.config.model import Model, resolve_version, served_versions, stable_of
from router.config.rollout import (
    EVERYONE,
    PolicyBody,
    Primary,
    Rollout,
    versions_of,
)
from router.config.route import layer_salt
from router.config.steps import Amount, Criterion
from router.plan.ladder import compile_steps
from router.plan.plan import All, Condition, Op, Test
from router.plan.rollout import Spec

# What may be edited while a rollout runs: none of it changes what is measured, or what
# has been measured so far.
_FREE = frozenset(
    {
        "digest", "scope", "rollout", "windows", "progress_deadline_s", "after",
        "rolls_back_on_deadline", "delay_s", "slices", "allow", "deny", "silence_s",
        "promotes_on_win", "disables_on_rollback", "flag",
    }
)  # fmt: skip
_FREE_OF_CRITERIA = frozenset({"action", "dry_run", "every"})

USUAL_GUARDRAILS = (
    Criterion(metric="error_rate", worse_by=Amount(value=1, unit="pp")),
    Criterion(metric="latency_p99", worse_by=Amount(value=25, unit="%")),
)

Conditions = Mapping[str, Condition]


@dataclass(frozen=True, slots=True)
class _Cast:
    """Who plays in a rollout: its model's versions by number."""

    stable: int
    candidates: tuple[int, ...]


def specs_of(
    config: Config, versions: Mapping[str, tuple[int, ...]]
) -> tuple[Spec, ...]:
    """Every scope of a configuration, in the order of the file."""
    models = {model.name: model for model in config.models}
    specs = []
    for rollout in config.rollouts:
        model = models[rollout.model]
        served = served_versions(model, versions.get(model.name, ()))
        cast = _cast(model, served, rollout)
        for channel in rollout.channels or (None,):
            specs.append(_spec(config, rollout, cast, channel))
    return tuple(specs)


def has_arrived(spec: Spec) -> bool:
    """Whether a candidate has become stable: nothing is left to move."""
    return spec.stable in spec.candidates


def wave_conditions(spec: Spec, audiences: Conditions) -> tuple[Condition | None, ...]:
    """Who is in each wave; None is everyone."""
    shared: list[Condition] = []
    if spec.channel is not None:
        shared.append(Test(spec.channel_key, Op.IN, (spec.channel.encode(),)))
    if spec.audience is not None:
        shared.append(audiences[spec.audience])
    return tuple(
        both(*shared, audiences[wave] if wave else None) for wave in spec.waves
    )


def both(*conditions: Condition | None) -> Condition | None:
    """What all of these ask together; None asks nothing."""
    asked = tuple(condition for condition in conditions if condition is not None)
    if len(asked) < 2:
        return asked[0] if asked else None
    return All(asked)


def _cast(model: Model, served: tuple[int, ...], rollout: Rollout) -> _Cast:
    found = (resolve_version(model, v, served) for v in versions_of(rollout))
    candidates = tuple(dict.fromkeys(version for version in found if version))
    return _Cast(stable_of(model, served), candidates)


def _spec(config: Config, rollout: Rollout, cast: _Cast, channel: str | None) -> Spec:
    policy = config.policies.get(rollout.policy or "", PolicyBody())
    own = rollout.channels.get(channel or "")
    name = rollout.name
    after = None if own is None or own.after is None else f"{name}/{own.after}"
    steps = compile_steps(rollout, rollout.steps or policy.steps, cast.candidates)
    deadline = rollout.progress_deadline
    salt = layer_salt(rollout.layer or rollout.model, config.layers)
    return _digested(
        scope=name if channel is None else f"{name}/{channel}",
        rollout=name,
        model=rollout.model,
        strategy=rollout.strategy,
        candidates=cast.candidates,
        stable=cast.stable,
        waves=tuple("" if w == EVERYONE else w for w in rollout.waves) or ("",),
        audience=rollout.audience,
        channel=channel,
        channel_key=rollout.channel_key,
        after=after,
        delay_s=own.delay if own else 0.0,
        layer_salt=salt,
        claim_salt=rollout.salt or name,
        steps=steps,
        guardrails=rollout.guardrails + policy.guardrails or _usual(rollout),
        windows=rollout.windows or policy.windows,
        progress_deadline_s=policy.progress_deadline if deadline is None else deadline,
        rolls_back_on_deadline=(rollout.on_deadline or policy.on_deadline)
        == "rollback",
        alpha=policy.alpha if rollout.alpha is None else rollout.alpha,
        has_baseline=rollout.baseline == "auto",
        slices=rollout.slices,
        allow=rollout.allow or (),
        deny=rollout.deny or (),
        primary=rollout.primary,
        horizon_s=rollout.horizon,
        promotes_on_win=rollout.on_win == "promote",
        disables_on_rollback=rollout.on_rollback_disable,
        silence_s=rollout.silence,
        flag=rollout.flag or f"rollout/{name}",
    )


def _usual(rollout: Rollout) -> tuple[Criterion, ...]:
    """Nobody said what must not happen: more errors, or much longer waits.

    Latency is compared with the baseline slice only, so without one it is not.
    """
    has_baseline = rollout.baseline == "auto"
    return USUAL_GUARDRAILS if has_baseline else USUAL_GUARDRAILS[:1]


def _digested(**meaning: Any) -> Spec:
    counted = {key: _plain(value) for key, value in meaning.items() if key not in _FREE}
    canonical = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return Spec(**meaning, digest=digest)


def _plain(value: Any) -> Any:
    """A value of a specification as JSON; steps carry their kind."""
    if isinstance(value, Criterion | Primary):
        dumped = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {k: v for k, v in dumped.items() if k not in _FREE_OF_CRITERIA}
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    if hasattr(value, "__dataclass_fields__"):
        own = {
            field.name: _plain(getattr(value, field.name)) for field in fields(value)
        }
        return {"kind": type(value).__name__, **own}
    return value
