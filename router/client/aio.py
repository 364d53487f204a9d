"""The same client for asyncio. One channel, made once; tasks of one loop share it."""

from collections.abc import Mapping
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from router.client.channel import TlsFiles, credentials
from router.client.messages import message
from router.client.prediction import (
    Asked,
    Prediction,
    call_error,
    headers,
    infer_request,
    read_prediction,
    text_metadata,
)
from router.client.sync import DEADLINE_S

INFER = "/inference.GRPCInferenceService/ModelInfer"


class AsyncClient:
    """Asks a router for predictions. To be made and closed inside the event loop.

    target: where it listens, `host:port` or `unix:path`.
    tls: PEM files, for TLS; plain without.
    """

    def __init__(self, target: str, *, tls: TlsFiles | None = None) -> None:
        self.target = target
        self._channel = (
            grpc.aio.insecure_channel(target)
            if tls is None
            else grpc.aio.secure_channel(target, credentials(tls))
        )
        self._infer: Any = self._channel.unary_unary(
            INFER,
            request_serializer=message("inference.ModelInferRequest").SerializeToString,
            response_deserializer=message("inference.ModelInferResponse").FromString,
        )

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        unit: str | int | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline: float = DEADLINE_S,
        version: int | None = None,
    ) -> Prediction:
        """One prediction, and the decision that led to it; as `Client.predict`."""
        asked = Asked(unit, metadata, version)
        request = infer_request(model, inputs, asked)
        call = self._infer(request, timeout=deadline, metadata=headers(asked))
        try:
            reply = await call
            trailers = text_metadata(await call.trailing_metadata())
        except grpc.RpcError as error:
            raise call_error(self.target, error) from None
        return read_prediction(reply, trailers)

    async def close(self) -> None:
        """Give the connection back. Calls in flight end with CANCELLED."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
