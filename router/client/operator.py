"""The operators' door from the outside: any method of `router.v1` by its name.

Fields go in as keywords, a message comes back, `plain` makes JSON values of it. Errors
are `CallError`; one that says nobody listens also says what to do about it.
"""

import getpass
import socket
import uuid
from collections.abc import Iterator
from typing import Any, Self

import grpc
from google.protobuf.json_format import MessageToDict

from router.client.channel import TlsFiles, open_channel
from router.client.messages import message, method
from router.client.prediction import CallError, call_error
from router.client.stub import streaming, unary

PACKAGE = "router.v1."
TIMEOUT_S = 30.0
APPLY_TIMEOUT_S = 600.0  # models may have to be loaded
SLOW = frozenset({"ConfigService/Apply"})


class Operator:
    """Owner of one channel to a router's admin listener."""

    def __init__(self, target: str, *, tls: TlsFiles | None = None) -> None:
        self.target = target
        self._channel = open_channel(target, tls)

    def call(self, name: str, /, **fields: Any) -> Any:
        """The response of a method, "RolloutService/List"; CallError when refused."""
        timeout_s = APPLY_TIMEOUT_S if name in SLOW else TIMEOUT_S
        try:
            return unary(self._channel, PACKAGE + name)(
                request_of(name, **fields), timeout=timeout_s
            )
        except grpc.RpcError as error:
            raise self._explained(error) from None

    def watch(
        self, name: str, timeout_s: float | None = None, /, **fields: Any
    ) -> Iterator[Any]:
        """The responses of a streaming method as they come.

        Ends when time is up; CallError when the server ends it.
        """
        request = request_of(name, **fields)
        try:
            yield from streaming(self._channel, PACKAGE + name, [request], timeout_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            raise self._explained(error) from None

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _explained(self, error: grpc.RpcError) -> CallError:
        found = call_error(self.target, error)
        if found.code == "UNAVAILABLE" and _is_unreachable(found.detail):
            return CallError(
                self.target,
                found.code,
                "no router answers there: is it running, with server.admin at this"
                f" address, and may you open it? ({found.detail.splitlines()[0]})",
            )
        if found.code == "UNIMPLEMENTED":
            return CallError(
                self.target,
                found.code,
                "this is not a router's admin listener (server.admin), or an older"
                " release",
            )
        return found


def request_of(name: str, /, **fields: Any) -> Any:
    """The request of a method, with these fields."""
    service, _, short = name.partition("/")
    kind = method(PACKAGE + service, short).input_type.full_name
    return message(kind)(**fields)


def asked(
    reason: str = "", actor: str | None = None, request_id: str | None = None
) -> dict[str, str]:
    """What a change carries: who asks, why, and an id that makes it happen once."""
    return {
        "actor": actor or default_actor(),
        "reason": reason,
        "request_id": request_id or uuid.uuid4().hex,
    }


def default_actor() -> str:
    """The person at this machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def plain(answer: Any) -> Any:
    """A message as JSON values, its fields as they are named in the proto files."""
    return MessageToDict(
        answer,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _is_unreachable(detail: str) -> bool:
    return "failed to connect" in detail or "connect" in detail.lower()
