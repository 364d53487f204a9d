"""The soak's clients: one program, one kind of client a process.

    clients.py KIND ADDRESS SECONDS SEED

Prints what became of its requests as JSON: answers by kind of request and code, and
what was wrong. `stock` is grpcio as anybody uses it, with good and bad requests; `raw`
knows HTTP/2 and abuses it; `garbage` does not even know that.
"""

import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "system"))
from rawwire import (
    CONTINUATION,
    DATA,
    HEADERS,
    INFER,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    RawClient,
    frame,
    grpc_fields,
    message,
)

from router import testing

# What each kind of request may get. A busy server may also refuse or be late.
BUSY = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
EXPECTED = {
    "good": {"OK", *BUSY},
    "big": {"OK", *BUSY},
    "text": {"OK", *BUSY},
    "faulty": {"OK", "INTERNAL", *BUSY},
    "cancelled": {"CANCELLED", "OK", *BUSY},
    "late": {"OK", *BUSY},
    "malformed": {"INVALID_ARGUMENT"},
    "misshapen": {"INVALID_ARGUMENT"},
    "unknown": {"NOT_FOUND"},
    "stream": {"OK", *BUSY},
    "ready": {"OK", *BUSY},
    "no_method": {"UNIMPLEMENTED"},
    "too_big": {"RESOURCE_EXHAUSTED"},
}
TOO_BIG = 17 << 20


