"""Rollout steps and criteria, as they are written in the file.

A step is a mapping with one key, its kind: `- weight: {to: 5, for: 2h}`. A step that
grows traffic has to say when it may be left: a time, a number of units or samples, or a
gate; one that says nothing is an error, because nothing would ever be waited for.

A criterion is used as a *guardrail* (must never be crossed, watched all the time) or as
a *gate* (must pass before a step is left).
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.values import (
    FROZEN,
    Count,
    Flag,
    Name,
    Number,
    Percent,
    Text,
    VersionKey,
    Whole,
)

_UNITS_S = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|pp|ms|us|s|MiB|GiB|cores)?", re.ASCII)
DURATION_MAX_S = 366 * 86_400.0


def _duration(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise PydanticCustomError(
                "duration", "write a time such as 30s, 15m, 2h or 7d"
            )
        seconds = float(found[1]) * _UNITS_S[found[2]]
    if not 0 <= seconds <= DURATION_MAX_S:
        raise PydanticCustomError("duration", "a time is between 0 and 366 days")
    return seconds


Duration = Annotated[
    float, PlainValidator(_duration, json_schema_input_type=str | float)
]
"""Seconds, written with a unit."""


class Amount(BaseModel):
    """A number with its unit: `0.2pp`, `10%`, `50ms`, `256MiB`, or bare."""

    model_config = FROZEN
    value: Number
    unit: Literal["", "%", "pp", "ms", "us", "s", "MiB", "GiB", "cores"] = ""


def _amount(value: Any) -> Any:
    if isinstance(value, Amount | dict):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "amount", "write a number with its unit: 1%, 0.2pp, 50ms, 256MiB"
        )
    return {"value": float(found[1]), "unit": found[2] or ""}


def _written(amount: Amount) -> str | float:
    return f"{amount.value:g}{amount.unit}" if amount.unit else amount.value


AmountText = Annotated[
    Amount,
    BeforeValidator(_amount, json_schema_input_type=str | float),
    PlainSerializer(_written),
]

BUILT_IN = (
    "error_rate", "invalid_rate", "fallback_rate", "slo_exceedance",
    "latency_p50", "latency_p90", "latency_p99", "latency_p999",
    "disagreement", "score_mean", "cpu_per_request", "memory", "srm",
    "accuracy", "precision", "recall", "log_loss", "brier", "calibration_error",
    "mae", "rmse", "bias", "reward", "conversion",
)  # fmt: skip


class Prometheus(BaseModel):
    """A query; its single value is compared. An empty answer is inconclusive."""

    model_config = FROZEN
    url: Text
    query: Text


class Webhook(BaseModel):
    """An URL that answers {"verdict": "pass" | "fail" | "inconclusive", "reason"}."""

    model_config = FROZEN
    url: Text
    timeout_s: Annotated[Number, Field(gt=0, le=60)] = 5


class Criterion(BaseModel):
    """Something measured, what it may be, and what happens when it is not."""

    model_config = FROZEN
    metric: Name
    """A built-in metric, a feedback metric's name, or a label for a query."""
    name: Name | None = None
    """How it is called in verdicts; the metric if unset."""
    worse_by: AmountText | None = None
    """How much worse than stable: points (`0.2pp`), or relative (`10%`)."""
    max: AmountText | None = None
    min: AmountText | None = None
    threshold_ms: Annotated[Number, Field(gt=0)] | None = None
    """What `slo_exceedance` counts as too slow."""
    prometheus: Prometheus | None = None
    webhook: Webhook | None = None
    min_samples: Count = 100
    """Of the candidate; fewer are inconclusive."""
    test: Literal["worse", "non_inferior"] = "worse"
    """Fail when shown worse, or pass only when shown not to be worse."""
    action: Literal["rollback", "hold", "alert"] = "rollback"
    """What a failure leads to."""
    dry_run: Flag = False
    """Judged and shown; never acted on."""
    every: Duration = 10.0
    """How often a query or webhook is asked."""

    @model_validator(mode="after")
    def _is_decidable(self) -> "Criterion":
        external = self.prometheus is not None or self.webhook is not None
        if (
            not external
            and self.metric in BUILT_IN
            and self.metric != "srm"
            and (self.worse_by is None and self.max is None and self.min is None)
        ):
            raise PydanticCustomError(
                "criterion", "say what is too bad: worse_by, max or min"
            )
        if self.prometheus is not None and self.max is None and self.min is None:
            raise PydanticCustomError("criterion", "a query needs max or min")
        if self.prometheus is not None and self.webhook is not None:
            raise PydanticCustomError("criterion", "either prometheus or webhook")
        if self.metric == "slo_exceedance" and self.threshold_ms is None:
            raise PydanticCustomError("criterion", "slo_exceedance needs threshold_ms")
        return self


Criteria = tuple[Criterion, ...]
Weights = Annotated[
    Percent | dict[VersionKey, Percent],
    Field(union_mode="left_to_right"),
]


class Preflight(BaseModel):
    """Recorded requests are replayed against the candidate; no user sees it."""

    model_config = FROZEN
    replay: Text
    """The recording."""
    max_disagreement: Percent = 0
    tolerance: Annotated[Number, Field(ge=0)] = 1e-3
    latency_worse_by: AmountText | None = None
    attestation: Text | None = None
    """What `router parity` wrote in staging; production has to match it."""


class Shadow(BaseModel):
    """Copies go to the candidate; its answers are compared and discarded."""

    model_config = FROZEN
    percent: Percent
    by: Literal["bucket", "request"] = "bucket"
    """The same units all the time, or each request for itself."""
    min_samples: Whole = 0
    """Pairs compared."""
    for_: Duration = Field(default=0.0, alias="for")
    gates: Criteria = ()


class Weight(BaseModel):
    """The candidate's share; of each candidate, or by version."""

    model_config = FROZEN
    to: Weights
    for_: Duration | None = Field(default=None, alias="for")
    min_units: Whole = 0
    gates: Criteria = ()


class Ramp(BaseModel):
    """Weights from one share to another by equal increments."""

    model_config = FROZEN
    from_: Percent | None = Field(default=None, alias="from")
    """One increment above the last step if unset."""
    to: Percent
    increment: Percent
    every: Duration
    min_units: Whole = 0
    gates: Criteria = ()


class Approval(BaseModel):
    """A person has to say yes."""

    model_config = FROZEN
    group: Name | None = None
    timeout: Duration | None = None
    on_timeout: Literal["hold", "rollback"] = "hold"


class Bake(BaseModel):
    """Keep watching after the last weight."""

    model_config = FROZEN
    for_: Duration = Field(alias="for")
    min_units: Whole = 0
    gates: Criteria = ()


KINDS: dict[str, type[BaseModel]] = {
    "preflight": Preflight, "shadow": Shadow, "weight": Weight, "ramp": Ramp,
    "approval": Approval, "bake": Bake,
}  # fmt: skip


class Step(BaseModel):
    """One rung of a rollout: exactly one of its kinds."""

    model_config = FROZEN
    preflight: Preflight | None = None
    shadow: Shadow | None = None
    weight: Weight | None = None
    ramp: Ramp | None = None
    approval: Approval | None = None
    bake: Bake | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> "Step":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = f"{len(given)} ({', '.join(given)})" if given else "none"
            raise PydanticCustomError(
                "step", "a step has exactly one kind, this one has {found}",
                {"found": found},
            )  # fmt: skip
        return self
