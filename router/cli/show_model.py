"""What `router model` prints: tables for people, JSON and YAML for scripts."""

import json
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.cli.yaml import to_yaml
from router.config.manifest import Manifest
from router.models.cards import Card, Difference, FileVerdict
from router.models.pull import Pulled

_COLOURS = {"ok": "green", "not listed": "yellow"}


def show(output: str, value: Any, as_text: Callable[[Any], None]) -> None:
    """Print a value in the form that is asked for."""
    if output == "text":
        as_text(value)
    elif output == "json":
        sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(to_yaml(_plain(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, Manifest):
        return value.model_dump(mode="json", exclude_unset=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    return value


def show_cards(cards: list[Card]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("model", "version", "names", "size", "created", "commit", "problem"):
        table.add_column(name, no_wrap=name != "problem")
    for card in cards:
        problem = card.problem or ("" if card.is_served else "not served")
        table.add_row(
            escape(card.model), str(card.version), escape(", ".join(card.names)),
            _size(card.size_bytes), _time(card.manifest.created)[:10],
            escape((card.manifest.training.commit or "")[:12]), escape(problem),
        )  # fmt: skip
    _console().print(table)


def show_card(card: Card) -> None:
    console = _console()
    names = f" ({', '.join(card.names)})" if card.names else ""
    console.print(
        f"[bold]{escape(card.model)}[/] version [bold]{card.version}[/]{escape(names)}"
    )
    if card.problem:
        console.print(f"  [red]problem   {escape(card.problem)}[/]")
    console.print(f"  size      {_size(card.size_bytes)}")
    console.print(f"  sha256    {card.sha256}")
    for kind in ("inputs", "outputs"):
        for tensor in getattr(card.signature, kind):
            console.print(f"  {kind:<9} {escape(str(tensor))}")
    said = card.manifest.model_dump(mode="json", exclude_unset=True)
    if card.manifest.created is not None:
        said["created"] = _time(card.manifest.created)
    if said:
        console.print("  manifest")
        for line in to_yaml(said).splitlines():
            console.print(f"    {escape(line)}")


def show_differences(found: tuple[Difference, ...]) -> None:
    console = _console()
    for one in found:
        console.print(f"[bold]{escape(one.what)}[/]")
        for mark, text in (("[red]-[/]", one.left), ("[green]+[/]", one.right)):
            if text:
                console.print(f"  {mark} {escape(text)}")
    if not found:
        console.print("no difference")


def show_verdicts(found: list[FileVerdict]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("model", "version", "file", "verdict", "detail"):
        table.add_column(name, no_wrap=name != "detail")
    for one in found:
        colour = _COLOURS.get(one.verdict, "red")
        verdict = f"[{colour}]{one.verdict}[/]"
        row = (escape(one.model), str(one.version), escape(one.file), verdict)
        table.add_row(*row, escape(one.detail))
    _console().print(table)


def show_pulled(pulled: Pulled) -> None:
    files = f"{len(pulled.files)} files, {_size(pulled.size_bytes)}"
    _console().print(f"version {pulled.version}: {files}, in {escape(pulled.path)}")


def _size(size_bytes: int) -> str:
    size, units = float(size_bytes), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.3g} {units[0]}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
