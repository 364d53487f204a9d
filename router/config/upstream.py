"""A version that lives in another server: where that is, and how it is spoken to.

Any server of the Open Inference Protocol will do. Its model is asked for inputs and
outputs when the version is loaded, so that they need not be written down here.
"""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.server import AddressText, parse_address
from router.config.values import FROZEN, Count, Name, Text, as_tuple


def _target(text: str) -> str:
    address = parse_address(text)
    if not address.path and (not address.port or "," in text):
        raise PydanticCustomError("address", "a target is host:port or unix:path")
    if "," in text:
        raise PydanticCustomError("address", "a target's path has no comma")
    return text


TargetText = Annotated[AddressText, AfterValidator(_target)]
TargetTexts = Annotated[
    tuple[TargetText, ...],
    BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=32),
]


class UpstreamTls(BaseModel):
    """Files in PEM for connections to the servers."""

    model_config = FROZEN
    ca: Text | None = None
    """Authorities of the servers' certificates; the system's if unset."""
    cert: Text | None = None
    """The router's own certificate, for servers that ask for one."""
    key: Text | None = None
    name: Text | None = None
    """Whose certificate it must be; the target's host if unset."""


class Upstream(BaseModel):
    """The servers that answer for a version, each of them for any request."""

    model_config = FROZEN
    targets: TargetTexts
    """`host:port` or `unix:path`; one or a list. A name may have several addresses."""
    model: Name | None = None
    """What the model is called there; the same name if unset."""
    version: Text | None = None
    """The version to ask for there; theirs to choose if unset."""
    tls: UpstreamTls | None = None
    connections: Annotated[Count, Field(le=64)] = 4
    """At most so many for each loop and address; one is used until it is full."""
    in_flight: Annotated[Count, Field(le=1_048_576)] = 1024
    """Requests that may be out at once; more are refused."""
    connect_timeout_ms: Annotated[Count, Field(le=600_000)] = 2000
    """From opening a connection to the server's first word."""
    keepalive_ms: Annotated[Count, Field(le=3_600_000)] = 5000
    """Silence while requests are out, until the server is asked for a sign of life."""
    keepalive_timeout_ms: Annotated[Count, Field(le=600_000)] = 2000
    """How long it may take to give one; then the connection is given up."""
    connection_age_s: Annotated[Count, Field(le=1_000_000)] = 1800
    """A connection is replaced when it is so old, give or take a tenth."""
    resolve_s: Annotated[Count, Field(le=86_400)] = 30
    """How often names are looked up again; also soon after a connection was lost."""

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls is None:
            return self
        if (self.tls.cert is None) != (self.tls.key is None):
            raise PydanticCustomError("tls", "a certificate and its key come together")
        has_socket = any(target.startswith("unix:") for target in self.targets)
        if has_socket and self.tls.name is None:
            raise PydanticCustomError(
                "tls", "TLS over a socket needs tls.name: whose certificate it must be"
            )
        return self
