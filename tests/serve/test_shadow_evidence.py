"""What a controller reads of shadows and filters in a real engine's snapshot."""

from dataclasses import replace
from typing import Any

import pytest
from plane import INFER, Plane, request
from shadows import call, settled, shadowed

from router.config.config import Config
from router.config.steps import Criterion
from router.control.evidence import Evidence
from router.control.gates import judge_criterion
from router.control.observe import Observer
from router.plan.plan import Reason, Rule, Shadow
from router.plan.rollout import ScopeState, Spec
from router.plan.scopes import specs_of

VERSIONS = {"m": (1, 2, 3)}


def spec_of(**settings: Any) -> Spec:
    candidate: dict[str, Any] = {} if "candidates" in settings else {"candidate": 2}
    steps = [{"weight": {"to": 5, "for": "1h"}}, {"weight": {"to": 100}}]
    rollout = {"name": "new", "model": "m", "steps": steps, **candidate, **settings}
    model = {"name": "m", "repository": "models/m", "stable": 1}
    written = {"api_version": "router/v1", "models": [model], "rollouts": [rollout]}
    (spec,) = specs_of(Config.model_validate(written), VERSIONS)
    return spec


@pytest.fixture
def plane():
    with Plane(loops=1, shadow_noise_bp=10_000) as made:
        for version in VERSIONS["m"]:
            made.load("m", version, "echo")
        yield made


class Watcher:
    """An observer of one scope and what it sees now."""

    def __init__(self, plane: Plane, spec: Spec) -> None:
        self._plane, self._spec, self._observer = plane, spec, Observer()
        self._state = ScopeState("new", "new", "m", spec.digest, is_begun=True)

    def look(self) -> Evidence:
        scopes = ((self._spec, self._state),)
        return self._observer.observe(self._plane.snapshot(), scopes, 0.0)["new"]


def test_pairs_since_the_attempt_began_are_evidence(plane: Plane) -> None:
    plane.publish(shadowed(Shadow("new", 1), Shadow("other", 1)))
    plane.start()
    call(plane, 5)
    settled(plane, "new")
    watcher = Watcher(plane, spec_of())
    assert watcher.look().shadows[2].pairs == 0
    call(plane, 20)
    settled(plane, "new")
    (found,) = watcher.look().shadows.values()
    assert (found.pairs, found.disagreements, found.dropped) == (20, 20, 0)
    assert (found.noise_pairs, found.noise_disagreements) == (20, 0)


def test_what_a_shadow_dropped_is_summed_over_the_reasons(plane: Plane) -> None:
    plane.load("m", 1, "fail=always")
    plane.publish(shadowed(Shadow("new", 1)))
    plane.start()
    watcher = Watcher(plane, spec_of())
    watcher.look()
    for _ in range(3):
        plane.engine.call(INFER, request())
    settled(plane, "new")
    assert watcher.look().shadows[2].dropped == 3


def test_several_candidates_are_told_apart(plane: Plane) -> None:
    several = (Shadow("new#2", 1), Shadow("new#3", 2))
    plane.publish(shadowed(*several, versions=(1, 2, 3)))
    plane.start()
    watcher = Watcher(plane, spec_of(candidates=[2, 3]))
    watcher.look()
    call(plane, 4)
    for shadow in several:
        settled(plane, shadow.name)
    found = watcher.look().shadows
    assert {version: counts.pairs for version, counts in found.items()} == {2: 4, 3: 4}


def test_a_pair_that_cannot_be_compared_disagrees_once(plane: Plane) -> None:
    plane.load("m", 2, "nan")
    plane.publish(shadowed(Shadow("new", 1)))
    plane.start()
    spec = spec_of()
    watcher = Watcher(plane, spec)
    watcher.look()
    call(plane, 40)
    settled(plane, "new")
    evidence = watcher.look()
    found = evidence.shadows[2]
    assert (found.pairs, found.mismatched, found.disagreements) == (40, 40, 40)
    gate = Criterion(metric="disagreement", max="60%", min_samples=40)
    assert judge_criterion(gate, 2, "", spec, evidence).verdict == "fail"


def test_filters_that_are_not_full_spoil_no_evidence(plane: Plane) -> None:
    halves = bytes(b * 2 // 10_000 for b in range(10_000))
    rule = Rule("canary", None, "salt", halves, 0, Reason.SPLIT, 1, "new", 1)
    plane.publish(replace(shadowed(), rules=(rule,)))
    plane.start()
    call(plane, metadata=(("x-user-id", "alice"),))
    assert [filled["kind"] for filled in plane.snapshot()["filters"]] == ["exposure"]
    assert Watcher(plane, spec_of()).look().saturated == frozenset()
