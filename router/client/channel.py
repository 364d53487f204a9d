"""A channel to a server, plain or over TLS."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from router.errors import RouterError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: authorities to trust, and a certificate and key to show, if any."""

    ca: str
    cert: str | None = None
    key: str | None = None


def open_channel(target: str, tls: TlsFiles | None = None) -> grpc.Channel:
    """A channel that the caller closes; plain without files."""
    if tls is None:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, credentials(tls))


def credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    """What a channel over TLS is opened with; RouterError names a file it lacks."""
    if (tls.cert is None) != (tls.key is None):
        raise RouterError("a certificate and its key come together")
    ca, cert, key = map(_read, (tls.ca, tls.cert, tls.key))
    return grpc.ssl_channel_credentials(ca, key, cert)


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RouterError(f"{path}: {error.strerror}") from None
