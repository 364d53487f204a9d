"""The overview of a real server, as a script and as a browser's first look see it."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
from entries import model

from router import testing
from router.client.operator import Operator

X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("overview")
    tags = {version: testing.tag(version) for version in (1, 2)}
    testing.write_model(directory / "models", "tag", tags)
    rollout = {
        "name": "tag-2", "model": "tag", "candidate": 2,
        "steps": [{"weight": {"to": 30, "for": "1h"}}, {"weight": {"to": 100}}],
        "guardrails": [{"metric": "error_rate", "worse_by": "0.2pp"}],
    }  # fmt: skip
    config = {
        "models": [model(directory / "models", "tag", stable=1)],
        "rollouts": [rollout],
    }
    with testing.Server(directory, config, settings={"drain_s": 2}) as made:
        yield made


def test_the_overview_shows_what_serves_and_what_operators_did(
    server: testing.Server,
) -> None:
    def seen() -> dict[str, Any]:
        status, body = server.get("/overview.json")
        assert status == 200
        made: dict[str, Any] = json.loads(body)
        return made

    def scope() -> Any:
        return seen()["rollouts"][0]

    testing.wait_until(lambda: scope()["phase"] == "ramping", "the first step")
    units = [f"unit-{i}" for i in range(200)]
    with testing.Caller(server.address) as caller:
        served = list(caller.versions("tag", X, units).values())

    def versions() -> dict[int, dict[str, Any]]:
        return {v["version"]: v for v in seen()["models"][0]["versions"]}

    counts = {1: served.count(1), 2: served.count(2)}
    testing.wait_until(
        lambda: {v: one["requests"] for v, one in versions().items()} == counts,
        "the requests are counted",
    )
    found = versions()
    assert found[2]["is_ready"]
    assert found[2]["requests_per_s"] > 0
    assert found[1]["share"] + found[2]["share"] == pytest.approx(1)
    shares = {one["version"]: one["claimed_bp"] for one in scope()["shares"]}
    assert shares == {1: 7000, 2: 3000}
    testing.wait_until(lambda: bool(scope()["verdicts"]), "a verdict")
    assert "error_rate" in server.get("/")[1]
    with Operator(f"unix:{server.directory}/run/admin.sock") as operator:
        asked = {"actor": "test"}
        operator.call("RolloutService/RollBack", rollout="tag-2", asked=asked)
        operator.call("RolloutService/Freeze", is_frozen=True, asked=asked)
        operator.call("FlagService/Set", name="rollout/tag-2", is_on=False, asked=asked)
    testing.wait_until(lambda: seen()["flags"] == {"rollout/tag-2": False,
                       "variant/tag/2": True}, "the flag is off")  # fmt: skip
    page = server.get("/")[1]
    assert "frozen: no rollout grows" in page
    assert "rolled back" in page
    assert "(off)" in page


def test_the_page_and_its_middle_are_the_same_and_may_not_be_framed(
    server: testing.Server,
) -> None:
    host = HTTPConnection(server.ops, timeout=10)
    for path in ("/", "/overview.json?html=1"):
        host.request("GET", path)
        answer = host.getresponse()
        body = answer.read().decode()
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    host.close()
    middle = json.loads(body)["html"]
    assert "<h2>Models</h2>" in middle
    assert "html" not in json.loads(server.get("/overview.json")[1])
