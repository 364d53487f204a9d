"""What the running router would answer: the twin, asked about the plan in force.

Serves nothing and counts nothing. A plan's table is read once, when the first question
about it comes; one table is kept.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from router.errors import NotFoundError
from router.plan.explain import Asked, Explanation, ReadPlan, explain_on, read_plan
from router.plan.plan import Model, Plan

Regex = Callable[[bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class Question:
    """What a request would say of itself, as an application knows it."""

    model: str
    unit: str | None = None
    attributes: Mapping[str, str] | None = None
    pin: int | None = None


class LivePlan:
    """Owner of the table of the plan in force. Any thread may ask."""

    def __init__(self, plan: Callable[[], Plan | None], regex: Regex) -> None:
        self._plan, self._regex = plan, regex
        self._lock = threading.Lock()
        self._read: ReadPlan | None = None

    def models(self) -> tuple[Model, ...]:
        """Of the plan in force; none before the first."""
        plan = self._plan()
        return () if plan is None else plan.models

    def revision(self) -> str:
        """The table revision of the plan in force; "" before the first."""
        plan = self._plan()
        return "" if plan is None else self._table(plan).revision

    def explain(self, question: Question) -> Explanation:
        """The decision and what led to it; NotFoundError when there is no such model.

        Without a unit the model's own keys are looked for among the attributes, as a
        request's headers would be.
        """
        plan = self._plan()
        models = () if plan is None else plan.models
        model = next((one for one in models if one.name == question.model), None)
        if plan is None or model is None:
            known = ", ".join(one.name for one in models) or "nothing is served yet"
            raise NotFoundError(f"no model '{question.model}': {known}")
        return explain_on(self._table(plan), _asked(model, question), self._regex)

    def _table(self, plan: Plan) -> ReadPlan:
        with self._lock:
            if self._read is None or self._read.plan is not plan:
                self._read = read_plan(plan)
            return self._read


def _asked(model: Model, question: Question) -> Asked:
    attributes = dict(question.attributes or {})
    asked = Asked(model.name, None, attributes, question.pin)
    found = [attributes[key] for key in model.unit.metadata if attributes.get(key)]
    unit = question.unit if question.unit is not None else next(iter(found), None)
    return asked if unit is None else replace(asked, unit=unit.encode())
