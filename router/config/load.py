"""From a file to a configuration, or to everything that is wrong with it.

The only place that knows YAML, and it knows little of it: mappings, lists and the
scalars of the YAML 1.2 core schema, at most 1 MiB and 20 levels. Aliases, anchors and
tags are refused; `010` is ten, `yes` and `12:30` are text. A key given twice is an
error.

One run finds syntax, schema and cross-reference problems together: what does not fit
the schema is reported, left out, and the rest is looked at as if it had not been there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from router.config.check import Checks, check_config
from router.config.config import API_VERSION, Config
from router.config.features import with_inputs
from router.config.overlay import lay_over
from router.config.problems import Finding, Known, Path, from_schema, locate, path_text
from router.config.qwak import Lines, Translated, translate
from router.config.qwak_files import Read as ReadQwak
from router.config.qwak_files import with_qwak
from router.errors import ConfigError, Problem

SIZE_MAX = 1024 * 1024
DEPTH_MAX = 20

NO_CHECKS = Checks()

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True}
_BOOL |= {"false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
    r"|\.(nan|NaN|NAN)",
    re.ASCII,
)
Read = TypeVar("Read", bound=BaseModel)

_DIGITS_MAX = 300  # more is no number a double can hold, and slow to read


class _Loader(yaml.CSafeLoader):
    """libyaml's scanner and parser; values are built below, from its events."""


@dataclass(slots=True)
class Document:
    """A file's value while it is being read: what it says, where, and what is wrong."""

    file: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[tuple[Finding, int]] = field(default_factory=list)
    dead: set[Path] = field(default_factory=set)
    """Places with no usable value."""

    def line_of(self, path: Path) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def problems(self) -> tuple[Problem, ...]:
        placed = sorted(
            enumerate(self.findings), key=lambda entry: (entry[1][1], entry[0])
        )
        return tuple(
            Problem(
                self.file, line, path_text(found.path), found.message, found.value,
                found.remedy,
            )
            for _, (found, line) in placed
        )  # fmt: skip


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    value: dict[Any, Any] | list[Any]
    path: Path
    key: Any = None
    has_key: bool = False


def load_config(path: str | FilePath, checks: Checks = NO_CHECKS) -> Config:
    """The configuration in a file; ConfigError with every problem if it has any."""
    return read_config(read_bytes(path), str(path), checks)


