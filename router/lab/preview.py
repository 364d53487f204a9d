"""What a configuration file would do, without doing it.

Reads the file, the repositories and the control log, and changes none of them: the same
checks, claims and table as a router would make, thrown away afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from router.clock import SystemClock
from router.config.check import Checks
from router.config.config import Config
from router.config.load import load_config
from router.control.apply import applied_plan, read_state
from router.control.state import ControlState
from router.control.tls import tls_problem
from router.engine._engine import regex_match, regex_problem
from router.errors import ConfigError, Problem
from router.models.manifest import read_inputs
from router.models.repository import list_models, list_versions
from router.plan.check_shares import check_shares
from router.plan.compile import compile_plan, scopes_of
from router.plan.diff import PlanDiff, diff_plans
from router.plan.explain import Asked, Explanation, explain
from router.plan.forecast import Load, forecast, plan_notes
from router.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Preview:
    """A file, what its state would lead to, and what is applied now."""

    config: Config
    state: ControlState
    new: Plan
    applied: Plan | None


def read_file(path: str, *, has_models: bool = True, environment: str = "") -> Config:
    """A checked configuration. ConfigError has every problem of it.

    Without the models at hand, versions and certificates are not looked up.
    """
    if not has_models:
        return load_config(
            path,
            Checks(
                None, regex_problem, find_rivals=check_shares, environment=environment
            ),
        )
    checks = Checks(
        list_versions,
        regex_problem,
        tls_problem,
        read_inputs,
        check_shares,
        environment,
    )
    return load_config(path, checks)


def preview(path: str, state_path: str | None = None, environment: str = "") -> Preview:
    """What applying the file would lead to, given the control log it names."""
    config = read_file(path, environment=environment)
    state = read_state(state_path or config.server.state, SystemClock())
    new = compile_plan(config, state.states(list_models(config)))
    return Preview(config, state, new, applied_plan(state))


def diff_file(
    path: str, state_path: str | None = None, environment: str = ""
) -> PlanDiff:
    """Who would move."""
    seen = preview(path, state_path, environment)
    config, clock = seen.config, SystemClock()
    scopes = scopes_of(config, seen.state.states(list_models(config)))
    load = Load()  # run times are known to a router that has run the versions
    return replace(
        diff_plans(seen.applied, seen.new),
        rollouts=forecast(config, scopes, clock.now(), load),
        notes=tuple(plan_notes(seen.new)),
    )


def explain_request(
    path: str,
    *,
    model: str | None,
    unit: str | None,
    attributes: Mapping[str, str],
    pin: int | None,
    state_path: str | None = None,
    environment: str = "",
) -> Explanation:
    """Which version a request would get, and why. A file's only model needs no name."""
    plan = preview(path, state_path, environment).new
    names = [each.name for each in plan.models]
    if model is None and len(names) == 1:
        model = names[0]
    if model not in names:
        wrong = f"no model '{model}'" if model else "name a model"
        known = f"known: {', '.join(names)}"
        raise ConfigError((Problem(path, 0, "models", wrong, "", known),))
    asked = Asked(model, None if unit is None else unit.encode(), attributes, pin)
    return explain(plan, asked, regex_match)
