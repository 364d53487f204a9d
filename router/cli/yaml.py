"""Plain values as block YAML.

Written by hand: the reader is strict and knows no writer, and what is printed here is
mappings, lists and scalars only. Text that could be read as anything else is quoted the
way JSON does, which is YAML.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

# Text that no YAML reader, strict or lax, takes for a number, a truth or a mark.
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9 _./@+-]*(?<! )", re.ASCII)
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def to_yaml(value: Any) -> str:
    """The text of a value, ending with a line break."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{_scalar(key)}:", inner, is_list=False)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _entry("-", inner, is_list=True)
    else:
        yield _scalar(value)


def _entry(head: str, value: Any, is_list: bool) -> Iterator[str]:
    if not isinstance(value, dict | list) or not value:
        yield f"{head} {_scalar(value)}"
        return
    lines = list(_lines(value))
    if is_list:
        yield f"{head} {lines[0]}"
        lines = lines[1:]
    else:
        yield head
    yield from (f"  {line}" for line in lines)


def _scalar(value: Any) -> str:
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    if is_plain and value.lower() not in _WORDS:
        return str(value)
    return json.dumps(value, ensure_ascii=False)
