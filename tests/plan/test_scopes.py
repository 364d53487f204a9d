"""What a scope is asked to do, once the file is interpreted."""

from typing import Any

import pytest
from rollout_plans import LADDER, VERSIONS, config, rollout

from router.plan.condition import compile_audiences
from router.plan.plan import All, Op
from router.plan.plan import Test as KeyTest
from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    PreflightStep,
    ShadowStep,
    Spec,
    WeightStep,
)
from router.plan.scopes import has_arrived, specs_of, wave_conditions

GUARD = {"metric": "error_rate", "worse_by": "0.2pp"}
LATE = {"metric": "latency_p99", "worse_by": "10%"}


def specs(*rollouts: dict[str, Any], **sections: Any) -> tuple[Spec, ...]:
    return specs_of(config(*rollouts, **sections), VERSIONS)


def spec(**settings: Any) -> Spec:
    (made,) = specs(rollout(**settings))
    return made


def weights(made: Spec) -> list[tuple[tuple[int, int], ...]]:
    return [step.weights_bp for step in made.steps if isinstance(step, WeightStep)]


def test_a_rollout_is_one_scope_of_its_name() -> None:
    made = spec()
    assert (made.scope, made.rollout, made.model) == ("credit-2", "credit-2", "credit")
    assert (made.candidates, made.stable) == ((2,), 1)
    assert (made.waves, made.channel, made.after) == (("",), None, None)
    assert (made.layer_salt, made.claim_salt) == ("credit", "credit-2")
    assert (made.flag, made.alpha, made.has_baseline) == (
        "rollout/credit-2",
        0.05,
        True,
    )
    assert made.steps == (
        WeightStep(((2, 500),), 3600.0, 0, ()),
        WeightStep(((2, 10_000),), 0.0, 0, ()),
        BakeStep(3600.0, 0, ()),
    )


def test_each_channel_is_a_scope_that_may_wait_for_another() -> None:
    channels = {"web": {}, "mobile": {"after": "web", "delay": "24h"}}
    web, mobile = specs(
        rollout(channels=channels, channel_key="kind", audience="adults")
    )
    assert (web.scope, mobile.scope) == ("credit-2/web", "credit-2/mobile")
    assert (web.after, mobile.after) == (None, "credit-2/web")
    assert (web.delay_s, mobile.delay_s) == (0.0, 86_400.0)
    assert web.claim_salt == mobile.claim_salt
    audiences = compile_audiences(config().audiences)
    (condition,) = wave_conditions(web, audiences)
    assert condition == All((KeyTest("kind", Op.IN, (b"web",)), audiences["adults"]))


def test_waves_are_audiences_in_order_and_everyone_is_all_who_take_part() -> None:
    made = spec(waves=["low-risk", "everyone"], audience="adults")
    audiences = compile_audiences(config().audiences)
    assert made.waves == ("low-risk", "")
    assert wave_conditions(made, audiences) == (
        All((audiences["adults"], audiences["low-risk"])),
        audiences["adults"],
    )
    assert wave_conditions(spec(), audiences) == (None,)


RAMPS: dict[str, tuple[list[dict[str, Any]], list[int]]] = {
    "one increment above the last step": (
        [
            {"weight": {"to": 5, "for": 60}},
            {"ramp": {"to": 50, "increment": 15, "every": 60}},
        ],
        [500, 2000, 3500, 5000],
    ),
    "a last increment that is smaller": (
        [{"ramp": {"to": 25, "increment": 10, "every": 60}}],
        [1000, 2000, 2500],
    ),
    "from where it is told": (
        [{"ramp": {"from": 1, "to": 3, "increment": 1, "every": 60}}],
        [100, 200, 300],
    ),
    "one step that overshoots": (
        [{"ramp": {"to": 5, "increment": 10, "every": 60}}],
        [500],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), RAMPS.values(), ids=RAMPS)
def test_a_ramp_is_a_step_for_every_increment(
    steps: list[dict[str, Any]], expected: list[int]
) -> None:
    made = spec(steps=steps)
    assert [bp for ((_, bp),) in weights(made)] == expected
    assert all(
        step.soak_s == 60.0 for step in made.steps if isinstance(step, WeightStep)
    )


def test_one_weight_is_for_each_candidate_and_others_by_version() -> None:
    steps = [{"weight": {"to": 5, "for": 60}}, {"weight": {"to": {3: 30}, "for": 60}}]
    made = spec(candidates=[2, 3], steps=steps)
    assert weights(made) == [((2, 500), (3, 500)), ((2, 0), (3, 3000))]


def test_every_kind_of_step_keeps_what_it_was_told() -> None:
    made = spec(
        steps=[
            {"preflight": {"replay": "r.bin", "latency_worse_by": "20%",
                           "max_disagreement": 1}},
            {"shadow": {"percent": 20, "by": "request", "min_samples": 9, "for": "1m"}},
            {"approval": {"group": "risk", "timeout": "1h", "on_timeout": "rollback"}},
            *LADDER,
        ]
    )  # fmt: skip
    assert made.steps[:3] == (
        PreflightStep("r.bin", 100, 1e-3, 0.2, None),
        ShadowStep(2000, False, 9, 60.0, ()),
        ApprovalStep("risk", 3600.0, True),
    )


