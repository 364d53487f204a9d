"""Files of Qwak's beside the configuration: `qwak: [audiences.yaml]`.

They are read with the configuration and become audiences and routes of it, behind its
own, so that everything else (checks, plans, what is stored) sees one configuration.
Their names are relative to its folder and cannot leave it: who may hand the router a
configuration must not be able to have it read, and quote, any file of the machine.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from router.config.config import Config
from router.config.model import Model
from router.config.problems import Finding, Path
from router.config.qwak import AUDIENCES_MAX, Translated, variations_of
from router.config.qwak_entry import QwakFile
from router.errors import ConfigError, Problem

Read = Callable[[str, str, Mapping[str, int]], Translated]
"""A file's name, the model its routes mean, and that model's versions by name."""


@dataclass(slots=True)
class Brought:
    """A configuration with its Qwak files, where each part of them stands, and what
    was wrong with them."""

    config: Config
    places: dict[Path, tuple[Translated, Path]] = field(default_factory=dict)
    """By ("audiences", i) or ("routes", i) of the whole: the file, and where in it."""
    findings: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def problem_of(self, found: Finding) -> Problem | None:
        """A finding about something that a file brought, where it stands there."""
        origin = self.places.get(found.path[:2])
        if origin is None:
            return None
        translated, place = origin
        return translated.at.problem(place, found.message, found.value, found.remedy)


def with_qwak(config: Config, read: Read) -> Brought:
    """The configuration with everything its Qwak files say."""
    brought = Brought(config)
    audiences, routes = list(config.audiences), list(config.routes)
    for i, entry in enumerate(config.qwak):
        path: Path = ("qwak", i)
        wrong = list(_check(entry, config, path))
        brought.findings += wrong
        if wrong:
            continue
        model = entry.model or config.models[0].name
        try:
            made = read(entry.file, model, variations_of(_model(config, model)))
        except ConfigError as error:
            brought.problems += error.problems
            continue
        for audience, place in zip(made.audiences, made.audience_places, strict=True):
            brought.places["audiences", len(audiences)] = made, place
            audiences.append(audience)
        for route, place in zip(made.routes, made.route_places, strict=True):
            brought.places["routes", len(routes)] = made, place
            routes.append(route)
    if len(audiences) - len(config.audiences) > AUDIENCES_MAX:
        brought.findings.append(
            Finding(("qwak",), f"more than {AUDIENCES_MAX} audiences in all files")
        )
    merged: dict[str, Any] = {"audiences": tuple(audiences), "routes": tuple(routes)}
    brought.config = config.model_copy(update=merged)
    return brought


def _model(config: Config, name: str) -> Model:
    return next(model for model in config.models if model.name == name)


def _check(entry: QwakFile, config: Config, path: Path) -> Iterator[Finding]:
    file = PurePath(entry.file)
    if file.is_absolute() or ".." in file.parts:
        yield Finding(
            (*path, "file"), "leads out of the configuration's folder",
            repr(entry.file), "put the file beside the configuration",
        )  # fmt: skip
    names = [model.name for model in config.models]
    if entry.model is None and len(names) != 1:
        yield Finding(
            path, "whose routes are these?", repr(entry.file),
            "name the model: {file: ..., model: ...}",
        )  # fmt: skip
    elif entry.model is not None and entry.model not in names:
        yield Finding(
            (*path, "model"), "no model of this name", repr(entry.model),
            f"known: {', '.join(names)}",
        )  # fmt: skip
