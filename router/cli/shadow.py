"""`router shadow examples`: what a shadow answered otherwise."""

from typing import Any

import click

from router.cli.lab import OUTPUT


@click.group()
def shadow() -> None:
    """Look at what shadows answer."""


@shadow.command()
@click.argument("rollout")
@click.option(
    "--from", "folder", required=True, metavar="FOLDER", help="The tape: server.tape."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option("--export", metavar="FILE", help="Write every pair there, as JSON lines.")
@OUTPUT
def examples(
    rollout: str, folder: str, limit: int, export: str | None, output: str
) -> int:
    """Show the worst pairs of ROLLOUT (or ROLLOUT/CHANNEL) on a tape."""
    from router.lab.examples import export_pairs, worst_pairs

    def told(what: str) -> None:
        click.echo(what, err=True)

    found = worst_pairs(folder, rollout, limit, told)
    if export is not None:
        count = export_pairs(folder, rollout, export, told)
        click.echo(f"{export}: {count} pairs", err=True)
    if output == "json":
        from router.cli.show import show_json
        from router.lab.examples import as_dict

        show_json([as_dict(pair) for pair in found])
        return 0
    for pair in found:
        what = f"cannot be compared: {', '.join(pair.mismatch)}" if pair.mismatch else (
            f"{pair.distance} apart, {'differ' if pair.differs else 'agree'}"
        )  # fmt: skip
        drawn = " (drawn at random)" if pair.is_random else ""
        click.echo(
            f"{pair.shadow}: {pair.model} {pair.candidate_version} beside"
            f" {pair.stable_version}: {what}{drawn}"
        )
        for name, values in (pair.inputs or {}).items():
            click.echo(f"  {name} = {values}")
        for name in sorted(pair.stable.keys() | pair.candidate.keys()):
            ours, theirs = (side.get(name) for side in (pair.stable, pair.candidate))
            click.echo(f"  {name}: {ours} -> {theirs}")
    return 0


COMMANDS: tuple[Any, ...] = (shadow,)
