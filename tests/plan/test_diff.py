"""Who moves, counted."""

from dataclasses import replace

from router.plan.diff import Move, ShareLine, diff_plans
from router.plan.plan import (
    CONTINUE,
    Model,
    Op,
    Pins,
    Plan,
    Reason,
    Rule,
    Variant,
)
from router.plan.plan import (
    Test as KeyTest,
)


def rule(shares: dict[int, int] | int, **more: object) -> Rule:
    buckets, variant = None, 0
    if isinstance(shares, int):
        variant = shares
    else:
        buckets = b"".join(bytes([at]) * count for at, count in shares.items())
    made = Rule("everyone", None, "s", buckets, variant, Reason.SPLIT)
    return replace(made, **more)  # type: ignore[arg-type]


def plan(*rules: Rule, revision: str = "a", **settings: object) -> Plan:
    variants = (Variant("1", 1), Variant("2", 2), Variant("3", 3))
    model = Model("credit", variants, 0, rules)
    return Plan(revision, (replace(model, **settings),))  # type: ignore[arg-type]


HALF = rule({0: 5000, 1: 5000})


def test_nothing_changes_between_equal_plans() -> None:
    found = diff_plans(plan(HALF), plan(HALF))
    assert not found.has_changes
    assert found.models[0].rules[0].change == "same"


def test_another_revision_alone_is_a_change() -> None:
    assert diff_plans(plan(HALF), plan(HALF, revision="b")).has_changes


def test_the_first_plan_is_all_new() -> None:
    found = diff_plans(None, plan(HALF))
    assert (found.old_revision, found.models[0].change) == ("", "added")
    assert found.models[0].rules[0].shares == (
        ShareLine(1, 5000, 5000),
        ShareLine(2, 5000, 5000),
    )


def test_moves_are_counted_from_version_to_version() -> None:
    after = rule({0: 6000, 1: 3000, 2: 1000})
    (moved,) = diff_plans(plan(HALF), plan(after)).models[0].rules
    assert moved.moves == (Move(2, 1, 1000), Move(2, 3, 1000))
    assert (moved.moved_bp, moved.change) == (2000, "changed")


def test_a_rule_with_one_version_counts_as_all_of_its_buckets() -> None:
    (moved,) = diff_plans(plan(HALF), plan(rule(1))).models[0].rules
    assert moved.moves == (Move(1, 2, 5000),)
    assert moved.shares == (ShareLine(2, 10_000, 10_000),)


def test_another_salt_moves_what_two_independent_deals_disagree_on() -> None:
    (moved,) = diff_plans(plan(HALF), plan(replace(HALF, salt="t"))).models[0].rules
    assert moved.moves == (Move(1, 2, 2500), Move(2, 1, 2500))
    assert moved.notes == ("the salt changes: every unit is dealt again",)


def test_an_empty_share_is_no_move_of_another_salt() -> None:
    small = rule({0: 10_000}, salt="t")
    (moved,) = diff_plans(plan(rule({0: 10_000})), plan(small)).models[0].rules
    assert moved.moves == ()


def test_the_salt_of_rules_without_buckets_says_nothing() -> None:
    assert not diff_plans(plan(rule(1)), plan(rule(1, salt="t"))).has_changes


def test_who_matches_is_noted() -> None:
    narrower = replace(HALF, condition=KeyTest("a", Op.PRESENT))
    (changed,) = diff_plans(plan(HALF), plan(narrower)).models[0].rules
    assert (changed.notes, changed.change) == (("who matches changes",), "changed")


def test_a_disabled_version_moves_its_part_to_stable() -> None:
    variants = (Variant("1", 1), Variant("2", 2, is_disabled=True), Variant("3", 3))
    (model,) = diff_plans(plan(HALF), plan(HALF, variants=variants)).models
    assert model.rules[0].moves == (Move(2, 1, 5000),)
    assert model.rules[0].shares == (
        ShareLine(1, 5000, 10_000),
        ShareLine(2, 5000, 0),
    )
    assert model.notes == ("version 2 is disabled",)
    (back,) = diff_plans(plan(HALF, variants=variants), plan(HALF)).models
    assert back.notes == ("version 2 is enabled",)


def test_unclaimed_buckets_end_at_stable() -> None:
    layered = rule({0: 1000, 1: 1000, CONTINUE: 8000})
    (found,) = diff_plans(None, plan(layered)).models[0].rules
    assert found.shares == (ShareLine(1, 9000, 9000), ShareLine(2, 1000, 1000))


def test_rules_come_and_go() -> None:
    other = replace(HALF, name="other")
    names = [
        (r.name, r.change)
        for r in diff_plans(plan(HALF), plan(other)).models[0].rules
    ]  # fmt: skip
    assert names == [("other", "added"), ("everyone", "removed")]


def test_another_order_of_rules_is_noted() -> None:
    other = replace(HALF, name="other")
    (model,) = diff_plans(plan(HALF, other), plan(other, HALF)).models
    assert model.notes == ("rules are tried in another order",)


def test_versions_stable_and_settings_are_noted() -> None:
    variants = (Variant("1", 1), Variant("two", 2), Variant("4", 4))
    changed = plan(HALF, variants=variants, stable=1, pins=Pins.DENY)
    (model,) = diff_plans(plan(HALF), changed).models
    assert model.notes == (
        "version 4 is added",
        "version 3 is removed",
        "version 2 has other settings",
        "stable changes from 1 to 2",
        "other settings change",
    )


def test_a_model_that_is_gone_is_removed() -> None:
    found = diff_plans(plan(HALF), Plan("b", ()))
    assert [(model.name, model.change) for model in found.models] == [
        ("credit", "removed")
    ]
