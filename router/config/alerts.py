"""Alerts: where they go, which ones, and the objectives whose budgets are watched."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from router.config.steps import Duration
from router.config.values import FROZEN, Name, Number, Text, Texts

Kind = Literal[
    "rollback", "hold", "promotion", "approval_needed", "slo_burn", "config_refused",
    "feedback_refused", "drift", "retrain_requested", "rollout_moved", "silence",
]  # fmt: skip
Level = Literal["info", "ticket", "page"]


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable:
        raise PydanticCustomError("url", "write a URL such as https://host/path")
    return text


def _objective(percent: float) -> float:
    if not 0 < percent < 100:
        raise PydanticCustomError("objective", "an objective is between 0 and 100 %")
    return percent


class AlertChannel(BaseModel):
    """A place that alerts are sent to."""

    model_config = FROZEN
    name: Name
    type: Literal["webhook", "alertmanager", "slack"]
    """`webhook` gets CloudEvents; `alertmanager` is its address, without a path."""
    url: Annotated[Text, AfterValidator(_url)] | None = None
    url_env: Text | None = None
    """The environment variable with the URL, for URLs that are secrets."""
    secret_env: Text | None = None
    """The environment variable with the key that signs what is sent."""
    timeout: Duration = 10.0


class AlertRule(BaseModel):
    """Which events go where."""

    model_config = FROZEN
    on: tuple[Kind, ...] = ()
    """Kinds of events; every kind if empty."""
    min_severity: Level = "info"
    to: Texts
    """Names of channels."""


class Slo(BaseModel):
    """An objective over thirty days, watched for each variant of a model."""

    model_config = FROZEN
    name: Name
    model: Name
    objective: Annotated[Number, AfterValidator(_objective)]
    """Percent of the requests that are good."""
    latency: Duration | None = None
    """Good is an answer within this time; without it, one that is no server error."""


class Alerts(BaseModel):
    """What the router tells others, and when."""

    model_config = FROZEN
    channels: tuple[AlertChannel, ...] = ()
    rules: tuple[AlertRule, ...] = ()
    """Without rules every event goes to every channel."""
    slos: tuple[Slo, ...] = ()
    cooldown: Duration = 3600.0
    """The same trouble is told again only after this time."""
    dead_letters: Text | None = None
    """File for what could not be sent; `alerts.dead.jsonl` beside `server.state`."""
    errors_min: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 5
    """Errors that a short window needs before a burn rate means anything."""
