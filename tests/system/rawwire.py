"""An HTTP/2 client with no manners: frames by hand, so that a test can send anything.

Stock clients cannot be made to misbehave. This one writes what it is told and reads
what comes, with a deadline on every read. Only response headers are left to a library
(hpack), because servers may compress them as they like.
"""

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INFER = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame's bytes, with whatever numbers were asked for."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def fields(pairs: list[tuple[str, str]]) -> bytes:
    """A header block of literals that are never indexed and never compressed."""

    def text(value: str) -> bytes:
        raw = value.encode("latin-1")
        if len(raw) < 127:
            return bytes([len(raw)]) + raw
        rest, size = len(raw) - 127, bytearray([127])
        while rest >= 128:
            size.append(rest % 128 + 128)
            rest //= 128
        size.append(rest)
        return bytes(size) + raw

    return b"".join(b"\x10" + text(name) + text(value) for name, value in pairs)


def grpc_fields(path: str = INFER, **extra: str) -> list[tuple[str, str]]:
    """Headers of a gRPC call; extra ones with `_` for `-`, replacing the usual."""
    usual = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "router",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    usual |= {name.replace("_", "-"): value for name, value in extra.items()}
    return list(usual.items())


def message(body: bytes, flag: int = 0) -> bytes:
    """A gRPC message frame."""
    return struct.pack(">BI", flag, len(body)) + body


@dataclass
class Reply:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None
    ended: bool = False

    @property
    def code(self) -> int | None:
        found = self.headers.get("grpc-status")
        return None if found is None else int(found)


class RawClient:
    """One connection. Reads are driven by the test; nothing happens in between."""

    def __init__(self, address: str, *, greet: bool = True) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        self.closed = False
        self.acked_pings = 0
        self._decoder = hpack.Decoder()
        self._input = b""
        self._next = 1
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Write; false when the server has hung up."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True
        return not self.closed

    def open(self, pairs: list[tuple[str, str]], *, end: bool = False) -> int:
        """Open a stream with these headers; its number."""
        stream, self._next = self._next, self._next + 2
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, fields(pairs)))
        return stream

    def call(
        self, body: bytes, path: str = INFER, *, prefixed: bytes | None = None,
        timeout_s: float = 10, **extra: str,
    ) -> Reply:  # fmt: skip
        """One unary call; `prefixed` replaces the gRPC message frame."""
        stream = self.open(grpc_fields(path, **extra))
        payload = message(body) if prefixed is None else prefixed
        self.send_data(stream, payload)
        return self.wait(stream, timeout_s)

    def send_data(self, stream: int, payload: bytes) -> None:
        """The whole request body, in frames of a size every server accepts."""
        for at in range(0, max(len(payload), 1), 16_000):
            last = END_STREAM if at + 16_000 >= len(payload) else 0
            self.send(frame(DATA, last, stream, payload[at : at + 16_000]))

    def wait(self, stream: int, timeout_s: float = 10) -> Reply:
        """Read until the stream has ended or the connection is gone."""
        reply = self.replies.setdefault(stream, Reply())
        self.read(lambda: reply.ended or reply.reset is not None, timeout_s)
        return reply

    def wait_closed(self, timeout_s: float = 10) -> bool:
        """Read until the server hangs up."""
        self.read(lambda: False, timeout_s)
        return self.closed

    def ping(self, timeout_s: float = 10) -> bool:
        """Whether the connection still answers."""
        wanted = self.acked_pings + 1
        self.send(frame(PING, 0, 0, b"stillup?"))
        self.read(lambda: self.acked_pings >= wanted, timeout_s)
        return self.acked_pings >= wanted

    def read(self, is_done: Callable[[], bool], timeout_s: float) -> None:
        """Take frames until `is_done()`, the timeout, or the end of the connection."""
        deadline = time.monotonic() + timeout_s
        while not self.closed and not is_done():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.socket.settimeout(left)
            try:
                got = self.socket.recv(65536)
            except TimeoutError:
                return
            except OSError:
                got = b""
            if not got:
                self.closed = True
            self._input += got
            self._take_frames()

    def _take_frames(self) -> None:
        while len(self._input) >= 9:
            size = int.from_bytes(self._input[:3])
            if len(self._input) < 9 + size:
                return
            kind, flags = self._input[3], self._input[4]
            stream = int.from_bytes(self._input[5:9]) & 0x7FFFFFFF
            payload, self._input = self._input[9 : 9 + size], self._input[9 + size :]
            self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        reply = self.replies.setdefault(stream, Reply())
        if kind == HEADERS:
            # Responses here are small: one frame, no padding, no priority.
            reply.headers |= {
                (k if isinstance(k, str) else k.decode()): (
                    v if isinstance(v, str) else v.decode()
                )
                for k, v in self._decoder.decode(payload)
            }
            reply.ended |= bool(flags & END_STREAM)
        elif kind == DATA:
            reply.data += payload
            reply.ended |= bool(flags & END_STREAM)
            if payload:
                grant = struct.pack(">I", len(payload))
                self.send(frame(WINDOW, 0, 0, grant) + frame(WINDOW, 0, stream, grant))
        elif kind == RESET:
            reply.reset = int.from_bytes(payload)
        elif kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING:
            if flags & ACK:
                self.acked_pings += 1
            else:
                self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8])
