"""`router model`: versions on disk, and in a server that runs.

PLACE is a configuration file, a model's folder with its versions, or a folder of such
folders. A VERSION is a number or, where a configuration is at hand, an alias.
"""

from typing import TYPE_CHECKING, Any, Literal

import click

from router.errors import ConfigError, ModelError, Problem

if TYPE_CHECKING:  # grpc takes longer to import than most commands to run
    from router.models.cards import Card

PLACE = click.argument("place", type=click.Path(exists=True))
MODEL = click.option("--model", "name", help="Needed when PLACE has several.")
OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text"
)
FILE = click.option(
    "-f", "--file", type=click.Path(dir_okay=False), help="Configuration."
)
ADMIN = click.option(
    "--admin", metavar="ADDRESS",
    help="host:port or unix:path; the file's server.admin if left out.",
)  # fmt: skip
TIMEOUT = click.option(
    "--timeout", type=float, default=300.0, show_default=True, help="Seconds."
)


@click.group("model")
def model() -> None:
    """Look at the versions of models, bring new ones, load and unload them."""


@model.command("list")
@PLACE
@MODEL
@OUTPUT
def list_command(place: str, name: str | None, output: str) -> int:
    """List the versions at PLACE."""
    from router.cli.show_model import show, show_cards
    from router.models.cards import card_of, shelves_of

    cards = [
        card_of(shelf, version)
        for shelf in shelves_of(place, name)
        for version in shelf.versions
    ]
    show(output, cards, show_cards)
    return 0


@model.command()
@PLACE
@click.argument("version")
@MODEL
@OUTPUT
def describe(place: str, version: str, name: str | None, output: str) -> int:
    """Say what a version is, and what made it."""
    from router.cli.show_model import show, show_card

    show(output, _cards(place, name, version)[0], show_card)
    return 0


@model.command()
@PLACE
@click.argument("left")
@click.argument("right")
@MODEL
@OUTPUT
def diff(place: str, left: str, right: str, name: str | None, output: str) -> int:
    """Say what two versions do not have in common. Exits with 2 when they differ."""
    from router.cli.show_model import show, show_differences
    from router.models.cards import diff_cards

    found = diff_cards(*_cards(place, name, left, right))
    show(output, found, show_differences)
    return 2 if found else 0


@model.command()
@PLACE
@click.argument("versions", nargs=-1)
@MODEL
@click.option("--strict", is_flag=True, help="A model without a checksum is wrong too.")
@OUTPUT
def verify(place: str, versions: tuple[str, ...], output: str, **asked: Any) -> int:
    """Compare files with the checksums of their manifests. Exits with 1 for a wrong
    one."""
    from router.cli.show_model import show, show_verdicts
    from router.models.cards import (
        NOT_LISTED,
        shelf_of,
        shelves_of,
        verify_version,
        versions_wanted,
    )

    name = asked["name"]
    shelves = (shelf_of(place, name),) if versions else shelves_of(place, name)
    found = [
        verdict
        for shelf in shelves
        for version in versions_wanted(shelf, versions)
        for verdict in verify_version(shelf, version)
    ]
    show(output, found, show_verdicts)
    strict = asked["strict"]
    wrong = [one for one in found
             if one.is_wrong or (strict and one.verdict == NOT_LISTED)]  # fmt: skip
    return 1 if wrong else 0


@model.command()
@click.argument("place", type=click.Path())
@click.argument("url")
@MODEL
@click.option(
    "--version", type=int, help="Its number here; the URL's last if left out."
)
@click.option(
    "--unverified", is_flag=True, help="Take a model that no checksum vouches for."
)
@OUTPUT
def pull(place: str, url: str, output: str, **asked: Any) -> int:
    """Bring the version folder at URL (any of fsspec's) into the repository at PLACE.

    Files are checked against the manifest beside them. The version appears whole or not
    at all, and one that is there is never overwritten.
    """
    from router.cli.show_model import show, show_pulled
    from router.models.cards import repository_of
    from router.models.pull import pull as bring
    from router.models.pull import version_in

    version = asked["version"] or version_in(url)
    if version is None:
        raise click.UsageError("the URL ends with no version: give one with --version")
    repository = repository_of(place, asked["name"])
    pulled = bring(url, repository, version, is_unverified_allowed=asked["unverified"])
    show(output, pulled, show_pulled)
    return 0


@model.command()
@click.argument("name")
@click.argument("version", required=False)
@FILE
@ADMIN
@TIMEOUT
def load(name: str, version: str | None, **asked: Any) -> int:
    """Load VERSION of the model NAME in a running server: one newly placed in its
    repository, or unloaded before. Without VERSION, all that are not loaded."""
    _tell("Load", name, version, asked)
    click.echo(f"{name}{f' version {version}' if version else ''}: loaded")
    return 0


@model.command()
@click.argument("name")
@click.argument("version")
@FILE
@ADMIN
@TIMEOUT
def unload(name: str, version: str, **asked: Any) -> int:
    """Unload VERSION of the model NAME in a running server, if it serves nobody."""
    _tell("Unload", name, version, asked)
    click.echo(f"{name} version {version}: unloaded")
    return 0


def _cards(place: str, name: str | None, *references: str) -> "list[Card]":
    from router.models.cards import card_of, shelf_of, versions_wanted

    shelf = shelf_of(place, name)
    return [card_of(shelf, one) for one in versions_wanted(shelf, references)]


def _tell(
    verb: Literal["Load", "Unload"],
    name: str,
    version: str | None,
    asked: dict[str, Any],
) -> None:
    from router.client.repository import tell_repository

    admin, number = _resolve(name, version, asked["file"], asked["admin"])
    tell_repository(admin, verb, name, number, asked["timeout"])


def _resolve(
    name: str, version: str | None, file: str | None, admin: str | None
) -> tuple[str, int | None]:
    """Whom to tell, and the number that a version means."""
    from router.config.load import load_config

    aliases: dict[str, int] = {}
    if file is not None:
        config = load_config(file)
        admin = admin or config.server.admin
        aliases = {a: v for m in config.models if m.name == name
                   for a, v in m.aliases.items()}  # fmt: skip
        if admin is None:
            lacks = "the configuration has no admin listener; give --admin"
            raise ConfigError((Problem(file, 0, "server.admin", lacks),))
    if admin is None:
        raise click.UsageError("say whom to tell: --admin ADDRESS or -f FILE")
    if version is None:
        return admin, None
    if version.isdecimal():
        return admin, int(version)
    if version in aliases:
        return admin, aliases[version]
    raise ModelError(name, 0, f"'{version}' is no number and no alias in the file")
