"""Versions that live in other servers: what the engine is told of them.

Their inputs and outputs are the servers' to say: any of the targets is asked with
ModelMetadata, once, when the version is loaded. Some servers say nothing; who loads
the version decides what that means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.client.messages import message
from router.config.upstream import Upstream, UpstreamTls
from router.errors import ModelError

METADATA = "/inference.GRPCInferenceService/ModelMetadata"
TIMEOUT_S = 5.0
MESSAGE_MAX = 1 << 20
PEM_MAX = 1 << 20

# Name, datatype, shape.
Described = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a server says of its model; without inputs and outputs, nothing."""

    platform: str
    inputs: tuple[Described, ...]
    outputs: tuple[Described, ...]


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """A version of a model that another server answers for."""

    model: str
    version: int
    upstream: Upstream

    def options(self) -> dict[str, str]:
        """All but the signature. ModelError when a TLS file cannot be read."""
        upstream = self.upstream
        options = {
            "kind": "upstream",
            "targets": ",".join(upstream.targets),
            "upstream_model": upstream.model or self.model,
            "upstream_version": upstream.version or "",
            "connections": str(upstream.connections),
            "in_flight": str(upstream.in_flight),
            "connect_timeout_ms": str(upstream.connect_timeout_ms),
            "keepalive_ms": str(upstream.keepalive_ms),
            "keepalive_timeout_ms": str(upstream.keepalive_timeout_ms),
            "connection_age_ms": str(upstream.connection_age_s * 1000),
            "resolve_ms": str(upstream.resolve_s * 1000),
        }
        if upstream.tls is not None:
            options |= {"tls": "1", "tls_name": upstream.tls.name or ""}
            options |= {
                f"tls_{name}": text.decode("latin-1")
                for name, text in self.pem(upstream.tls).items()
            }
        return options

    def ask(self) -> Signature:
        """The first answer of a target. ModelError when none gives one."""
        # Imported here: a router without upstreams does not pay for a gRPC library.
        import grpc

        problems = []
        for target in self.upstream.targets:
            with self._channel(grpc, target) as channel:
                call = channel.unary_unary(METADATA)
                try:
                    return _signature(call(self._question(), timeout=TIMEOUT_S))
                except grpc.RpcError as error:
                    problems.append(f"{target}: {error.code().name}: {error.details()}")
        raise self._wrong("no target describes the model; " + "; ".join(problems))

    def _question(self) -> bytes:
        asked = message("inference.ModelMetadataRequest")(
            name=self.upstream.model or self.model, version=self.upstream.version or ""
        )
        data: bytes = asked.SerializeToString()
        return data

    def _channel(self, grpc: Any, target: str) -> Any:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MESSAGE_MAX)
        ]
        tls = self.upstream.tls
        if tls is None:
            return grpc.insecure_channel(target, options)
        pem = self.pem(tls)
        if tls.name:
            options.append(("grpc.ssl_target_name_override", tls.name))
        credentials = grpc.ssl_channel_credentials(
            pem.get("ca"), pem.get("key"), pem.get("cert")
        )
        return grpc.secure_channel(target, credentials, options)

    def pem(self, tls: UpstreamTls) -> dict[str, bytes]:
        """The files as they are now. ModelError when one cannot be read."""
        files = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
        texts = {}
        for name, path in files.items():
            if path is None:
                continue
            try:
                with Path(path).open("rb") as file:
                    texts[name] = file.read(PEM_MAX)
            except OSError as error:
                raise self._wrong(f"cannot read {path}: {error.strerror}") from None
        return texts

    def _wrong(self, problem: str) -> ModelError:
        return ModelError(self.model, self.version, problem)


def signature_options(signature: Signature) -> dict[str, str]:
    """The signature in the engine's words."""
    options = {"platform": signature.platform or "upstream"}
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for i, (name, datatype, shape) in enumerate(tensors):
            sizes = ",".join(map(str, shape))
            options[f"{kind}.{i}"] = f"{name}|{datatype}|{sizes}"
    return options


def _signature(data: bytes) -> Signature:
    answer = message("inference.ModelMetadataResponse").FromString(data)
    return Signature(
        answer.platform, _described(answer.inputs), _described(answer.outputs)
    )


def _described(tensors: Sequence[Any]) -> tuple[Described, ...]:
    return tuple((each.name, each.datatype, tuple(each.shape)) for each in tensors)
