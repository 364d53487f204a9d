"""From a configuration and the stored states to a plan: what routing should mean now.

Pure and deterministic: the same configuration and states give the same plan, byte for
byte once encoded. Bucket maps come from `claim.py` and from what was stored; compiling
again with the states it produced changes nothing.

Rules stand in this order: variants that callers force, units that rollouts allow or
deny, holdouts, the routes of the file, and the rollouts of the file.

A route that leads to one version has no bucket map, and leaves the stored one alone:
when it splits again everyone returns to the version they had.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from router.config.config import Config, config_revision
from router.config.features import columns_of
from router.config.model import (
    Model as ModelConfig,
)
from router.config.model import (
    runtime_of,
    served_versions,
    settings_of,
    stable_of,
)
from router.config.route import Route, route_name, salt_of
from router.plan.claim import BucketMap, claim, order_of
from router.plan.condition import compile_audiences
from router.plan.plan import (
    BASELINE_ORDINAL,
    Annotate,
    Condition,
    Feature,
    MintKey,
    Model,
    OnMissing,
    Output,
    OutputKind,
    Pins,
    Plan,
    Reason,
    Recording,
    Rule,
    Shadow,
    Unit,
    Variant,
)
from router.plan.rollout import ScopeState, Spec
from router.plan.scope_rules import (
    Places,
    Scopes,
    Setting,
    forced_rules,
    holdout_rules,
    needs_baseline,
    override_rules,
    scope_rules,
    shadows_of,
)
from router.plan.scopes import specs_of

# A sum of single-precision shares misses 1 by its rounding: a random forest of 30 trees
# was seen to answer 1.0000004. Sixteen times that is still no other mistake's size.
PROBABILITY_SLACK = 2.0**-17

_ANNOTATE = {
    "parameters": Annotate.PARAMETERS,
    "trailers": Annotate.TRAILERS,
    "both": Annotate.PARAMETERS | Annotate.TRAILERS,
    "none": Annotate.NONE,
}


@dataclass(frozen=True, slots=True)
class RouteState:
    """What is stored of a route: whose buckets they are, and who holds them.

    `revision` counts the changes of its map. A retired route is no longer in the
    configuration; one of the same name takes its map up again.
    """

    name: str
    model: str
    audience: str
    salt: str
    revision: int
    buckets: BucketMap
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class States:
    """What compiling needs beside the configuration."""

    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Versions in each model's repository."""
    routes: Mapping[str, RouteState] = field(default_factory=dict)
    keys: tuple[MintKey, ...] = ()
    scopes: Mapping[str, ScopeState] = field(default_factory=dict)
    """What is stored of each rollout's scopes; one that is missing has not begun."""
    disabled: frozenset[tuple[str, int]] = frozenset()
    """(model, version) taken out at run time."""
    shadows_off: frozenset[str] = frozenset()
    """Scopes and rollouts whose shadows are turned off."""


def compile_plan(config: Config, states: States) -> Plan:
    """What routing should mean: every model with its variants and rules."""
    audiences = compile_audiences(config.audiences)
    routes = {state.name: state for state in next_routes(config, states)}
    scopes = scopes_of(config, states)
    models = tuple(
        _compile_model(_Parts(config, states, audiences, routes, scopes), model)
        for model in config.models
    )
    return Plan(config_revision(config), models, states.keys)


def scopes_of(config: Config, states: States) -> Scopes:
    """Every scope of the configuration with its state, in the order of the file."""
    return tuple(
        (spec, states.scopes.get(spec.scope) or unbegun(spec))
        for spec in specs_of(config, states.versions)
    )


def unbegun(spec: Spec) -> ScopeState:
    """The state of a scope of which nothing is stored."""
    return ScopeState(spec.scope, spec.rollout, spec.model, spec.digest)


def next_routes(config: Config, states: States) -> tuple[RouteState, ...]:
    """The states that this configuration leads to, one for each route that splits.

    A route is found again by its name; one that was renamed takes up the map of the
    route it replaces, so that renaming moves nobody. Another salt is another deal: the
    old map means nothing there.
    """
    stables = {
        model.name: stable_of(model, _served(model, states)) for model in config.models
    }
    configured = {route_name(route) for route in config.routes}
    orphans = [
        state
        for name, state in sorted(states.routes.items())
        if name not in configured and not state.is_retired
    ]
    result = []
    for route in config.routes:
        if route.split is None:
            continue
        name, salt = route_name(route), salt_of(route, config.layers)
        previous = states.routes.get(name) or _adopt(orphans, route, salt)
        if previous is not None and (previous.model, previous.salt) != (
            route.model,
            salt,
        ):
            previous = None
        target = {share.version: share.weight for share in route.split}
        buckets = claim(
            previous.buckets if previous else None,
            order_of(salt),
            target,
            stables[route.model],
        )
        revision = 1
        if previous is not None:
            revision = previous.revision + (previous.buckets != buckets)
        elif name in states.routes:
            revision = states.routes[name].revision + 1
        result.append(
            RouteState(name, route.model, route.audience or "", salt, revision, buckets)
        )
    return tuple(result)


def _adopt(orphans: list[RouteState], route: Route, salt: str) -> RouteState | None:
    """The state of the route that this one replaces under another name, if it is plain
    which one that is."""
    alike = [o for o in orphans if (o.model, o.salt) == (route.model, salt)]
    same_audience = [o for o in alike if o.audience == (route.audience or "")]
    found = same_audience or (alike if len(alike) == 1 else [])
    if not found:
        return None
    orphans.remove(found[0])
    return found[0]


