"""Commands that change a running router. Each is one call, carried out once.

What they came to is one line, or with `-o json|yaml` the whole answer. A refusal is one
line on standard error and exit code 1.
"""

from pathlib import Path
from typing import Any

import click

from router.cli.connect import OUTPUT, asked_by, changing, connected, operator_of
from router.errors import RouterError

ROLLOUT = click.argument("rollout")
SIZE_MAX = 1024 * 1024


def _change(method: str, output: str, given: dict[str, Any], /, **fields: Any) -> int:
    from router.cli.tables import show_done

    asked = asked_by(given)
    with operator_of(given) as operator:
        show_done(operator.call(method, asked=asked, **fields), output)
    return 0


def _verb(name: str, method: str, text: str) -> click.Command:
    """A command that names a rollout, and nothing else."""

    @click.command(name, help=text)
    @ROLLOUT
    @connected
    @changing
    @OUTPUT
    def command(rollout: str, output: str, **given: Any) -> int:
        return _change(f"RolloutService/{method}", output, given, rollout=rollout)

    return command


VERBS = [
    _verb("pause", "Pause", "Hold ROLLOUT until resumed; shares stay as they are."),
    _verb("resume", "Resume", "Go on with ROLLOUT where it was paused or held."),
    _verb("approve", "Approve", "Say yes to the approval step of ROLLOUT."),
    _verb("reject", "Reject", "Say no to the approval step: all return to stable."),
    _verb("rollback", "RollBack", "Return every user of ROLLOUT to stable, now."),
    _verb("retry", "Retry", "Begin again a rollout that was rolled back or failed."),
    _verb("restart", "Restart", "Begin again with the specification of the file."),
]


@click.command()
@ROLLOUT
@click.option("--full", is_flag=True, help="To 100 % at once.")
@connected
@changing
@OUTPUT
def promote(rollout: str, full: bool, output: str, **given: Any) -> int:
    """Leave the current step of ROLLOUT without waiting for it."""
    name = "RolloutService/Promote"
    return _change(name, output, given, rollout=rollout, is_full=full)


@click.group("set")
def set_() -> None:
    """Set one thing of a running rollout."""


@set_.command("weight")
@ROLLOUT
@click.argument("percent", type=click.FloatRange(0, 100))
@click.option("--version", type=click.IntRange(1), help="Where there are several.")
@connected
@changing
@OUTPUT
def weight(
    rollout: str, percent: float, version: int | None, output: str, **given: Any
) -> int:
    """Give the candidate of ROLLOUT this share from now on."""
    weight_bp = round(percent * 100)
    if abs(weight_bp - percent * 100) > 1e-6:
        raise click.UsageError("a share has at most two decimals: 0.01 is the smallest")
    return _change(
        "RolloutService/SetWeight", output, given,
        rollout=rollout, weight_bp=weight_bp, version=version or 0,
    )  # fmt: skip


def _freeze(name: str, is_frozen: bool, text: str) -> click.Command:
    @click.command(name, help=text)
    @connected
    @changing
    @OUTPUT
    def command(output: str, **given: Any) -> int:
        return _change("RolloutService/Freeze", output, given, is_frozen=is_frozen)

    return command


def _disable(name: str, is_disabled: bool, text: str) -> click.Command:
    @click.command(name, help=text)
    @click.argument("model")
    @click.argument("version", type=click.IntRange(1))
    @connected
    @changing
    @OUTPUT
    def command(model: str, version: int, output: str, **given: Any) -> int:
        return _change(
            "RolloutService/DisableVariant", output, given,
            model=model, version=version, is_disabled=is_disabled,
        )  # fmt: skip

    return command


SWITCHES = [
    _freeze("freeze", True, "Let no rollout grow; rolling back still works."),
    _freeze("unfreeze", False, "Let rollouts grow again."),
    _disable("disable", True, "Take a version out: stable answers, pins are refused."),
    _disable("enable", False, "Let a version that was disabled serve again."),
]


@click.command()
@click.option("-f", "--file", "path", required=True, type=click.Path(dir_okay=False))
@click.option("--expect-revision", default="", metavar="REVISION",
              help="Refuse unless this configuration is in force.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@connected
@changing
@OUTPUT
def apply(
    path: str, expect_revision: str, dry_run: bool, output: str, **given: Any
) -> int:
    """Let FILE take effect in the running router."""
    return _change(
        "ConfigService/Apply", output, given,
        text=read_text(path), name=path, expected_revision=expect_revision,
        is_dry_run=dry_run,
    )  # fmt: skip


@click.group()
def flag() -> None:
    """Switches: rollout/NAME, shadow/NAME, variant/MODEL/VERSION."""


@flag.command("set")
@click.argument("name")
@click.argument("value", type=click.Choice(["on", "off"]))
@connected
@changing
@OUTPUT
def set_flag(name: str, value: str, output: str, **given: Any) -> int:
    """Turn NAME on or off, until it is set again."""
    return _change("FlagService/Set", output, given, name=name, is_on=value == "on")


@flag.command("list")
@connected
@OUTPUT
def list_flags(output: str, **given: Any) -> int:
    """Show every switch there is."""
    from router.cli.tables import show_kind

    with operator_of(given) as operator:
        show_kind("flags", operator.call("FlagService/List"), output)
    return 0


def read_text(path: str) -> str:
    """A file's text; RouterError says why there is none."""
    try:
        data = Path(path).read_bytes()[: SIZE_MAX + 1]
    except OSError as error:
        raise RouterError(f"{path}: {error.strerror}") from None
    if len(data) > SIZE_MAX:
        raise RouterError(f"{path}: more than {SIZE_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RouterError(f"{path}: not UTF-8 at byte {error.start}") from None


COMMANDS = [promote, apply, set_, flag, *VERBS, *SWITCHES]
