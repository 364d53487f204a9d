"""`router feedback` and `router key`: truth in, and the keys of prediction ids."""

from typing import Any

import click

FILE = click.argument("file", type=click.Path(dir_okay=False))
TARGET = click.argument("target")


@click.group()
def key() -> None:
    """The keys that prediction ids are made with."""


@key.command()
@FILE
def rotate(file: str) -> int:
    """Make a new key in the control log of FILE; SIGHUP lets a router use it."""
    from router.lab.keys import rotate_key_of

    made = rotate_key_of(file)
    click.echo(f"key {made} is stored; it mints after the router reads its file again")
    return 0


@click.group()
def feedback() -> None:
    """Report what was right about earlier predictions."""


def _connection(command: Any) -> Any:
    for option in (
        click.option("--tls-ca", metavar="PATH", help="Use TLS; PEM of whom to trust."),
        click.option("--tls-cert", metavar="PATH", help="PEM of a certificate."),
        click.option("--tls-key", metavar="PATH", help="PEM of its key."),
    ):
        command = option(command)
    return command


@feedback.command()
@TARGET
@click.argument("prediction_id")
@click.option("--label", type=float, help="What should have been answered.")
@click.option("--reward", type=float, help="What the decision earned.")
@click.option("--metric", metavar="NAME=VALUE", help="Anything else that was measured.")
@click.option("--row", type=int, default=0, help="Row of a request of many.")
@click.option("--group", "groups", multiple=True, metavar="NAME=VALUE")
@click.option("--idempotency-id", default="", help="Tells measurements apart.")
@_connection
def send(target: str, prediction_id: str, **given: Any) -> int:
    """Tell the server at TARGET the truth about one prediction.

    Exits with 0 when it is stored (or was before), else with 1.
    """
    from router.cli.channel import tls_files
    from router.client.feedback import send_one
    from router.client.truths import Truth

    truths = [name for name in ("label", "reward", "metric") if given[name] is not None]
    if len(truths) != 1:
        raise click.UsageError("give one of --label, --reward and --metric")
    kind, value = truths[0], given[truths[0]]
    if kind == "metric":
        kind, text = pair(value)
        try:
            value = float(text)
        except ValueError:
            raise click.UsageError(f"'{text}' is not a number") from None
    truth = Truth(
        prediction_id, kind, value, given["row"],
        tuple(pair(text) for text in given["groups"]), given["idempotency_id"],
    )  # fmt: skip
    outcome, reason = send_one(target, truth, tls_files(given))
    click.echo(f"{outcome}: {reason}" if reason else outcome)
    return 0 if outcome in ("JOINED", "DUPLICATE") else 1


@feedback.command("import")
@TARGET
@click.argument("file", type=click.Path(dir_okay=False, exists=True))
@click.option("--batch", type=click.IntRange(1, 256), default=128, show_default=True)
@click.option("--window", type=click.IntRange(1, 256), default=16, show_default=True,
              help="Messages on their way at a time.")  # fmt: skip
@click.option("--rejects", metavar="PATH", help="Write what did not join as CSV.")
@_connection
def import_file(target: str, file: str, **given: Any) -> int:
    """Report every row of FILE (.csv, .jsonl or .parquet) to the server at TARGET.

    Columns: prediction_id; label, or reward, or metric and value; and, if there,
    row, time (ISO 8601, or seconds since 1970), idempotency_id, and group:NAME for
    each group. Importing a file again changes nothing. Exits with 1 if a row was
    unknown or late.
    """
    from router.cli.channel import tls_files
    from router.client.feedback import import_truths
    from router.client.truths import read_truths

    tally = import_truths(
        target, read_truths(file), given["batch"], given["window"],
        given["rejects"], tls_files(given),
    )  # fmt: skip
    for outcome, count in tally.items():
        click.echo(f"{outcome.lower():10} {count}")
    return 0 if not (tally["LATE"] or tally["UNKNOWN"]) else 1


def pair(text: str) -> tuple[str, str]:
    """`name=value` in two."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"'{text}' is not NAME=VALUE")
    return name, value
