"""Problems of rollouts, policies and holdouts: names that point nowhere, settings that
take no effect, times that never come.

What needs conditions taken apart (rollouts that want the same units, a rule that is
never reached) is found by `plan/check_shares.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from router.config.check_criteria import check_criteria
from router.config.check_steps import check_ladder, check_steps, weights_of
from router.config.config import Config
from router.config.model import Model, resolve_version, settings_of, stable_of
from router.config.problems import Finding, Known, Path, nowhere
from router.config.rollout import EVERYONE, PolicyBody, Rollout, Window, versions_of
from router.config.route import route_name
from router.config.served import Served, have
from router.config.steps import Weights
from router.config.values import BASIS_POINTS

Finder = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class _Names:
    """What may be referred to."""

    models: dict[str, Model]
    served: dict[str, Served]
    audiences: frozenset[str]
    layers: frozenset[str]
    policies: frozenset[str]
    known: Known


def check_rollouts(config: Config, served: dict[str, Served], known: Known) -> Finder:
    names = _Names(
        {model.name: model for model in config.models},
        served,
        frozenset(a.name for a in config.audiences) | known.audiences,
        frozenset(layer.name for layer in config.layers) | known.layers,
        frozenset(config.policies) | known.policies,
        known,
    )
    for name, policy in config.policies.items():
        path: Path = ("policies", name)
        yield from check_steps(policy.steps, (*path, "steps"))
        yield from check_criteria(policy.guardrails, (*path, "guardrails"))
        yield from _check_windows(policy.windows, (*path, "windows"))
    yield from _check_scope_names(config)
    for i, rollout in enumerate(config.rollouts):
        path = ("rollouts", i)
        yield from _check_references(rollout, path, names)
        yield from _check_candidates(rollout, path, names)
        yield from _check_channels(rollout, path)
        yield from _check_waves(rollout, path, names)
        yield from _check_settings(rollout, path, names)
        yield from _check_work(config, rollout, path, names)
    yield from _check_holdouts(config, names)


def _check_scope_names(config: Config) -> Finder:
    """Rules are named by scopes and routes; the names are what counters count by."""
    routes = {(route.model, route_name(route)) for route in config.routes}
    seen: set[str] = set()
    for i, rollout in enumerate(config.rollouts):
        place: Path = ("rollouts", i, "name")
        scopes = {f"{rollout.name}/{channel}" for channel in rollout.channels}
        scopes.add(rollout.name)
        if scopes & seen:
            yield Finding(place, "this name is taken", repr(rollout.name))
        elif any((rollout.model, scope) in routes for scope in scopes):
            yield Finding(
                place, "a route has this name", repr(rollout.name),
                "name one of them otherwise",
            )  # fmt: skip
        elif rollout.name in ("pin", "default"):
            yield Finding(
                place, "this name is taken by requests that no rule answers",
                repr(rollout.name), "choose another one",
            )  # fmt: skip
        seen |= scopes


def _check_references(rollout: Rollout, path: Path, names: _Names) -> Finder:
    models = names.models.keys() | names.known.models
    if rollout.model not in models:
        yield nowhere((*path, "model"), "model", rollout.model, models)
    if rollout.policy and rollout.policy not in names.policies:
        yield nowhere((*path, "policy"), "policy", rollout.policy, names.policies)
    if rollout.layer and rollout.layer not in names.layers | {rollout.model}:
        yield nowhere((*path, "layer"), "layer", rollout.layer, names.layers)
    listed: list[tuple[Path, str]] = []
    if rollout.audience is not None:
        listed.append(((*path, "audience"), rollout.audience))
    listed += [((*path, "waves", i), w) for i, w in enumerate(rollout.waves)]
    listed += [((*path, "slices", i), s) for i, s in enumerate(rollout.slices)]
    for place, name in listed:
        is_all = name == EVERYONE and "waves" in place
        if name not in names.audiences and not is_all:
            yield nowhere(place, "audience", name, names.audiences)


def _check_candidates(rollout: Rollout, path: Path, names: _Names) -> Finder:
    model = names.models.get(rollout.model)
    if model is None:
        return
    served = names.served[rollout.model].versions
    seen: set[int] = set()
    for i, wanted in enumerate(versions_of(rollout)):
        place = (*path, "candidate")
        if rollout.candidate is None:
            place = (*path, "candidates", i)
        if isinstance(wanted, str) and wanted == "stable":
            yield _is_stable(place, wanted)
            continue
        version = resolve_version(model, wanted, served or (1,))
        if version is None:
            named = _aliases(model)
            yield nowhere(place, "version or alias", str(wanted), named)
            continue
        if version in seen:
            yield Finding(place, "this candidate is listed already", str(wanted))
        seen.add(version)
        yield from _check_version(model, wanted, version, place, served)


def _aliases(model: Model) -> list[str]:
    own = model.versions.values() if isinstance(model.versions, dict) else ()
    return [*model.aliases, *(settings.name for settings in own if settings.name)]


def _check_version(
    model: Model,
    wanted: int | str,
    version: int,
    place: Path,
    served: tuple[int, ...] | None,
) -> Finder:
    stable = model.stable
    if stable is None and served:
        stable = stable_of(model, served)
    if isinstance(wanted, int) and version == stable:
        yield _is_stable(place, wanted)
    elif served is not None and version not in served:
        yield Finding(
            place, f"model '{model.name}' does not serve this version", str(wanted),
            have(served),
        )  # fmt: skip
    elif settings_of(model, version).disabled:
        yield Finding(
            place, "this version is disabled: stable would answer for it", str(wanted),
            "enable it, or choose another one",
        )  # fmt: skip


def _is_stable(place: Path, wanted: int | str) -> Finding:
    return Finding(
        place, "the candidate is stable already: nothing would move", str(wanted),
        "remove the rollout, or name another version",
    )  # fmt: skip


def _check_channels(rollout: Rollout, path: Path) -> Finder:
    channels = rollout.channels
    for name, channel in channels.items():
        place: Path = (*path, "channels", name)
        if channel.delay and channel.after is None:
            yield Finding(
                (*place, "delay"), "takes no effect without after", "",
                "name the channel that goes before this one",
            )  # fmt: skip
        if channel.after is None:
            continue
        if channel.after not in channels:
            yield nowhere((*place, "after"), "channel", channel.after, channels)
            continue
        ring = [name]
        while (following := channels[ring[-1]].after) in channels:
            assert following is not None
            ring.append(following)
            if following in ring[:-1]:
                break
        if ring[-1] == name and len(ring) > 1:
            yield Finding(
                (*place, "after"), f"waits for itself: {' -> '.join(ring)}", "",
                "let one of them start by itself",
            )  # fmt: skip


def _check_waves(rollout: Rollout, path: Path, names: _Names) -> Finder:
    if EVERYONE in rollout.waves and EVERYONE in names.audiences:
        yield Finding(
            (*path, "waves"), f"'{EVERYONE}' is all who take part, and an audience", "",
            "name the audience otherwise",
        )  # fmt: skip
    for i, wave in enumerate(rollout.waves):
        if wave in rollout.waves[:i]:
            yield Finding((*path, "waves", i), "this wave is over already", repr(wave))
        elif EVERYONE in rollout.waves[:i]:
            yield Finding(
                (*path, "waves", i),
                "never reached: everyone has the candidate by then", repr(wave),
                f"put '{EVERYONE}' last",
            )  # fmt: skip
    for i, name in enumerate(rollout.slices):
        if name in rollout.slices[:i]:
            yield Finding((*path, "slices", i), "listed twice", repr(name))


def _check_settings(rollout: Rollout, path: Path, names: _Names) -> Finder:
    is_ab = rollout.strategy == "ab"
    for key, value, example in (
        ("split", rollout.split, "50"),
        ("primary", rollout.primary, "{metric: reward}"),
        ("horizon", rollout.horizon, "14d"),
    ):
        if is_ab and not value:
            yield Finding(
                (*path, key), f"an experiment needs its {key}", "",
                f"add {key}: {example}",
            )  # fmt: skip
        elif not is_ab and value is not None:
            yield _no_effect((*path, key), "only an experiment has it")
    if not is_ab and rollout.on_win == "promote":
        yield _no_effect((*path, "on_win"), "only an experiment has it")
    if is_ab and rollout.split:
        versions = _cast(rollout, names)
        yield from _check_named(rollout.split, versions, (*path, "split"))
        total = sum(weights_of(rollout.split, versions).values())
        if total > BASIS_POINTS:
            yield Finding(
                (*path, "split"), "the shares add up to more than 100 percent",
                f"{total / 100:g}", "a share is for each candidate",
            )  # fmt: skip
    for unit in sorted(set(rollout.allow or ()) & set(rollout.deny or ())):
        yield Finding(
            (*path, "deny"), "this unit is allowed as well", repr(unit),
            "list it once",
        )  # fmt: skip


def _no_effect(path: Path, why: str) -> Finding:
    return Finding(
        path, f"takes no effect: {why}", "", "leave it out, or use strategy: ab"
    )


def _check_work(config: Config, rollout: Rollout, path: Path, names: _Names) -> Finder:
    """Steps, guardrails and times: the rollout's own and its policy's."""
    policy = config.policies.get(rollout.policy or "", PolicyBody())
    yield from check_steps(rollout.steps, (*path, "steps"))
    yield from check_criteria(rollout.guardrails, (*path, "guardrails"))
    yield from _check_windows(rollout.windows, (*path, "windows"))
    shared = {criterion.name or criterion.metric for criterion in policy.guardrails}
    for i, criterion in enumerate(rollout.guardrails):
        if (name := criterion.name or criterion.metric) in shared:
            yield Finding(
                (*path, "guardrails", i, "name"),
                f"policy '{rollout.policy}' has a guardrail of this name", repr(name),
                "a policy stands: name this one otherwise",
            )  # fmt: skip
    place: Path = (*path, "steps")
    if not rollout.steps and policy.steps:
        place = ("policies", rollout.policy or "", "steps")
    steps, versions = rollout.steps or policy.steps, _cast(rollout, names)
    yield from check_ladder(rollout, steps, place, versions)
    for i, step in enumerate(steps):
        if step.weight is not None:
            at = (*place, i, "weight", "to")
            yield from _check_named(step.weight.to, versions, at)
    has_deadline = rollout.progress_deadline or policy.progress_deadline
    if rollout.on_deadline and not has_deadline:
        yield Finding(
            (*path, "on_deadline"), "takes no effect without a deadline",
            rollout.on_deadline, "add progress_deadline: 14d",
        )  # fmt: skip


def _cast(rollout: Rollout, names: _Names) -> tuple[int, ...]:
    """The candidates' versions; one that is unknown is a number that none has."""
    model = names.models.get(rollout.model)
    found = []
    for i, wanted in enumerate(versions_of(rollout)):
        version = wanted if isinstance(wanted, int) else None
        if model is not None:
            served = names.served[model.name].versions
            version = resolve_version(model, wanted, served or (1,))
        found.append(-1 - i if version is None else version)
    return tuple(found)


