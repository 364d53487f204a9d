"""A shadow through the real server: a rollout's first step, seen by a stock client.

The server, the models, the thread's priority and the metrics are real; what a shadow
does inside the engine is `tests/serve/test_shadows.py`'s.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import model

from router import testing
from router._fasthash import bucket, claim_order

X = {"x": np.ones((1, 2), np.float32)}
REQUESTS = "router_shadow_requests_total"
OF_2 = {"model": "m", "shadow": "new", "version": "2"}
UNITS = tuple(f"u{n}" for n in range(200))
NICE = 19  # of shadow threads


def config(
    directory: Path, *steps: dict[str, Any], versions: Any = None, **rollout: Any
) -> dict[str, Any]:
    """A rollout of version 2 with these steps."""
    repository = directory / "models"
    if not repository.exists():  # writing a file again is a change of it
        tags = {version: testing.tag(version) for version in (1, 2, 3)}
        testing.write_model(repository, "m", tags)
    entry = model(repository, "m", stable=1, output={"tensor": "tag", "kind": "value"})
    if versions is not None:
        entry["versions"] = versions
    whole = {"name": "new", "model": "m", "steps": list(steps), **rollout}
    if len(steps) == 1:
        whole["strategy"] = "shadow"
    if "candidates" not in whole:
        whole["candidate"] = 2
    return {"models": [entry], "rollouts": [whole]}


def shadow(percent: float, **settings: Any) -> dict[str, Any]:
    return {"shadow": {"percent": percent, "for": "24h", **settings}}


def call(server: testing.Server, units: tuple[str, ...] = UNITS) -> set[int]:
    """One call for each unit; the versions that answered."""
    with testing.Caller(server.address) as caller:
        return set(caller.versions("m", X, units).values())


def outcomes(server: testing.Server, **labels: str) -> dict[str, float]:
    """What became of the requests that a shadow was to run."""
    _, page = server.get("/metrics")
    want = (OF_2 | labels).items()
    return {
        found["outcome"]: value
        for _, found, value in testing.samples(page, REQUESTS)
        if want <= found.items() and value
    }


def settled(server: testing.Server, count: int, **labels: str) -> dict[str, float]:
    """The outcomes, once so many requests have one."""

    def has_come() -> bool:
        return sum(outcomes(server, **labels).values()) >= count

    testing.wait_until(has_come, f"{count} shadow requests\n{server.tail()}")
    return outcomes(server, **labels)


def moves(server: testing.Server) -> list[str]:
    """The phases that the rollout came to, by the log."""
    lines = map(json.loads, server.log.read_text().splitlines())
    return [said["to"] for said in lines if said["message"] == "a rollout moved"]


def await_phase(server: testing.Server, phase: str) -> None:
    what = f"{phase}\n{server.tail()}"
    testing.wait_until(lambda: phase in moves(server), what)


def problems(server: testing.Server) -> list[str]:
    lines = server.log.read_text().splitlines()
    return [line for line in lines if json.loads(line)["level"] == "error"]


def threads(server: testing.Server) -> dict[str, set[int]]:
    """The nice values of the server's threads, by name."""
    found: dict[str, set[int]] = {}
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        head, _, rest = (task / "stat").read_text().rpartition(")")
        found.setdefault(head.partition("(")[2], set()).add(int(rest.split()[16]))
    return found


def test_a_shadow_of_everybody_runs_at_the_lowest_priority(tmp_path: Path) -> None:
    with testing.Server(tmp_path, config(tmp_path, shadow(100))) as server:
        await_phase(server, "shadowing")
        assert call(server) == {1}
        found = settled(server, len(UNITS))
        assert sum(found.values()) == len(UNITS)
        assert found["ok"] > 0
        # All differ: the models answer with their version.
        assert server.metric("router_shadow_disagreements_total", **OF_2) == found["ok"]
        nice = threads(server)
        assert nice.pop("shadow") == {NICE}
        assert nice["loop-0"] == nice["exec-0"] < {NICE} | nice["loop-0"]
        assert problems(server) == []


