"""`router parity`: is production what was tried in staging?"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from router.cli.lab import CONFIG, ENVIRONMENT, OUTPUT
from router.errors import RouterError

EXIT_DIFFERS = 2

RECORDING = click.option(
    "--recording", metavar="FILE", help="A replay file, for histograms of inputs."
)


@click.group()
def parity() -> None:
    """Fingerprint an environment, compare two, attest one."""


@parity.command()
@CONFIG
@ENVIRONMENT
@RECORDING
@click.option("-o", "--output", "target", required=True, metavar="FILE")
def fingerprint(
    config: str, environment: str, recording: str | None, target: str
) -> int:
    """Write down what this environment is and what its versions answer."""
    from router.lab.fingerprint import dump_fingerprint
    from router.lab.survey import survey

    made = survey(config, environment, recording)
    _write(target, dump_fingerprint(made))
    click.echo(f"{target}: {len(made.points)} points")
    return 0


@parity.command()
@click.argument("first", type=click.Path(exists=True, dir_okay=False))
@click.argument("second", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=1e-5, show_default=True,
    help="Relative difference of golden outputs that agree.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Also points that change no answer count.")
@OUTPUT
def compare(
    first: str, second: str, tolerance: float, strict: bool, output: str
) -> int:
    """Lay two fingerprints side by side, point by point.

    Exits with 0 when answers of one hold in the other, with 2 when something differs
    that may change them (with --strict: or speed), with 1 when a file cannot be read.
    """
    from router.lab.fingerprint import load_fingerprint
    from router.lab.parity import Near
    from router.lab.parity import compare as differences

    sides = [load_fingerprint(Path(p).read_text(), p) for p in (first, second)]
    found = differences(sides[0], sides[1], Near(relative=tolerance))
    if output == "json":
        from router.cli.show import show_json

        show_json([asdict(point) for point in found])
    else:
        for point in found:
            click.echo(f"{point.severity:13} {point.name}")
            click.echo(f"{'':13}   {first}: {point.first}")
            click.echo(f"{'':13}   {second}: {point.second}")
        counts: dict[str, int] = {}
        for point in found:
            counts[point.severity] = counts.get(point.severity, 0) + 1
        said = ", ".join(f"{count} {severity}" for severity, count in counts.items())
        click.echo(said or "no difference")
    counted = ("blocking", "differing") if strict else ("blocking",)
    return EXIT_DIFFERS if any(p.severity in counted for p in found) else 0


@parity.command()
@CONFIG
@ENVIRONMENT
@click.option(
    "--key", required=True, metavar="FILE",
    help="A shared secret in hexadecimal, or an Ed25519 key in PEM.",
)  # fmt: skip
@click.option("-o", "--output", "target", required=True, metavar="FILE")
def attest(config: str, environment: str, key: str, target: str) -> int:
    """Fingerprint this environment and sign it, for `preflight: {attestation: ...}`."""
    from router.lab.attest import attest as sign
    from router.lab.survey import survey

    _write(target, sign(survey(config, environment), key))
    click.echo(f"{target}: signed with {key}")
    return 0


def _write(target: str, text: str) -> None:
    try:
        Path(target).write_text(text)
    except OSError as error:
        raise RouterError(f"{target}: cannot be written: {error.strerror}") from None


COMMANDS: tuple[Any, ...] = (parity,)
