"""Qwak's files as they are: audiences, and deployments with variations.

Pure translation: a text becomes our audiences and routes, or everything that keeps it
from becoming them. Conditions of an audience are all required; audiences are tried in
the order of the file; whoever is in none gets the fallback variation. What would change
who answers and cannot be honoured is a problem; what concerns the machines of another
platform (pods, scaling) is named in `ignored` and changes nothing here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from router.config.audience import Audience
from router.config.model import Model
from router.config.problems import Path, brief, did_you_mean, path_text
from router.config.route import Route
from router.errors import ConfigError, Problem

AUDIENCES_MAX = 256

_UNARY = {
    "EXACT_MATCH": "exact", "SAFE_REGEX_MATCH": "regex", "PRESENT_MATCH": "present",
    "PREFIX_MATCH": "prefix", "SUFFIX_MATCH": "suffix", "CONTAINS_MATCH": "contains",
}  # fmt: skip
_UNARY_PREFIX, _BINARY_PREFIX = "UNARY_OPERATOR_TYPE_", "BINARY_OPERATOR_TYPE_"
_RANGE = "RANGE_MATCH"

_AUDIENCE = {"name", "description", "conditions", "routes", "id"}
_UNARY_KEYS = {"key", "operator", "operand", "invert"}
_BINARY_KEYS = {"key", "operator", "first_operand", "second_operand", "invert"}
_ROUTE = {"variation_name", "weight", "shadow"}
_REALTIME = {"variation_name", "variations", "audiences", "fallback_variation"}
_IGNORED = {"environments", "build_id", "resources", "auto_scaling", "advanced_options"}
_IGNORED_REALTIME = {
    "timeout", "workers", "max_batch_size", "variation_protected_state", "env_vars",
    "environments",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lines:
    """Where things stand in a file, to say so."""

    file: str
    lines: Mapping[Path, int]

    def problem(
        self, path: Path, message: str, value: str = "", remedy: str = ""
    ) -> Problem:
        """Something that is wrong there."""
        place = path
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place, 0)
        return Problem(self.file, line, path_text(path), message, value, remedy)


@dataclass(frozen=True, slots=True)
class Translated:
    """What a file of Qwak's comes to here, and which of its keys do nothing."""

    at: Lines
    audiences: tuple[Audience, ...] = ()
    audience_places: tuple[Path, ...] = ()
    routes: tuple[Route, ...] = ()
    route_places: tuple[Path, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """A file while it is translated."""

    at: Lines
    model: str
    variations: Mapping[str, int]
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    route_places: list[Path] = field(default_factory=list)
    """Where each route that was made stands."""

    def refuse(
        self, path: Path, message: str, value: Any = "", remedy: str = ""
    ) -> None:
        found = value if isinstance(value, str) and not value else brief(value)
        self.problems.append(self.at.problem(path, message, found, remedy))


def variations_of(model: Model) -> dict[str, int]:
    """Versions by the names that variations have: the version's own, or its number."""
    versions = model.versions
    if isinstance(versions, dict):
        names = {own.name: version for version, own in versions.items() if own.name}
        return {str(version): version for version in versions} | names
    if isinstance(versions, tuple):
        return {str(version): version for version in versions}
    return {}


def translate(
    value: Any, at: Lines, model: str, variations: Mapping[str, int]
) -> Translated:
    """A parsed file of either kind; ConfigError with every problem of it.

    `model` is whose routes an audience file means (Qwak's audiences are an account's,
    a deployment names its model). `variations` are its versions by name; a number means
    itself.
    """
    reading = _Reading(at, model, variations)
    if not isinstance(value, dict):
        reading.refuse((), "expected a mapping")
        made = Translated(at)
    elif "spec" in value or "audiences" in value:
        made = _audience_file(reading, value)
    elif "realtime" in value:
        made = _deployment(reading, value)
    else:
        reading.refuse((), "neither audiences (spec) nor a deployment (realtime)")
        made = Translated(at)
    if reading.problems:
        raise ConfigError(tuple(reading.problems))
    return made


# -- audiences -------------------------------------------------------------------------


def _audience_file(reading: _Reading, value: dict[str, Any]) -> Translated:
    path: Path = ()
    if "spec" in value:
        if value.get("api_version") != "v1":
            reading.refuse(
                ("api_version",), "expected v1", value.get("api_version"), "write v1"
            )
        _unknown(reading, value, {"api_version", "spec"}, ())
        value, path = _mapping(reading, value["spec"], ("spec",)), ("spec",)
    audiences: list[Audience] = []
    places: list[Path] = []
    routes: list[Route] = []
    listed = _list(reading, value.get("audiences"), (*path, "audiences"))
    if len(listed) > AUDIENCES_MAX:
        reading.refuse((*path, "audiences"), f"more than {AUDIENCES_MAX} audiences")
    for i, entry in enumerate(listed[:AUDIENCES_MAX]):
        place = (*path, "audiences", i)
        entry = _mapping(reading, entry, place)
        _unknown(reading, entry, _AUDIENCE, place)
        name = _name(reading, entry, place)
        if any(audience.name == name for audience in audiences):
            reading.refuse((*place, "name"), "this name is taken", name)
        made = _audience(reading, name, entry.get("conditions"), (*place, "conditions"))
        if made is not None:
            audiences.append(made)
            places.append(place)
        if entry.get("routes"):
            routes += _routes(reading, name, entry["routes"], (*place, "routes"))
    return _translated(reading, routes, audiences, places)


def _translated(
    reading: _Reading,
    routes: list[Route],
    audiences: list[Audience],
    places: list[Path],
) -> Translated:
    return Translated(
        reading.at,
        tuple(audiences),
        tuple(places),
        tuple(routes),
        tuple(reading.route_places),
        tuple(reading.ignored),
    )


def _audience(
    reading: _Reading, name: str, conditions: Any, path: Path
) -> Audience | None:
    conditions = _mapping(reading, conditions, path)
    _unknown(reading, conditions, {"unary", "binary"}, path)
    tests: list[tuple[Path, dict[str, Any]]] = []
    unary = _list(reading, conditions.get("unary"), (*path, "unary"))
    for i, entry in enumerate(unary):
        place: Path = (*path, "unary", i)
        tests += _unary(reading, _mapping(reading, entry, place), place)
    for i, entry in enumerate(
        _list(reading, conditions.get("binary"), (*path, "binary"))
    ):
        place = (*path, "binary", i)
        tests += _binary(reading, _mapping(reading, entry, place), place)
    if not tests:
        reading.refuse(path, "an audience needs a condition", "", "add one under unary")
        return None
    sound = [test for place, test in tests if _is_sound(reading, test, place)]
    if len(sound) < len(tests):
        return None
    return Audience.model_validate({"name": name, "when": {"all": sound}})


def _is_sound(reading: _Reading, test: dict[str, Any], path: Path) -> bool:
    try:
        Audience.model_validate({"name": "x", "when": test})
    except ValidationError as error:
        reading.refuse(path, error.errors()[0]["msg"])
        return False
    return True


def _unary(
    reading: _Reading, entry: dict[str, Any], path: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    _unknown(reading, entry, _UNARY_KEYS, path)
    written = str(entry.get("operator", ""))
    operator = _UNARY.get(written.removeprefix(_UNARY_PREFIX))
    if operator is None:
        words = [_UNARY_PREFIX + word for word in _UNARY]
        reading.refuse(
            (*path, "operator"), "no operator of this name", written,
            did_you_mean(written, words),
        )  # fmt: skip
        return
    operand = entry.get("operand")
    if operator != "present" and operand is None:
        reading.refuse((*path, "operand"), "this key is required")
        return
    value = True if operator == "present" else _text(operand)
    yield path, _test(entry, {operator: value})


def _binary(
    reading: _Reading, entry: dict[str, Any], path: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    _unknown(reading, entry, _BINARY_KEYS, path)
    written = str(entry.get("operator", ""))
    if written.removeprefix(_BINARY_PREFIX) != _RANGE:
        reading.refuse(
            (*path, "operator"), "no operator of this name", written,
            f"use {_BINARY_PREFIX}{_RANGE}",
        )  # fmt: skip
        return
    ends = []
    for key in ("first_operand", "second_operand"):
        try:
            ends.append(float(entry.get(key)))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            reading.refuse((*path, key), "expected a number", entry.get(key))
    if len(ends) == 2:
        yield path, _test(entry, {"range": ends})


def _test(entry: dict[str, Any], operator: dict[str, Any]) -> dict[str, Any]:
    test = {"key": entry.get("key"), **operator}
    return {"not": test} if entry.get("invert") is True else test


def _text(operand: Any) -> str:
    """An operand as a request would carry it."""
    if isinstance(operand, bool):
        return "true" if operand else "false"
    return str(operand)


# -- variations ------------------------------------------------------------------------


def _deployment(reading: _Reading, value: dict[str, Any]) -> Translated:
    _unknown(reading, value, {"model_id", "realtime", *_IGNORED}, ())
    reading.ignored += sorted(_IGNORED & value.keys())
    reading.model = _text(value.get("model_id") or reading.model)
    realtime = _mapping(reading, value["realtime"], ("realtime",))
    _unknown(reading, realtime, _REALTIME | _IGNORED_REALTIME, ("realtime",))
    unused = sorted(_IGNORED_REALTIME & realtime.keys())
    reading.ignored += [f"realtime.{key}" for key in unused]
    routes: list[Route] = []
    path: Path = ("realtime", "audiences")
    for i, entry in enumerate(_list(reading, realtime.get("audiences"), path)):
        place = (*path, i)
        entry = _mapping(reading, entry, place)
        _unknown(reading, entry, {"id", "name", "routes"}, place)
        name = _text(entry.get("name") or entry.get("id") or "")
        if not name:
            reading.refuse(place, "an audience is named by its id or name")
        routes += _routes(reading, name, entry.get("routes"), (*place, "routes"))
    routes += _everyone(reading, realtime)
    return _translated(reading, routes, [], [])


def _everyone(reading: _Reading, realtime: dict[str, Any]) -> list[Route]:
    """Who is in no audience: the variations' percentages, else the fallback."""
    path: Path = ("realtime", "variations")
    shares = []
    for i, entry in enumerate(_list(reading, realtime.get("variations"), path)):
        place = (*path, i)
        entry = _mapping(reading, entry, place)
        _unknown(reading, entry, {"name", "traffic"}, place)
        traffic = _mapping(reading, entry.get("traffic", {}), (*place, "traffic"))
        _unknown(reading, traffic, {"percentage", "shadow"}, (*place, "traffic"))
        shares.append(
            {
                "variation_name": entry.get("name"),
                "weight": traffic.get("percentage", 0),
                "shadow": traffic.get("shadow", False),
            }
        )
    if any(share["weight"] for share in shares):
        return _routes(reading, None, shares, path)
    fallback = realtime.get("fallback_variation")
    if fallback is None:
        return []
    version = _version(reading, fallback, ("realtime", "fallback_variation"))
    if version is None:
        return []
    reading.route_places.append(("realtime", "fallback_variation"))
    return [Route(model=reading.model, version=version)]


def _routes(
    reading: _Reading, audience: str | None, written: Any, path: Path
) -> list[Route]:
    shares: dict[int, Any] = {}
    for i, entry in enumerate(_list(reading, written, path)):
        place = (*path, i)
        entry = _mapping(reading, entry, place)
        _unknown(reading, entry, _ROUTE, place)
        if entry.get("shadow"):
            reading.refuse(
                (*place, "shadow"), "a route does not shadow", True,
                "write a rollout with a step such as - shadow: {percent: 100, for: 1d}",
            )  # fmt: skip
            continue
        version = _version(reading, entry.get("variation_name"), place)
        weight = entry.get("weight", 100 if len(written) == 1 else 0)
        if version is None:
            continue
        if version in shares:
            reading.refuse(place, "this variation has a share already", str(version))
        if weight:
            shares[version] = weight
    return _split(reading, audience, shares, path)


def _split(
    reading: _Reading, audience: str | None, shares: dict[int, Any], path: Path
) -> list[Route]:
    if not shares:
        return []
    made: dict[str, Any] = {"model": reading.model}
    if audience is not None:
        made["audience"] = audience
    if len(shares) == 1 and set(shares.values()) == {100}:
        made["version"] = next(iter(shares))
    else:
        made["split"] = shares
    try:
        route = Route.model_validate(made)
    except ValidationError as error:
        reading.refuse(path, error.errors()[0]["msg"])
        return []
    total = sum(share.weight for share in route.split or ())
    if route.split and total != 10_000:
        reading.refuse(path, "weights add up to 100 percent", f"{total / 100:g}")
    reading.route_places.append(path)
    return [route]


def _version(reading: _Reading, name: Any, path: Path) -> int | None:
    text = "" if name is None else str(name)
    found = reading.variations.get(text)
    if found is None and text.isascii() and text.isdigit() and int(text) > 0:
        found = int(text)
    if found is None:
        reading.refuse(
            path, "no version is named like this variation", text,
            did_you_mean(text, reading.variations)
            or "name it: versions: {2: {name: ...}}",
        )  # fmt: skip
    return found


# -- shapes ----------------------------------------------------------------------------


def _mapping(reading: _Reading, value: Any, path: Path) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    reading.refuse(path, "expected a mapping", value)
    return {}


def _list(reading: _Reading, value: Any, path: Path) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    reading.refuse(path, "expected a list", value)
    return []


def _name(reading: _Reading, entry: dict[str, Any], path: Path) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        reading.refuse((*path, "name"), "expected text", name)
        return "?"
    return name


def _unknown(
    reading: _Reading, value: dict[str, Any], known: set[str], path: Path
) -> None:
    for key in value:
        if key not in known:
            reading.refuse(
                (*path, key), "this key cannot be honoured", "",
                did_you_mean(str(key), known),
            )  # fmt: skip