class Tally:
    """Answers by kind and code, and the first few that should not have come."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.wrong_count = 0

    def add(self, kind: str, code: str, detail: str = "") -> None:
        self.codes[f"{kind} {code}"] += 1
        if kind in EXPECTED and code not in EXPECTED[kind]:
            self.complain(f"{kind}: {code} {detail}")

    def complain(self, what: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < 5:
            self.wrong.append(what[:300])


class Stock:
    """A stock grpcio client; its channel is replaced now and then."""

    def __init__(self, address: str, draw: random.Random, tally: Tally) -> None:
        self.address, self.draw, self.tally = address, draw, tally
        self.messages = testing.messages()
        self.numbers = np.random.default_rng(draw.randint(0, 2**31))
        self.connect()

    def connect(self) -> None:
        # Message sizes are the server's to limit.
        sizes = [("grpc.max_receive_message_length", -1)]
        self.caller = testing.Caller(self.address, sizes)
        self.channel = self.caller.channel

    def method(self, name: str, stream: bool = False) -> Any:
        path = f"/inference.GRPCInferenceService/{name}"
        make = self.channel.stream_stream if stream else self.channel.unary_unary
        return make(path, request_serializer=None, response_deserializer=None)

    def infer(self, kind: str, body: bytes, timeout_s: float = 20) -> bytes | None:
        """One call with these bytes; its answer, if it was OK."""
        user = ("x-user-id", f"u{self.draw.randint(0, 1000)}")
        try:
            answer: bytes = self.method("ModelInfer")(
                body, metadata=(user,), timeout=timeout_s
            )
        except grpc.RpcError as error:
            self.tally.add(kind, error.code().name, error.details() or "")
            return None
        self.tally.add(kind, "OK")
        return answer

    def array(self, *shape: int) -> Any:
        return self.numbers.standard_normal(shape).astype("<f4")

    def body(self, model: str, array: Any, version: str = "") -> bytes:
        made = self.caller.request(model, {"x": array}, version)
        data: bytes = made.SerializeToString()
        return data

    def good(self) -> None:
        x = self.array(self.draw.randint(1, 8), 2)
        answer = self.infer(
            "good", self.body("tag", x, self.draw.choice(["", "", "2"]))
        )
        if answer is None:
            return
        read = self.messages("ModelInferResponse").FromString(answer)
        outputs = {
            o.name: np.frombuffer(raw, "<f4")
            for o, raw in zip(read.outputs, read.raw_output_contents, strict=True)
        }
        # `tag` says who made the answer: `version` or, after a reload of its weights, a
        # hundred more.
        if set(outputs["tag"] % 100) != {float(read.model_version)}:
            self.tally.complain(f"good: {outputs['tag']} by {read.model_version}")
        if not np.allclose(outputs["sum"], x.sum(axis=1), atol=1e-4):
            self.tally.complain(f"good: wrong sum by {read.model_version}")

    def big(self) -> None:
        x = self.array(self.draw.randint(1, 1_000_000))
        answer = self.infer("big", self.body("big", x))
        if answer is not None and x.tobytes() not in answer:
            self.tally.complain(f"big: {x.size} elements came back otherwise")

    def text(self) -> None:
        made = self.messages("ModelInferRequest")(model_name="text")
        made.inputs.add(name="x", datatype="BYTES").shape.append(3)
        words = [
            self.draw.randbytes(self.draw.choice([0, 1, 50, 5000])) for _ in range(3)
        ]
        raw = b"".join(struct.pack("<I", len(word)) + word for word in words)
        made.raw_input_contents.append(raw)
        self.infer("text", made.SerializeToString())

    def faulty(self) -> None:
        x = self.array(1, 2)
        x[0, 1] = self.draw.choice(
            [0.0, testing.FAULT_NAN, testing.FAULT_FAIL, testing.FAULT_HANG]
        )
        self.infer("faulty", self.body("faulty", x), timeout_s=0.3)

    def cancelled(self) -> None:
        body = self.body(self.draw.choice(["tag", "faulty"]), self.array(1, 2))
        call = self.method("ModelInfer").future(body, timeout=10)
        # Gives the request a random head start.
        self.draw.choice([lambda: None, self.good])()
        call.cancel()
        code = call.code().name if call.done() else "CANCELLED"
        self.tally.add("cancelled", code)

    def late(self) -> None:
        x = self.array(1, 2)
        self.infer("late", self.body("tag", x), self.draw.choice([0.0005, 0.002, 0.01]))

    def malformed(self) -> None:
        body = bytearray(self.body("tag", self.array(2, 2)))
        cut = self.draw.randint(1, len(body) - 20)
        # A field number of 0 is never legal, wherever the reader has got to.
        self.infer("malformed", bytes(body[:cut]) + b"\x00" * 20)

    def misshapen(self) -> None:
        self.infer("misshapen", self.body("tag", self.array(1, 3)))

    def unknown(self) -> None:
        model, version = self.draw.choice([("nobody", ""), ("tag", "77")])
        self.infer("unknown", self.body(model, self.array(1, 2), version))

    def too_big(self) -> None:
        self.infer("too_big", bytes(TOO_BIG))

    def no_method(self) -> None:
        self._plain("no_method", "Nothing", b"")

    def ready(self) -> None:
        self._plain("ready", "ServerReady", b"")

    def _plain(self, kind: str, name: str, body: bytes) -> None:
        try:
            self.method(name)(body, timeout=20)
            self.tally.add(kind, "OK")
        except grpc.RpcError as error:
            self.tally.add(kind, error.code().name, error.details() or "")

    def stream(self) -> None:
        bodies = [
            self.body("tag", self.array(1, self.draw.choice([2, 2, 2, 3])))
            for _ in range(self.draw.randint(1, 20))
        ]
        try:
            answers = list(self.method("ModelStreamInfer", stream=True)(
                iter(bodies), timeout=20
            ))  # fmt: skip
        except grpc.RpcError as error:
            self.tally.add("stream", error.code().name, error.details() or "")
            return
        self.tally.add("stream", "OK")
        if len(answers) != len(bodies):
            self.tally.complain(f"stream: {len(answers)} answers to {len(bodies)}")

    def act(self) -> None:
        acts = {
            self.good: 40, self.big: 2, self.text: 4, self.faulty: 2, self.cancelled: 4,
            self.late: 4, self.malformed: 5, self.misshapen: 4, self.unknown: 3,
            self.stream: 2, self.ready: 2, self.no_method: 1, self.too_big: 0.05,
        }  # fmt: skip
        (chosen,) = self.draw.choices(list(acts), list(acts.values()))
        chosen()
        if self.draw.random() < 0.002:
            self.caller.channel.close()
            self.connect()


class Raw:
    """A client that knows HTTP/2 and means harm; a connection an act."""

    def __init__(self, address: str, draw: random.Random, tally: Tally) -> None:
        self.address, self.draw, self.tally = address, draw, tally

    def act(self) -> None:
        acts: list[Callable[[RawClient], None]] = [
            self.resets, self.pings, self.settings, self.headers, self.halves,
            self.lies, self.noise, self.leaves, self.windows,
        ]  # fmt: skip
        chosen = self.draw.choice(acts)
        with RawClient(self.address) as client:
            chosen(client)
            client.read(lambda: False, 0.02)
        self.tally.add("raw", chosen.__name__)

    def resets(self, client: RawClient) -> None:
        for _ in range(self.draw.randint(1, 400)):
            stream = client.open(grpc_fields())
            if not client.send(frame(RESET, 0, stream, struct.pack(">I", 8))):
                return

    def pings(self, client: RawClient) -> None:
        client.send(frame(PING, 0, 0, b"12345678") * self.draw.randint(1, 3000))

    def settings(self, client: RawClient) -> None:
        client.send(frame(SETTINGS, 0, 0) * self.draw.randint(1, 3000))

    def headers(self, client: RawClient) -> None:
        client.send(frame(HEADERS, 0, 1, b"\x10\x01a\x01b" * 50))
        for _ in range(self.draw.randint(1, 200)):
            if not client.send(frame(CONTINUATION, 0, 1, b"\x10\x01a\x01b" * 500)):
                return

    def halves(self, client: RawClient) -> None:
        for _ in range(self.draw.randint(1, 90)):
            stream = client.open(grpc_fields())
            client.send(frame(DATA, 0, stream, message(bytes(500))[:300]))

    def lies(self, client: RawClient) -> None:
        """Length prefixes and flags that are not so."""
        for size in (1 << 31, (1 << 32) - 1, 17 << 20, 5):
            stream = client.open(grpc_fields())
            flag = self.draw.choice([0, 1, 2, 255])
            client.send(frame(DATA, 1, stream, struct.pack(">BI", flag, size) + b"abc"))

    def noise(self, client: RawClient) -> None:
        for _ in range(50):
            kind, flags = self.draw.randint(0, 12), self.draw.randint(0, 255)
            stream = self.draw.choice([0, 1, 2, 3, 101])
            payload = self.draw.randbytes(self.draw.randint(0, 40))
            if not client.send(frame(kind, flags, stream, payload)):
                return

    def leaves(self, client: RawClient) -> None:
        """Asks, and hangs up without reading."""
        made = testing.messages()("ModelInferRequest")(model_name="tag")
        made.inputs.add(name="x", datatype="FP32").shape.extend((1, 2))
        made.raw_input_contents.append(bytes(8))
        for _ in range(self.draw.randint(1, 50)):
            stream = client.open(grpc_fields(INFER))
            client.send_data(stream, message(made.SerializeToString()))
        linger = struct.pack("ii", 1, 0)  # the kernel resets the connection
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def windows(self, client: RawClient) -> None:
        grant = struct.pack(">I", 0x7FFFFFFF)
        client.send(frame(WINDOW, 0, self.draw.choice([0, 1]), grant) * 10)


class Garbage:
    """A client of some other protocol."""

    def __init__(self, address: str, draw: random.Random, tally: Tally) -> None:
        self.address, self.draw, self.tally = address, draw, tally

    def act(self) -> None:
        host, port = self.address.rsplit(":", 1)
        start = self.draw.choice(
            [b"", b"GET / HTTP/1.1\r\n\r\n", PREFACE, PREFACE[:10]]
        )
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.settimeout(0.02)
            try:
                sock.sendall(start + self.draw.randbytes(self.draw.randint(0, 100_000)))
                sock.recv(1000)
            except OSError:
                pass  # hung up on, as it deserves
        self.tally.add("raw", "garbage")


KINDS = {"stock": Stock, "raw": Raw, "garbage": Garbage}


def main() -> None:
    kind, address, seconds, seed = sys.argv[1:]
    tally = Tally()
    client = KINDS[kind](address, random.Random(int(seed)), tally)
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        try:
            client.act()
        except OSError as error:
            if kind == "stock":
                raise
            tally.codes[f"raw {type(error).__name__}"] += 1
    done = {
        "codes": tally.codes,
        "wrong": tally.wrong,
        "wrong_count": tally.wrong_count,
    }
    print(json.dumps(done))


if __name__ == "__main__":
    main()
