"""What is wrong with a value, said so that a person can repair it.

A finding is a problem that does not yet know its file and line: a place in the value, a
message, what was found and what to write instead. This module turns what the schema
found into findings; `check.py` makes its own.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from router.config.alerts import AlertChannel, AlertRule, Alerts, Slo
from router.config.audience import OPERATORS, Audience
from router.config.config import Config
from router.config.feedback import Feedback
from router.config.manifest import Artefact, Input, Training
from router.config.model import (
    Force,
    Model,
    Output,
    Runtime,
    Unit,
    VersionRuntime,
    VersionSettings,
)
from router.config.rollout import (
    Channel,
    Holdout,
    PolicyBody,
    Primary,
    Rollout,
    Window,
)
from router.config.route import Layer, Route, Share
from router.config.server import Limits, Server
from router.config.steps import KINDS, Criterion, Step

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong, at a place in the configuration's value."""

    path: Path
    message: str
    value: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """Names whose owners could not be read."""

    models: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()


# Which keys a mapping may have, by the key it stands under: only for suggestions.
_MAPPINGS: dict[str, type[BaseModel]] = {
    "server": Server,
    "limits": Limits,
    "models": Model,
    "unit": Unit,
    "output": Output,
    "runtime": Runtime,
    "versions": VersionSettings,
    "audiences": Audience,
    "layers": Layer,
    "routes": Route,
    "feedback": Feedback,
    "alerts": Alerts,
    "rules": AlertRule,
    "slos": Slo,
    "split": Share,
    "rollouts": Rollout,
    "policies": PolicyBody,
    "holdouts": Holdout,
    "guardrails": Criterion,
    "gates": Criterion,
    "channels": Channel,
    "windows": Window,
    "primary": Primary,
    "force": Force,
    "steps": Step,
    **KINDS,
    "inputs": Input,
    "training": Training,
    "data": Artefact,
    "preprocessing": Artefact,
    "configuration": Artefact,
}
_CONDITION_KEYS = ("key", "all", "any", "not", "audience", *OPERATORS)

_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "this key is required",
    "string_type": "expected text",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "string_too_short": "may not be empty",
    "too_short": "may not be empty",
}
_REMEDIES = {
    "bool_type": "write true or false",
    "string_type": "put quotes around it",
}


def path_text(path: Path) -> str:
    """A place as people write it: `models[0].stable`; the whole file is `(file)`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "(file)"


def brief(value: Any) -> str:
    """A found value, short enough for one line."""
    if isinstance(value, BaseModel | dict | list | tuple):
        return ""
    text = {None: "null", True: "true", False: "false"}.get(value, "") if (
        value is None or isinstance(value, bool)
    ) else (repr(value) if isinstance(value, str) else str(value))  # fmt: skip
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt word; else the choices, when they are few."""
    choices = sorted(set(known))
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if 0 < len(choices) <= 8:
        return f"known: {', '.join(choices)}"
    return ""


def nowhere(path: Path, kind: str, name: str, names: Iterable[str]) -> Finding:
    return Finding(
        path, f"no {kind} of this name", repr(name), did_you_mean(name, names)
    )


def resolve(value: Any, location: Path) -> Path:
    """The part of an error's location that exists in the value.

    The schema names the members of unions in its locations; whatever is no key or index
    of the value at that point is such a name and is left out. The last part stays when
    it names a missing key, so the caller sees what is missing.
    """
    path: list[str | int] = []
    for part in location:
        step = _step(value, part, path[-1] if path else "")
        if step is not None:
            path.append(step)
            value = value[step]
    return tuple(path)


def locate(value: Any, place: Path) -> Path:
    """A place a check found, as it stands in the value: up to where the value says
    nothing, and then the rest."""
    path: list[str | int] = []
    for at, part in enumerate(place):
        step = _step(value, part, path[-1] if path else "")
        if step is None:
            return (*path, *place[at:])
        path.append(step)
        value = value[step]
    return tuple(path)


# Lists that may be written as mappings: their members are found by position.
_SHORT_FORMS = ("split", "providers")


def _step(value: Any, part: str | int, under: str | int) -> str | int | None:
    """The key or index that a part names, if the value has it."""
    if isinstance(value, dict):
        if under in _SHORT_FORMS and isinstance(part, int):
            return list(value)[part]  # type: ignore[no-any-return]
        # Locations name keys as text, also where the file has numbers.
        return (
            part if part in value else next((k for k in value if str(k) == part), None)
        )
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return part
    return None


def from_schema(
    error: ErrorDetails, value: Any, root: type[BaseModel] = Config
) -> Finding:
    """One error of the schema as a finding; `root` is what the file holds."""
    kind, location = error["type"], error["loc"]
    path = resolve(value, location)
    if kind == "missing":
        return Finding((*path, location[-1]), _MESSAGES[kind])
    if kind == "extra_forbidden":
        return Finding(path, _MESSAGES[kind], "", _key_remedy(path, root.model_fields))
    message = _MESSAGES.get(kind) or _sentence(error["msg"])
    remedy = _REMEDIES.get(kind, "")
    if kind == "literal_error":
        expected = str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
        words = [word.strip(" '") for word in expected.split(",")]
        message = f"expected {' or '.join(words)}"
        remedy = did_you_mean(str(error["input"]), words)
        remedy = remedy if remedy.startswith("did") else ""
    elif kind == "condition" and isinstance(error["input"], dict) and error["input"]:
        word = str(next(iter(error["input"])))
        suggestion = did_you_mean(word, _CONDITION_KEYS)
        remedy = f"unknown '{word}': {suggestion}" if suggestion else ""
    return Finding(path, message, brief(error["input"]), remedy)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _key_remedy(path: Path, known: Iterable[str]) -> str:
    word = str(path[-1])
    parents = [part for part in path[:-1] if isinstance(part, str)]
    if not parents:
        return did_you_mean(word, known)
    if "when" in parents:
        return did_you_mean(word, _CONDITION_KEYS)
    if parents[-1] == "runtime" and "versions" in parents:
        return did_you_mean(word, VersionRuntime.model_fields)
    mapping = _MAPPINGS.get(parents[-1])
    if parents[:2] == ["alerts", "channels"]:
        mapping = AlertChannel  # models have channels too
    return did_you_mean(word, _keys(mapping)) if mapping else ""


def _keys(mapping: type[BaseModel]) -> list[str]:
    """What the keys of a mapping are called in the file."""
    return [field.alias or name for name, field in mapping.model_fields.items()]
