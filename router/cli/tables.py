"""What a running router says, as tables for people and as values for scripts.

JSON and YAML are the answer itself, fields as the proto files name them.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import click
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

PHASE_COLOURS = {
    "promoted": "green", "rolled_back": "red", "failed": "red", "holding": "yellow",
    "awaiting_approval": "yellow",
}  # fmt: skip
VERDICT_COLOURS = {"pass": "green", "fail": "red", "error": "red"}


def console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def show_value(value: Any, output: str) -> None:
    """A value as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    from router.config.load import write_yaml

    click.echo(write_yaml(value), nl=False)


def show_done(answer: Any, output: str) -> None:
    """What a change came to."""
    from router.client.operator import plain

    if output != "table":
        show_value(plain(answer), output)
        return
    again = " (done before; nothing was done now)" if answer.is_repeat else ""
    click.echo(f"{answer.message}{again}")


def show_kind(kind: str, answer: Any, output: str) -> None:
    """A list of things of one kind."""
    from router.client.operator import plain

    if output != "table":
        show_value(plain(answer), output)
        return
    columns, rows = KINDS[kind](answer)
    table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
    for row in rows:
        table.add_row(*row)
    out = console()
    if table.row_count:
        out.print(table)
    else:
        out.print(f"no {kind}")


Rows = tuple[tuple[str, ...], Iterable[tuple[str, ...]]]


def _rollouts(answer: Any) -> Rows:
    columns = ("ROLLOUT", "MODEL", "PHASE", "STEP", "SHARES", "WAITS FOR")
    return columns, (
        (
            escape(one.scope),
            escape(one.model),
            phase_words(one),
            f"{min(one.step + 1, len(one.steps))}/{len(one.steps)}",
            ", ".join(f"{s.version}: {percent(s.claimed_bp)}" for s in one.shares),
            escape(one.waits_for),
        )
        for one in answer.scopes
    )


def _models(answer: Any) -> Rows:
    return ("MODEL", "STABLE", "VERSIONS"), (
        (
            escape(one.name),
            str(one.stable),
            ", ".join(
                f"{v.version}{'' if v.is_ready else ' (not ready)'}"
                for v in one.versions
            ),
        )
        for one in answer.models
    )


def _entries(field: str) -> Callable[[Any], Rows]:
    def rows(answer: Any) -> Rows:
        return ("NAME", "OWNER", "IS"), (
            (
                escape(one.name),
                "file" if one.is_of_file else "put",
                escape(one.body_json),
            )
            for one in getattr(answer, field)
        )

    return rows


def _flags(answer: Any) -> Rows:
    return ("FLAG", "IS"), (
        (escape(one.name), "[green]on[/]" if one.is_on else "[red]off[/]")
        for one in answer.flags
    )


def _history(answer: Any) -> Rows:
    return ("REVISION", "TIME", "WHAT", "HOW", "WHO", "WHY"), (
        (
            str(one.revision),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time_s)),
            escape(one.subject),
            escape(one.sentence),
            escape(one.actor),
            escape(one.reason),
        )
        for one in answer.entries
    )


KINDS: dict[str, Callable[[Any], Rows]] = {
    "rollouts": _rollouts,
    "models": _models,
    "audiences": _entries("audiences"),
    "routes": _entries("variations"),
    "variations": _entries("variations"),
    "flags": _flags,
    "history": _history,
}


def percent(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def phase_words(scope: Any) -> str:
    """The phase, in its colour, and what else holds it."""
    words = scope.phase.replace("_", " ")
    colour = PHASE_COLOURS.get(scope.phase, "cyan")
    more = [
        text
        for text, is_so in (("paused", scope.is_paused), ("off", scope.is_off))
        if is_so
    ]
    return f"[{colour}]{words}[/]" + (f" ({', '.join(more)})" if more else "")


def rollout_page(answer: Any) -> Group:
    """Everything about some scopes: where they are, why, and what is next."""
    lines: list[Any] = []
    if answer.is_frozen:
        lines.append("[yellow]frozen: no rollout grows[/]")
    if answer.is_stalled:
        lines.append("[red]the controller is stalled: no rollout grows[/]")
    if answer.waiting:
        lines.append(f"[red]{answer.waiting} changes wait to be stored: none grows[/]")
    for one in answer.scopes:
        lines += _scope_lines(one)
    return Group(*lines)


def _scope_lines(one: Any) -> list[Any]:
    lines: list[Any] = [
        f"[bold]{escape(one.scope)}[/]  {phase_words(one)}  {escape(one.strategy)} of"
        f" {escape(one.model)}, attempt {one.attempt}"
    ]
    for i, step in enumerate(one.steps):
        mark = "✓" if i < one.step or one.phase == "promoted" else " "
        mark = "▶" if i == one.step and one.phase != "promoted" else mark
        lines.append(f"  {mark} {escape(step)}")
    if len(one.waves) > 1:
        wave = escape(one.waves[min(one.wave, len(one.waves) - 1)])
        lines.append(f"  wave {one.wave + 1} of {len(one.waves)}: {wave}")
    if one.waits_for:
        lines.append(f"  waits for {escape(one.waits_for)}")
    if one.HasField("next_step_in_s"):
        lines.append(f"  this step has run {one.elapsed_s:.0f} s, needs at least"
                     f" {one.next_step_in_s:.0f} s more")  # fmt: skip
    shares = Table("version", "asked for", "holds", "requests/s", box=None,
                   padding=(0, 2))  # fmt: skip
    for share in one.shares:
        name = f"{share.version}" + (" (stable)" if share.version == one.stable else "")
        shares.add_row(name, percent(share.asked_bp), percent(share.claimed_bp),
                       f"{share.requests_per_s:.1f}")  # fmt: skip
    lines.append(shares)
    lines += [_verdict_line(verdict) for verdict in one.verdicts]
    return lines


def _verdict_line(one: Any) -> str:
    colour = VERDICT_COLOURS.get(one.verdict, "yellow")
    dry = " (dry run)" if one.is_dry_run else ""
    within = f" in {escape(one.slice)}" if one.slice else ""
    return (
        f"  [{colour}]{one.verdict}[/] {escape(one.role)} {escape(one.name)}"
        f" of {one.version}{within}{dry}: {escape(one.reason)}"
    )
