"""Problems of the steps of a rollout or a policy: rungs that wait for nothing, weights
that shrink or come to more than everyone, steps that contradict each other or the
strategy."""

from collections.abc import Iterator, Mapping

from router.config.check_criteria import check_criteria
from router.config.problems import Finding, Path
from router.config.rollout import Rollout
from router.config.steps import KINDS, Criteria, Ramp, Step, Weights
from router.config.values import BASIS_POINTS

STEPS_MAX = 1000  # rungs of one rollout, ramps counted by their increments

_EXAMPLE = "for example: - weight: {to: 5, for: 2h}, then - weight: {to: 100}"
# Kinds of steps that a strategy has no use for, and why.
_REFUSED = {
    "shadow": (("weight", "ramp", "bake"), "a shadow never answers"),
    "ab": (("weight", "ramp"), "an experiment keeps its split until it is decided"),
    "blue_green": (("ramp",), "everyone is switched at once"),
}

Finder = Iterator[Finding]


def kind_of(step: Step) -> str:
    return next(kind for kind in KINDS if getattr(step, kind) is not None)


def check_steps(steps: tuple[Step, ...], path: Path) -> Finder:
    """Problems that steps have whoever uses them."""
    for i, step in enumerate(steps):
        kind = kind_of(step)
        place: Path = (*path, i, kind)
        yield from _check_wait(step, place)
        yield from _check_values(step, place)
        gates: Criteria = getattr(getattr(step, kind), "gates", ())
        yield from check_criteria(gates, (*place, "gates"))
    yield from _check_order(steps, path)
    if sum(_rungs(step) for step in steps) > STEPS_MAX:
        yield Finding(
            path, f"more than {STEPS_MAX} steps, increments counted", "",
            "take larger increments",
        )  # fmt: skip


def _check_wait(step: Step, path: Path) -> Finder:
    """A rung that waits for nothing is none: it would be left at once."""
    waits = True
    if step.shadow is not None:
        waits = bool(step.shadow.for_ or step.shadow.min_samples or step.shadow.gates)
    elif step.weight is not None:
        weight = step.weight
        is_all = weight.to == BASIS_POINTS or (
            isinstance(weight.to, dict) and sum(weight.to.values()) == BASIS_POINTS
        )
        waits = bool(weight.for_ or weight.min_units or weight.gates or is_all)
    elif step.ramp is not None:
        waits = bool(step.ramp.every or step.ramp.min_units or step.ramp.gates)
    elif step.bake is not None:
        waits = bool(step.bake.for_ or step.bake.min_units or step.bake.gates)
    if not waits:
        wanted = "min_samples" if step.shadow else "min_units"
        duration = "every" if step.ramp else "for"
        yield Finding(
            path, "this step waits for nothing", "",
            f"give it a time ({duration}: 2h), {wanted}, or gates",
        )  # fmt: skip


def _check_values(step: Step, path: Path) -> Finder:
    if step.shadow is not None and step.shadow.percent == 0:
        yield Finding((*path, "percent"), "a shadow of nothing", "0", "at least 0.01")
    if step.ramp is not None:
        yield from _check_ramp(step.ramp, path)
    if step.weight is not None and isinstance(step.weight.to, dict):
        total = sum(step.weight.to.values())
        if total > BASIS_POINTS:
            yield _too_much((*path, "to"), total)
    approval, preflight = step.approval, step.preflight
    if (
        approval is not None
        and approval.on_timeout == "rollback"
        and not (approval.timeout)
    ):
        yield Finding(
            (*path, "on_timeout"), "takes no effect without a timeout", "rollback",
            "add timeout: 48h",
        )  # fmt: skip
    if preflight is not None and preflight.latency_worse_by is not None:
        amount = preflight.latency_worse_by
        if amount.unit != "%" or amount.value < 0:
            yield Finding(
                (*path, "latency_worse_by"), "expected a part of stable's latency",
                f"{amount.value:g}{amount.unit}", "write 20%",
            )  # fmt: skip


def _check_ramp(ramp: Ramp, path: Path) -> Finder:
    if ramp.increment == 0:
        yield Finding((*path, "increment"), "a ramp that never grows", "0",
                      "at least 0.01")  # fmt: skip
    if ramp.from_ is not None and ramp.from_ > ramp.to:
        yield Finding(
            (*path, "from"), "a ramp grows: it begins above its end",
            f"{ramp.from_ / 100:g}", f"at most {ramp.to / 100:g}",
        )  # fmt: skip


