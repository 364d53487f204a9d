"""Aliases: names that stand for versions, wherever a file names one.

They are replaced before anything else is looked at: what is checked, compiled, stored
and served are integers, and moving an alias is an edit like any other. `versions` says
what the versions are and takes no alias, or a setting would move to another artefact
together with a name.

The alias `stable` is the model's stable version.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from router.config.values import Name, Version

STABLE = "stable"


def _alias(value: str) -> str:
    if value.isdigit():
        raise PydanticCustomError("alias", "a number is a version and cannot name one")
    return value


def _reference(value: Any) -> Any:
    if (
        isinstance(value, str) and not value.isdigit()
    ):  # an alias that exists was replaced before
        raise PydanticCustomError("reference", "the model has no alias of this name")
    return value


Alias = Annotated[Name, AfterValidator(_alias)]
VersionRef = Annotated[
    Version, BeforeValidator(_reference, json_schema_input_type=int | str)
]


def resolve_aliases(value: Any) -> Any:
    """A configuration's plain value with versions in place of aliases.

    What does not fit the schema is left as it is, for the schema to say so.
    """
    if not isinstance(value, Mapping):
        return value
    models = [_with_stable(model) for model in _entries(value, "models")]
    named = {
        model["name"]: aliases
        for model in models
        if isinstance(model, Mapping)
        and isinstance(model.get("name"), str)
        and (aliases := _aliases(model))
    }
    resolved = dict(value)
    if isinstance(value.get("models"), list | tuple):
        resolved["models"] = models
    for section in ("routes", "rollouts"):
        if named and isinstance(value.get(section), list | tuple):
            resolved[section] = [
                _resolve(entry, named) for entry in _entries(value, section)
            ]
    return resolved


def _entries(value: Mapping[str, Any], section: str) -> list[Any]:
    found = value.get(section)
    return list(found) if isinstance(found, list | tuple) else []


def _aliases(model: Mapping[str, Any]) -> dict[str, int]:
    found = model.get("aliases")
    return {
        name: version
        for name, version in (found if isinstance(found, Mapping) else {}).items()
        if isinstance(name, str) and isinstance(version, int)
    }


def _with_stable(model: Any) -> Any:
    if not isinstance(model, Mapping):
        return model
    aliases = _aliases(model)
    stable = model.get("stable", aliases.get(STABLE))
    return model if stable is None else {**model, "stable": _version(stable, aliases)}


def _resolve(entry: Any, named: Mapping[str, Mapping[str, int]]) -> Any:
    model = entry.get("model") if isinstance(entry, Mapping) else None
    if not isinstance(model, str) or model not in named:
        return entry
    aliases = named[model]
    resolved = dict(entry)
    for key in ("version", "candidate"):
        if key in entry:
            resolved[key] = _version(entry[key], aliases)
    for key, replaced in (("split", _share), ("candidates", _version)):
        found = entry.get(key)
        if key == "split" and isinstance(found, Mapping):
            found = [{"version": v, "weight": w} for v, w in found.items()]
        if isinstance(found, list | tuple):
            resolved[key] = [replaced(each, aliases) for each in found]
    return resolved


def _share(share: Any, aliases: Mapping[str, int]) -> Any:
    if not isinstance(share, Mapping) or "version" not in share:
        return share
    return {**share, "version": _version(share["version"], aliases)}


def _version(reference: Any, aliases: Mapping[str, int]) -> Any:
    return (
        aliases.get(reference, reference) if isinstance(reference, str) else reference
    )
