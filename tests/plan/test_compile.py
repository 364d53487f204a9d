"""A configuration and the stored states make one plan, and always the same one."""

from collections import Counter
from typing import Any

import pytest

from router._fasthash import claim_order
from router.config.config import Config, config_revision
from router.plan.compile import RouteState, States, compile_plan, next_routes
from router.plan.encode import encode
from router.plan.plan import (
    Annotate,
    MintKey,
    OnMissing,
    OutputKind,
    Pins,
    Reason,
    Variant,
)
from router.plan.plan import (
    Test as KeyTest,
)


def config(**sections: Any) -> Config:
    value = {
        "api_version": "router/v1",
        "models": [{"name": "credit", "repository": "models/credit", "stable": 1}],
        **sections,
    }
    return Config.model_validate(value)


def model(**settings: Any) -> dict[str, Any]:
    return {"name": "credit", "repository": "models/credit", "stable": 1, **settings}


def split(weights: dict[int, float], **more: Any) -> dict[str, Any]:
    return {"model": "credit", "split": weights, **more}


NEW_YORK = {"name": "new-york", "when": {"key": "location", "exact": "new-york"}}
SERVED = States(versions={"credit": (1, 2, 3)})


def after(states: States, *configs: Config) -> States:
    """The states that applying these in turn leads to."""
    for applied in configs:
        routes = {state.name: state for state in next_routes(applied, states)}
        states = States(states.versions, {**states.routes, **routes}, states.keys)
    return states


def test_a_split_gives_each_version_its_share() -> None:
    plan = compile_plan(config(routes=[split({1: 90, 2: 10})]), SERVED)
    (rule,) = plan.models[0].rules
    assert rule.buckets is not None
    assert Counter(rule.buckets) == {0: 9000, 1: 1000}
    assert (rule.name, rule.salt, rule.reason) == ("credit", "credit", Reason.SPLIT)
    assert rule.rollout_revision == 1


def test_a_split_claims_in_the_order_of_its_salt() -> None:
    plan = compile_plan(config(routes=[split({1: 90, 2: 10})]), SERVED)
    buckets = plan.models[0].rules[0].buckets
    assert buckets is not None
    assert {b for b in range(10_000) if buckets[b] == 1} == set(
        claim_order("credit")[:1000]
    )


def test_variants_are_the_served_versions_in_order() -> None:
    listed = config(models=[model(versions=[3, 1])])
    assert [v.version for v in compile_plan(listed, SERVED).models[0].variants] == [
        1,
        3,
    ]
    assert [v.version for v in compile_plan(config(), SERVED).models[0].variants] == [
        1,
        2,
        3,
    ]


def test_stable_is_the_lowest_version_unless_told() -> None:
    unsaid = config(models=[{"name": "credit", "repository": "models/credit"}])
    assert compile_plan(unsaid, SERVED).models[0].stable == 0
    said = config(models=[model(stable=3)])
    assert compile_plan(said, SERVED).models[0].stable == 2


def test_an_audience_is_a_condition_and_a_version_needs_no_buckets() -> None:
    made = config(
        audiences=[NEW_YORK],
        routes=[
            {"model": "credit", "audience": "new-york", "version": 2},
            {"model": "credit", "version": 3},
        ],
    )
    first, second = compile_plan(made, SERVED).models[0].rules
    assert isinstance(first.condition, KeyTest)
    assert (first.name, first.buckets, first.variant) == ("credit/new-york", None, 1)
    assert first.reason == Reason.TARGETING_MATCH
    assert (second.condition, second.variant) == (None, 2)
    assert second.reason == Reason.STATIC