def test_a_policy_gives_what_the_rollout_does_not_say() -> None:
    policy = {
        "steps": LADDER, "guardrails": [LATE], "alpha": 0.01,
        "progress_deadline": "14d", "on_deadline": "rollback",
        "windows": [{"from": "09:00", "to": "16:00"}],
    }  # fmt: skip
    bare = {"name": "r", "model": "credit", "candidate": 2, "policy": "careful"}
    (made,) = specs(bare, policies={"careful": policy})
    assert weights(made) == [((2, 500),), ((2, 10_000),)]
    assert [criterion.metric for criterion in made.guardrails] == ["latency_p99"]
    assert (made.alpha, made.progress_deadline_s) == (0.01, 14 * 86_400.0)
    assert made.rolls_back_on_deadline
    assert [window.from_ for window in made.windows] == ["09:00"]
    own = {
        "steps": [{"weight": {"to": 100, "for": "1m"}}], "guardrails": [GUARD],
        "alpha": 0.1, "progress_deadline": "1d", "on_deadline": "hold",
        "windows": [{"from": "10:00", "to": "11:00"}],
    }  # fmt: skip
    (made,) = specs(bare | own, policies={"careful": policy})
    assert weights(made) == [((2, 10_000),)]
    assert [c.metric for c in made.guardrails] == ["error_rate", "latency_p99"]
    assert (made.alpha, made.progress_deadline_s) == (0.1, 86_400.0)
    assert not made.rolls_back_on_deadline
    assert [window.from_ for window in made.windows] == ["10:00"]


def test_strategies_without_steps_have_their_own() -> None:
    shadow = spec(strategy="shadow", steps=[])
    assert shadow.steps == (ShadowStep(10_000, True, 1000, 86_400.0, ()),)
    blue_green = spec(strategy="blue_green", steps=[])
    assert blue_green.steps == (
        ApprovalStep(None, None, False),
        WeightStep(((2, 10_000),), 0.0, 0, ()),
        BakeStep(3600.0, 0, ()),
    )


def test_an_experiment_keeps_its_split_until_it_is_decided() -> None:
    made = spec(
        strategy="ab", split=50, horizon="7d", primary={"metric": "reward"},
        on_win="promote",
        steps=[{"shadow": {"percent": 5, "for": "1h"}}, {"bake": {"for": "1h"}}],
    )  # fmt: skip
    shadow, split, bake = made.steps
    assert isinstance(shadow, ShadowStep)
    assert split == WeightStep(((2, 5000),), 0.0, 0, (), is_open_ended=True)
    assert isinstance(bake, BakeStep)
    assert (made.horizon_s, made.promotes_on_win) == (7 * 86_400.0, True)


def test_an_alias_is_the_version_it_names() -> None:
    versions = {"versions": {1: {}, 2: {"name": "challenger"}, 3: {}, 4: {}}}
    (made,) = specs(rollout(candidate="challenger"), model=versions)
    assert made.candidates == (2,)
    (made,) = specs(rollout(candidate="stable"))
    assert has_arrived(made)


SAME: dict[str, dict[str, Any]] = {
    "windows": {"windows": [{"from": "09:00", "to": "10:00"}]},
    "lists of units": {"allow": ["a"], "deny": ["b"]},
    "slices": {"slices": ["adults"]},
    "what a failure leads to": {"guardrails": [GUARD | {"action": "alert"}]},
    "a dry run": {"guardrails": [GUARD | {"dry_run": True}]},
    "the flag": {"flag": "other"},
    "a deadline": {"progress_deadline": "3d", "on_deadline": "rollback"},
    "the rate": {"expected_rate": 5},
    "a soak written otherwise": {
        "steps": [{"weight": {"to": 5, "for": 3600}}, *LADDER[1:]],
    },
}  # fmt: skip
OTHER: dict[str, dict[str, Any]] = {
    "a weight": {"steps": [{"weight": {"to": 6, "for": "1h"}}, *LADDER[1:]]},
    "a soak": {"steps": [{"weight": {"to": 5, "for": "2h"}}, *LADDER[1:]]},
    "a threshold": {"guardrails": [GUARD | {"worse_by": "0.3pp"}]},
    "who takes part": {"audience": "adults"},
    "waves": {"waves": ["adults", "everyone"]},
    "the candidate": {"candidate": 3},
    "the salt": {"salt": "other"},
    "alpha": {"alpha": 0.1},
    "the baseline": {"baseline": "off"},
    "the strategy": {"strategy": "blue_green"},
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_digest_stays_when_the_meaning_does(change: dict[str, Any]) -> None:
    before = spec(guardrails=[GUARD])
    assert spec(**{"guardrails": [GUARD]} | change).digest == before.digest


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_digest_changes_with_the_meaning(change: dict[str, Any]) -> None:
    before = spec(guardrails=[GUARD])
    assert spec(**{"guardrails": [GUARD]} | change).digest != before.digest


def test_steps_of_another_kind_are_another_meaning() -> None:
    bake = spec(steps=[*LADDER[:2], {"bake": {"for": "1h"}}])
    shadow = spec(steps=[*LADDER[:2], {"shadow": {"percent": 0, "for": "1h"}}])
    assert bake.digest != shadow.digest
