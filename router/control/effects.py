"""How much more often a candidate's units fail: the size, beside the test of harm.

The tests of `bets.py` say whether; this says by how much, as the difference of error
rates with an interval that holds at every look (AIPW), for reports and metrics. No
decision rests on it.
"""

from collections.abc import Mapping

from router.analysis.aipw import EffectState, Moments, Outcome, step_effect
from router.control.bets import Grown, tabulate
from router.plan.rollout import Spec

Effects = dict[tuple[int, str], EffectState]  # by candidate and slice


def step_effects(
    spec: Spec, effects: Mapping[tuple[int, str], EffectState], grown: Grown
) -> Effects:
    """The effects on the error rate after one tick."""
    grown = tuple(grown)
    stepped = dict(effects)
    for version in spec.candidates:
        for within in ("", *spec.slices):
            table = tabulate(grown, version, within, "error", baseline_only=False)
            outcomes = [
                Outcome(_moments(n_b, x_b), _moments(n_a, x_a), rho)
                for n_b, x_b, n_a, x_a, rho in table
            ]
            before = stepped.get((version, within), EffectState())
            stepped[version, within] = step_effect(before, *outcomes)
    return stepped


def _moments(units: int, events: int) -> Moments:
    # A unit may fail long after it was first seen; it counted as quiet then, and the
    # event is added to the same stratum now.
    return Moments(units, float(events), float(events))
