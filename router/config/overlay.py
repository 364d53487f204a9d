"""One file for several environments: `environments.<name>` is laid over the rest.

Mappings merge key by key; lists whose members have names merge by name, and members
that are new come last; every other value replaces what was there. `null` removes: a
key, or, where a list is overlaid by a mapping of names, a member. Every place of the
result remembers the line it came from, so a problem points at the line that has to be
edited.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.config.problems import Finding, Path, did_you_mean

SECTION = "environments"


@dataclass(slots=True)
class Merged:
    """A value, the line of each of its places, and what was wrong with the overlay."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[tuple[Finding, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _At:
    """A value of the file and its place there."""

    value: Any
    path: Path


def lay_over(
    value: dict[str, Any], lines: Mapping[Path, int], environment: str
) -> Merged:
    """The file as it is in an environment; as it stands when none ("") is named."""
    base = {key: part for key, part in value.items() if key != SECTION}
    merged = Merged(base)
    sections = value.get(SECTION, {})
    if not isinstance(sections, dict):
        line = lines.get((SECTION,), 0)
        merged.findings.append((_expected((SECTION,)), line))
        sections = {}
    for name, overlay in sections.items():
        if not isinstance(overlay, dict) and overlay is not None:
            path: Path = (SECTION, name)
            merged.findings.append((_expected(path), lines.get(path, 0)))
    if not environment:
        merged.lines = dict(lines)
        return merged
    if environment not in sections:
        found = Finding(
            (SECTION,), "no environment of this name", repr(environment),
            did_you_mean(environment, map(str, sections)),
        )  # fmt: skip
        merged.findings.append((found, lines.get((SECTION,), 0)))
    over = sections.get(environment)
    placed = _At(over if isinstance(over, dict) else {}, (SECTION, environment))
    merged.value = _merge(_At(base, ()), placed, (), lines, merged.lines)
    return merged


def _expected(path: Path) -> Finding:
    return Finding(path, "expected a mapping", "", "write what differs by its keys")


def _merge(
    base: _At, over: _At, to: Path, lines: Mapping[Path, int], made: dict[Path, int]
) -> Any:
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        made[to] = lines.get(base.path, lines.get(over.path, 0))
        return {
            key: _member(base, over, key, (*to, key), lines, made)
            for key in dict.fromkeys((*base.value, *over.value))
            if not (key in over.value and over.value[key] is None)
        }
    names = _names(base.value)
    by_name = _by_name(over) if names is not None else None
    if names is None or by_name is None:
        return _copy(over, to, lines, made)
    made[to] = lines.get(base.path, 0)
    result: list[Any] = []
    for at, name in enumerate(names):
        here = _At(base.value[at], (*base.path, at))
        there = by_name.get(name)
        if name in by_name and there is None:
            continue
        place = (*to, len(result))
        if there is None:
            result.append(_copy(here, place, lines, made))
        else:
            result.append(_merge(here, there, place, lines, made))
    for name, added in by_name.items():
        if name not in names and added is not None:
            place = (*to, len(result))
            result.append({"name": name, **_copy(added, place, lines, made)})
    return result


def _member(
    base: _At,
    over: _At,
    key: Any,
    to: Path,
    lines: Mapping[Path, int],
    made: dict[Path, int],
) -> Any:
    here = _At(base.value.get(key), (*base.path, key))
    there = _At(over.value.get(key), (*over.path, key))
    if key not in over.value:
        return _copy(here, to, lines, made)
    if key not in base.value:
        return _copy(there, to, lines, made)
    return _merge(here, there, to, lines, made)


def _copy(at: _At, to: Path, lines: Mapping[Path, int], made: dict[Path, int]) -> Any:
    if at.path in lines:
        made[to] = lines[at.path]
    if isinstance(at.value, dict):
        return {
            key: _copy(_At(member, (*at.path, key)), (*to, key), lines, made)
            for key, member in at.value.items()
        }
    if isinstance(at.value, list):
        return [
            _copy(_At(member, (*at.path, i)), (*to, i), lines, made)
            for i, member in enumerate(at.value)
        ]
    return at.value


def _names(value: Any) -> list[str] | None:
    """The names of a list's members, if all of them have one of their own."""
    if not isinstance(value, list) or not value:
        return None
    named = [member for member in value if isinstance(member, dict)]
    names = [str(member["name"]) for member in named if "name" in member]
    is_complete = len(names) == len(value)
    return names if is_complete and len(set(names)) == len(names) else None


def _by_name(over: _At) -> dict[str, _At | None] | None:
    """The members of an overlay by name; None stands for one that is removed."""
    if isinstance(over.value, dict):
        return {
            str(name): None if member is None else _At(member, (*over.path, name))
            for name, member in over.value.items()
            if member is None or isinstance(member, dict)
        }
    names = _names(over.value)
    if names is None:
        return None
    return {
        name: _At(over.value[at], (*over.path, at)) for at, name in enumerate(names)
    }
