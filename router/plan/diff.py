"""Who moves between two plans, and what each split comes to.

Counted in buckets, which are exact shares of a rule's units. Where the salt changed
there is no bucket to compare: the deals are independent, and the share that moves is
what two independent draws disagree on. How many requests a rule sees is not known here.
"""

from collections import Counter
from dataclasses import dataclass

from router.plan.forecast import ScopeForecast
from router.plan.plan import BUCKET_COUNT, CONTINUE, Model, Plan, Rule
from router.plan.program import tests_of


@dataclass(frozen=True, slots=True)
class Move:
    """Units that change version, in basis points of the rule's units."""

    source: int
    target: int
    share_bp: int


@dataclass(frozen=True, slots=True)
class ShareLine:
    """One version's part of a rule: what was asked for and what it gets.

    They differ when a version is disabled: stable answers its part.
    """

    version: int
    requested_bp: int
    effective_bp: int


@dataclass(frozen=True, slots=True)
class RuleDiff:
    """One rule: new, gone, or changed. `notes` say what moves cannot count, `cautions`
    what is true of the new rule whether or not it changed."""

    name: str
    change: str  # "added", "removed", "changed" or "same"
    moves: tuple[Move, ...] = ()
    shares: tuple[ShareLine, ...] = ()
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def moved_bp(self) -> int:
        return sum(move.share_bp for move in self.moves)


