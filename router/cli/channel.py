"""The options of a command that connects, as the client wants them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # grpc takes longer to import than most commands to run
    from router.client.channel import TlsFiles


def tls_files(given: Mapping[str, Any]) -> "TlsFiles | None":
    """The TLS files of the options; None without them."""
    from router.client.channel import TlsFiles

    ca, cert, key = given["tls_ca"], given["tls_cert"], given["tls_key"]
    if ca is None and (cert or key):
        raise click.UsageError("--tls-cert and --tls-key need --tls-ca")
    return None if ca is None else TlsFiles(ca, cert, key)