def test_settings_of_a_model_reach_the_plan() -> None:
    made = config(
        models=[
            model(
                versions={2: {"name": "fast", "runtime": {"timeout_ms": 20}},
                          3: {"disabled": True}},
                unit={"metadata": "X-Account", "tensor": "id", "on_missing": "reject"},
                output={"tensor": "p", "index": 1, "kind": "probability"},
                runtime={"timeout_ms": 50, "queue_ms_max": 7},
                pins="deny",
                annotate="both",
                fallback=False,
                prediction_id=True,
            )
        ]
    )  # fmt: skip
    (got,) = compile_plan(made, SERVED).models
    assert got.variants == (
        Variant("1", 1, timeout_us=50_000),
        Variant("fast", 2, timeout_us=20_000),
        Variant("3", 3, is_disabled=True, timeout_us=50_000),
    )
    assert (got.unit.metadata, got.unit.tensor) == (("x-account",), "id")
    assert got.unit.on_missing == OnMissing.REJECT
    assert got.output is not None
    assert (got.output.tensor, got.output.index) == ("p", 1)
    assert got.output.kind == OutputKind.PROBABILITY
    assert (got.pins, got.has_fallback, got.has_prediction_id) == (
        Pins.DENY,
        False,
        True,
    )
    assert got.annotate == Annotate.PARAMETERS | Annotate.TRAILERS
    assert got.queue_us_max == 7000


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ({"tensor": "y"}, float("-inf"), float("inf")),
        ({"tensor": "y", "range": [-1, 4.5]}, -1.0, 4.5),
        ({"tensor": "y", "kind": "probability", "range": [0.1, 0.9]}, 0.1, 0.9),
    ],
)
def test_a_declared_range_bounds_the_output(
    written: dict[str, Any], low: float, high: float
) -> None:
    output = (
        compile_plan(config(models=[model(output=written)]), SERVED).models[0].output
    )
    assert output is not None
    assert (output.low, output.high) == (low, high)


def test_a_probability_may_miss_its_bounds_by_rounding_only() -> None:
    written = {"tensor": "p", "kind": "probability"}
    output = (
        compile_plan(config(models=[model(output=written)]), SERVED).models[0].output
    )
    assert output is not None
    # What a forest answered, and what no rounding explains.
    assert -0.0001 < output.low < -3.6e-7
    assert 1.0000004 < output.high < 1.0001


def test_a_share_may_name_its_variant() -> None:
    shares = [
        {"version": 1, "weight": 50},
        {"version": 2, "weight": 50, "name": "treated"},
    ]
    routes = [{"model": "credit", "split": shares}]
    variants = compile_plan(config(routes=routes), SERVED).models[0].variants
    assert [v.name for v in variants] == ["1", "treated", "3"]


def test_compiling_is_deterministic_to_the_byte() -> None:
    made = config(audiences=[NEW_YORK], routes=[split({1: 50, 2: 30, 3: 20})])
    assert encode(compile_plan(made, SERVED)) == encode(compile_plan(made, SERVED))


def test_compiling_again_with_its_own_states_changes_nothing() -> None:
    made = config(routes=[split({1: 50, 2: 30, 3: 20})])
    states = after(SERVED, made)
    assert compile_plan(made, states) == compile_plan(made, SERVED)
    assert next_routes(made, states) == next_routes(made, SERVED)


def test_reordering_and_naming_shares_moves_nobody() -> None:
    one = config(routes=[split({1: 50, 2: 30, 3: 20})])
    shares = [
        {"version": 3, "weight": 20, "name": "new"},
        {"version": 1, "weight": 50},
        {"version": 2, "weight": 30},
    ]
    other = config(routes=[{"model": "credit", "split": shares}])
    first = compile_plan(one, SERVED).models[0].rules
    assert compile_plan(other, after(SERVED, one)).models[0].rules == first


def test_a_renamed_route_takes_up_its_map() -> None:
    states = after(
        SERVED,
        config(routes=[split({1: 80, 2: 10, 3: 10})]),
        config(routes=[split({1: 85, 2: 5, 3: 10})]),
        config(routes=[split({1: 75, 2: 15, 3: 10})]),
    )
    renamed = config(routes=[split({1: 75, 2: 15, 3: 10}, name="standing")])
    (state,) = next_routes(renamed, states)
    assert state.buckets == states.routes["credit"].buckets
    assert state.revision == states.routes["credit"].revision


