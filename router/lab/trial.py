"""What a configuration text would do to the running router, without doing it.

The same checks, claims and table as applying it would make, from the state in force,
thrown away afterwards.
"""

from router.config.check import Checks
from router.config.load import read_config
from router.control.controller import View
from router.errors import ConfigError, Problem
from router.models.repository import list_models
from router.plan.compile import compile_plan
from router.plan.diff import PlanDiff, diff_plans


def problems_of(text: str, name: str, checks: Checks) -> tuple[Problem, ...]:
    """Everything wrong with a text; empty when it could be applied."""
    try:
        read_config(text, name, checks)
    except ConfigError as error:
        return error.problems
    return ()


def diff_text(text: str, name: str, checks: Checks, view: View) -> PlanDiff:
    """Who would move; ConfigError when the text cannot be applied."""
    config = read_config(text, name, checks)
    states = view.routing.state.states(list_models(config))
    return diff_plans(view.routing.plan, compile_plan(config, states))


def diff_lines(diff: PlanDiff) -> tuple[str, ...]:
    """The same for people, a line each."""
    if not diff.has_changes:
        return (f"no changes: revision {diff.new_revision} is applied",)
    lines = [f"revision {diff.old_revision} -> {diff.new_revision}"]
    for model in diff.models:
        if model.change == "same":
            continue
        lines.append(f"model {model.name}: {model.change}")
        lines += [f"  {note}" for note in model.notes]
        for rule in model.rules:
            if rule.change == "same":
                continue
            lines.append(f"  rule {rule.name}: {rule.change}")
            lines += [f"    {note}" for note in rule.notes]
            lines += [
                f"    {move.share_bp / 100:g} % move from version {move.source}"
                f" to version {move.target}"
                for move in rule.moves
            ]
    return tuple(lines)
