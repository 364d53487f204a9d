"""`router report`: how a rollout went, as text, JSON or a page of its own."""

from pathlib import Path

import click

from router.errors import RouterError

FORMATS = ("text", "json", "html")


@click.command()
@click.argument("rollout")
@click.option(
    "--state", metavar="PATH", default=None,
    help="Control log; run/state.db if left out. It is only read.",
)  # fmt: skip
@click.option("-c", "--config", metavar="FILE", help="A file whose server.state it is.")
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="text", show_default=True
)
@click.option("--to", metavar="PATH", type=click.Path(dir_okay=False),
              help="Write it there rather than to the terminal.")  # fmt: skip
def report(
    rollout: str, state: str | None, config: str | None, output: str, to: str | None
) -> int:
    """Tell how ROLLOUT went: verdicts, effects, traffic, moves; from the state file.

    Works beside a running router and after it, also on a copy of the file.
    """
    import json

    from router.lab.report import read, text_of
    from router.lab.report_page import page_of

    found = read(state, config, rollout)
    if output == "html":
        said = page_of(found)
    elif output == "json":
        said = json.dumps([one.as_dict() for one in found], indent=2) + "\n"
    else:
        said = text_of(found)
    if to is None:
        click.echo(said, nl=False)
        return 0
    try:
        Path(to).write_text(said)
    except OSError as error:
        raise RouterError(f"{to}: cannot be written: {error.strerror}") from error
    return 0
