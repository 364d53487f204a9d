"""The Python client: one prediction, with the decision that led to it, in two lines.

    from router.client import Client

    with Client("127.0.0.1:8001") as client:
        answer = client.predict("credit", {"x": x}, unit="user-7")

Names are found when they are asked for: the server imports this package for its
messages, and must not pay for grpcio.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.client.aio import AsyncClient
    from router.client.channel import TlsFiles
    from router.client.explained import Explanation
    from router.client.prediction import CallError, Prediction
    from router.client.sync import Client

__all__ = [
    "AsyncClient", "CallError", "Client", "Explanation", "Prediction", "TlsFiles",
]  # fmt: skip

_HOMES = {
    "AsyncClient": "aio",
    "CallError": "prediction",
    "Client": "sync",
    "Explanation": "explained",
    "Prediction": "prediction",
    "TlsFiles": "channel",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
