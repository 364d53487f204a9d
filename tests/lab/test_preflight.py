"""Preflights: found out on a thread of their own, looked up by the controller."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.analysis.verdict import Verdict
from router.config.config import Config
from router.config.load import load_config
from router.lab.bay import Bay, everything
from router.lab.preflight import RETRY_S, Preflights
from router.models.repository import list_models
from router.plan.rollout import PreflightStep, Spec
from router.plan.scopes import specs_of
from router.testing import FAULT_FAIL, faulty, tag, wait_until, write_model


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> float:
        return self.at_s

    def monotonic(self) -> float:
        return self.at_s


def configured(folder: Path, versions: dict[int, bytes], **settings: Any) -> Config:
    write_model(folder, "m", versions)
    model = {
        "name": "m", "repository": str(folder / "m"), "stable": 1,
        "runtime": {"probe": {"off": True}}, "on_mismatch": "allow", **settings,
    }  # fmt: skip
    rollout = {
        "name": "m-2", "model": "m", "candidate": 2,
        "steps": [
            {"preflight": {"replay": str(folder / "r.jsonl"), "tolerance": 0.5}},
            {"weight": {"to": 100, "for": "1h"}},
        ],
    }  # fmt: skip
    path = folder / "router.yaml"
    whole = {"api_version": "router/v1", "models": [model], "rollouts": [rollout]}
    path.write_text(yaml.safe_dump(whole))
    return load_config(path)


def record(folder: Path, *rows: list[float]) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
    lines = [{"model_name": "m", "inputs": [{**x, "data": row}]} for row in rows]
    (folder / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class World:
    """A configuration served in this process, and its preflights."""

    def __init__(self, config: Config, bay: Bay) -> None:
        self.clock = Clock()
        self.refusal: str | None = None
        self.asked = 0
        self.spec: Spec = specs_of(config, list_models(config))[0]
        step = self.spec.steps[0]
        assert isinstance(step, PreflightStep)
        self.step = step

        def call(*given: Any) -> Any:
            self.asked += 1
            return bay.call(*given)

        self.preflights = Preflights(
            lambda: config, call, self.clock, lambda *_: self.refusal
        )
        self.preflights.start()

    def ask(self, attempt: int = 1, **changes: Any) -> Verdict | None:
        step = replace(self.step, **changes)
        return self.preflights.verdict(self.spec, attempt, step)

    def wait(self, attempt: int = 1, **changes: Any) -> Verdict:
        wait_until(lambda: self.ask(attempt, **changes) is not None, "a verdict")
        found = self.ask(attempt, **changes)
        assert found is not None
        return found


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Any]:
    made: list[tuple[Bay, World]] = []

    def make(candidate: bytes, **settings: Any) -> World:
        config = configured(tmp_path, {1: tag(1), 2: candidate}, **settings)
        bay = Bay(everything(config)).__enter__()
        world = World(config, bay)
        made.append((bay, world))
        return world

    yield make
    for bay, world in made:
        world.preflights.close()
        bay.__exit__()


GOOD, BAD = [0.5, 1.0], [0.5, FAULT_FAIL]


def test_a_verdict_is_looked_up_and_never_waited_for(
    tmp_path: Path, worlds: Any
) -> None:
    record(tmp_path, GOOD, GOOD)
    world = worlds(faulty(1))
    assert world.ask() is None
    assert world.wait().verdict == "pass"
    asked = world.asked
    assert asked == 4
    assert world.wait().numbers["compared"] == 2
    assert world.asked == asked


def test_a_candidate_that_fails_is_asked_no_longer_than_needed(
    tmp_path: Path, worlds: Any
) -> None:
    record(tmp_path, GOOD, *[BAD] * 20)
    world = worlds(faulty(1))
    found = world.wait()
    assert found.verdict == "fail"
    assert found.numbers["faulty"] == 3
    assert world.asked == 2 * 4


def test_another_attempt_is_another_preflight(tmp_path: Path, worlds: Any) -> None:
    record(tmp_path, GOOD)
    world = worlds(tag(9))
    assert world.wait().verdict == "fail"
    assert world.ask(attempt=2) is None
    assert world.wait(attempt=2).verdict == "fail"


def test_disagreement_is_allowed_as_the_step_says(tmp_path: Path, worlds: Any) -> None:
    record(tmp_path, GOOD)
    world = worlds(tag(9))
    assert world.wait(max_disagreement_bp=9_999).verdict == "fail"
    assert world.wait(max_disagreement_bp=10_000).verdict == "pass"


def test_a_recording_that_is_not_there_is_looked_for_again(
    tmp_path: Path, worlds: Any
) -> None:
    world = worlds(tag(1))
    found = world.wait()
    assert found.verdict == "error"
    assert "r.jsonl: no such file" in found.reason
    record(tmp_path, GOOD)
    world.clock.at_s = RETRY_S - 1
    assert world.ask() == found
    assert world.asked == 0
    world.clock.at_s = RETRY_S
    assert world.ask() == found, "the old verdict stands until there is a new one"
    wait_until(lambda: world.ask() != found, "a new verdict")
    assert world.wait().verdict == "pass"


def test_a_model_without_pins_is_asked_in_an_engine_of_its_own(
    tmp_path: Path, worlds: Any
) -> None:
    record(tmp_path, GOOD)
    for pins in ("deny", "ignore"):
        world = worlds(tag(9), pins=pins)
        assert world.wait().verdict == "fail"
        assert world.asked == 0


def test_what_an_attestation_says_comes_first(tmp_path: Path, worlds: Any) -> None:
    record(tmp_path, GOOD)
    world = worlds(tag(1))
    world.refusal = "8 days old"
    found = world.wait(attestation="a.json")
    assert (found.verdict, found.reason) == (
        "error", "attestation a.json: 8 days old",
    )  # fmt: skip
    assert world.asked == 0
    assert world.wait().verdict == "pass", "without one nobody asks"


def test_leaving_does_not_wait_for_a_recording(tmp_path: Path, worlds: Any) -> None:
    record(tmp_path, *[GOOD] * 50)
    world = worlds(tag(1))
    world.preflights.close()
    assert world.ask() is None
