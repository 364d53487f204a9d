"""Where the running router is, for every command that talks to it.

`--admin` says it; else the configuration file does (`-c`, or router.yaml if it is
here); else it is where it is by default. The file is read leniently: an operator must
be able to roll back while the file is being edited.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.errors import RouterError

if TYPE_CHECKING:  # grpc takes longer to import than most commands to run
    from router.client.operator import Operator

DEFAULT_FILE = "router.yaml"
DEFAULT_ADDRESS = "unix:run/admin.sock"

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def connected(command: Decorated) -> Decorated:
    """Options that say where the router is."""
    for option in reversed((
        click.option("--admin", metavar="ADDRESS",
                     help="Admin listener: host:port or unix:path."),
        click.option("-c", "--config", metavar="FILE", type=click.Path(dir_okay=False),
                     help="Configuration that names it; ./router.yaml if it is there."),
        click.option("--tls-ca", metavar="PATH", help="Use TLS; PEM of whom to trust."),
        click.option("--tls-cert", metavar="PATH", help="PEM of the certificate."),
        click.option("--tls-key", metavar="PATH", help="PEM of its key."),
    )):  # fmt: skip
        command = option(command)
    return command


def changing(command: Decorated) -> Decorated:
    """Options of a change: why, by whom, and an id that makes it happen once."""
    for option in reversed((
        click.option("--reason", default="", help="Why; kept in the history."),
        click.option("--actor", help="Who asks; you at this machine if left out."),
        click.option("--request-id", metavar="ID",
                     help="The same id is carried out once."),
    )):  # fmt: skip
        command = option(command)
    return command


OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
    show_default=True,
)  # fmt: skip


@contextmanager
def operator_of(given: dict[str, Any]) -> Iterator["Operator"]:
    """A connection as the options of `connected` say; takes them out of `given`."""
    from router.client.channel import TlsFiles
    from router.client.operator import Operator

    admin, file = given.pop("admin"), given.pop("config")
    ca, cert, key = (given.pop(f"tls_{name}") for name in ("ca", "cert", "key"))
    if ca is None and (cert or key):
        raise click.UsageError("--tls-cert and --tls-key need --tls-ca")
    tls = None if ca is None else TlsFiles(ca, cert, key)
    with Operator(admin or address_of(file), tls=tls) as operator:
        yield operator


def asked_by(given: dict[str, Any]) -> dict[str, str]:
    """What the options of `changing` say; takes them out of `given`."""
    from router.client.operator import asked

    return asked(given.pop("reason"), given.pop("actor"), given.pop("request_id"))


def address_of(file: str | None) -> str:
    """The admin address a file names, or the default; RouterError when it has none."""
    if file is None and not Path(DEFAULT_FILE).exists():
        return DEFAULT_ADDRESS
    from router.config.load import parse_document

    path = file or DEFAULT_FILE
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RouterError(f"{path}: {error.strerror}") from None
    found = parse_document(data, path).value
    server = found.get("server") if isinstance(found, dict) else None
    address = (
        server.get("admin", DEFAULT_ADDRESS)
        if isinstance(server, dict)
        else DEFAULT_ADDRESS
    )
    if address is None:
        raise RouterError(
            f"{path}: server.admin is null, so this router has no admin listener: give"
            f" it an address (the default is {DEFAULT_ADDRESS}) and start it again"
        )
    return str(address)
