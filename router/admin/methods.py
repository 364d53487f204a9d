"""Every method of the operators' services, as the admin listener is given them.

Each is found in `proto/router/v1/`: a method there that nothing here answers fails a
test, and so does the reverse. Applying may load models for minutes, so it has a pool of
its own: rolling back never waits for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from router.admin.codes import refusing
from router.admin.explain import explain
from router.admin.models import describe_model, list_models
from router.client.messages import message, method
from router.control.serving import Serving
from router.lab.live import LivePlan
from router.ops.methods import Method, UnaryMethod

PACKAGE = "router.v1"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the methods read and command."""

    serving: Serving
    live: LivePlan


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators' methods: those that answer at once, and those that may not."""

    quick: tuple[Method, ...]
    slow: tuple[Method, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """The services that these are methods of."""
        both = (*self.quick, *self.slow)
        return tuple(sorted({method.path.split("/")[1] for method in both}))


def operator_methods(sources: Sources) -> Operators:
    """Every method of every service of the package."""
    serving, live = sources.serving, sources.live
    reading: dict[str, Callable[[Any], Any]] = {
        "ExplainService/Explain": lambda asked: explain(live, asked),
        "ModelService/List": lambda _: list_models(serving),
        "ModelService/Describe": lambda asked: describe_model(serving, asked),
    }
    return Operators(
        quick=tuple(
            UnaryMethod(_path(name), _request(name), refusing(answer))
            for name, answer in reading.items()
        ),
        slow=(),
    )


def _path(name: str) -> str:
    return f"/{PACKAGE}.{name}"


def _request(name: str) -> Any:
    service, _, short = name.partition("/")
    return message(method(f"{PACKAGE}.{service}", short).input_type.full_name)
