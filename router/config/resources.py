"""Audiences and routes that operators put beside those of the file.

They are stored in the control log, checked like the file's own, and never replace one
of the file: who owns a name is plain. A route that was put comes after those of the
file, and one for everyone after those for audiences, which could never match otherwise.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from router.config.audience import Audience
from router.config.config import Config
from router.config.route import Route, route_name
from router.errors import ConfigError, Problem, RefusedError

Resources = Mapping[tuple[str, str], Mapping[str, Any]]


def with_resources(config: Config, resources: Resources) -> Config:
    """The configuration with everything that was put; what the file has by now wins."""
    if not resources:
        return config
    names = {audience.name for audience in config.audiences}
    routes = {route_name(route) for route in config.routes}
    put = (
        Route.model_validate(dict(body))
        for (kind, name), body in resources.items()
        if kind == "route" and name not in routes
    )
    return config.model_copy(
        update={
            "audiences": config.audiences
            + tuple(
                Audience.model_validate(dict(body))
                for (kind, name), body in resources.items()
                if kind == "audience" and name not in names
            ),
            "routes": config.routes
            + tuple(sorted(put, key=lambda route: route.audience is None)),
        }
    )


def read_resource(kind: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as it is stored; ConfigError with every problem."""
    shape = Audience if kind == "audience" else Route
    try:
        read = shape.model_validate({**body, "name": name})
    except ValidationError as error:
        raise ConfigError(
            tuple(
                Problem(kind, 0, ".".join(str(part) for part in one["loc"]), one["msg"])
                for one in error.errors()
            )
        ) from None
    return read.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def refuse_owned(config: Config, kind: str, name: str) -> None:
    """RefusedError when the file owns that name."""
    owned = (
        {audience.name for audience in config.audiences}
        if kind == "audience"
        else {route_name(route) for route in config.routes}
    )
    if name in owned:
        raise RefusedError(f"{kind} '{name}' is the file's: edit it there")
