"""`router record` and `router replay`: what was asked before, asked again."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from router.lab.rehearsal import Outcome

EXIT_ERROR, EXIT_DIFFERS = 1, 2

CONFIG = click.option(
    "-c", "--config", default="router.yaml", show_default=True, metavar="FILE",
    help="The router's file.",
)  # fmt: skip
ENVIRONMENT = click.option(
    "--environment", envvar="ROUTER_ENVIRONMENT", default="", metavar="NAME",
    help="Which of the file's environments is meant.",
)  # fmt: skip
OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text"
)


@click.command()
@click.option(
    "--from", "folder", required=True, metavar="FOLDER", help="The tape: server.tape."
)
@click.option("-o", "--output", "target", required=True, metavar="FILE")
@click.option("--model", help="Only requests of this model.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
def record(folder: str, target: str, model: str | None, limit: int | None) -> int:
    """Make a replay file of the requests on a tape.

    A router puts them there for models that have `record: {percent: ...}`.
    """
    from router.lab.recording import record as make

    made = make(folder, target, model, limit, lambda what: click.echo(what, err=True))
    click.echo(f"{target}: {made.kept} requests")
    for count, what in (
        (made.without_body, "were too large to keep their body"),
        (made.others, "are of other models, or more than the limit"),
        (made.own, "were asked by a preflight"),
        (made.damaged, "places of the tape are damaged"),
    ):
        if count:
            click.echo(f"  left out: {count} {what}")
    return 0


@click.command()
@click.argument("recording", metavar="RECORDING")
@click.option("--candidate", required=True, metavar="VERSION")
@click.option("--against", metavar="VERSION", help="Stable, if left out.")
@click.option("--model", help="The model of the first request, if left out.")
@CONFIG
@ENVIRONMENT
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=1e-3, show_default=True,
    help="Relative difference of numbers that agree.",
)  # fmt: skip
@click.option(
    "--tolerance-absolute", type=click.FloatRange(min=0), default=1e-5,
    show_default=True, help="Absolute difference of numbers that agree.",
)  # fmt: skip
@click.option(
    "--max-disagreement", type=click.FloatRange(0, 100), default=0.0,
    show_default=True, metavar="PERCENT", help="Of the requests.",
)  # fmt: skip
@click.option(
    "--latency-worse-by", type=click.FloatRange(min=0), metavar="PERCENT",
    help="Fail when the candidate is slower by more; not judged if left out.",
)  # fmt: skip
@OUTPUT
def replay(recording: str, output: str, **asked: Any) -> int:
    """Ask a RECORDING of two versions and compare the answers.

    Exits with 0 when the candidate may stand in for the other, with 2 when it may not,
    with 1 when that could not be found out.
    """
    from router.lab.rehearsal import Trial, try_recording
    from router.lab.replay import Limits

    slower = asked["latency_worse_by"]
    outcome = try_recording(
        Trial(
            recording=recording,
            config=asked["config"],
            candidate=asked["candidate"],
            against=asked["against"],
            model=asked["model"],
            environment=asked["environment"],
            tolerance_absolute=asked["tolerance_absolute"],
            tolerance=asked["tolerance"],
            limits=Limits(
                asked["max_disagreement"] / 100,
                None if slower is None else slower / 100,
            ),
        )
    )
    if output == "json":
        from router.cli.show import show_json

        show_json(_as_dict(outcome))
    else:
        _show(outcome)
    return {"pass": 0, "fail": EXIT_DIFFERS}.get(outcome.verdict.verdict, EXIT_ERROR)


def _as_dict(outcome: "Outcome") -> dict[str, Any]:
    return {**outcome.verdict.as_dict(), "replayed": outcome.replayed}


def _show(outcome: "Outcome") -> None:
    found, verdict = outcome.replayed, outcome.verdict
    asked = found.question
    click.echo(f"{verdict.verdict}: {verdict.reason}")
    click.echo(
        f"{asked.model}: version {asked.candidate} against {asked.stable},"
        f" {found.compared} compared, {found.disagreed} disagree"
    )
    for kind, count in sorted(found.kinds.items()):
        click.echo(f"  {kind}: {count}")
    if found.stable_failed:
        click.echo(f"  version {asked.stable} itself failed: {found.stable_failed}")
    if found.skipped:
        click.echo(f"  left out: {found.skipped}")
    if found.latency is not None:
        ratio = found.latency
        click.echo(
            f"  latency: {ratio.ratio:.3f} times as long"
            f" ({ratio.low:.3f} to {ratio.high:.3f}, {ratio.pairs} pairs)"
        )
    for example in found.worst:
        click.echo(f"request {example.request}: {'; '.join(example.kinds.values())}")
        for name, values in example.stable.items():
            click.echo(
                f"  {name}: {values} -> {example.candidate.get(name, 'nothing')}"
            )


COMMANDS = (record, replay)
