"""The blocking client. One channel, made once; any number of threads may share it."""

from collections.abc import Mapping
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from router.client.channel import TlsFiles, open_channel
from router.client.explained import Explanation, read_explanation
from router.client.messages import message
from router.client.prediction import (
    Asked,
    CallError,
    Prediction,
    call_error,
    headers,
    infer_request,
    read_prediction,
    text_metadata,
)
from router.client.stub import unary

EXPLAIN = "router.v1.ExplainService/Explain"
DEADLINE_S = 30.0


class Client:
    """Asks a router for predictions, and an operators' listener for reasons.

    target: where it listens, `host:port` or `unix:path`.
    tls: PEM files, for TLS; plain without.
    admin: the operators' listener, for `explain`; not needed for predictions.
    """

    def __init__(
        self, target: str, *, tls: TlsFiles | None = None, admin: str | None = None
    ) -> None:
        self.target, self._admin_target = target, admin
        self._channel = open_channel(target, tls)
        self._infer = unary(self._channel, "ModelInfer")
        self._admin = None if admin is None else open_channel(admin)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        unit: str | int | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline: float = DEADLINE_S,
        version: int | None = None,
    ) -> Prediction:
        """One prediction, and the decision that led to it.

        inputs: an array for each input, as the datatype the model takes.
        unit: who the prediction is about; the same unit gets the same version.
        metadata: attributes that audiences are made of, such as a location.
        deadline: seconds from now.
        version: this version and no other; no rule is asked.

        CallError when the server says no; ValueError when an input cannot be sent.
        """
        asked = Asked(unit, metadata, version)
        request = infer_request(model, inputs, asked)
        try:
            reply, ended = self._infer.with_call(  # type: ignore[attr-defined]
                request, timeout=deadline, metadata=headers(asked)
            )
        except grpc.RpcError as error:
            raise call_error(self.target, error) from None
        return read_prediction(reply, text_metadata(ended.trailing_metadata()))

    def explain(
        self,
        model: str,
        *,
        unit: str | int | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline: float = DEADLINE_S,
        version: int | None = None,
    ) -> Explanation:
        """Which version a request would get from the running server, and why.

        Nothing is served and nothing is counted. CallError when the server says no.
        """
        if self._admin is None:
            raise CallError(
                self.target, "FAILED_PRECONDITION",
                "explain needs the operators' listener: Client(target, admin=...)",
            )  # fmt: skip
        try:
            reply = unary(self._admin, EXPLAIN)(
                explain_request(model, Asked(unit, metadata, version)), timeout=deadline
            )
        except grpc.RpcError as error:
            raise call_error(str(self._admin_target), error) from None
        return read_explanation(reply)

    def close(self) -> None:
        """Give the connections back. Calls in flight end with CANCELLED."""
        self._channel.close()
        if self._admin is not None:
            self._admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def explain_request(model: str, asked: Asked) -> Any:
    """The message that asks why."""
    request = message("router.v1.ExplainRequest")(
        model=model, attributes=dict(asked.metadata or {})
    )
    if asked.unit is not None:
        request.unit = str(asked.unit)
    if asked.version is not None:
        request.pin = asked.version
    return request
