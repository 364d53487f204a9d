"""What operators load and unload while the server runs, and what keeps them from it.

An unloaded version stays unloaded over reloads and restarts, until somebody loads it or
the configuration names it: the file says what serves, so a version that is stable, has
an alias, or stands in a route or a rollout is always loaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from router.config.config import Config
from router.config.model import (
    Model,
    resolve_version,
    served_versions,
    upstream_versions,
)
from router.config.rollout import versions_of
from router.config.route import route_name
from router.control.state import ControlState
from router.control.versions import ALL, Choice, Key
from router.errors import ModelError, Problem, RouterError
from router.models.repository import ModelFile, find_source, list_versions
from router.models.upstream import RemoteVersion
from router.plan.plan import Plan

LOADED = "loaded at run time"
Source = ModelFile | RemoteVersion


class NoVersionError(RouterError):
    """A model or version that nobody knows."""

    def __init__(self, model: str, version: int | None = None) -> None:
        self.model, self.version = model, version
        place = f"model '{model}'"
        if version is not None:
            place += f" version {version}"
        super().__init__(f"{place} is not found")


class LoadError(RouterError):
    """Several versions of a model that cannot be loaded."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration is to be made from."""

    listed: Mapping[str, tuple[int, ...]]
    """The versions in each model's repository."""
    files: tuple[Source, ...] = ()
    choice: Choice = ALL

    def with_version(self, source: Source) -> "Wanted":
        """With one version more, or in the place of what it was."""
        key = source.model, source.version
        known = {*self.listed[source.model], source.version}
        others = [f for f in self.files if (f.model, f.version) != key]
        out = {other: why for other, why in self.choice.out.items() if other != key}
        return Wanted(
            {**self.listed, source.model: tuple(sorted(known))},
            tuple(sorted([*others, source], key=lambda f: (f.model, f.version))),
            Choice(frozenset({key}), out, LOADED),
        )

    def without_version(self, key: Key, why: str) -> "Wanted":
        out = {**self.choice.out, key: why}
        return Wanted(self.listed, self.files, Choice(frozenset({key}), out))

    def renewed(self, key: Key) -> "Wanted":
        """The same, with one version looked at again."""
        choice = Choice(frozenset({key}), self.choice.out)
        return Wanted(self.listed, self.files, choice)

    def is_renewal_of(self, other: "Wanted") -> bool:
        return self.files is other.files and self.choice.out is other.choice.out


def taken_out(
    config: Config, stables: Mapping[str, int], state: ControlState
) -> dict[Key, str]:
    """The versions that operators unloaded and that the configuration does not name."""
    return {
        key: why
        for key, why in state.unloaded.items()
        if key[0] in stables and not named_by(config, stables, key)
    }


def named_by(config: Config, stables: Mapping[str, int], key: Key) -> str:
    """What in the configuration names a version; empty when nothing does."""
    return next(_naming(config, stables, key), "")


def _naming(config: Config, stables: Mapping[str, int], key: Key) -> Iterator[str]:
    name, version = key
    if stables[name] == version:
        yield "it is stable"
    for model in config.models:
        for alias, meant in model.aliases.items() if model.name == name else ():
            if meant == version:
                yield f"it is '{alias}'"
    for route in config.routes:
        shares = [share.version for share in route.split or ()]
        if route.model == name and version in (route.version, *shares):
            yield f"route '{route_name(route)}' leads to it"
    for rollout in config.rollouts:
        candidates = versions_of(rollout) if rollout.model == name else ()
        model = next(model for model in config.models if model.name == name)
        if version in [
            resolve_version(model, one, (stables[name],)) for one in candidates
        ]:
            yield f"it is a candidate of rollout '{rollout.name}'"


def traffic_of(plan: Plan, key: Key) -> str:
    """What in a plan sends requests to a version; empty when nothing does."""
    for model in plan.models:
        versions = [variant.version for variant in model.variants]
        if model.name != key[0] or key[1] not in versions:
            continue
        position = versions.index(key[1])
        if position == model.stable:
            return "it is stable"
        for rule in model.rules:
            leads = (rule.variant,) if rule.buckets is None else rule.buckets
            if position in leads:
                return f"rule '{rule.name}' leads to it"
    return ""


def loadable(config: Config, name: str, known: Iterable[int]) -> tuple[int, ...]:
    """The versions of a model that may be loaded: those it has, and those that its
    repository holds now. NoVersionError when there is no such model, RepositoryError
    when its repository cannot be read."""
    model = _find(config, name)
    listed = {*known, *upstream_versions(model)}
    if model.repository is not None:
        listed |= set(list_versions(model.repository))
    return served_versions(model, tuple(listed))


def source_of(config: Config, name: str, version: int, known: Iterable[int]) -> Source:
    """Where a version would be loaded from."""
    if version not in loadable(config, name, known):
        model = _find(config, name)
        if isinstance(model.versions, tuple):
            what = "the configuration lists the versions to serve, and this is not one"
            raise ModelError(name, version, what)
        raise NoVersionError(name, version)
    return find_source(_find(config, name), version)


def _find(config: Config, name: str) -> Model:
    for model in config.models:
        if model.name == name:
            return model
    raise NoVersionError(name)


def alias_problems(
    before: Config | None, config: Config, unavailable: frozenset[Key], file: str
) -> Iterator[Problem]:
    """Aliases that would move to a version that is not loaded.

    At start nothing moves: a router that came up without a candidate serves better
    than one that did not.
    """
    if before is None:
        return
    old = {model.name: model.aliases for model in before.models}
    for model in config.models:
        for alias, version in model.aliases.items():
            has_moved = old.get(model.name, {}).get(alias) != version
            if has_moved and (model.name, version) in unavailable:
                yield Problem(
                    file, 0, f"models.{model.name}.aliases.{alias}",
                    "an alias moves only to a version that is loaded", str(version),
                )  # fmt: skip
