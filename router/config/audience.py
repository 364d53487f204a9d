"""Audiences: named conditions on what a request says about itself.

A condition is `all`, `any` or `not` of conditions, a reference to another audience, or
a test of one key. A test holds exactly one operator; that is checked here, because YAML
writes `{key: age, gte: 18}` flat and a flat record is what an editor can complete.

`not` beside `key` means "present or absent, but not this value": the plain negation of
`exact`, so a request without the key matches.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from router.config.values import (
    FROZEN,
    Instant,
    Name,
    Number,
    Range,
    Scalar,
    Scalars,
    Semver,
    Text,
    Texts,
)

OPERATORS = (
    "exact", "not", "in", "prefix", "suffix", "contains", "present", "absent", "regex",
    "range", "gt", "gte", "lt", "lte", "eq", "semver_eq", "semver_gt", "semver_gte",
    "semver_lt", "semver_lte", "before", "after",
)  # fmt: skip

UNIT_KEY = "targeting_key"


class Test(BaseModel):
    """One test of one key: the request's parameter, metadata or small input."""

    __test__ = False  # not a test case, whatever pytest thinks of the name
    model_config = FROZEN
    key: Name
    """Attribute to read; `targeting_key` is the unit key itself."""
    exact: Scalar | None = None
    not_: Scalars | None = Field(default=None, alias="not")
    in_: Scalars | None = Field(default=None, alias="in")
    prefix: Texts | None = None
    suffix: Texts | None = None
    contains: Texts | None = None
    present: Literal[True] | None = None
    absent: Literal[True] | None = None
    regex: Text | None = None
    """RE2 syntax; the whole value has to match."""
    range: Range | None = None
    """Both ends included."""
    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None
    eq: Number | None = None
    semver_eq: Semver | None = None
    semver_gt: Semver | None = None
    semver_gte: Semver | None = None
    semver_lt: Semver | None = None
    semver_lte: Semver | None = None
    before: Instant | None = None
    after: Instant | None = None

    @model_validator(mode="after")
    def _has_one_operator(self) -> "Test":
        given = operators_of(self)
        if len(given) != 1:
            found = f"{len(given)} ({', '.join(given)})" if given else "none"
            raise PydanticCustomError(
                "operators", "a test has exactly one operator, this one has {found}",
                {"found": found},
            )  # fmt: skip
        return self


def operators_of(test: Test) -> tuple[str, ...]:
    """The operators a test was given, by the names they have in YAML."""
    return tuple(name for name in OPERATORS if operand_of(test, name) is not None)


def operand_of(test: Test, operator: str) -> Any:
    """What stands beside one operator; None when it was not given."""
    return getattr(test, {"not": "not_", "in": "in_"}.get(operator, operator))


class AllOf(BaseModel):
    """True when every member is."""

    model_config = FROZEN
    all: Annotated[tuple["Condition", ...], Field(min_length=1)]


class AnyOf(BaseModel):
    """True when some member is."""

    model_config = FROZEN
    any: Annotated[tuple["Condition", ...], Field(min_length=1)]


class NotOf(BaseModel):
    """True when its member is not, also when the member looked for a missing value."""

    model_config = FROZEN
    not_: "Condition" = Field(alias="not")


class AudienceRef(BaseModel):
    """The condition of another audience."""

    model_config = FROZEN
    audience: Name


def _shape(value: Any) -> str | None:
    if isinstance(value, dict):
        keys = value.keys()
        if "key" in keys:
            return "test of a key"
        for key, tag in _SHAPES.items():
            if key in keys:
                return tag
        return "test of a key" if keys & set(OPERATORS) else None
    return _TAGS.get(type(value))


_SHAPES = {
    "all": "all of", "any": "any of", "not": "not of", "audience": "audience reference",
}  # fmt: skip
_TAGS: dict[type, str] = {
    Test: "test of a key",
    AllOf: "all of",
    AnyOf: "any of",
    NotOf: "not of",
    AudienceRef: "audience reference",
}

# The tags hold blanks so that no tag can be mistaken for a key when an error's place is
# looked up in the file.
Condition = Annotated[
    Annotated[Test, Tag("test of a key")]
    | Annotated[AllOf, Tag("all of")]
    | Annotated[AnyOf, Tag("any of")]
    | Annotated[NotOf, Tag("not of")]
    | Annotated[AudienceRef, Tag("audience reference")],
    Discriminator(
        _shape,
        custom_error_type="condition",
        custom_error_message=(
            "a condition is all, any, not, audience, or a key with an operator"
        ),
    ),
]


class Audience(BaseModel):
    """A named condition."""

    model_config = FROZEN
    name: Name
    when: Condition


for _model in (AllOf, AnyOf, NotOf, Audience):
    _model.model_rebuild()
