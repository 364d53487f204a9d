"""What the controller makes of good and bad candidates, over whole rollouts.

Seeds are fixed. The three bad ones are thrown out for the right reason; of the good
ones, which are judged by the default guardrails, each is promoted in the planned time.
"""

from dataclasses import replace
from typing import Any

import pytest
from rollouts import config, rollout

from router.lab.demand import Behaviour, Demand, Group
from router.lab.simulate import Ended, Simulation
from router.plan.rollout import Phase

VERSIONS = {"credit": (1, 2, 3, 4)}
STEPS = [{"weight": {"to": share, "for": "30m"}} for share in (5, 25, 50, 100)]
PLANNED_S = 2 * 3600
TICK_S = 30.0
STABLE = Behaviour(error_rate=0.01)


def play(
    candidate: Behaviour, *, seed: int, demand: Any = None, **settings: Any
) -> Ended:
    made = rollout(steps=STEPS, **settings)
    if "guardrails" not in settings:
        del made["guardrails"]
    traffic = {"rate": 20.0} | (demand or {})
    asked = Demand("credit", {1: STABLE, 2: candidate}, **traffic)
    world = Simulation(config(made), VERSIONS, [asked], seed, TICK_S)
    (ended,) = world.run(2 * PLANNED_S)
    return ended


@pytest.mark.slow
def test_twice_the_errors_are_found_out() -> None:
    relative = [{"metric": "error_rate", "worse_by": "10%"}]
    found = play(replace(STABLE, error_rate=0.02), seed=1, guardrails=relative)
    assert found.phase == Phase.ROLLED_BACK
    assert found.reason.startswith("error_rate (version 2): error_rate: worse than")


@pytest.mark.slow
@pytest.mark.parametrize("units", [0, 20_000])
def test_ten_percent_slower_is_found_out(units: int) -> None:
    slow = replace(STABLE, latency_ms=5.5)
    strict = [{"metric": "latency_p90", "worse_by": "0%"}]
    demand = {"rate": 200.0, "units": units}
    found = play(slow, seed=2, demand=demand, guardrails=strict)
    assert found.phase == Phase.ROLLED_BACK
    assert "slower than the baseline at p90" in found.reason


@pytest.mark.slow
def test_harm_to_one_slice_is_found_out() -> None:
    groups = (
        Group({"location": "new-york"}, 0.2, {2: replace(STABLE, error_rate=0.06)}),
        Group({}, 0.8),
    )
    guardrails = [{"metric": "error_rate", "worse_by": "1pp"}]
    found = play(
        STABLE, seed=3, demand={"rate": 50.0, "groups": groups},
        slices=["new-york"], guardrails=guardrails,
    )  # fmt: skip
    assert found.phase == Phase.ROLLED_BACK
    assert found.reason.startswith("error_rate in new-york (version 2)")


HEALTHY = [
    (Behaviour(0.0), {}),  # no error ever, at 20 requests a second
    (STABLE, {}),
    (STABLE, {"units": 5_000}),
    (STABLE, {"units": 5_000, "zipf": 0.8}),
    (replace(STABLE, error_rate=0.008), {"swing": 0.5, "period_s": 3600.0}),
    (STABLE, {"error_trend_per_h": 0.5}),
    (STABLE, {"latency_trend_per_h": 0.3}),
    (replace(STABLE, latency_ms=4.8), {"rate": 100.0}),
    (STABLE, {"groups": (Group({"location": "new-york"}, 0.5), Group({}, 0.5))}),
    (STABLE, {"units": 500}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("candidate", "demand"), HEALTHY)
def test_a_healthy_candidate_is_promoted_in_the_planned_time(
    candidate: Behaviour, demand: Any
) -> None:
    found = play(candidate, seed=10, demand=demand)
    assert (found.phase, found.waits_for) == (Phase.PROMOTED, "")
    # Each of the four steps may be noticed a tick late, and the begin too.
    assert found.took_s <= PLANNED_S + 5 * TICK_S
