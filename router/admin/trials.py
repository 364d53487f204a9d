"""Validate and Plan: what a configuration text would do, without doing it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from router.client.messages import message
from router.control.controller import View
from router.errors import Problem
from router.lab.trial import diff_lines

PROBLEMS_MAX = 1_000
NAME = "<text>"


@dataclass(frozen=True, slots=True)
class Trials:
    """What can be tried: a text's problems, and who would move."""

    problems: Callable[[str, str], tuple[Problem, ...]]
    diff: Callable[[str, str, View], Any]


def problems_message(trials: Trials, asked: Any) -> Any:
    """Every problem of a text."""
    made = message("router.v1.ValidateConfigResponse")()
    found = trials.problems(asked.text, asked.name or NAME)
    for problem in found[:PROBLEMS_MAX]:
        made.problems.add(**asdict(problem))
    return made


def plan_message(trials: Trials, asked: Any, view: View) -> Any:
    """Who would move."""
    diff = trials.diff(asked.text, asked.name or NAME, view)
    return message("router.v1.PlanConfigResponse")(
        has_changes=diff.has_changes,
        report_json=json.dumps(asdict(diff)),
        lines=diff_lines(diff),
    )