@pytest.mark.slow
def test_by_bucket_the_units_taken_are_those_that_get_the_candidate_first(
    tmp_path: Path,
) -> None:
    first = set(claim_order("new")[:3000])
    taken = tuple(u for u in UNITS if bucket(u.encode(), "m") in first)
    others = tuple(set(UNITS) - set(taken))
    with testing.Server(tmp_path, config(tmp_path, shadow(30))) as server:
        await_phase(server, "shadowing")
        assert call(server, others) == {1}
        for _ in range(3):
            assert call(server, taken) == {1}
        assert sum(settled(server, 3 * len(taken)).values()) == 3 * len(taken)
    assert 0 < len(taken) < len(UNITS)


@pytest.mark.slow
def test_by_request_each_draws_for_itself(tmp_path: Path) -> None:
    made = config(tmp_path, shadow(30, by="request"))
    with testing.Server(tmp_path, made) as server:
        await_phase(server, "shadowing")
        for _ in range(5):
            call(server)
        # Binomial(1000, 0.3): standard deviation 14.5; six of them.
        settled(server, 300 - 87)
        call(server)
        # Of 1200 now: 15.9.
        assert sum(outcomes(server).values()) < 360 + 95


def test_enough_pairs_end_the_step(tmp_path: Path) -> None:
    pairs = {"shadow": {"percent": 100, "min_samples": 300}}
    made = config(tmp_path, pairs, {"weight": {"to": 100, "for": "24h"}})
    with testing.Server(tmp_path, made) as server:
        testing.wait_until(lambda: 2 in call(server), f"version 2\n{server.tail()}")
        assert moves(server) == ["shadowing", "ramping"]
        assert outcomes(server)["ok"] >= 300
        # The tick reads counts of units as well now.
        testing.wait_until(lambda: call(server) == {2}, "all units")
        assert problems(server) == []


@pytest.mark.slow
def test_each_of_several_candidates_has_to_make_its_pairs(tmp_path: Path) -> None:
    pairs = {"shadow": {"percent": 100, "min_samples": 100}}
    after = {"weight": {"to": 10, "for": "24h"}}
    made = config(tmp_path, pairs, after, candidates=[2, 3])
    with testing.Server(tmp_path, made) as server:
        await_phase(server, "shadowing")
        testing.wait_until(
            lambda: call(server) and "ramping" in moves(server), "ramping", 30
        )
        for version in ("2", "3"):
            found = outcomes(server, shadow=f"new#{version}", version=version)
            assert found["ok"] >= 100
        assert problems(server) == []


@pytest.mark.slow
def test_a_shadow_in_a_worker_is_asked_by_nobody_else(tmp_path: Path) -> None:
    made = config(tmp_path, shadow(100), versions={2: {"isolation": "process"}})
    with testing.Server(tmp_path, made) as server:
        await_phase(server, "shadowing")
        assert call(server) == {1}
        found = settled(server, len(UNITS))
        assert found["ok"] > 0
        assert sum(found.values()) == len(UNITS)
        assert server.metric("router_shadow_disagreements_total", **OF_2) == found["ok"]
        assert threads(server)["shadow"] == {NICE}
        assert problems(server) == []


@pytest.mark.slow
def test_a_gate_on_disagreement_judges_what_the_lanes_compared(tmp_path: Path) -> None:
    gate = {"metric": "disagreement", "max": "60%", "min_samples": 200}
    gated = {"shadow": {"percent": 100, "gates": [gate]}}
    made = config(tmp_path, gated, {"weight": {"to": 100, "for": "24h"}})
    with testing.Server(tmp_path, made) as server:
        await_phase(server, "shadowing")
        testing.wait_until(lambda: call(server) and len(moves(server)) > 1, "a verdict")
        # Every pair differs.
        assert moves(server) == ["shadowing", "rolled_back"]
        assert problems(server) == []
