"""The configuration as a whole, and its revision."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from router.config.alerts import Alerts
from router.config.alias import resolve_aliases
from router.config.audience import Audience
from router.config.feedback import Feedback
from router.config.model import Model
from router.config.qwak_entry import QwakFiles
from router.config.rollout import Holdout, PolicyBody, Rollout
from router.config.route import Layer, Route
from router.config.server import Server
from router.config.values import FROZEN, Name

API_VERSION = "router/v1"


class Config(BaseModel):
    """Everything an operator applies in one file."""

    model_config = FROZEN
    api_version: Literal["router/v1"]
    server: Server = Server()
    models: tuple[Model, ...]
    audiences: tuple[Audience, ...] = ()
    layers: tuple[Layer, ...] = ()
    routes: tuple[Route, ...] = ()
    """Tried in order; the first that matches answers."""
    policies: dict[Name, PolicyBody] = Field(default_factory=dict)
    """Steps and guardrails that rollouts refer to by name."""
    rollouts: tuple[Rollout, ...] = ()
    holdouts: tuple[Holdout, ...] = ()
    qwak: QwakFiles = ()
    """Files of Qwak's beside this one; what they say is among audiences and routes."""
    feedback: Feedback = Feedback()
    alerts: Alerts = Alerts()

    @model_validator(mode="before")
    @classmethod
    def _names_become_versions(cls, value: Any) -> Any:
        return resolve_aliases(value)


def dump_config(config: Config) -> dict[str, Any]:
    """The configuration as JSON values that validate to the same configuration.

    Defaults are left out, so that spelling one out changes nothing, and a default added
    by a later release does not make every stored configuration look edited.
    """
    return {
        "api_version": config.api_version,
        **config.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }


def config_revision(config: Config) -> str:
    """Sixteen hex digits that name what was applied: equal meaning, equal revision."""
    canonical = json.dumps(dump_config(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def config_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    schema = Config.model_json_schema(by_alias=True, mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    # Laid over the rest before anything is checked, so it is no part of the value.
    schema["properties"]["environments"] = {
        "type": "object",
        "description": "What differs in each environment, merged by key and by name.",
        "additionalProperties": {"type": ["object", "null"]},
    }
    schema["title"] = "inference router configuration"
    return schema


def restore_config(dumped: Mapping[str, Any]) -> Config | None:
    """The configuration that was dumped; None when it does not fit this release."""
    try:
        return Config.model_validate(dict(dumped))
    except ValidationError:
        return None
