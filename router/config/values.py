"""The scalar types configuration is made of.

Scalars are strict: `"5"` is not 5 and `yes` is not true, because a silent conversion is
how a wrong file comes to serve. What is written in percent is held in basis points,
what is written as a time is held in seconds since 1970, and both serialize to something
that reads back as the same value.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

FROZEN = ConfigDict(
    frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
)
BASIS_POINTS = 10_000

# Semantic Versioning 2.0.0: no leading zeros, optional pre-release and build parts.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _refuse(kind: str, message: str) -> PydanticCustomError:
    # Braces would be read as a template, and a message never needs one.
    return PydanticCustomError(kind, message)


def _name(value: str) -> str:
    if _CONTROL.search(value) or value != value.strip():
        raise _refuse(
            "name", "a name holds no control characters and no blanks at its ends"
        )
    if len(value.encode()) > 256:
        raise _refuse("name", "a name has at most 256 bytes")
    return value


def _scalar(value: Any) -> str | int | bool:
    if isinstance(value, str | int):
        return value
    if isinstance(value, float):
        raise _refuse(
            "scalar",
            "text tests compare bytes: write `eq` for a number with a fraction",
        )
    raise _refuse("scalar", "write text, a whole number, true or false")


def _basis_points(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("percent", "write a number of percent between 0 and 100")
    points = Decimal(repr(value)) * 100
    if not 0 <= points <= BASIS_POINTS:
        raise _refuse("percent", "a share is between 0 and 100 percent")
    if points != points.to_integral_value():
        raise _refuse("percent", "shares are whole basis points: at most two decimals")
    return int(points)


def _percent(points: int) -> int | float:
    return points / 100 if points % 100 else points // 100


def _instant(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        raise _refuse("instant", "write a time such as 2030-01-31T12:00:00Z")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise _refuse("instant", "write a time such as 2030-01-31T12:00:00Z") from None
    if parsed.tzinfo is None:
        if len(value) > len("2030-01-31"):
            raise _refuse("instant", "a time of day needs its offset: add Z or +01:00")
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp()


def _semver(value: str) -> str:
    if not _SEMVER.fullmatch(value):
        raise _refuse("semver", "write a semantic version such as 1.4.0 or 2.0.0-rc.1")
    return value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise _refuse("range", "the low end of a range comes first")
    return value


def as_tuple(value: Any) -> Any:
    """One thing stands for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _version_key(value: Any) -> Any:
    # JSON has text keys only, and the applied configuration is stored as JSON.
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value


Text = Annotated[str, Strict(), StringConstraints(min_length=1)]
Name = Annotated[Text, AfterValidator(_name)]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), Field(ge=0, le=2**53)]
Count = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Seconds = Annotated[float, Strict(), Field(gt=0, le=86_400 * 366, allow_inf_nan=False)]
Version = Annotated[int, Strict(), Field(ge=1, le=2**32 - 1)]
VersionKey = Annotated[Version, BeforeValidator(_version_key)]
Percent = Annotated[
    int,
    PlainValidator(_basis_points, json_schema_input_type=float),
    PlainSerializer(_percent),
]
Scalar = Annotated[
    str | int | bool, PlainValidator(_scalar, json_schema_input_type=str | int | bool)
]
Scalars = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(
        as_tuple, json_schema_input_type=str | int | bool | list[str | int | bool]
    ),
    Field(min_length=1),
]
Texts = Annotated[
    tuple[Text, ...],
    BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
Instant = Annotated[float, PlainValidator(_instant, json_schema_input_type=str | float)]
Semver = Annotated[Text, AfterValidator(_semver)]
Range = Annotated[tuple[Number, Number], AfterValidator(_ordered)]