def _check_order(steps: tuple[Step, ...], path: Path) -> Finder:
    first_weight: int | None = None
    baked: int | None = None
    for i, step in enumerate(steps):
        kind = kind_of(step)
        place: Path = (*path, i, kind)
        if baked is not None:
            yield Finding(
                place, f"nothing comes after baking (steps[{baked}])", "",
                "make bake the last step",
            )  # fmt: skip
        if kind in ("weight", "ramp") and first_weight is None:
            first_weight = i
        if kind in ("preflight", "shadow") and first_weight is not None:
            yield Finding(
                place,
                f"the candidate answers since steps[{first_weight}]: its share would"
                " be taken away again",
                "", "put this step first",
            )  # fmt: skip
        if kind == "bake":
            baked = i


def _rungs(step: Step) -> int:
    ramp = step.ramp
    if ramp is None or not ramp.increment:
        return 1
    return -(-ramp.to // ramp.increment)


# -- in a rollout ----------------------------------------------------------------------


def check_ladder(
    rollout: Rollout, steps: tuple[Step, ...], path: Path, versions: tuple[int, ...]
) -> Finder:
    """Problems that steps have in this rollout of these candidates; `path` is where
    they stand, which may be in a policy."""
    yield from _check_strategy(rollout, steps, path)
    if rollout.strategy in ("shadow", "ab") or not steps:
        return
    last: dict[int, int] = {}
    for i, step in enumerate(steps):
        place: Path = (*path, i, kind_of(step), "to")
        written = step.weight or step.ramp
        if written is None:
            continue
        weights = weights_of(written.to, versions)
        first = weights
        if step.ramp is not None and step.ramp.from_ is not None:
            first = weights_of(step.ramp.from_, versions)
        yield from _check_growth(last, first, place)
        if isinstance(written.to, int) and sum(weights.values()) > BASIS_POINTS:
            yield _too_much(place, sum(weights.values()))
        last = weights
    is_canary = rollout.strategy == "canary" and len(versions) == 1
    if not last:
        yield Finding(path, "no step gives the candidate traffic", "", _EXAMPLE)
    elif is_canary and sum(last.values()) != BASIS_POINTS:
        yield Finding(
            path, "the steps end before everyone has the candidate",
            f"{sum(last.values()) / 100:g} percent",
            "add - weight: {to: 100}; to stay at a share use a route, or strategy: ab",
        )  # fmt: skip


def _check_strategy(rollout: Rollout, steps: tuple[Step, ...], path: Path) -> Finder:
    if not steps and rollout.strategy == "canary":
        yield Finding(path, "a canary needs steps, or a policy that has them", "",
                      _EXAMPLE)  # fmt: skip
    kinds, why = _REFUSED.get(rollout.strategy, ((), ""))
    for i, step in enumerate(steps):
        if kind_of(step) in kinds:
            yield Finding(
                (*path, i), f"no step for strategy '{rollout.strategy}': {why}",
                kind_of(step), "leave it out, or use strategy: canary",
            )  # fmt: skip
        is_part = step.weight is not None and step.weight.to != BASIS_POINTS
        if rollout.strategy == "blue_green" and is_part:
            yield Finding(
                (*path, i, "weight", "to"), f"{why} by blue_green", "",
                "write 100, or use strategy: canary",
            )  # fmt: skip


def weights_of(weights: Weights, versions: tuple[int, ...]) -> dict[int, int]:
    """Every candidate's weight."""
    if isinstance(weights, dict):
        return {**dict.fromkeys(versions, 0), **weights}
    return dict.fromkeys(versions, weights)


def _check_growth(
    before: Mapping[int, int], after: Mapping[int, int], path: Path
) -> Finder:
    for version, share in before.items():
        if after.get(version, 0) < share:
            yield Finding(
                path, "weights only grow: users would flip back",
                f"{after.get(version, 0) / 100:g}", f"at least {share / 100:g}",
            )  # fmt: skip
            return


def _too_much(path: Path, total: int) -> Finding:
    return Finding(
        path, "the candidates' weights add up to more than 100 percent",
        f"{total / 100:g}", "a weight is for each candidate",
    )  # fmt: skip
