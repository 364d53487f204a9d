"""Results as people read them, and as scripts do.

Text goes through rich, which drops colour and boxes when nobody watches; JSON is the
value itself, keys as the value's fields are named.
"""

import json
import sys
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.config.config import Config, config_revision
from router.config.route import route_name
from router.plan.diff import PlanDiff, RuleDiff
from router.plan.explain import Explanation, RuleExplained
from router.plan.forecast import ScopeForecast

if TYPE_CHECKING:  # grpc takes longer to import than most commands to run
    from router.client.infer import Answer

_MARKS = {"added": "[green]+[/]", "removed": "[red]-[/]", "changed": "[yellow]~[/]"}


def show_json(value: Any) -> None:
    json.dump(_plain(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        plain = {name: _plain(getattr(value, name)) for name in names}
        for derived in ("has_changes", "moved_bp"):
            if hasattr(value, derived):
                plain[derived] = getattr(value, derived)
        return plain
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    return value


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def show_valid(file: str, config: Config) -> None:
    """A short reading of what was understood."""
    console = _console()
    names = ", ".join(model.name for model in config.models)
    console.print(
        f"{escape(file)}: valid, revision {config_revision(config)}: models"
        f" {escape(names)}; {len(config.routes)} routes"
    )
    for route in config.routes:
        console.print(f"  {escape(route_name(route))}")


def show_diff(diff: PlanDiff) -> None:
    """Who moves, model by model, rule by rule."""
    console = _console()
    if not diff.has_changes:
        console.print(f"no changes: revision {diff.new_revision} is applied")
        return
    before = diff.old_revision or "nothing"
    console.print(f"revision {before} -> {diff.new_revision}")
    for model in diff.models:
        mark = _MARKS.get(model.change, " ")
        console.print(f"{mark} model [bold]{escape(model.name)}[/] ({model.change})")
        for note in model.notes:
            console.print(f"    {escape(note)}")
        for rule in model.rules:
            _show_rule(console, rule)
    for note in diff.notes:
        console.print(f"note: {escape(note)}")
    for scope in diff.rollouts:
        _show_scope(console, scope)


def _show_scope(console: Console, scope: ScopeForecast) -> None:
    total = f"at least {_duration(scope.total_s)}"
    console.print(
        f"rollout [bold]{escape(scope.scope)}[/] ({scope.phase}), {total} in all"
    )
    for version, bp in scope.requested_bp.items():
        held = _percent(scope.effective_bp.get(version, 0))
        console.print(f"    version {version} asked for {_percent(bp)}, gets {held}")
    for step in scope.steps:
        wave = f"{escape(step.wave)}: " if step.wave else ""
        console.print(
            f"    {wave}{escape(step.text)}: {_duration(step.lasts_s)},"
            f" over after {_duration(step.ends_s)}"
        )
    for note in scope.notes:
        console.print(f"    note: {escape(note)}")


def _duration(seconds: float) -> str:
    """The two largest units of a time."""
    parts, rest = [], round(seconds)
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) or "0s"


def _show_rule(console: Console, rule: RuleDiff) -> None:
    mark = _MARKS.get(rule.change, " ")
    console.print(f"  {mark} rule [bold]{escape(rule.name)}[/] ({rule.change})")
    for note in (*rule.notes, *rule.cautions):
        console.print(f"      {escape(note)}")
    for move in rule.moves:
        console.print(
            f"      {_percent(move.share_bp)} move from version {move.source}"
            f" to version {move.target}"
        )
    if rule.moves:
        console.print(f"      {_percent(10_000 - rule.moved_bp)} stay")
    if rule.shares:
        table = Table("version", "asked for", "gets", box=None, padding=(0, 2))
        for line in rule.shares:
            effective = _percent(line.effective_bp)
            table.add_row(str(line.version), _percent(line.requested_bp), effective)
        console.print(table)


def _percent(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def show_explanation(found: Explanation) -> None:
    """The decision first, then the rules in the order tried."""
    console = _console()
    if found.refusal:
        console.print(f"[red]{escape(found.refusal)}[/]")
    else:
        console.print(f"[bold]version {found.version}[/] ({escape(found.variant)})")
    console.print(f"  reason      {found.reason}")
    console.print(f"  rule        {escape(found.rule or 'none')}")
    if found.bucket is not None:
        note = (
            ""
            if found.has_unit
            else " (an example: without a unit each request draws its own)"
        )
        console.print(f"  bucket      {found.bucket}{note}")
    console.print(f"  propensity  {_percent(found.propensity_bp)}")
    console.print(f"  revision    {found.revision}")
    for shadow in found.shadows:
        console.print(f"  also shadowed by {escape(shadow)}")
    for rule in found.tried:
        _show_tried(console, rule)


def _show_tried(console: Console, rule: RuleExplained) -> None:
    word = "[green]matches[/]" if rule.is_match else "[red]does not match[/]"
    console.print(f"  rule {escape(rule.name)} {word}")
    for test in rule.tests:
        word = "[green]yes[/]" if test.has_passed else "[red]no[/]"
        value = "missing" if test.value is None else repr(test.value)
        console.print(f"    {word}  {escape(test.text)} (it is {escape(value)})")


def show_prediction(answer: "Answer") -> None:
    """Who answered, what, and what was said about it."""
    console = _console()
    console.print(
        f"[bold]{escape(answer.model)}[/] version [bold]{escape(answer.version)}[/]"
        f" in {answer.elapsed_ms:.2f} ms"
    )
    for output in answer.outputs:
        shape = "x".join(str(size) for size in output.shape) or "scalar"
        values = ", ".join(_value(value) for value in output.values[:32])
        more = f", ... ({len(output.values)} in all)" if len(output.values) > 32 else ""
        console.print(
            f"  {escape(output.name)} {output.datatype} {shape}: {escape(values)}{more}"
        )
    for key, value in answer.parameters:
        console.print(f"  {escape(key)} = {escape(str(value))}")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
