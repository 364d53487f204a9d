"""The server: where it listens and what it puts up with.

Addresses are `host:port`, `[v6]:port` or `unix:path`. Limits bound what a client can
make the process hold; each is a number in the unit its name ends with.
"""

import ipaddress
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from router.config.steps import Duration
from router.config.values import FROZEN, Count, Flag, Seconds, Text, Whole, as_tuple

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a socket path, or a host and port."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """The address that a text names; ValueError says what is wrong with it."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError("a socket needs a path: unix:run/router.sock")
        if len(path.encode()) > 107:
            raise ValueError("a socket path has at most 107 bytes")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError("write host:port, [v6]:port or unix:path")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host or not host or any(c.isspace() or c == "/" for c in host):
        raise ValueError("write host:port, [v6]:port or unix:path")
    return Address(host=host, port=int(port))


def _address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError as error:
        raise PydanticCustomError("address", str(error)) from None
    return text


AddressText = Annotated[Text, AfterValidator(_address)]
AddressTexts = Annotated[
    tuple[AddressText, ...],
    BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=16),
]


class Limits(BaseModel):
    """What a client can make the server hold."""

    model_config = FROZEN
    streams_max: Annotated[Count, Field(le=1_048_576)] = 100
    """Concurrent streams of a connection."""
    connections_max: Annotated[Count, Field(le=1_000_000)] = 10_000
    connections_per_peer_max: Annotated[Count, Field(le=1_000_000)] = 256
    message_in_bytes_max: Annotated[Count, Field(le=GIB)] = 16 * MIB
    message_out_bytes_max: Annotated[Count, Field(le=GIB)] = 64 * MIB
    bodies_bytes_max: Annotated[Whole, Field(ge=MIB, le=1024 * GIB)] = 512 * MIB
    """Request bodies in all; above it no window is given, then calls are refused."""
    window_stream_bytes: Annotated[Count, Field(ge=65_535, le=GIB)] = 256 * 1024
    window_connection_bytes: Annotated[Count, Field(ge=65_535, le=GIB)] = 4 * MIB
    metadata_bytes_max: Annotated[Count, Field(ge=256, le=MIB)] = 8 * 1024
    metadata_keys_max: Annotated[Count, Field(le=1024)] = 64
    deadline_default_s: Annotated[Seconds, Field(le=86_400)] = 30
    """Deadline of a unary call that brings none."""
    deadline_max_s: Annotated[Seconds, Field(le=86_400)] = 300
    handshake_timeout_s: Annotated[Seconds, Field(le=86_400)] = 10
    """For TLS to be agreed on."""
    progress_timeout_s: Annotated[Seconds, Field(le=86_400)] = 10
    """A message partly received and without progress."""
    idle_timeout_s: Annotated[Seconds, Field(le=864_000)] = 900
    age_max_s: Annotated[Seconds, Field(le=8_640_000)] = 3600
    """Age at which a connection is asked to go, give or take a tenth."""
    age_grace_s: Annotated[Seconds, Field(le=86_400)] = 30


class Tls(BaseModel):
    """Files in PEM that a listener's TLS is made of; read again when they change."""

    model_config = FROZEN
    cert: Text
    """The certificate, then what leads to a root."""
    key: Text
    client_ca: Text | None = None
    """Authorities of client certificates; none are asked for if unset."""
    require_client_cert: Flag | None = None
    """Turn away clients without a certificate; with `client_ca`, unless false."""

    @property
    def requires_client(self) -> bool:
        """Only who has a certificate of an authority gets in."""
        if self.require_client_cert is None:
            return self.client_ca is not None
        return self.require_client_cert


class Tape(BaseModel):
    """Where records of what happened are kept, and how much of them."""

    model_config = FROZEN
    path: Text
    """A folder; segments in it are deleted, the oldest first."""
    max_mb: Annotated[Count, Field(le=1024 * 1024)] = 256
    max_age: Duration = 7 * 86_400.0


class Attestation(BaseModel):
    """Whose word on another environment is trusted, and for how long."""

    model_config = FROZEN
    key: Text
    """A file: a shared secret in hexadecimal, or an Ed25519 public key in PEM."""
    max_age: Duration = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """An address that other machines can reach, where it stands, what is missing."""

    path: tuple[str | int, ...]
    address: str
    lacks: str
    remedy: str


class Server(BaseModel):
    """Listeners, threads and limits."""

    model_config = FROZEN
    listen: AddressTexts = ("127.0.0.1:8001",)
    """Where clients connect; one address or a list."""
    admin: AddressText | None = "unix:run/admin.sock"
    """Where operators connect; null turns it off."""
    tls: Tls | None = None
    """Of every address in `listen`; plain if unset."""
    admin_tls: Tls | None = None
    """Of `admin`."""
    ops: AddressText | None = "127.0.0.1:8080"
    """Metrics and health over HTTP; null turns it off."""
    loops: Annotated[Count, Field(le=64)] | None = None
    """Network threads; half the cores if unset, at least one."""
    loop_run_us: Annotated[Whole, Field(le=1_000_000)] = 200
    """Batches predicted to be shorter than this run on the loop."""
    spin_us: Annotated[Whole, Field(le=10_000)] = 0
    """How long a loop polls before it sleeps."""
    executors: Annotated[Count, Field(le=1024)] | None = None
    """Threads that run what loops do not; the cores if unset."""
    state: Text = "run/state.db"
    """The control log: bucket maps and history."""
    tape: Tape | None = None
    """Exposures, first events and other records on disk; nowhere if unset."""
    attestation: Attestation | None = None
    """What a preflight's attestation is checked with; none is trusted if unset."""
    insecure: Flag = False
    """Allow addresses that other machines can reach and that nothing protects."""
    drain_s: Annotated[Seconds, Field(le=3600)] = 30
    """How long calls may take to finish after SIGTERM."""
    limits: Limits = Limits()

    def exposures(self) -> tuple[Exposure, ...]:
        """What other machines can reach without being asked who they are, or unseen."""
        remedy = "listen on 127.0.0.1 or a socket, {} set server.insecure: true"
        found: list[tuple[tuple[str | int, ...], str, str, str]] = []
        if self.tls is None:
            more = "give server.tls a certificate, or"
            found += [
                (("listen", i), text, "it has no TLS", more)
                for i, text in enumerate(self.listen)
            ]
        if self.admin and not (self.admin_tls and self.admin_tls.requires_client):
            lacks = "it asks for no client certificates"
            found.append((("admin",), self.admin, lacks, "set server.admin_tls, or"))
        if self.ops:
            found.append((("ops",), self.ops, "it has no TLS", "or"))
        return tuple(
            Exposure(("server", *path), text, lacks, remedy.format(more))
            for path, text, lacks, more in found
            if not parse_address(text).is_local
        )