@dataclass(frozen=True, slots=True)
class ModelDiff:
    """One model: versions that come and go, stable, rules and other settings."""

    name: str
    change: str
    rules: tuple[RuleDiff, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Everything that differs between two plans."""

    old_revision: str
    new_revision: str
    models: tuple[ModelDiff, ...]
    rollouts: tuple[ScopeForecast, ...] = ()
    """What the rollouts of the new plan will do."""
    notes: tuple[str, ...] = ()

    @property
    def has_changes(self) -> bool:
        # The revision counts too: server settings are no part of a plan.
        return self.old_revision != self.new_revision or any(
            model.change != "same" for model in self.models
        )


def diff_plans(old: Plan | None, new: Plan) -> PlanDiff:
    """What changes when `new` takes the place of `old` (None: nothing was applied)."""
    before = {model.name: model for model in old.models} if old else {}
    after = {model.name: model for model in new.models}
    models = [_diff_model(before.get(name), after[name]) for name in after]
    models += [ModelDiff(name, "removed") for name in before if name not in after]
    return PlanDiff(
        old.config_revision if old else "", new.config_revision, tuple(models)
    )


def _diff_model(old: Model | None, new: Model) -> ModelDiff:
    if old is None:
        rules = tuple(_diff_rule(new, new, None, rule) for rule in new.rules)
        return ModelDiff(new.name, "added", rules)
    before = {rule.name: rule for rule in old.rules}
    after = {rule.name for rule in new.rules}
    rules = tuple(
        _diff_rule(old, new, before.get(rule.name), rule) for rule in new.rules
    ) + tuple(
        RuleDiff(name, "removed", _given_back(old, new, rule))
        for name, rule in before.items()
        if name not in after
    )
    notes = _model_notes(old, new)
    is_same = not notes and all(rule.change == "same" for rule in rules)
    return ModelDiff(new.name, "same" if is_same else "changed", rules, notes)


def _model_notes(old: Model, new: Model) -> tuple[str, ...]:
    notes = []
    # The baseline slice comes and goes with stable's buckets and is no version.
    before = {v.version: v for v in old.variants if v.ordinal == 0}
    after = {v.version: v for v in new.variants if v.ordinal == 0}
    notes += [f"version {v} is added" for v in after if v not in before]
    notes += [f"version {v} is removed" for v in before if v not in after]
    for version in before.keys() & after.keys():
        if before[version].is_disabled != after[version].is_disabled:
            word = "disabled" if after[version].is_disabled else "enabled"
            notes.append(f"version {version} is {word}")
        elif before[version] != after[version]:
            notes.append(f"version {version} has other settings")
    if _stable(old) != _stable(new):
        notes.append(f"stable changes from {_stable(old)} to {_stable(new)}")
    kept = [rule.name for rule in old.rules if rule.name in {r.name for r in new.rules}]
    if kept != [rule.name for rule in new.rules if rule.name in kept]:
        notes.append("rules are tried in another order")
    if _settings(old) != _settings(new):
        notes.append("other settings change")
    return tuple(notes)


def _stable(model: Model) -> int:
    return model.variants[model.stable].version


def _settings(model: Model) -> tuple[object, ...]:
    return (
        model.unit, model.output, model.pins, model.annotate, model.has_fallback,
        model.has_prediction_id, model.queue_us_max, model.features,
        model.recording, model.has_exposures,
    )  # fmt: skip


def _diff_rule(old: Model, new: Model, before: Rule | None, after: Rule) -> RuleDiff:
    shares, cautions = _shares(new, after), _cautions(after)
    if before is None:
        # Whoever no rule of a rollout answered had stable. What a route took over is
        # not known here: the routes before and after it decide that.
        was = [_stable(old)] * BUCKET_COUNT
        moves = _moved(was, _owners(new, after)) if after.scope else ()
        return RuleDiff(after.name, "added", moves, shares, (), cautions)
    notes = []
    if before.condition != after.condition:
        notes.append("who matches changes")
    if before.salt != after.salt and (before.buckets or after.buckets):
        notes.append("the salt changes: every unit is dealt again")
        moves = _independent(_owners(old, before), _owners(new, after))
    else:
        moves = _moved(_owners(old, before), _owners(new, after))
    change = "changed" if moves or notes else "same"
    return RuleDiff(after.name, change, moves, shares, tuple(notes), cautions)


def _cautions(rule: Rule) -> tuple[str, ...]:
    keys = {test.key for test in tests_of(rule.condition) if not test.on_unit}
    inputs = sorted(key for key in keys if key.startswith("input."))
    if not inputs:
        return ()
    return (f"not sticky: who matches depends on each request's {', '.join(inputs)}",)


def _given_back(old: Model, new: Model, rule: Rule) -> tuple[Move, ...]:
    """Who returns to stable when a rule of a rollout ends."""
    if not rule.scope:
        return ()
    return _moved(_owners(old, rule), [_stable(new)] * BUCKET_COUNT)


def _owners(model: Model, rule: Rule) -> list[int]:
    """The version that each bucket gets in the end."""
    stable = _stable(model)
    variants = [stable if v.is_disabled else v.version for v in model.variants]
    if rule.buckets is None:
        return [variants[rule.variant]] * BUCKET_COUNT
    # A bucket that the rule leaves to the next one ends, as far as this rule says, at
    # stable.
    ends = variants + [stable] * (CONTINUE + 1 - len(variants))
    return list(map(ends.__getitem__, rule.buckets))


def _moved(before: list[int], after: list[int]) -> tuple[Move, ...]:
    pairs = Counter(
        (source, target)
        for source, target in zip(before, after, strict=True)
        if source != target
    )
    return tuple(
        Move(source, target, count) for (source, target), count in sorted(pairs.items())
    )


def _independent(before: list[int], after: list[int]) -> tuple[Move, ...]:
    sources, targets = Counter(before), Counter(after)
    moves = (
        Move(source, target, round(held * gets / BUCKET_COUNT))
        for source, held in sorted(sources.items())
        for target, gets in sorted(targets.items())
        if source != target
    )
    return tuple(move for move in moves if move.share_bp)


def _shares(model: Model, rule: Rule) -> tuple[ShareLine, ...]:
    stable = _stable(model)
    if rule.buckets is None:
        asked = Counter({model.variants[rule.variant].version: BUCKET_COUNT})
    else:
        asked = Counter({stable: rule.buckets.count(CONTINUE)})
        for at, variant in enumerate(model.variants):
            asked[variant.version] += rule.buckets.count(at)
    asked = +asked  # without those that were asked to have nothing
    disabled = {v.version for v in model.variants if v.is_disabled}
    gets = Counter[int]()
    for version, count in asked.items():
        gets[stable if version in disabled else version] += count
    return tuple(
        ShareLine(version, asked[version], gets[version])
        for version in sorted(asked.keys() | gets.keys())
    )
