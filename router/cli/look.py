"""Commands that look at a running router. They change nothing.

`status` is for scripts: 0 when every scope of the rollout is well (it goes on, or is
promoted), 1 when one was rolled back or failed, 2 when it did not get there in time.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from router.cli.connect import OUTPUT, connected, operator_of
from router.errors import RouterError

if TYPE_CHECKING:
    from router.plan.explain import Explanation

METHODS = {
    "rollouts": "RolloutService/List",
    "models": "ModelService/List",
    "audiences": "AudienceService/List",
    "variations": "VariationService/List",
    "routes": "VariationService/List",
    "flags": "FlagService/List",
}
EXIT_FAILED, EXIT_TIMEOUT = 1, 2
GONE_WRONG = ("rolled_back", "failed")
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Seconds(click.ParamType[float]):
    """A time such as 60s, 15m or 2h; a bare number is seconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        text = str(value).strip()
        unit = next((u for u in ("ms", "s", "m", "h") if text.endswith(u)), "")
        try:
            found = float(text.removesuffix(unit)) * UNITS_S.get(unit, 1.0)
        except ValueError:
            self.fail(f"'{value}' is no time: write 30s, 15m or 2h", param, ctx)
        if not 0 <= found < 1e9:
            self.fail(f"'{value}' is out of range", param, ctx)
        return found


@click.command("get")
@click.argument("kind", type=click.Choice(sorted(METHODS)))
@connected
@OUTPUT
def get(kind: str, output: str, **given: Any) -> int:
    """List what the running router has."""
    from router.cli.tables import show_kind

    with operator_of(given) as operator:
        show_kind(kind, operator.call(METHODS[kind]), output)
    return 0


@click.group("describe")
def describe() -> None:
    """Show everything about one thing, and why it is as it is."""


@describe.command("rollout")
@click.argument("rollout")
@connected
@OUTPUT
def describe_rollout(rollout: str, output: str, **given: Any) -> int:
    """Where ROLLOUT is, which verdicts hold, and what led there."""
    from router.cli.tables import console, rollout_page, show_kind, show_value
    from router.client.operator import plain

    with operator_of(given) as operator:
        found = operator.call("RolloutService/Get", rollout=rollout)
        past = operator.call("HistoryService/List", rollout=rollout, limit=20)
    if output != "table":
        show_value({**plain(found), "history": plain(past)["entries"]}, output)
        return 0
    console().print(rollout_page(found))
    show_kind("history", past, output)
    return 0


@describe.command("model")
@click.argument("model")
@connected
@OUTPUT
def describe_model(model: str, output: str, **given: Any) -> int:
    """What MODEL takes and gives, and which versions are ready."""
    from router.cli.tables import show_value
    from router.client.operator import plain

    with operator_of(given) as operator:
        found = operator.call("ModelService/Describe", name=model)
    if output != "table":
        show_value(plain(found), output)
        return 0
    click.echo(f"{found.name}: stable {found.stable}")
    for one in found.versions:
        state = "ready" if one.is_ready else f"not ready: {one.reason or 'taken out'}"
        click.echo(f"  version {one.version}: {state}")
        for word, tensors in (("takes", one.inputs), ("gives", one.outputs)):
            for tensor in tensors:
                shape = list(tensor.shape)
                click.echo(f"    {word} {tensor.name} {tensor.datatype} {shape}")
    return 0


@click.command("history")
@click.argument("rollout", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@connected
@OUTPUT
def history(rollout: str | None, limit: int, output: str, **given: Any) -> int:
    """What happened, to ROLLOUT or to everything, the newest last."""
    from router.cli.tables import show_kind

    with operator_of(given) as operator:
        found = operator.call("HistoryService/List", rollout=rollout or "", limit=limit)
    show_kind("history", found, output)
    return 0


@click.command("status")
@click.argument("rollout")
@click.option("--watch", is_flag=True, help="Keep looking until it has ended.")
@click.option("--timeout", type=Seconds(), metavar="TIME",
              help="Wait until it has ended, at most this long.")  # fmt: skip
@connected
@OUTPUT
def status(
    rollout: str, watch: bool, timeout: float | None, output: str, **given: Any
) -> int:
    """Say how ROLLOUT is doing, with an exit code for scripts.

    0: it goes on, or is promoted; 1: rolled back or failed; 2: not ended in time.
    """
    with operator_of(given) as operator:
        if not watch and timeout is None:
            found = operator.call("RolloutService/Get", rollout=rollout)
            _show(found, output)
            return EXIT_FAILED if _has_gone_wrong(found) else 0
        stream = operator.watch("RolloutService/Watch", timeout, rollout=rollout)
        found = _follow(stream, output, is_live=watch and output == "table")
        if found is None or not _has_ended(found):
            return EXIT_TIMEOUT
        return EXIT_FAILED if _has_gone_wrong(found) else 0


def _follow(stream: Any, output: str, *, is_live: bool) -> Any:
    """The last state seen: the end, or what time was up at."""
    from rich.live import Live

    from router.cli.tables import console, rollout_page

    last = None
    if not is_live:
        for last in stream:
            if _has_ended(last):
                break
        if last is not None:
            _show(last, output)
        return last
    with Live(console=console(), auto_refresh=False) as live:
        for last in stream:
            stamp = time.strftime("%H:%M:%S")
            live.update(rollout_page(last), refresh=True)
            live.console.set_window_title(f"router {stamp}")
            if _has_ended(last):
                break
    return last


def _show(found: Any, output: str) -> None:
    from router.cli.tables import console, rollout_page, show_value
    from router.client.operator import plain

    if output == "table":
        console().print(rollout_page(found))
    else:
        show_value(plain(found), output)


def explain_running(
    attributes: Mapping[str, str], given: dict[str, Any]
) -> "Explanation":
    """What the table of the running router does with a request, and why."""
    from router.plan.explain import Explanation, RuleExplained, TestExplained

    model, unit, pin = (given.pop(name) for name in ("model", "unit", "pin"))
    with operator_of(given) as operator:
        if model is None:
            names = [one.name for one in operator.call("ModelService/List").models]
            if len(names) != 1:
                raise RouterError(f"name a model with --model: {', '.join(names)}")
            model = names[0]
        fields = {"unit": unit, "pin": pin}
        said = {name: value for name, value in fields.items() if value is not None}
        found = operator.call(
            "ExplainService/Explain", model=model, attributes=dict(attributes), **said
        )
    return Explanation(
        model=found.model,
        version=found.version,
        variant=found.variant,
        reason=found.reason,
        rule=found.rule or None,
        bucket=found.bucket if found.HasField("bucket") else None,
        propensity_bp=found.propensity_bp,
        revision=found.table_revision,
        refusal=found.refusal,
        has_unit=found.has_unit,
        tried=tuple(
            RuleExplained(
                one.name,
                one.is_match,
                tuple(
                    TestExplained(
                        test.text,
                        test.value if test.HasField("value") else None,
                        test.has_passed,
                    )
                    for test in one.tests
                ),
                one.bucket if one.HasField("bucket") else None,
                one.version if one.HasField("version") else None,
            )
            for one in found.tried
        ),
    )


def _has_ended(found: Any) -> bool:
    """Every scope is promoted, or one has gone wrong: waiting longer tells no more."""
    return _has_gone_wrong(found) or all(s.phase == "promoted" for s in found.scopes)


def _has_gone_wrong(found: Any) -> bool:
    return any(scope.phase in GONE_WRONG for scope in found.scopes)


COMMANDS = [get, describe, history, status]