def _served(model: ModelConfig, states: States) -> tuple[int, ...]:
    return served_versions(model, states.versions.get(model.name, ()))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the models of a plan are made from."""

    config: Config
    states: States
    audiences: Mapping[str, Condition]
    routes: Mapping[str, RouteState]
    scopes: Scopes


def _compile_model(parts: _Parts, model: ModelConfig) -> Model:
    config = parts.config
    served = _served(model, parts.states)
    mine = tuple(route for route in config.routes if route.model == model.name)
    names = {s.version: s.name for route in mine for s in route.split or () if s.name}
    stable = stable_of(model, served)
    variants = tuple(
        _compile_variant(model, v, names.get(v), parts.states.disabled) for v in served
    )
    if needs_baseline(model.name, parts.scopes):
        variants = _with_baseline(variants, stable)
    places = {(v.version, v.ordinal): at for at, v in enumerate(variants)}
    return Model(
        name=model.name,
        variants=variants,
        stable=places[stable, 0],
        rules=_compile_rules(parts, model, variants, places),
        unit=Unit(
            metadata=tuple(key.lower() for key in model.unit.metadata),
            tensor=model.unit.tensor or "",
            on_missing=OnMissing[model.unit.on_missing.upper()],
        ),
        output=compile_output(model),
        pins=Pins[model.pins.upper()],
        annotate=_ANNOTATE[model.annotate],
        has_fallback=model.fallback,
        has_prediction_id=model.prediction_id,
        queue_us_max=model.runtime.queue_ms_max * 1000,
        features=tuple(
            Feature(key, tensor, index)
            for key, (tensor, index) in sorted(columns_of(model).items())
        ),
        recording=_compile_recording(model),
        has_exposures=model.exposures,
        shadows=_compile_shadows(parts, model.name, variants, places),
    )


def _compile_shadows(
    parts: _Parts, model: str, variants: tuple[Variant, ...], places: Places
) -> tuple[Shadow, ...]:
    setting = Setting(parts.scopes, parts.config.holdouts, parts.audiences, places)
    off = parts.states.shadows_off
    return tuple(
        shadow
        for spec, state in parts.scopes
        if spec.model == model and not {spec.scope, spec.rollout} & off
        for shadow in shadows_of(spec, state, setting)
        if not variants[shadow.variant].is_disabled
    )


def _compile_recording(model: ModelConfig) -> Recording | None:
    record = model.record
    if record is None:
        return None
    keys = tuple(key.lower() for key in record.metadata or ())
    return Recording(record.percent, keys, record.max_kb * 1024)


def _compile_rules(
    parts: _Parts, model: ModelConfig, variants: tuple[Variant, ...], places: Places
) -> tuple[Rule, ...]:
    config, stable = parts.config, stable_of(model, _served(model, parts.states))
    setting = Setting(parts.scopes, config.holdouts, parts.audiences, places)
    mine = [(spec, state) for spec, state in parts.scopes if spec.model == model.name]
    return (
        *(forced_rules(model.force, variants) if model.force else ()),
        *(rule for scope in mine for rule in override_rules(*scope, setting)),
        *holdout_rules(model.name, places[stable, 0], setting),
        *(
            _compile_rule(config, route, parts.audiences, parts.routes, places)
            for route in config.routes
            if route.model == model.name
        ),
        *(rule for scope in mine for rule in scope_rules(*scope, setting)),
    )


def _compile_variant(
    model: ModelConfig,
    version: int,
    shared: str | None,
    disabled: frozenset[tuple[str, int]],
) -> Variant:
    own = settings_of(model, version)
    return Variant(
        name=own.name or shared or str(version),
        version=version,
        is_disabled=own.disabled or (model.name, version) in disabled,
        timeout_us=(runtime_of(model, version).timeout_ms or 0) * 1000,
    )


def _with_baseline(variants: tuple[Variant, ...], stable: int) -> tuple[Variant, ...]:
    """Stable once more, right behind itself: its baseline slice."""
    at = next(i for i, v in enumerate(variants) if v.version == stable)
    name = f"{variants[at].name}@baseline"
    apart = replace(variants[at], name=name, ordinal=BASELINE_ORDINAL)
    return (*variants[: at + 1], apart, *variants[at + 1 :])


def _compile_rule(
    config: Config,
    route: Route,
    audiences: Mapping[str, Condition],
    routes: Mapping[str, RouteState],
    places: Places,
) -> Rule:
    rule = Rule(
        name=route_name(route),
        condition=audiences[route.audience] if route.audience else None,
        salt=salt_of(route, config.layers),
        buckets=None,
        variant=0,
        reason=Reason.TARGETING_MATCH if route.audience else Reason.STATIC,
    )
    if route.version is not None:
        return replace(rule, variant=places[route.version, 0])
    state = routes[rule.name]
    ordinals = {v: at for (v, apart), at in places.items() if not apart}
    dealt = state.buckets.dealt(ordinals)
    return replace(
        rule,
        buckets=dealt,
        variant=dealt[0],
        reason=Reason.SPLIT,
        rollout_revision=state.revision,
    )


def compile_output(model: ModelConfig) -> Output | None:
    """What is declared of the output that is judged."""
    output = model.output
    if output is None:
        return None
    low, high = float("-inf"), float("inf")
    if output.range is not None:
        low, high = output.range
    elif output.kind == "probability":
        low, high = -PROBABILITY_SLACK, 1.0 + PROBABILITY_SLACK
    return Output(
        tensor=output.tensor,
        index=output.index,
        kind=OutputKind[output.kind.upper()],
        low=low,
        high=high,
        is_finite=output.finite,
        threshold=0.5 if output.threshold is None else output.threshold,
    )
