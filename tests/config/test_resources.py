"""Audiences and routes that were put beside those of the file."""

from typing import Any

from router.config.config import Config
from router.config.resources import with_resources
from router.config.route import route_name

FILE = Config.model_validate(
    {
        "api_version": "router/v1",
        "models": [{"name": "m", "stable": 1}],
        "audiences": [{"name": "own", "when": {"key": "a", "exact": "b"}}],
        "routes": [{"model": "m", "audience": "own", "version": 1}],
    }
)


def routes(*put: dict[str, Any]) -> list[str]:
    named = {("route", body.get("name", "?")): body for body in put}
    return [route_name(route) for route in with_resources(FILE, named).routes]


def test_a_route_for_everyone_comes_after_those_for_audiences() -> None:
    everyone = {"name": "m", "model": "m", "version": 1}
    first = {"name": "m/z", "model": "m", "version": 2, "audience": "z"}
    second = {"name": "m/a", "model": "m", "version": 3, "audience": "a"}
    assert routes(everyone, first, second) == ["m/own", "m/z", "m/a", "m"]


def test_what_the_file_owns_is_the_files() -> None:
    rival = {"name": "m/own", "model": "m", "audience": "own", "version": 9}
    assert routes(rival) == ["m/own"]
    assert with_resources(FILE, {("route", "m/own"): rival}).routes == FILE.routes