def test_a_renamed_audience_takes_up_the_map_when_it_is_plain_whose() -> None:
    before = config(
        audiences=[NEW_YORK], routes=[split({1: 60, 2: 40}, audience="new-york")]
    )
    states = after(SERVED, before, config(
        audiences=[NEW_YORK], routes=[split({1: 90, 2: 10}, audience="new-york")]
    ))  # fmt: skip
    renamed = config(
        audiences=[{**NEW_YORK, "name": "ny"}],
        routes=[split({1: 90, 2: 10}, audience="ny")],
    )
    (state,) = next_routes(renamed, states)
    assert state.buckets == states.routes["credit/new-york"].buckets


def test_a_new_route_takes_no_map_when_it_is_not_plain_whose() -> None:
    audiences = [{**NEW_YORK, "name": name} for name in ("a", "b")]
    before = config(
        audiences=audiences,
        routes=[split({1: 60, 2: 40}, audience=name) for name in ("a", "b")],
    )
    states = after(SERVED, before)
    renamed = config(
        audiences=[{**NEW_YORK, "name": "c"}],
        routes=[split({1: 90, 2: 10}, audience="c")],
    )
    (state,) = next_routes(renamed, states)
    assert state.revision == 1


def test_a_retired_route_is_not_taken_up_under_another_name() -> None:
    states = after(SERVED, config(routes=[split({1: 50, 3: 50})]))
    old = states.routes["credit"]
    retired = RouteState(
        old.name, old.model, old.audience, old.salt, 4, old.buckets, is_retired=True
    )
    states = States(states.versions, {"credit": retired})
    other = config(routes=[split({1: 90, 2: 10}, name="other")])
    assert next_routes(other, states)[0].revision == 1
    (again,) = next_routes(config(routes=[split({1: 50, 3: 50})]), states)
    assert (again.buckets, again.revision) == (old.buckets, 4)
    assert not again.is_retired


def test_another_salt_deals_anew_and_counts_on() -> None:
    before = config(routes=[split({1: 90, 2: 10})])
    states = after(SERVED, before)
    salted = config(
        layers=[{"name": "credit", "salt": "autumn"}], routes=[split({1: 90, 2: 10})]
    )
    (state,) = next_routes(salted, states)
    assert (state.salt, state.revision) == ("autumn", 2)
    assert state.buckets.claims[0][1] == tuple(claim_order("autumn")[:1000])


def test_a_layer_without_a_salt_is_salted_by_its_name() -> None:
    made = config(
        layers=[{"name": "other"}, {"name": "checkout"}],
        routes=[split({1: 90, 2: 10}, layer="checkout")],
    )
    assert compile_plan(made, SERVED).models[0].rules[0].salt == "checkout"


def test_a_split_comes_back_as_it_was_after_a_single_version() -> None:
    ramped = after(
        SERVED,
        config(routes=[split({1: 80, 2: 10, 3: 10})]),
        config(routes=[split({1: 90, 3: 10})]),
    )
    pinned = after(ramped, config(routes=[{"model": "credit", "version": 1}]))
    assert pinned.routes == ramped.routes


def test_keys_and_the_revision_pass_through() -> None:
    key = MintKey(0, bytes(32))
    plan = compile_plan(config(), States(SERVED.versions, keys=(key,)))
    assert plan.keys == (key,)
    assert plan.config_revision == config_revision(config())


def test_rules_belong_to_their_model() -> None:
    made = config(
        models=[model(), {"name": "fraud", "repository": "models/fraud"}],
        routes=[split({1: 90, 2: 10}), {"model": "fraud", "version": 1}],
    )
    plan = compile_plan(made, States({"credit": (1, 2), "fraud": (1,)}))
    assert [[r.name for r in m.rules] for m in plan.models] == [["credit"], ["fraud"]]