def read_bytes(path: str | FilePath) -> bytes:
    """A file's bytes, one more than are allowed at most."""
    try:
        with open(path, "rb") as opened:
            return opened.read(SIZE_MAX + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError((Problem(str(path), 0, "(file)", reason),)) from None


def read_config(data: bytes | str, file: str, checks: Checks = NO_CHECKS) -> Config:
    """The configuration in a text; ConfigError with every problem if it has any."""
    document = parse_document(data, file)
    _lay_over(document, checks.environment)
    config, value, origin = _validate(document)
    elsewhere: list[Problem] = []
    if config is not None:
        brought = with_qwak(config, _reader(checks.directory, file))
        elsewhere = brought.problems
        config = with_inputs(brought.config, checks.list_versions, checks.read_inputs)
        known = _known(document.value)
        for finding in (*brought.findings, *check_config(config, checks, known)):
            foreign = brought.problem_of(finding)
            if foreign is not None:
                elsewhere.append(foreign)
                continue
            path = _translate(locate(value, finding.path), origin)
            if not _is_about_dead(path, document.dead):
                found = Finding(path, finding.message, finding.value, finding.remedy)
                document.findings.append((found, document.line_of(path)))
    if document.findings or elsewhere:
        raise ConfigError((*document.problems(), *elsewhere))
    assert config is not None
    return config


def _reader(directory: str, file: str) -> ReadQwak:
    """Reads Qwak's files of a configuration."""
    folder = FilePath(directory) if directory else FilePath(file).parent

    def read(name: str, model: str, variations: Mapping[str, int]) -> Translated:
        path = folder / name
        return read_qwak(read_bytes(path), str(path), model, variations)

    return read


def read_qwak(
    data: bytes | str, file: str, model: str, variations: Mapping[str, int]
) -> Translated:
    """A file of Qwak's as audiences and routes of ours; ConfigError if it has
    problems."""
    document = parse_document(data, file)
    if document.findings:
        raise ConfigError(document.problems())
    return translate(document.value, Lines(file, document.lines), model, variations)


def _lay_over(document: Document, environment: str) -> None:
    """Make the document what it is in an environment."""
    if not isinstance(document.value, dict):
        return
    merged = lay_over(document.value, document.lines, environment)
    document.findings += merged.findings
    document.value, document.lines = merged.value, merged.lines


def render(data: bytes | str, file: str, environment: str) -> Any:
    """The plain values of a file in an environment, not checked any further."""
    document = parse_document(data, file)
    _lay_over(document, environment)
    if document.findings:
        raise ConfigError(document.problems())
    return document.value


def read_mapping(data: bytes | str, file: str, model: type[Read]) -> Read:
    """Another strict YAML file (a manifest) as `model`, by the same rules."""
    document = parse_document(data, file)
    if document.value is not None:
        try:
            made = model.model_validate(document.value)
        except ValidationError as error:
            for detail in error.errors():
                found = from_schema(detail, document.value, model)
                if not _is_about_dead(found.path, document.dead):
                    document.findings.append((found, document.line_of(found.path)))
        else:
            if not document.findings:
                return made
    raise ConfigError(document.problems())


# -- YAML ------------------------------------------------------------------------------


def parse_document(data: bytes | str, file: str) -> Document:
    """A text as plain values, with the line of every key."""
    document = Document(file)
    if len(data) > SIZE_MAX:
        _report(document, (), 0, "the file is larger than 1 MiB")
        return document
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        _build(document, yaml.parse(text, Loader=_Loader))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        _report(document, (), line, "not UTF-8")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        _report(
            document, (), mark.line + 1 if mark else 0, f"not YAML: {', '.join(parts)}"
        )
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _report(document, (), line, f"not YAML: {error.reason}")
    return document


def _report(
    document: Document, path: Path, line: int, message: str, value: str = "",
    remedy: str = "",
) -> None:  # fmt: skip
    document.findings.append((Finding(path, message, value, remedy), line))


def _build(document: Document, events: Iterator[Any]) -> None:
    stack: list[_Open] = []
    roots = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            roots += 1
            if roots > 1:
                _report(
                    document,
                    (),
                    line,
                    "a second document",
                    "",
                    "one file, one document",
                )
                return
        elif isinstance(event, yaml.ScalarEvent):
            _refuse_marks(document, stack, event, line)
            _place(document, stack, _scalar(event), line)
        elif isinstance(event, yaml.AliasEvent):
            path = _path_of(stack)
            _report(document, path, line, "aliases are refused", f"*{event.anchor}",
                    "write the value out")  # fmt: skip
            document.dead.add(path)
            _place(document, stack, None, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_marks(document, stack, event, line)
            top = stack[-1] if stack else None
            if len(stack) == DEPTH_MAX:
                _report(document, _path_of(stack), line, "deeper than 20 levels")
                return
            if top and isinstance(top.value, dict) and not top.has_key:
                _report(document, top.path, line, "a key has to be a plain word")
                return
            is_map = isinstance(event, yaml.MappingStartEvent)
            path = _path_of(stack)
            document.lines.setdefault(path, line)
            stack.append(_Open({} if is_map else [], path))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = stack.pop()
            _place(document, stack, ended.value, line)
    if document.value is None:
        _report(document, (), 0, "the file is empty")


def _refuse_marks(
    document: Document, stack: list[_Open], event: Any, line: int
) -> None:
    path = _path_of(stack)
    if event.anchor is not None:
        _report(document, path, line, "anchors are refused", f"&{event.anchor}")
    if event.tag is not None:
        _report(document, path, line, "tags are refused", event.tag)


def _path_of(stack: list[_Open]) -> Path:
    """Where the next value goes."""
    if not stack:
        return ()
    top = stack[-1]
    if isinstance(top.value, list):
        return (*top.path, len(top.value))
    return (*top.path, top.key) if top.has_key else top.path


def _place(document: Document, stack: list[_Open], value: Any, line: int) -> None:
    if not stack:
        document.value = value
        return
    top = stack[-1]
    path = _path_of(stack)
    if isinstance(top.value, list):
        document.lines.setdefault(path, line)
        top.value.append(value)
    elif not top.has_key:
        top.key, top.has_key = _key(document, top, value, line), True
    else:
        top.has_key = False
        top.value.setdefault(top.key, value)


def _key(document: Document, top: _Open, value: Any, line: int) -> str | int:
    key = value if isinstance(value, str) or type(value) is int else str(value)
    path = (*top.path, key)
    assert isinstance(top.value, dict)
    if key in top.value:
        first = document.lines[path]
        _report(document, path, line, "this key is given twice", "",
                f"the first is on line {first}")  # fmt: skip
    document.lines.setdefault(path, line)
    return key


def _scalar(event: Any) -> Any:
    """A scalar by the YAML 1.2 core schema; quoted ones are text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) <= _DIGITS_MAX:
        if _INT.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text, base)
        if _FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1) if text.lstrip("+-")[1:2].isalpha()
                         and text.lstrip("+-")[0] == "." else text)  # fmt: skip
    return text


# -- schema ----------------------------------------------------------------------------


def _validate(document: Document) -> tuple[Config | None, Any, dict[Path, Path]]:
    """The configuration without the places that do not fit, each of them reported."""
    if not isinstance(document.value, dict):
        if not document.findings:
            _report(
                document, (), 1, "expected a mapping of api_version, models and so on"
            )
        return None, None, {}
    while True:
        origin: dict[Path, Path] = {}
        value = _prune(document.value, (), (), document.dead, origin)
        for key, filler in (("api_version", API_VERSION), ("models", [])):
            # A required key that was reported must not hide what else is wrong.
            if (key,) in document.dead:
                value.setdefault(key, filler)
        try:
            return Config.model_validate(value), value, origin
        except ValidationError as error:
            _bury(document, error, value, origin)


def _bury(
    document: Document, error: ValidationError, value: Any, origin: dict[Path, Path]
) -> None:
    """Report what did not fit and mark it dead; every call marks something more."""
    founds = [from_schema(detail, value) for detail in error.errors()]
    paths = [_translate(found.path, origin) for found in founds]
    newly: set[Path] = set()
    for found, path in zip(founds, paths, strict=True):
        is_container = any(len(p) > len(path) and p[: len(path)] == path for p in paths)
        if path in newly or is_container:
            continue  # another member of the same union, or a list that lost a member
        newly.add(path)
        if not _is_about_dead(path, document.dead):
            moved = Finding(path, found.message, found.value, found.remedy)
            document.findings.append((moved, document.line_of(path)))
    for path in newly:
        is_missing = path not in document.lines and len(path) > 1
        target = path[:-1] if is_missing else path
        while target in document.dead:
            target = target[:-1]
        document.dead.add(target)


def _prune(
    value: Any, here: Path, original: Path, dead: set[Path], origin: dict[Path, Path]
) -> Any:
    """The value without its dead places; `origin` says where each kept place was."""
    origin[here] = original
    if isinstance(value, dict):
        return {
            key: _prune(member, (*here, key), (*original, key), dead, origin)
            for key, member in value.items()
            if (*original, key) not in dead
        }
    if isinstance(value, list):
        kept = [i for i in range(len(value)) if (*original, i) not in dead]
        return [
            _prune(value[i], (*here, at), (*original, i), dead, origin)
            for at, i in enumerate(kept)
        ]
    return value


def _translate(path: Path, origin: dict[Path, Path]) -> Path:
    """A place in the pruned value as a place in the file."""
    known = path
    while known not in origin:
        known = known[:-1]
    return (*origin[known], *path[len(known) :])


def _is_about_dead(path: Path, dead: set[Path]) -> bool:
    """The place holds, or is, something that was reported already."""
    return any(place[: len(path)] == path for place in dead)


def _known(value: dict[str, Any]) -> Known:
    def names(section: str) -> frozenset[str]:
        entries = value.get(section)
        return frozenset(
            entry["name"]
            for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        )

    policies = value.get("policies")
    return Known(
        names("models"),
        names("audiences"),
        names("layers"),
        frozenset(map(str, policies)) if isinstance(policies, dict) else frozenset(),
    )


def write_yaml(value: Any) -> str:
    """JSON values as YAML, in the order they have."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
