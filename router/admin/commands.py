"""Changes: a request becomes a command, the controller's answer becomes a message.

What a field means is the command's; here are only names and checks of what a message
can hold that a command cannot.
"""

from collections.abc import Callable
from typing import Any, Protocol

from router.admin.asked import asked_of
from router.client.messages import message
from router.control import commands as c
from router.control.controller import View
from router.ops.methods import Code, MethodError

FULL_BP = 10_000
ON_ROLLOUT = {
    "Pause": c.Pause,
    "Resume": c.Resume,
    "Approve": c.Approve,
    "Reject": c.Reject,
    "RollBack": c.RollBack,
    "Retry": c.Retry,
    "Restart": c.Restart,
}
KINDS = {"AudienceService": "audience", "VariationService": "route"}


class Executes(Protocol):
    """The controller, as far as changes go."""

    def execute(self, command: c.Command) -> c.Done: ...

    def view(self) -> View: ...


Answer = Callable[[Any, str], Any]


def change_methods(controller: Executes) -> dict[str, Answer]:
    """The functions of all changes that answer at once, by method."""

    def on(make: Callable[[Any, c.Asked], c.Command]) -> Answer:
        def answer(request: Any, peer: str) -> Any:
            asked = asked_of(request, peer)
            return done_message(controller.execute(make(request, asked)))

        return answer

    answers: dict[str, Answer] = {
        "RolloutService/Promote": on(
            lambda r, asked: c.Promote(_named(r.rollout), r.is_full, asked)
        ),
        "RolloutService/SetWeight": on(_set_weight),
        "RolloutService/Freeze": on(lambda r, asked: c.Freeze(r.is_frozen, asked)),
        "RolloutService/DisableVariant": on(
            lambda r, asked: c.SetVariant(r.model, r.version, r.is_disabled, asked)
        ),
        "FlagService/Set": on(lambda r, asked: c.SetFlag(r.name, r.is_on, asked)),
    }
    for name, make in ON_ROLLOUT.items():
        answers[f"RolloutService/{name}"] = on(_on_rollout(make))
    for service, kind in KINDS.items():
        answers[f"{service}/Create"] = on(_put(kind, is_new=True))
        answers[f"{service}/Update"] = on(_put(kind, is_new=False))
        answers[f"{service}/Delete"] = on(_delete(kind))
    return answers


def apply_config(controller: Executes, request: Any, peer: str) -> Any:
    """Let a configuration take effect; may load models, and take as long."""
    command = c.ApplyConfig(
        request.text,
        request.expected_revision,
        request.is_dry_run,
        asked_of(request, peer),
        request.name or "<apply>",
    )
    return done_message(controller.execute(command))


def done_message(done: c.Done) -> Any:
    """What a command came to, on the wire."""
    return message("router.v1.Done")(
        revision=done.revision,
        message=done.message,
        config_revision=done.config_revision,
        table_revision=done.table_revision,
        is_repeat=done.is_repeat,
    )


def _on_rollout(make: Any) -> Callable[[Any, c.Asked], c.Command]:
    def command(request: Any, asked: c.Asked) -> c.Command:
        made: c.Command = make(_named(request.rollout), asked)
        return made

    return command


def _named(rollout: str) -> str:
    if not rollout:
        raise MethodError(Code.INVALID_ARGUMENT, "rollout: name one")
    return rollout


def _set_weight(request: Any, asked: c.Asked) -> c.Command:
    if request.weight_bp > FULL_BP:
        raise MethodError(
            Code.INVALID_ARGUMENT,
            f"weight_bp: {request.weight_bp} is more than {FULL_BP} (100 %)",
        )
    version = request.version or None
    return c.SetWeight(_named(request.rollout), request.weight_bp, version, asked)


def _put(kind: Any, *, is_new: bool) -> Callable[[Any, c.Asked], c.Command]:
    return lambda request, asked: c.PutResource(
        kind, request.name, request.body_json, asked, is_new
    )


def _delete(kind: Any) -> Callable[[Any, c.Asked], c.Command]:
    return lambda request, asked: c.DeleteResource(kind, request.name, asked)
