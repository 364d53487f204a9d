"""Every method of the operators' services, as the admin listener is given them.

Each is found in `proto/router/v1/`: a method there that nothing here answers fails a
test. Applying may load models for minutes, so it has a pool of its own: rolling back
never waits for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from router.admin.codes import refusing
from router.admin.commands import Executes, apply_config, change_methods
from router.admin.explain import explain
from router.admin.models import describe_model, list_models
from router.admin.trials import Trials, plan_message, problems_message
from router.admin.views import (
    HISTORY_DEFAULT,
    RESOURCES,
    config_message,
    flags_message,
    history_message,
    resource_message,
    resources_message,
    revisions_message,
    rollouts_message,
    state_message,
)
from router.admin.watches import Lookout, Watches
from router.client.messages import message, method
from router.control.serving import Serving
from router.lab.live import LivePlan
from router.ops.methods import (
    Method,
    OperatorMethod,
    Send,
    StreamMethod,
    UnaryMethod,
)

PACKAGE = "router.v1"
REVISIONS_LIMIT = 100
LIMIT_MAX = 10_000


class Operated(Executes, Protocol):
    """The controller, as far as these methods know it."""

    def history(
        self, rollout: str | None = None, limit: int = 100
    ) -> tuple[Any, ...]: ...

    def watch(self, since: int, timeout_s: float) -> tuple[Any, ...]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What the methods read and command."""

    serving: Serving
    live: LivePlan
    controller: Operated
    trials: Trials


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators' methods: those that answer at once, those that may not, and what
    keeps the watches told."""

    quick: tuple[Method, ...]
    slow: tuple[Method, ...]
    lookout: Lookout

    @property
    def services(self) -> tuple[str, ...]:
        """The services that these are methods of."""
        both = (*self.quick, *self.slow)
        return tuple(sorted({method.path.split("/")[1] for method in both}))


def operator_methods(sources: Sources, send: Send) -> Operators:
    """Every method of every service of the package."""
    controller = sources.controller
    watches = {
        "RolloutService/Watch": Watches(
            lambda asked: rollouts_message(controller.view(), asked.rollout), send
        ),
        "ConfigService/Watch": Watches(
            lambda _: state_message(controller.view()), send
        ),
    }
    trials = sources.trials
    slow: dict[str, Callable[[Any], Any]] = {
        "ConfigService/Validate": lambda asked: problems_message(trials, asked),
        "ConfigService/Plan": lambda asked: plan_message(
            trials, asked, controller.view()
        ),
    }

    def apply(asked: Any, peer: str) -> Any:
        return apply_config(controller, asked, peer)

    return Operators(
        quick=(
            *(_unary(name, answer) for name, answer in _reading(sources).items()),
            *(
                OperatorMethod(_path(name), _request(name), refusing(answer))
                for name, answer in change_methods(controller).items()
            ),
            *(
                StreamMethod(_path(name), _request(name), calls)
                for name, calls in watches.items()
            ),
        ),
        slow=(
            *(_unary(name, answer) for name, answer in slow.items()),
            OperatorMethod(
                _path("ConfigService/Apply"),
                _request("ConfigService/Apply"),
                refusing(apply),
            ),
        ),
        lookout=Lookout(controller, tuple(watches.values())),
    )


def _reading(sources: Sources) -> dict[str, Callable[[Any], Any]]:
    serving, live, controller = sources.serving, sources.live, sources.controller

    def resources(service: str) -> dict[str, Callable[[Any], Any]]:
        return {
            f"{service}/List": lambda _: resources_message(controller.view(), service),
            f"{service}/Get": lambda asked: resource_message(
                controller.view(), service, asked.name
            ),
        }

    return {
        "ConfigService/Get": lambda _: config_message(controller.view()),
        "ConfigService/Revisions": lambda asked: revisions_message(
            controller.history(None, LIMIT_MAX), asked.limit or REVISIONS_LIMIT
        ),
        "RolloutService/List": lambda _: rollouts_message(controller.view()),
        "RolloutService/Get": lambda asked: rollouts_message(
            controller.view(), asked.rollout or "?"
        ),
        "FlagService/List": lambda _: flags_message(controller.view()),
        "HistoryService/List": lambda asked: history_message(
            controller.history(
                asked.rollout or None, min(asked.limit or HISTORY_DEFAULT, LIMIT_MAX)
            )
        ),
        "ExplainService/Explain": lambda asked: explain(live, asked),
        "ModelService/List": lambda _: list_models(serving),
        "ModelService/Describe": lambda asked: describe_model(serving, asked),
        **{k: v for service in RESOURCES for k, v in resources(service).items()},
    }


def _unary(name: str, answer: Callable[[Any], Any]) -> UnaryMethod:
    return UnaryMethod(_path(name), _request(name), refusing(answer))


def _path(name: str) -> str:
    return f"/{PACKAGE}.{name}"


def _request(name: str) -> Any:
    service, _, short = name.partition("/")
    return message(method(f"{PACKAGE}.{service}", short).input_type.full_name)
