"""The simulated engine and the real one, given one table, agree on what they count."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router._fasthash import bucket
from router.clock import ManualClock
from router.engine._engine import Engine
from router.errors import EngineError
from router.lab.demand import Behaviour, Demand, Group, latency_chances
from router.lab.simulated import SimulatedEngine
from router.plan.encode import encode
from router.plan.plan import (
    CONTINUE,
    Model,
    Op,
    Output,
    OutputKind,
    Plan,
    Reason,
    Rule,
    Shadow,
    Variant,
)
from router.plan.plan import Test as Ask
from router.testing import messages

BUCKETS = 10_000
INFER = "/inference.GRPCInferenceService/ModelInfer"
VARIANTS = (Variant("v1", 1), Variant("v1-baseline", 1, 1), Variant("v2", 2))
THIRDS = bytes(b * 3 // BUCKETS for b in range(BUCKETS))
RULE = Rule("canary", None, "salt", THIRDS, 0, Reason.SPLIT, 7, scope="s", attempt=3)
MODEL = Model("m", VARIANTS, 0, (RULE,), output=Output("y", 0, OutputKind.VALUE))
CALLS = 300
_message = messages()


def table(model: Model = MODEL) -> bytes:
    return encode(Plan("r1", (model,)))


def infer(engine: Engine, unit: str) -> None:
    made = _message("ModelInferRequest")(model_name="m")
    made.inputs.add(name="x", datatype="FP32").shape.extend((1, 4))
    made.raw_input_contents.append(bytes(16))
    engine.call(INFER, made.SerializeToString(), [("x-user-id", unit.encode())])


@pytest.fixture
def real() -> Iterator[Engine]:
    engine = Engine({"loops": "1"})
    for version, script in ((1, "echo"), (2, "nan")):
        options = {"kind": "scripted", "script": f"tag={version};{script}"}
        engine.load("m", version, b"", options)
    engine.publish(table())
    engine.start()
    yield engine
    engine.stop()


def simulated(
    demand: Demand, model: Model = MODEL, seed: int = 0
) -> tuple[SimulatedEngine, ManualClock]:
    clock = ManualClock()
    engine = SimulatedEngine(clock, [demand], seed)
    engine.publish(table(model))
    return engine, clock


def play(
    demand: Demand, model: Model = MODEL, seconds: float = 100.0, seed: int = 0
) -> dict[str, Any]:
    engine, clock = simulated(demand, model, seed)
    clock.move(seconds)
    return engine.snapshot()


def by_variant(snapshot: dict[str, Any], what: str) -> dict[str, Any]:
    return {one["variant"]: one for one in snapshot[what]}


def requests(entry: dict[str, Any]) -> int:
    return sum(entry["codes"].values())


def test_both_engines_count_the_same_things_under_the_same_names(real: Engine) -> None:
    # Every version-2 answer of the real engine is NaN; so it is of the simulated one.
    for n in range(CALLS):
        infer(real, f"unit-{n}")
    found = real.snapshot()
    # Many calls of as many units: all of them ask, and no chance is left.
    broken = {1: Behaviour(), 2: Behaviour(invalid_rate=1.0)}
    demand = Demand("m", broken, rate=CALLS * 100, units=CALLS)
    ours = play(demand, seconds=1.0)
    for what in ("variants", "firsts"):
        theirs, mine = by_variant(found, what), by_variant(ours, what)
        theirs.pop("", None)  # calls that no variant was meant for
        assert set(mine) == set(theirs)
        for name, entry in mine.items():
            assert set(entry) <= set(theirs[name])
            for key, value in entry.items():
                if isinstance(value, dict) and key not in ("codes", "stages"):
                    assert set(value) <= set(theirs[name][key]), key
    # The same units, dealt by the same table: the same first events of each.
    for name, entry in by_variant(ours, "firsts").items():
        theirs_units = by_variant(found, "firsts")[name]["sticky"]
        if name != "v2":  # the real breaker opens, and its later calls are not invalid
            assert entry["sticky"] == theirs_units
        assert entry["sticky"]["exposure"] == theirs_units["exposure"]
        assert entry["sticky"]["error"] == theirs_units["error"]
        assert entry["sticky"]["fallback"] == theirs_units["fallback"]
    assert set(by_variant(ours, "variants")["v2"]["codes"]) == {"OK"}
    keys = {"model", "version", "breaker", "memory_bytes", "cpu_ns"}
    assert keys <= set(found["versions"][0])
    assert keys <= set(ours["versions"][0])
    theirs_filters = {(f["scope"], f["kind"]) for f in found["filters"]}
    assert {(f["scope"], f["kind"]) for f in ours["filters"]} == theirs_filters


def test_shares_are_the_tables_own() -> None:
    # 10,000 requests on average: a third each, 5 standard deviations of the binomial.
    ours = by_variant(play(Demand("m", {}, rate=100)), "variants")
    total = sum(requests(one) for one in ours.values())
    assert abs(total - 10_000) < 5 * math.sqrt(10_000)
    for one in ours.values():
        assert abs(requests(one) - total / 3) < 5 * math.sqrt(total * 2 / 9)


def test_units_are_dealt_as_the_kernel_deals_them() -> None:
    ours = by_variant(play(Demand("m", {}, rate=1000, units=50)), "firsts")
    dealt = [THIRDS[bucket(f"unit-{n}".encode(), "salt")] for n in range(50)]
    exposed = [ours[v.name]["sticky"]["exposure"] for v in VARIANTS]
    assert exposed == [dealt.count(at) for at in range(3)]


def test_rules_are_tried_in_order_and_for_whom_they_are() -> None:
    holdout = bytes([0] * 1000) + bytes([CONTINUE]) * (BUCKETS - 1000)
    rules = (
        Rule(
            "vip", Ask("tier", Op.IN, (b"gold",)), "", None, 2, Reason.TARGETING_MATCH
        ),
        Rule("held", None, "other", holdout, 0, Reason.HOLDOUT),
        RULE,
    )
    groups = (Group({"tier": "gold"}, 0.25), Group({}, 0.75))
    demand = Demand("m", {}, rate=1000, groups=groups)
    ours = by_variant(play(demand, replace(MODEL, rules=rules)), "variants")
    total = sum(requests(one) for one in ours.values())
    # A quarter, and a third of nine tenths of the rest; 5 standard deviations.
    share = 0.25 + 0.75 * 0.9 / 3
    spread = 5 * math.sqrt(total * share * (1 - share))
    assert abs(requests(ours["v2"]) - total * share) < spread


def test_what_versions_do_is_counted_where_they_did_it() -> None:
    bad = Behaviour(error_rate=0.1, invalid_rate=0.05, score=0.9)
    ours = play(Demand("m", {1: Behaviour(), 2: bad}, rate=300))
    one = by_variant(ours, "variants")["v2"]
    n = requests(one)
    assert abs(one["failures"] - n * 0.1) < 5 * math.sqrt(n * 0.09)
    assert abs(one["invalid"] - n * 0.045) < 5 * math.sqrt(n * 0.045)
    assert one["fallbacks"] == one["failures"] + one["invalid"]
    assert one["score"]["sum"] / one["score"]["count"] == pytest.approx(0.9, abs=0.01)
    first = by_variant(ours, "firsts")["v2"]
    assert first["other"]["error"] == one["fallbacks"] == first["errors"]
    assert by_variant(ours, "variants")["v1"]["failures"] == 0


def test_stable_has_nobody_to_fall_back_to() -> None:
    ours = by_variant(play(Demand("m", {1: Behaviour(0.5)})), "variants")
    assert ours["v1"]["codes"]["INTERNAL"] == ours["v1"]["failures"] > 0
    assert ours["v1"]["fallbacks"] == 0


@pytest.mark.parametrize("units", [0, 100_000])
def test_latency_has_its_median_and_thresholds_are_counted_exactly(units: int) -> None:
    demand = Demand("m", {2: Behaviour(latency_ms=8.0)}, rate=1000, units=units)
    engine, clock = simulated(demand)
    limit = math.ceil(32 * math.log2(0.008))
    engine.thresholds([("s", 3, 2, 0, [limit, None, None])])
    clock.move(60)
    ours = engine.snapshot()
    latency = by_variant(ours, "variants")["v2"]["stages"]["total"]
    above = sum(count for at, count in latency["buckets"] if at > limit)
    assert above / latency["count"] == pytest.approx(0.49, abs=0.03)
    counts = by_variant(ours, "firsts")["v2"]["sticky" if units else "other"]
    assert 0 < counts["over_p90"] <= above
    assert units or counts["over_p90"] == above
    assert counts["over_p99"] == 0


def test_a_unit_has_its_first_event_once() -> None:
    engine, clock = simulated(Demand("m", {2: Behaviour(1.0)}, rate=1000, units=50))
    clock.move(20)
    before = by_variant(engine.snapshot(), "firsts")
    clock.move(20)
    after = by_variant(engine.snapshot(), "firsts")
    for name in before:
        assert before[name]["sticky"] == after[name]["sticky"]
        assert before[name]["requests"] < after[name]["requests"]


def test_the_same_seed_is_the_same_world() -> None:
    demand = Demand("m", {2: Behaviour(0.1)}, units=20)
    assert play(demand) == play(demand)
    assert play(demand) != play(demand, seed=1)


def test_days_and_trends() -> None:
    demand = Demand("m", {}, rate=10, swing=0.5, period_s=400, error_trend_per_h=1.0)
    assert demand.rate_at(100) == pytest.approx(15)
    assert demand.rate_at(300) == pytest.approx(5)
    assert demand.error_factor(7200) == 3.0
    chances = latency_chances(Behaviour(latency_ms=8), 2.0)
    middle = int(np.searchsorted(np.cumsum(chances), 0.5)) - 640
    assert 2 ** (middle / 32) == pytest.approx(0.016, rel=0.03)


def test_a_shadow_pairs_what_it_is_given() -> None:
    shadow = Shadow("s", 2, sample_bp=2_500)
    model = replace(MODEL, rules=(), shadows=(shadow,))
    demand = Demand("m", {2: Behaviour(disagreement=0.1)}, rate=1000, noise=0.02)
    (ours,) = play(demand, model)["shadows"]
    pairs = ours["pairs"]
    assert abs(pairs - 25_000) < 5 * math.sqrt(25_000)
    assert abs(ours["disagreements"] - pairs * 0.12) < 5 * math.sqrt(pairs * 0.11)
    assert 0 < ours["noise"]["pairs"] < pairs * 0.02


def test_a_version_that_only_fails_is_taken_out_for_a_while() -> None:
    engine, clock = simulated(Demand("m", {2: Behaviour(1.0)}, rate=100))
    clock.move(1)
    (broken,) = (v for v in engine.snapshot()["versions"] if v["version"] == 2)
    assert broken["breaker"] == "open"
    clock.move(1)
    assert by_variant(engine.snapshot(), "variants")["v2"]["skipped"] > 0


def test_a_table_that_is_none_is_refused_and_the_old_one_stays() -> None:
    engine, clock = simulated(Demand("m", {}))
    with pytest.raises(EngineError):
        engine.publish(b"not a table")
    clock.move(10)
    assert by_variant(engine.snapshot(), "variants")
