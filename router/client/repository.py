"""Asks a running server to load or unload a version, over its admin listener."""

from typing import Literal

import grpc

from router.client.channel import open_channel
from router.client.messages import message
from router.client.stub import call
from router.errors import RouterError


class RefusedError(RouterError):
    """The server refused, or could not be asked; `code` is gRPC's name of it."""

    def __init__(self, target: str, code: str, details: str) -> None:
        self.code, self.details = code, details
        super().__init__(f"{target}: {code}: {details}")


def tell_repository(
    target: str,
    verb: Literal["Load", "Unload"],
    model: str,
    version: int | None,
    timeout_s: float,
) -> None:
    """Load or unload; without a version, load all that are not. RefusedError says why
    it could not be done."""
    request = message(f"inference.RepositoryModel{verb}Request")(model_name=model)
    if version is not None:
        request.parameters["version"].int64_param = version
    with open_channel(target) as channel:
        try:
            call(channel, f"RepositoryModel{verb}", request, timeout_s)
        except grpc.RpcError as error:
            details = str(error.details())
            raise RefusedError(target, error.code().name, details) from None
