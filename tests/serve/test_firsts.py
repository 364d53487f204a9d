"""First events of units: counted once, charged to the variant that was dealt.

The thresholds of latency are compared natively (`tests/native/watch/test_firsts.cc`);
here edges lie where no clock can make a difference.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from plane import BUCKETS, INFER, Plane, request

from router._fasthash import bucket
from router.errors import EngineError
from router.plan.plan import (
    CONTINUE,
    Model,
    Op,
    Output,
    OutputKind,
    Reason,
    Recording,
    Rule,
    Variant,
)
from router.plan.plan import Test as Ask
from router.telemetry.tape import Kind, frames
from router.testing import messages

FIRST_EDGE, LAST_EDGE = -640, 224  # of the histogram: all are over one, none the other
UNITS = tuple(f"user-{n}" for n in range(60))
# Thirds: stable, the slice of stable that latency is compared with, the candidate.
THIRDS = bytes(b * 3 // BUCKETS for b in range(BUCKETS))
VARIANTS = (Variant("v1", 1), Variant("v1-baseline", 1, 1), Variant("v2", 2))
RULE = Rule("canary", None, "salt", THIRDS, 0, Reason.SPLIT, 7, "credit-2", 3)
MODEL = Model("m", VARIANTS, 0, (RULE,), output=Output("y", 0, OutputKind.VALUE))
Entry = dict[str, Any]


def dealt(unit: str) -> int:
    return THIRDS[bucket(unit.encode(), "salt")]


EXPECTED = {at: sum(dealt(unit) == at for unit in UNITS) for at in range(3)}


def ruled(rule: Rule, **settings: Any) -> Model:
    return replace(MODEL, rules=(rule,), **settings)


@pytest.fixture
def plane() -> Iterator[Plane]:
    with Plane(loops=2) as made:
        made.load("m", 1, "echo")
        made.load("m", 2, "echo")
        made.publish(MODEL)
        made.start()
        yield made


def ask(plane: Plane, units: Iterable[str | None], version: str = "") -> None:
    message = request(version=version)
    for unit in units:
        named = [] if unit is None else [("x-user-id", unit.encode())]
        plane.engine.call(INFER, message, named)


def entries(plane: Plane, **wanted: Any) -> list[Entry]:
    """The counts of the current revision by position of the variant, or as asked."""
    wanted = {"rollout_revision": 7, "attempt": 3, **wanted}
    found = [
        entry
        for entry in plane.snapshot()["firsts"]
        if all(entry[key] == value for key, value in wanted.items())
    ]
    return sorted(found, key=lambda entry: (entry["version"], entry["ordinal"]))


def units(plane: Plane, kind: str, stratum: str = "sticky", **wanted: Any) -> list[int]:
    return [entry[stratum][kind] for entry in entries(plane, **wanted)]


def test_a_unit_is_exposed_once_whatever_it_asks_and_wherever(plane: Plane) -> None:
    for _ in range(4):  # calls go to both loops in turn
        ask(plane, UNITS)
    assert units(plane, "exposure") == list(EXPECTED.values())
    assert units(plane, "exposure", "other") == [0, 0, 0]
    assert [e["requests"] for e in entries(plane)] == [4 * n for n in EXPECTED.values()]
    assert [(e["version"], e["ordinal"], e["variant"]) for e in entries(plane)] == [
        (1, 0, "v1"), (1, 1, "v1-baseline"), (2, 0, "v2"),
    ]  # fmt: skip
    assert {(e["scope"], e["rule"]) for e in entries(plane)} == {("credit-2", "canary")}


def test_without_a_unit_each_request_is_one_in_a_stratum_of_its_own(
    plane: Plane,
) -> None:
    ask(plane, [None] * 90)
    assert sum(units(plane, "exposure", "other")) == 90
    assert units(plane, "exposure") == [0, 0, 0]


def test_what_chance_did_not_deal_is_left_out(plane: Plane) -> None:
    ask(plane, UNITS, version="2")  # pinned
    override = replace(
        RULE, name="staff", condition=Ask("x-user-id", Op.PREFIX, (b"user-",)),
        buckets=bytes([2]) * BUCKETS, reason=Reason.OVERRIDE,
    )  # fmt: skip
    holdout = replace(
        RULE, name="holdout", buckets=bytes(BUCKETS), reason=Reason.HOLDOUT
    )
    for first in (override, holdout):
        plane.publish(replace(MODEL, rules=(first, RULE)))
        ask(plane, UNITS)
    nobody = bytes([CONTINUE]) * BUCKETS
    plane.publish(ruled(replace(RULE, buckets=nobody)))  # by default, then
    ask(plane, UNITS)
    variants = (*VARIANTS[:2], replace(VARIANTS[2], is_disabled=True))
    plane.publish(replace(MODEL, variants=variants))
    ask(plane, [unit for unit in UNITS if dealt(unit) == 2])
    assert units(plane, "exposure") == [0, 0, 0]


@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        ("fail=always", {"error", "fallback"}),
        ("nan", {"error", "fallback", "invalid"}),
    ],
)
def test_a_failure_is_charged_to_the_variant_that_was_dealt_once_a_unit(
    plane: Plane, script: str, kinds: set[str]
) -> None:
    plane.load("m", 2, script)
    plane.publish(MODEL)
    for _ in range(3):
        ask(plane, UNITS)
    # Whether the breaker let a call through or not, the candidate did not answer it.
    for kind in ("error", "fallback"):
        assert units(plane, kind) == [0, 0, EXPECTED[2]]
    (_, _, candidate) = entries(plane)
    assert (candidate["sticky"]["invalid"] > 0) == ("invalid" in kinds)
    assert candidate["errors"] == 3 * EXPECTED[2]
    # The breaker keeps calls away after some, and the units of those saw no nonsense.
    assert candidate["sticky"]["invalid"] <= EXPECTED[2]


def test_a_failure_without_fallback_is_an_error_and_no_fallback(plane: Plane) -> None:
    plane.load("m", 2, "fail=always")
    plane.publish(replace(MODEL, has_fallback=False))
    ask(plane, UNITS)
    assert units(plane, "error") == [0, 0, EXPECTED[2]]
    assert units(plane, "fallback") == [0, 0, 0]


def test_a_request_of_no_unit_is_charged_in_its_own_stratum_once(plane: Plane) -> None:
    plane.load("m", 2, "nan")
    plane.publish(replace(MODEL, has_fallback=False))
    ask(plane, [None] * 60)
    (stable, baseline, candidate) = entries(plane)
    other = candidate["other"]
    assert other["error"] == other["exposure"] == other["invalid"] > 0
    assert stable["other"]["error"] == baseline["other"]["error"] == 0


def edges(plane: Plane, *given: int | None) -> None:
    plane.engine.thresholds(
        [("credit-2", 3, version, ordinal, given) for version, ordinal in
         ((1, 0), (1, 1), (2, 0))]
    )  # fmt: skip


def test_a_unit_that_waited_too_long_is_counted_at_each_threshold_it_passed(
    plane: Plane,
) -> None:
    ask(plane, UNITS)  # no thresholds yet
    assert units(plane, "over_p90") == [0, 0, 0]
    edges(plane, FIRST_EDGE, LAST_EDGE, None)
    for _ in range(2):
        ask(plane, UNITS)
    assert units(plane, "over_p90") == list(EXPECTED.values())
    assert units(plane, "over_p99") == [0, 0, 0]
    assert units(plane, "over_p999") == [0, 0, 0]
    edges(plane, None, None, FIRST_EDGE)
    ask(plane, UNITS)
    assert units(plane, "over_p999") == list(EXPECTED.values())
    assert [entry["latency"]["count"] for entry in entries(plane)] == [
        4 * count for count in EXPECTED.values()
    ]


def test_a_threshold_belongs_to_one_variant(plane: Plane) -> None:
    plane.engine.thresholds([("credit-2", 3, 1, 1, (FIRST_EDGE, None, None))])
    ask(plane, UNITS)
    assert units(plane, "over_p90") == [0, EXPECTED[1], 0]


def test_a_threshold_of_an_unknown_scope_is_named_and_costs_no_other(
    plane: Plane,
) -> None:
    with pytest.raises(EngineError, match="scope 'gone' attempt 1"):
        plane.engine.thresholds(
            [
                ("gone", 1, 2, 0, (0, 0, 0)),
                ("credit-2", 3, 2, 0, (FIRST_EDGE, None, None)),
            ]
        )
    ask(plane, UNITS)
    assert units(plane, "over_p90") == [0, 0, EXPECTED[2]]


def test_an_attempt_that_is_given_up_on_passed_every_threshold(plane: Plane) -> None:
    plane.load("m", 2, "hang", batching="off")
    variants = (*VARIANTS[:2], replace(VARIANTS[2], timeout_us=2000))
    plane.publish(replace(MODEL, variants=variants))
    edges(plane, LAST_EDGE, LAST_EDGE, LAST_EDGE)
    late = next(unit for unit in UNITS if dealt(unit) == 2)
    ask(plane, [late])
    for kind in ("over_p90", "over_p99", "over_p999", "error", "fallback"):
        assert units(plane, kind) == [0, 0, 1], kind


def test_a_unit_stays_known_from_table_to_table_of_one_attempt(plane: Plane) -> None:
    ask(plane, UNITS)
    plane.publish(ruled(replace(RULE, rollout_revision=8)))
    ask(plane, [*UNITS, "somebody new"])
    # The new revision has what it added; the old one keeps its own.
    assert units(plane, "exposure") == list(EXPECTED.values())
    assert sum(units(plane, "exposure", rollout_revision=8)) == 1
    plane.publish(ruled(replace(RULE, rollout_revision=9, attempt=4)))
    ask(plane, UNITS)
    again = units(plane, "exposure", rollout_revision=9, attempt=4)
    assert again == list(EXPECTED.values())


def test_a_restart_counts_no_unit_again(plane: Plane) -> None:
    ask(plane, [*UNITS, None])
    saved = plane.engine.filters_save()
    with Plane(loops=1) as second:
        second.engine.filters_restore(saved)
        for version in (1, 2):
            second.load("m", version, "echo")
        second.publish(MODEL)
        second.start()
        assert units(second, "exposure") == list(EXPECTED.values())
        ask(second, [*UNITS, None, "somebody new"])
        assert sum(units(second, "exposure")) == len(UNITS) + 1
        assert sum(units(second, "exposure", "other")) == 2
        with pytest.raises(EngineError, match="damaged"):
            second.engine.filters_restore(saved[:-1])


def test_filters_are_made_when_something_happens_and_say_how_full_they_are(
    plane: Plane,
) -> None:
    assert plane.snapshot()["filters"] == []
    ask(plane, UNITS)
    (filled,) = plane.snapshot()["filters"]
    assert (filled["scope"], filled["attempt"], filled["kind"]) == (
        "credit-2", 3, "exposure",
    )  # fmt: skip
    assert 0 < filled["fill"] <= 5 * len(UNITS) / 2**26
    assert filled["is_saturated"] is False


def test_a_rule_of_no_scope_counts_nothing(plane: Plane) -> None:
    plane.publish(ruled(replace(RULE, scope="", attempt=0)))
    ask(plane, UNITS)
    assert units(plane, "exposure") == [0, 0, 0]
    assert plane.snapshot()["filters"] == []


def test_scores_and_clusters_add_up_to_the_requests(plane: Plane) -> None:
    ask(plane, UNITS)
    for entry in entries(plane):
        count, tag = entry["requests"], plane.tags["m", entry["version"]]
        assert entry["score"] == {
            "count": count, "sum": count * tag, "sum_squares": count * tag * tag,
        }  # fmt: skip
        assert sum(cluster[1] for cluster in entry["clusters"]) == entry["requests"]
        assert sum(cluster[2] for cluster in entry["clusters"]) == 0
    wanted = {bucket(unit.encode(), "salt") * 64 // BUCKETS for unit in UNITS}
    assert {cluster[0] for e in entries(plane) for cluster in e["clusters"]} == wanted


# -- records on the tape ---------------------------------------------------------------


def records(plane: Plane, kind: Kind) -> list[Any]:
    name = {Kind.EXPOSURE: "Exposure", Kind.FIRST_EVENT: "FirstEvent",
            Kind.REQUEST: "RecordedRequest"}[kind]  # fmt: skip
    message = messages("router.v1")(name)
    return [
        message.FromString(record.payload)
        for record in frames(plane.engine.tape())
        if record.kind == kind
    ]


def test_first_events_leave_on_the_tape_when_the_rule_says_so(plane: Plane) -> None:
    ask(plane, UNITS)
    assert records(plane, Kind.FIRST_EVENT) == []
    plane.load("m", 2, "fail=always")
    plane.publish(ruled(replace(RULE, attempt=4, has_records=True)))
    ask(plane, [*UNITS, *UNITS, None])
    found = records(plane, Kind.FIRST_EVENT)
    kinds = [event.kind for event in found]
    assert [kinds.count(kind) for kind in (0, 1, 3)] == [
        len(UNITS), EXPECTED[2], EXPECTED[2],
    ]  # fmt: skip
    assert len({event.digest for event in found if event.kind == 0}) == len(UNITS)
    event = next(event for event in found if event.kind == 1)
    assert (event.scope, event.attempt, event.rule, event.rollout_revision) == (
        "credit-2", 4, "canary", 7,
    )  # fmt: skip
    assert (event.variant, event.version, event.ordinal) == ("v2", 2, 0)
    assert event.time_ms > 1_600_000_000_000
    assert plane.snapshot()["tape"]["written"]["first_event"] == len(found)


def test_an_exposure_says_what_was_served_to_whom_but_not_the_unit(
    plane: Plane,
) -> None:
    plane.publish(replace(MODEL, has_exposures=True))
    unit = next(unit for unit in UNITS if dealt(unit) == 2)
    ask(plane, [unit, None])
    first, second = records(plane, Kind.EXPOSURE)
    drawn = bucket(unit.encode(), "salt")
    assert (first.model, first.rule, first.variant, first.version) == (
        "m", "canary", "v2", 2,
    )  # fmt: skip
    assert (first.bucket_1, first.rollout_revision) == (drawn + 1, 7)
    assert first.propensity_bp == THIRDS.count(2)
    assert first.is_sticky
    assert not second.is_sticky
    assert (first.digest >> 32) * BUCKETS >> 32 == drawn
    assert unit.encode() not in first.SerializeToString()


def test_a_sample_of_requests_is_recorded_with_the_metadata_that_is_allowed(
    plane: Plane,
) -> None:
    recording = Recording(10_000, ("x-app", "x-region"), bytes_max=10_000)
    plane.publish(replace(MODEL, recording=recording))
    body = request(rows=2)
    spoken = [("x-app", b"web"), ("x-secret", b"s"), ("x-user-id", b"user-1")]
    plane.engine.call(INFER, body, spoken)
    (found,) = records(plane, Kind.REQUEST)
    assert (found.model, found.version, found.body) == ("m", "", body)
    assert [(pair.key, pair.value) for pair in found.metadata] == [("x-app", b"web")]
    assert found.body_bytes == len(body)
    large = request(rows=1000)
    plane.engine.call(INFER, large, spoken)
    (found,) = records(plane, Kind.REQUEST)
    assert (found.body, found.body_bytes) == (b"", len(large))
    plane.publish(replace(MODEL, recording=replace(recording, share_bp=0)))
    ask(plane, UNITS)
    assert records(plane, Kind.REQUEST) == []


def test_records_that_find_no_room_are_counted_and_disturb_nothing() -> None:
    with Plane(loops=1, tape_bits=10) as plane:
        for version in (1, 2):
            plane.load("m", version, "echo")
        plane.publish(replace(MODEL, has_exposures=True))
        plane.start()
        ask(plane, UNITS)
        tape = plane.snapshot()["tape"]
        assert tape["written"]["exposure"] + tape["dropped"]["exposure"] == len(UNITS)
        assert tape["dropped"]["exposure"] > 0
        assert plane.codes() == {"OK": len(UNITS)}
        assert len(records(plane, Kind.EXPOSURE)) == tape["written"]["exposure"]