def _check_named(weights: Weights, versions: tuple[int, ...], path: Path) -> Finder:
    """Weights by version name candidates only."""
    if isinstance(weights, int) or min(versions) < 0:
        return
    for version in weights:
        if version not in versions:
            yield Finding(
                (*path, version), "this version is no candidate", str(version),
                f"candidates: {', '.join(map(str, versions))}",
            )  # fmt: skip


def _check_windows(windows: tuple[Window, ...], path: Path) -> Finder:
    for i, window in enumerate(windows):
        place: Path = (*path, i)
        try:
            ZoneInfo(window.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield Finding(
                (*place, "tz"), "no time zone of this name", repr(window.tz),
                "use an IANA name such as Europe/Berlin",
            )  # fmt: skip
        if window.from_ >= window.to:
            yield Finding(
                (*place, "to"), f"the window closes before it opens ({window.from_})",
                window.to, "split a window over midnight in two",
            )  # fmt: skip
        if not window.days:
            yield Finding((*place, "days"), "a window of no day", "[]",
                          "leave it out for every day")  # fmt: skip


def _check_holdouts(config: Config, names: _Names) -> Finder:
    models = names.models.keys() | names.known.models
    seen: set[str] = set()
    for i, holdout in enumerate(config.holdouts):
        path: Path = ("holdouts", i)
        if holdout.name in seen:
            yield Finding((*path, "name"), "this name is taken", repr(holdout.name))
        seen.add(holdout.name)
        for j, model in enumerate(holdout.models):
            if model not in models:
                yield nowhere((*path, "models", j), "model", model, models)
        if holdout.percent == 0:
            yield Finding((*path, "percent"), "a holdout of nobody", "0",
                          "at least 0.01, or leave it out")  # fmt: skip
