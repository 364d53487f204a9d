"""New York and California, web and mobile: each reaches everyone in its own time.

On a real server, moved by its own clock. One of each pair is held back by a person's
word while the other goes all the way; then it follows. Nobody flips meanwhile.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import testing
from router.client.operator import Operator, asked

PLACES, CHANNELS = ("new-york", "california"), ("web", "mobile")
UNITS = tuple(f"unit-{n}" for n in range(60))
ROW = {"x": np.zeros((1, 2), np.float32)}
LADDER: list[dict[str, Any]] = [
    {"weight": {"to": 10, "for": "300ms"}},
    {"weight": {"to": 50, "for": "300ms"}},
    {"approval": {}},
    {"weight": {"to": 100, "for": "300ms"}},
]


def config(models: Path) -> dict[str, Any]:
    tags = {version: testing.tag(version) for version in (1, 2)}
    for name in ("places", "channels"):
        testing.write_model(models, name, tags)
    return {
        "models": [
            {"name": name, "repository": str(models / name), "stable": 1}
            for name in ("places", "channels")
        ],
        "audiences": [
            {"name": place, "when": {"key": "location", "exact": place}}
            for place in PLACES
        ],
        "rollouts": [
            *(
                {"name": place, "model": "places", "candidate": 2, "steps": LADDER,
                 "audience": place}
                for place in PLACES
            ),
            {"name": "app", "model": "channels", "candidate": 2, "steps": LADDER,
             "channels": list(CHANNELS)},
        ],
    }  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[testing.Server]:
    settings = {"state": "state.db"}
    with testing.Server(
        tmp_path, config(tmp_path / "models"), settings=settings
    ) as made:
        yield made


class People:
    """Everybody asks, and is remembered."""

    def __init__(self, caller: testing.Caller) -> None:
        self._caller = caller
        self.last: dict[tuple[str, str, str], int] = {}

    def ask(self, model: str, key: str, value: str) -> set[int]:
        """The versions that all units of one place or channel get now; nobody who had
        the candidate has stable again."""
        versions = set()
        for unit in UNITS:
            met = {"x-user-id": unit, key: value}
            version = self._caller.infer(model, ROW, met).version
            assert version >= self.last.get((model, value, unit), 1)
            self.last[model, value, unit] = version
            versions.add(version)
        return versions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "key", "scopes"),
    [
        ("places", "location", dict(zip(PLACES, PLACES, strict=True))),
        ("channels", "channel", {name: f"app/{name}" for name in CHANNELS}),
    ],
)
def test_each_reaches_everyone_in_its_own_time(
    server: testing.Server, model: str, key: str, scopes: dict[str, str]
) -> None:
    first, second = scopes
    address = f"unix:{server.directory}/run/admin.sock"
    with testing.Caller(server.address) as caller, Operator(address) as operator:
        people = People(caller)

        def reaches(value: str, phase: str) -> None:
            def is_there() -> bool:
                for each in scopes:
                    people.ask(model, key, each)
                found = operator.call("RolloutService/Get", rollout=scopes[value])
                return bool(found.scopes[0].phase == phase)

            testing.wait_until(is_there, f"{value} {phase}\n{server.tail()}", 30)

        for value in scopes:
            reaches(value, "awaiting_approval")
        approve(operator, scopes[first])
        reaches(first, "promoted")
        assert people.ask(model, key, first) == {2}
        assert people.ask(model, key, second) == {1, 2}
        approve(operator, scopes[second])
        reaches(second, "promoted")
        assert people.ask(model, key, second) == {2}


def approve(operator: Operator, scope: str) -> None:
    operator.call("RolloutService/Approve", rollout=scope, asked=asked("its time"))
