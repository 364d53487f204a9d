"""Rollouts from begin to end: the real publication and ticker, a simulated engine."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from rollouts import config, rollout, said, webhook
from world import SOMEONE, FailingLog, World, held

from router.control.commands import (
    Approve,
    Asked,
    DeleteResource,
    Freeze,
    Pause,
    Promote,
    PutResource,
    Restart,
    Resume,
    Retry,
    RollBack,
    SetFlag,
    SetVariant,
    SetWeight,
)
from router.control.decide import DRIFT
from router.control.publication import refuse_drift
from router.control.scope_records import dump_scope
from router.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from router.lab.demand import Behaviour, Demand, Group
from router.plan.rollout import Phase

HOUR = 3600.0
R = "credit-2"


def world(*rollouts: dict[str, Any], **sections: Any) -> World:
    return World(config(*(rollouts or (rollout(),)), **sections))


def ramping(**settings: Any) -> World:
    """At 5 %, for a minute."""
    made = world(rollout(**settings))
    made.run(60)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 500)
    return made


def full_disk(made: World) -> FailingLog:
    assert isinstance(made.log, FailingLog)
    made.log.cannot_write = True
    return made.log


# -- from begin to end -----------------------------------------------------------------


def test_a_healthy_candidate_is_promoted_step_by_step() -> None:
    made = world()
    made.run(3 * HOUR + 180, tick_s=60)
    assert made.moves() == [
        ("begin", "ramping"), ("advance", "ramping"), ("advance", "ramping"),
        ("complete", "promoted"),
    ]  # fmt: skip
    assert (made.share_bp(2), made.share_bp(1)) == (10_000, 0)
    assert made.stored().scopes == made.routing.state.scopes


def test_a_failing_candidate_goes_back_and_the_log_says_why() -> None:
    made = ramping(guardrails=[{"metric": "error_rate", "worse_by": "1pp"}])
    broken = {1: Behaviour(), 2: Behaviour(0.3)}
    made.engine.behave("credit", replace(made.demand, behaviours=broken))
    made.run(300, tick_s=2)
    assert (made.phase(), made.share_bp()) == (Phase.ROLLED_BACK, 0)
    last = made.controller.history(R)[-1].record
    assert (last.kind, last.actor) == ("scope_moved", "router")
    assert last.reason == made.told[-1].reason
    assert '"event": "roll_back"' in last.payload
    assert '"log_e"' in last.payload


def test_time_counts_by_the_monotonic_clock_and_while_somebody_watches() -> None:
    made = World(config(rollout()), step_max_s=2.0)
    made.clock.set_wall(made.clock.now() + 30 * 86_400)
    made.run(10, tick_s=1)
    assert made.scope().elapsed_s == pytest.approx(10, abs=1)
    made.clock.move(HOUR)  # the machine slept
    made.ticker.tick()
    assert made.scope().elapsed_s < 14
    assert made.share_bp() == 500


def test_a_crash_costs_at_most_what_was_not_saved() -> None:
    made = ramping()
    made.run(30)
    after = made.crashed()
    assert after.scope().elapsed_s >= made.scope().elapsed_s - 20
    assert after.routing.table == made.routing.table
    later = World(made.config, before=after)
    later.run(HOUR, tick_s=30)
    assert later.scope().step == 1


@pytest.mark.parametrize("name", ["progress", "evidence"])
@pytest.mark.parametrize(
    "text",
    ["", "[]", "nonsense", '{"credit-2": 3}', '{"credit-2": [["x"], 1, 1]}',
     '{"credit-2": [[1, 0, 0, 0, 0], "x", null]}', '{"format": 99}', "null"],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_read_is_left_out(name: str, text: str) -> None:
    made = ramping()
    made.log.save(name, text)
    after = made.crashed()
    after.run(60)
    assert (after.phase(), after.ticker.failures) == (Phase.RAMPING, 0)


# -- what persons ask ------------------------------------------------------------------


def test_pausing_stops_the_clock_and_keeps_the_share() -> None:
    made = ramping()
    made.ask(Pause(R, SOMEONE))
    before = made.scope()
    made.run(2 * HOUR, tick_s=60)
    assert made.scope() == before
    assert made.share_bp() == 500
    made.ask(Resume(R, SOMEONE))
    made.run(HOUR, tick_s=60)
    assert (made.phase(), made.scope().step) == (Phase.RAMPING, 1)


def test_one_that_is_paused_before_it_begins_can_begin_later() -> None:
    made = World(config(rollout(windows=[{"from": "00:00", "to": "00:01"}])))
    made.ask(Pause(R, SOMEONE))
    made.run(60)
    made.ask(Resume(R, SOMEONE))
    assert made.phase() == Phase.PENDING
    made.ask(Promote(R, False, SOMEONE))
    made.run(60)
    assert (made.phase(), made.ticker.failures) == (Phase.RAMPING, 0)


def test_one_that_cannot_move_keeps_nobody_else_from_moving() -> None:
    # Both want everything of one layer: the second has to wait for the first.
    full = [{"weight": {"to": 100, "for": "1h"}}]
    other = rollout("other", candidate=3, steps=full)
    made = world(rollout(steps=full), other)
    made.run(60)
    assert made.phase() == Phase.RAMPING
    assert made.phase("other") == Phase.PENDING
    assert made.ticker.failures == 0
    made.ask(RollBack(R, SOMEONE))
    made.run(60)
    assert made.phase("other") == Phase.RAMPING


def test_a_weight_is_set_at_once_and_the_next_step_has_its_own() -> None:
    made = ramping()
    made.ask(SetWeight(R, 3_000, None, SOMEONE))
    assert made.share_bp() == 3_000
    made.ask(SetWeight(R, 100, None, SOMEONE))
    assert made.share_bp() == 100
    made.run(HOUR, tick_s=60)
    assert made.share_bp() == 5_000


def test_a_freeze_stops_growth_by_anybody_and_no_rollback() -> None:
    made = ramping()
    made.ask(Freeze(True, SOMEONE))
    made.run(2 * HOUR, tick_s=60)
    assert made.share_bp() == 500
    assert made.waits_for() == "growth is frozen"
    for command in (
        SetWeight(R, 501, None, SOMEONE), Promote(R, False, SOMEONE),
        Promote(R, True, SOMEONE),
    ):  # fmt: skip
        with pytest.raises(RefusedError, match="growth is frozen: thaw it first"):
            made.ask(command)
    made.ask(SetWeight(R, 400, None, SOMEONE))
    assert made.share_bp() == 400
    made.ask(Freeze(False, SOMEONE))
    made.run(30)
    assert made.share_bp() == 5_000
    made.ask(Freeze(True, SOMEONE))
    made.ask(RollBack(R, SOMEONE))
    assert made.share_bp() == 0


@pytest.mark.parametrize("name", [f"rollout/{R}", "new-model"])
def test_a_flag_turns_a_rollout_off_and_on_and_keeps_its_progress(name: str) -> None:
    made = ramping(**({} if name != "new-model" else {"flag": name}))
    before = made.scope()
    made.ask(SetFlag(name, False, SOMEONE))
    assert made.share_bp() == 0
    made.run(2 * HOUR, tick_s=60)
    assert made.share_bp() == 0
    assert replace(made.scope(), is_off=False, maps=before.maps) == before
    made.ask(SetFlag(name, True, SOMEONE))
    assert made.share_bp() == 500
    assert held(made.scope()) == held(before)


def test_a_rollout_that_comes_back_is_off_if_its_flag_is() -> None:
    made = ramping()
    made.ask(SetFlag(f"rollout/{R}", False, SOMEONE))
    made.take(config(rollout("another", candidate=3)))
    made.take(config(rollout()))
    made.run(HOUR, tick_s=60)
    assert made.scope().is_off
    assert made.share_bp() == 0


@pytest.mark.parametrize(
    ("name", "is_on", "error"),
    [
        ("rollout/none", False, NotFoundError), ("shadow/none", False, NotFoundError),
        ("variant/credit/9", False, NotFoundError), ("nonsense", False, NotFoundError),
        ("variant/none/2", False, NotFoundError),
        ("variant/credit/1", False, RefusedError),
    ],
)  # fmt: skip
def test_a_flag_that_is_none_is_refused(
    name: str, is_on: bool, error: type[Exception]
) -> None:
    made = world()
    with pytest.raises(error):
        made.ask(SetFlag(name, is_on, SOMEONE))


def test_a_disabled_candidate_gets_nothing_and_grows_no_further() -> None:
    made = ramping()
    made.ask(SetVariant("credit", 2, True, SOMEONE))
    assert made.share_bp() == 0
    made.run(2 * HOUR, tick_s=60)
    assert made.scope().step == 0
    assert made.waits_for() == "version 2 is disabled: enable it first"
    made.ask(SetVariant("credit", 2, False, SOMEONE))
    assert made.share_bp() == 500
    with pytest.raises(RefusedError, match="stable cannot be taken out"):
        made.ask(SetVariant("credit", 1, True, SOMEONE))


def test_a_request_id_is_answered_once() -> None:
    made = ramping()
    asked = Asked("someone", "because", "id-1")
    first = made.ask(SetWeight(R, 3_000, None, asked))
    made.ask(SetWeight(R, 700, None, SOMEONE))
    again = made.ask(SetWeight(R, 3_000, None, Asked("another", "", "id-1")))
    assert again.is_repeat
    assert again.message == first.message
    assert made.share_bp() == 700
    with pytest.raises(ConflictError, match="was used for another command"):
        made.ask(SetWeight(R, 3_001, None, asked))
    assert made.crashed().ask(SetWeight(R, 3_000, None, asked)).is_repeat


def test_a_retry_begins_anew_with_the_same_units() -> None:
    made = ramping()
    before = held(made.scope())
    made.ask(RollBack(R, SOMEONE))
    assert held(made.scope()) == {}
    made.ask(Retry(R, SOMEONE))
    made.run(30)
    assert held(made.scope()) == before
    assert made.scope().attempt == 2
    assert made.scope().elapsed_s < 40
    made.ask(Restart(R, SOMEONE))
    assert (made.share_bp(), made.scope().attempt) == (0, 3)


def test_an_approval_is_waited_for_and_given() -> None:
    steps = [{"weight": {"to": 5, "for": "1m"}}, {"approval": {"timeout": "1h"}},
             {"weight": {"to": 50, "for": "1h"}}]  # fmt: skip
    made = world(rollout(steps=steps))
    made.run(2 * HOUR, tick_s=60)
    assert (made.phase(), made.share_bp()) == (Phase.HOLDING, 500)
    made.ask(Approve(R, SOMEONE))
    made.run(30)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 5_000)


def test_promotion_in_full_is_for_every_wave() -> None:
    groups = (Group({"location": "new-york"}, 0.5), Group({}, 0.5))
    demand = Demand("credit", {}, groups=groups)
    waves = rollout(waves=["new-york", "everyone"])
    made = World(config(waves), demand)
    made.run(30)
    made.ask(Promote(R, True, SOMEONE))
    assert [len(dict(one.claims)[2]) for one in made.scope().maps] == [10_000] * 2


def test_waves_come_one_after_the_other_and_nest() -> None:
    groups = (Group({"location": "new-york"}, 0.5), Group({}, 0.5))
    demand = Demand("credit", {}, groups=groups)
    steps = [{"weight": {"to": 5, "for": "1m"}}, {"weight": {"to": 40, "for": "1m"}}]
    made = World(config(rollout(waves=["new-york", "everyone"], steps=steps)), demand)
    seen = []
    while made.phase() != Phase.PROMOTED:
        made.run(10)
        shares = tuple(len(dict(one.claims).get(2, ())) for one in made.scope().maps)
        if not seen or seen[-1] != shares:
            seen.append(shares)
        claims = [set(dict(one.claims).get(2, ())) for one in made.scope().maps]
        assert all(later <= first for first, later in itertools.pairwise(claims))
    assert seen == [(500,), (4_000,), (4_000, 500), (4_000, 4_000), (10_000, 10_000)]


def test_channels_go_in_their_own_time_and_one_after_another() -> None:
    groups = tuple(Group({"channel": name}, 0.5) for name in ("web", "mobile"))
    demand = Demand("credit", {}, groups=groups)
    steps = [{"weight": {"to": 50, "for": "5m"}}]
    channels = {"web": {}, "mobile": {"after": "web", "delay": "10m"}}
    made = World(config(rollout(steps=steps, channels=channels)), demand)
    made.run(6 * 60)
    assert made.phase(f"{R}/web") == Phase.PROMOTED
    made.run(60)
    assert made.phase(f"{R}/mobile") == Phase.PENDING
    made = made.crashed()  # the delay goes on
    made.run(9 * 60)
    assert made.phase(f"{R}/mobile") == Phase.RAMPING
    made.ask(RollBack(f"{R}/mobile", SOMEONE))
    assert made.phase(f"{R}/web") == Phase.PROMOTED
    with pytest.raises(NotFoundError):
        made.ask(RollBack(f"{R}/tv", SOMEONE))


# -- the file --------------------------------------------------------------------------


def test_edited_steps_hold_a_running_rollout_until_they_are_restored() -> None:
    made = ramping()
    edited = config(rollout(steps=[{"weight": {"to": 9, "for": "1h"}}]))
    with pytest.raises(RefusedError, match="running, and the new configuration has"):
        refuse_drift(edited, made.routing)
    made.take(edited)
    made.run(30)
    assert (made.phase(), made.scope().hold_reason) == (Phase.HOLDING, DRIFT)
    assert made.share_bp() == 500
    made.take(config(rollout()))
    made.run(30)
    assert made.phase() == Phase.RAMPING
    made.take(edited)
    made.ask(Restart(R, SOMEONE))
    made.run(30)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 900)


def test_steps_may_be_edited_before_it_begins() -> None:
    closed = [{"from": "00:00", "to": "00:00", "days": ["mon"]}]
    made = world(rollout(windows=closed))
    made.take(config(rollout(steps=[{"weight": {"to": 9, "for": "1h"}}])))
    made.run(30)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 900)


def test_one_that_leaves_the_file_gives_its_buckets_back_and_begins_anew() -> None:
    made = ramping()
    revision = made.scope().revision
    made.take(config(rollout("another", candidate=3)))
    assert made.share_bp() == 0
    assert made.stored().scopes[R].is_retired
    made.run(30)
    made.take(config(rollout()))
    assert made.scope().attempt == 2
    assert made.scope().revision > revision
    made.run(30)
    assert (made.phase(), made.share_bp()) == (Phase.RAMPING, 500)


def test_resources_are_checked_before_they_are_stored() -> None:
    made = world()
    body = '{"when": {"key": "age", "range": [18, 120]}}'
    made.ask(PutResource("audience", "adults", body, SOMEONE))
    assert ("audience", "adults") in made.stored().resources
    with pytest.raises(RefusedError, match="not JSON"):
        made.ask(PutResource("audience", "adults", "{", SOMEONE))
    made.ask(DeleteResource("audience", "adults", SOMEONE))
    with pytest.raises(NotFoundError):
        made.ask(DeleteResource("audience", "adults", SOMEONE))


# -- what others say -------------------------------------------------------------------


def test_a_failing_query_holds_and_age_counts_until_the_deadline() -> None:
    made = ramping(
        guardrails=[webhook("slo", action="hold")], progress_deadline="2h",
        on_deadline="rollback",
    )  # fmt: skip
    made.answers.said = said(slo="fail")
    made.run(HOUR, tick_s=60)
    assert made.phase() == Phase.HOLDING
    assert made.scope().elapsed_s <= 120
    made.answers.said = said(slo="pass")
    made.run(30)
    assert made.phase() == Phase.RAMPING
    made.answers.said = said(slo="fail")
    made.run(HOUR, tick_s=60)
    assert made.phase() == Phase.ROLLED_BACK
    assert made.told[-1].reason == "not done within 7200 s"


def test_silence_is_an_alarm_once() -> None:
    # Of the three units that ever ask none is the candidate's.
    demand = Demand("credit", {}, units=3)
    made = World(config(rollout(silence="10m")), demand)
    made.run(590)
    assert made.scope().maps
    assert "silence" not in {one.event for one in made.told}
    made.run(1_200)
    alarms = [one for one in made.told if one.event == "silence"]
    assert len(alarms) == 1
    assert alarms[0].reason.startswith("no request of a candidate for 6")


def test_a_long_wait_before_the_first_share_is_no_silence() -> None:
    steps = [{"approval": {}}, {"weight": {"to": 5, "for": "1h"}}]
    made = world(rollout(steps=steps, silence="10m"))
    made.run(2 * HOUR, tick_s=60)
    made.ask(Approve(R, SOMEONE))
    made.run(60)
    assert made.phase() == Phase.RAMPING
    made.ask(SetFlag(f"rollout/{R}", False, SOMEONE))
    made.run(HOUR, tick_s=60)
    assert [one.event for one in made.told if one.event == "silence"] == []


# -- a store that cannot write ---------------------------------------------------------


def test_growth_that_cannot_be_stored_does_not_happen() -> None:
    made = ramping()
    log = full_disk(made)
    made.run(HOUR, tick_s=60)
    assert made.share_bp() == 500
    with pytest.raises(StoreError):
        made.ask(SetWeight(R, 600, None, SOMEONE))
    assert made.share_bp() == 500
    log.cannot_write = False
    made.run(30)
    assert made.share_bp() == 5_000


def test_a_rollback_takes_effect_without_the_store_and_is_stored_later() -> None:
    made = ramping()
    log = full_disk(made)
    done = made.ask(RollBack(R, SOMEONE))
    assert "rolled_back" in done.message
    assert (made.phase(), made.share_bp()) == (Phase.ROLLED_BACK, 0)
    assert made.view().waiting == 1
    assert made.stored().scopes[R].phase == Phase.RAMPING
    made.run(60)
    with pytest.raises(StoreError):
        made.ask(Retry(R, SOMEONE))
    log.cannot_write = False
    made.run(30)
    assert made.view().waiting == 0
    assert made.stored().scopes == made.routing.state.scopes


def test_a_rollback_by_itself_needs_no_store_either() -> None:
    made = ramping()
    log = full_disk(made)
    log.cannot_read = True
    broken = {1: Behaviour(), 2: Behaviour(1.0)}
    made.engine.behave("credit", replace(made.demand, behaviours=broken))
    made.run(60, tick_s=2)
    assert (made.phase(), made.share_bp()) == (Phase.ROLLED_BACK, 0)


def test_a_person_can_roll_back_when_the_store_cannot_even_be_read() -> None:
    made = ramping()
    full_disk(made).cannot_read = True
    asked = Asked("someone", "because", "id-7")
    assert "rolled_back" in made.ask(RollBack(R, asked)).message
    assert made.share_bp() == 0
    assert made.ask(RollBack(R, asked)).is_repeat


def test_while_something_waits_to_be_stored_nothing_grows() -> None:
    made = world(rollout(), rollout("other", candidate=3))
    made.run(30)
    log = full_disk(made)
    made.ask(RollBack(R, SOMEONE))
    log.cannot_read = True  # flushing fails already when it reads
    log.cannot_write = False
    made.run(2 * HOUR, tick_s=60)
    assert made.scope("other").step == 0
    log.cannot_read = False
    made.run(HOUR, tick_s=60)
    assert made.scope("other").step == 1


# -- replay ----------------------------------------------------------------------------


def test_what_is_stored_of_a_scope_is_all_of_it() -> None:
    made = ramping()
    state = made.routing.state.scopes[R]
    fields = set(state.__dataclass_fields__) - {"scope"}
    assert set(dump_scope(state)) == fields


def test_a_controller_that_does_not_tick_is_stalled() -> None:
    made = ramping()
    assert not made.view().is_stalled
    made.clock.move(10.5)
    assert made.view().is_stalled
    made.ticker.tick()
    assert not made.view().is_stalled
