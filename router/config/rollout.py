"""Rollouts, policies, holdouts and flags, as they are written in the file.

A rollout compares a candidate (or several) with stable. Its file says what should
happen; how far it has come is the control log's. `plan/rollout.py` interprets this once
and everything else reads what that made of it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router.config.steps import AmountText, Criteria, Duration, Step, Weights
from router.config.values import (
    FROZEN,
    Flag,
    Name,
    Number,
    Percent,
    Text,
    Texts,
    Version,
    as_tuple,
)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ClockTime = Annotated[Text, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
VersionOrAlias = Version | Name

EVERYONE = "everyone"  # the wave of all who take part


class Window(BaseModel):
    """When traffic may grow. Shrinking is never kept waiting."""

    model_config = FROZEN
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    from_: ClockTime = Field(default="00:00", alias="from")
    to: ClockTime = "23:59"
    tz: Text = "UTC"
    """An IANA name such as Europe/Berlin."""


class Channel(BaseModel):
    """One channel of a rollout, which moves in its own time."""

    model_config = FROZEN
    after: Name | None = None
    """Starts when this channel is promoted."""
    delay: Duration = 0.0


def _channels(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return {name: {} for name in value}
    return value


class Primary(BaseModel):
    """What an A/B experiment is about."""

    model_config = FROZEN
    metric: Name
    direction: Literal["increase", "decrease"] = "increase"
    min_effect: AmountText | None = None
    """The smallest effect worth having; sets the horizon that `simulate` shows."""
    covariate: Literal["none", "stable_score", "pre_exposure"] = "none"
    """What variance is taken out with."""


class PolicyBody(BaseModel):
    """What SREs own: steps, guardrails, windows. Rollouts refer to it by name."""

    model_config = FROZEN
    steps: tuple[Step, ...] = ()
    guardrails: Criteria = ()
    windows: tuple[Window, ...] = ()
    """Any of them allows growth; always if empty."""
    progress_deadline: Duration | None = None
    on_deadline: Literal["hold", "rollback"] = "hold"
    alpha: Annotated[Number, Field(gt=0, le=0.5)] = 0.05
    """False alarms that a whole rollout may raise, over all its guardrails."""


class Rollout(BaseModel):
    """The move from stable to a candidate."""

    model_config = FROZEN
    name: Name
    model: Name
    candidate: VersionOrAlias | None = None
    candidates: Annotated[tuple[VersionOrAlias, ...], Field(max_length=16)] = ()
    strategy: Literal["canary", "shadow", "ab", "blue_green"] = "canary"
    policy: Name | None = None
    audience: Name | None = None
    """Who takes part; everyone if unset."""
    waves: tuple[Name, ...] = ()
    """Audiences in order; each runs all weights before the next begins. `everyone` is
    all who take part."""
    channels: Annotated[
        dict[Name, Channel],
        BeforeValidator(
            _channels, json_schema_input_type=list[str] | dict[str, Channel]
        ),
    ] = Field(default_factory=dict)
    """Values of the channel attribute, each with progress of its own."""
    channel_key: Name = "channel"
    layer: Name | None = None
    salt: Name | None = None
    """What buckets are claimed by; the rollout's name if unset."""
    steps: tuple[Step, ...] = ()
    guardrails: Criteria = ()
    windows: tuple[Window, ...] = ()
    progress_deadline: Duration | None = None
    on_deadline: Literal["hold", "rollback"] | None = None
    alpha: Annotated[Number, Field(gt=0, le=0.5)] | None = None
    baseline: Literal["auto", "off"] = "auto"
    """Stable buckets set apart, so that latency is compared like with like."""
    slices: tuple[Name, ...] = ()
    """Audiences that are also judged by themselves."""
    allow: Texts | None = None
    """Units that always get the candidate."""
    deny: Texts | None = None
    """Units that never do."""
    split: Weights | None = None
    """Of an `ab` rollout: the candidate's share, fixed until it is decided."""
    primary: Primary | None = None
    horizon: Duration | None = None
    on_win: Literal["promote", "hold"] = "hold"
    on_rollback_disable: Flag = False
    """Take the candidate out for pins too when it is rolled back by itself."""
    silence: Duration = 600.0
    """A candidate that should get traffic and sees none for this long: an alarm."""
    flag: Name | None = None
    """The flag that turns it on and off; `rollout/<name>` if unset."""
    expected_rate: Annotated[Number, Field(gt=0)] | None = None
    """Requests a second, for the capacity check of `plan`; measured when serving."""

    @model_validator(mode="after")
    def _has_a_candidate(self) -> "Rollout":
        if (self.candidate is None) == (not self.candidates):
            raise PydanticCustomError(
                "rollout", "a rollout has either a candidate or candidates"
            )
        if self.waves and self.channels:
            raise PydanticCustomError("rollout", "either waves or channels")
        return self


class Holdout(BaseModel):
    """Units kept out of every rollout, claimed before anything else."""

    model_config = FROZEN
    name: Name
    percent: Percent
    models: Annotated[
        tuple[Name, ...],
        BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
    ] = ()
    """All of them if unset."""
    salt: Name | None = None


def versions_of(rollout: Rollout) -> tuple[int | str, ...]:
    """The candidates: integers, or names of versions. Aliases were replaced before."""
    if rollout.candidate is not None:
        return (rollout.candidate,)
    return rollout.candidates
