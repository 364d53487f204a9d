"""RepositoryModelLoad and RepositoryModelUnload: operators change what is loaded.

Served to operators only. Two wire forms share the methods' paths: KServe's puts the
model's name where Triton's has the repository's, so with the model's field empty the
other one names it. Versions have no field in either: they come in the parameter
`version`, or as Triton's clients can say it, `config` with a `version_policy` of
specific versions. Anything else a request asks for is refused: what a version runs
with is the configuration's to say.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from router.client.messages import message
from router.control.loads import LoadError, NoVersionError
from router.errors import ConfigError, ModelError, RouterError
from router.ops.methods import Code, Method, MethodError, UnaryMethod
from router.ops.oip import PREFIX, parse_version

ACTOR = "operator"
VERSION, CONFIG = "version", "config"
CONFIG_BYTES_MAX = 64 * 1024
# Triton's clients always send it; no model here depends on another.
IGNORED = ("unload_dependents",)


class Loads(Protocol):
    """The calls of `Reloader` that these methods make."""

    def load_version(self, model: str, version: int | None, actor: str) -> None: ...

    def unload_version(self, model: str, version: int, actor: str) -> None: ...


def repository_methods(loads: Loads) -> tuple[Method, ...]:
    """Load and unload, for the admin listener."""
    answers: dict[str, Callable[[Any], Any]] = {
        "RepositoryModelLoad": lambda asked: _load(loads, asked),
        "RepositoryModelUnload": lambda asked: _unload(loads, asked),
    }
    return tuple(
        UnaryMethod(PREFIX + name, message(f"inference.{name}Request"), answer)
        for name, answer in answers.items()
    )


def _load(loads: Loads, asked: Any) -> Any:
    model = _model(asked)
    versions = _versions(asked.parameters) or (None,)
    for version in versions:
        _told(lambda one: loads.load_version(model, one, ACTOR), version)
    kind = message("router.kserve.RepositoryModelLoadResponse")
    return kind(model_name=model, isLoaded=True)


def _unload(loads: Loads, asked: Any) -> Any:
    model = _model(asked)
    versions = _versions(asked.parameters)
    if not versions:
        raise MethodError(
            Code.INVALID_ARGUMENT,
            f"model '{model}' serves: name the version to unload in the parameter"
            f" '{VERSION}'",
        )
    for version in versions:
        _told(lambda one: loads.unload_version(model, one, ACTOR), version)
    kind = message("router.kserve.RepositoryModelUnloadResponse")
    return kind(model_name=model, isUnloaded=True)


def _model(asked: Any) -> str:
    name: str = asked.model_name or asked.repository_name
    if asked.model_name and asked.repository_name:
        raise MethodError(
            Code.INVALID_ARGUMENT,
            f"repository_name '{asked.repository_name[:64]}': repositories have no"
            " names here, leave it empty",
        )
    if not name:
        raise MethodError(Code.INVALID_ARGUMENT, "model_name is empty")
    return name


def _told(act: Callable[[Any], None], version: int | None) -> None:
    """Do it, or tell the client why it cannot be done, without a path or an address."""
    try:
        act(version)
    except NoVersionError as error:
        raise MethodError(Code.NOT_FOUND, str(error)) from error
    except (ModelError, LoadError) as error:
        # Not UNAVAILABLE: clients repeat that by themselves, and a probe is expensive.
        raise MethodError(Code.INVALID_ARGUMENT, str(error)) from error
    except ConfigError as error:
        words = "; ".join(f"{one.path}: {one.message}" for one in error.problems)
        raise MethodError(Code.INVALID_ARGUMENT, words) from error
    except RouterError as error:
        # An unreadable repository, a control log that cannot be written.
        raise MethodError(Code.UNAVAILABLE, str(error)) from error


def _versions(parameters: Mapping[str, Any]) -> tuple[int, ...]:
    """The versions that a request names; none if it names the model alone."""
    unknown = sorted(set(parameters) - {VERSION, CONFIG, *IGNORED})
    if unknown:
        raise MethodError(
            Code.INVALID_ARGUMENT,
            f"parameter '{unknown[0][:64]}' is not served: known are '{VERSION}' and"
            f" '{CONFIG}'; models come from their repository",
        )
    if VERSION in parameters:
        return (_one(parameters[VERSION]),)
    return _policy(parameters[CONFIG]) if CONFIG in parameters else ()


def _one(parameter: Any) -> int:
    kind = parameter.WhichOneof("parameter_choice")
    text = str(getattr(parameter, kind)) if kind else ""
    found = parse_version(text) if kind in ("int64_param", "string_param") else None
    if found is None:
        raise MethodError(
            Code.INVALID_ARGUMENT, f"parameter '{VERSION}': a positive whole number"
        )
    return found


def _policy(parameter: Any) -> tuple[int, ...]:
    """`{"version_policy": {"specific": {"versions": [3]}}}`, as JSON text."""
    wrong = MethodError(
        Code.INVALID_ARGUMENT,
        f"parameter '{CONFIG}': only a version_policy of specific versions is taken;"
        " what a model runs with is in the configuration",
    )
    text: str = parameter.string_param
    try:
        given = json.loads(text[:CONFIG_BYTES_MAX])
    except (ValueError, RecursionError):
        raise wrong from None
    match given:
        case {"version_policy": {"specific": {"versions": [*versions]}}}:
            if versions and len(given["version_policy"]) == 1 == len(given):
                return tuple(parse_version(str(one)) or 0 for one in versions)
    raise wrong
