"""Seeded schedules: clients that behave and clients that do not, and tables that move.

A schedule is drawn from its seed alone and carried out from one thread, while loops and
executors run as they like; the seed fixes what is asked, not how threads interleave.
Each step is one act of a client or of the operator. What a client may expect is noted
when it asks, and judged when all is over.
"""

import contextlib
import random
import struct
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from plane import INFER, STREAM_INFER, Plane, Response, StreamResponse, request, split
from rawwire import DATA, END_STREAM, RESET, RawClient, frame, grpc_fields, message

CANCEL = struct.pack(">I", 8)
CODES = {
    0: "OK", 1: "CANCELLED", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND", 8: "RESOURCE_EXHAUSTED", 12: "UNIMPLEMENTED", 13: "INTERNAL",
    14: "UNAVAILABLE",
}  # fmt: skip
# What a good request may get: its deadline may pass, queues may be full, and a version
# that was asked for by name may be one that fails.
MAY_GET = {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"}
STREAMS_MAX = 40  # open ones a client keeps; the server allows 100
# A stable version never fails; a candidate may do anything.
STABLE = ["echo", "echo", "loop=0", "delay_us=1500", "delay_us=300"]
CANDIDATE = [
    *STABLE, "fail=every:3", "fail=always", "nan", "hang", "hang;loop=0",
    "delay_us=4000;fail=every:2", "loop=0;nan",
]  # fmt: skip


@dataclass
class Asked:
    """One unary request, and what may become of it."""

    stream: int
    may_get: set[str]
    rows: int = 1
    is_whole: bool = False  # the server has all of it
    is_counted: bool = True  # the engine counts a call for it
    is_cancelled: bool = False


@dataclass
class Client:
    """A connection and what was asked on it."""

    wire: RawClient
    asked: list[Asked] = field(default_factory=list)
    streams: dict[int, int] = field(default_factory=dict)  # stream infer: messages sent

    def unanswered(self) -> list[Asked]:
        return [a for a in self.asked if not self._has_ended(a.stream)]

    def _has_ended(self, stream: int) -> bool:
        reply = self.wire.replies.get(stream)
        return reply is not None and (reply.ended or reply.reset is not None)


class Schedule:
    """One seed's acts on one plane."""

    def __init__(self, seed: int, steps: int, *, is_proved: bool = False) -> None:
        self.draw = random.Random(seed)
        self.steps = steps
        # Versions 1 and 2 ran so often that loops run them, and are never replaced.
        self.is_proved = is_proved
        draw = self.draw
        self.plane = Plane(
            loops=draw.choice([1, 2, 3]),
            executors=draw.choice([1, 2, 3]),
            loop_run_us=draw.choice([0, 200, 5000]),
            batches_queued_max=draw.choice([1, 4, 4096]),
            deadline_default_ms=draw.choice([100, 400]),
            body_bytes_max=1 << 20,
        )
        self.versions: set[int] = set()
        self.clients: list[Client] = []
        self.left: list[Client] = []  # hung up before they were answered
        self.local: list[Future[Any]] = []
        self.proof: dict[str, int] = {}  # what was counted before the first step
        self.pool = ThreadPoolExecutor(2)

    # -- the operator's acts -----------------------------------------------------------

    def load(self, version: int) -> None:
        draw = self.draw
        scripts = STABLE if version == 1 else CANDIDATE
        limits: dict[str, int] = {"concurrency": draw.choice([1, 2, 4])}
        if draw.random() < 0.2:
            limits["max_queue_delay_us"] = 2000
        self.plane.load("m", version, draw.choice(scripts), **limits)

    def prove(self) -> None:
        """Start with two versions that answer at once, run until loops may run them."""
        self.plane.load("m", 1, "echo")
        self.plane.load("m", 2, self.draw.choice(["echo", "fail=every:3", "nan"]))
        self.versions |= {1, 2}
        self.plane.publish(split("m", [1, 2], 5000, "proof"))
        self.plane.start()
        for version in (1, 2):
            self.plane.prove("m", version)
        self.proof = self.plane.codes()

    def publish(self) -> None:
        """Replace some versions, then publish a table over some of them."""
        draw = self.draw
        replaceable = range(3 if self.is_proved else 1, 5)
        for version in draw.sample(replaceable, draw.randint(0, 2)):
            self.load(version)
            self.versions.add(version)
        chosen = {1, *draw.sample(sorted(self.versions), min(2, len(self.versions)))}
        share = draw.choice([0, 2000, 5000, 10_000])
        self.plane.publish(split("m", chosen, share, f"rule-{len(self.plane.served)}"))
        for gone in self.versions - chosen:
            if gone in replaceable and draw.random() < 0.5:
                self.versions.remove(gone)
                self.plane.engine.unload("m", gone)

    # -- the clients' acts -------------------------------------------------------------

    def connect(self) -> None:
        if len(self.clients) < 6:
            self.clients.append(Client(RawClient(self.plane.address)))

    def headers(self, path: str = INFER) -> list[tuple[str, str]]:
        more: dict[str, str] = {}
        if self.draw.random() < 0.3:
            more["grpc_timeout"] = f"{self.draw.choice([1, 3, 10, 50])}m"
        if self.draw.random() < 0.7:
            more["x_user_id"] = f"u{self.draw.randint(0, 500)}"
        return grpc_fields(path, **more)

    def ask(self, client: Client) -> None:
        """A request that should be answered, maybe by a version it names."""
        rows = self.draw.randint(1, 4)
        pin = self.draw.choice(["", "", "", "1", "2", "9"])
        # A version that is not in the table of the moment is not found.
        may_get = MAY_GET | ({"NOT_FOUND"} if pin not in ("", "1") else set())
        stream = client.wire.open(self.headers())
        client.wire.send_data(stream, message(request(rows=rows, version=pin)))
        client.asked.append(Asked(stream, may_get, rows, is_whole=True))

    def ask_badly(self, client: Client) -> None:
        """A request that is wrong in one of several ways."""
        bodies = [
            (request(width=5), "INVALID_ARGUMENT"),
            (request(model="nobody"), "NOT_FOUND"),
            (request(version="two"), "INVALID_ARGUMENT"),
            (b"\xff" * 40, "INVALID_ARGUMENT"),
            (request()[:-9], "INVALID_ARGUMENT"),
        ]
        body, code = self.draw.choice(bodies)
        stream = client.wire.open(self.headers())
        client.wire.send_data(stream, message(body))
        # A deadline that passes before it is read is as good an answer.
        may_get = {code, "DEADLINE_EXCEEDED"}
        client.asked.append(Asked(stream, may_get, is_whole=True))

    def ask_half(self, client: Client) -> None:
        """Headers and half a message; `go_on` may bring the rest."""
        stream = client.wire.open(self.headers())
        client.wire.send(frame(DATA, 0, stream, message(request())[:30]))
        client.asked.append(Asked(stream, MAY_GET))

    def go_on(self, client: Client) -> None:
        """The rest of a half message, or its end without the rest."""
        for asked in client.unanswered():
            if asked.is_whole or asked.is_cancelled:
                continue
            asked.is_whole = True
            rest = message(request())[30:]
            if self.draw.random() < 0.3:
                asked.may_get, asked.is_counted, rest = {"INTERNAL"}, False, b""
            client.wire.send(frame(DATA, END_STREAM, asked.stream, rest))
            return

    def cancel(self, client: Client) -> None:
        open_now = [a for a in client.unanswered() if not a.is_cancelled]
        if open_now:
            asked = self.draw.choice(open_now)
            asked.is_cancelled = True
            client.wire.send(frame(RESET, 0, asked.stream, CANCEL))

    def stream(self, client: Client) -> None:
        """Several requests on one stream, some wrong, half-closed at once or never."""
        more = {"triton_grpc_error": "true"} if self.draw.random() < 0.3 else {}
        pairs = [*grpc_fields(STREAM_INFER), *more.items()]
        stream = client.wire.open(pairs)
        count = self.draw.randint(1, 5)
        whole = b"".join(
            message(request(width=self.draw.choice([4, 4, 4, 5]))) for _ in range(count)
        )
        last = END_STREAM if self.draw.random() < 0.8 else 0
        client.wire.send(frame(DATA, last, stream, whole))
        client.streams[stream] = count
        if not last and self.draw.random() < 0.5:
            client.wire.send(frame(RESET, 0, stream, CANCEL))

    def call_inside(self) -> None:
        if len(self.local) < 20:
            call = self.plane.engine.call
            self.local.append(self.pool.submit(call, INFER, request(), (), 0.2))

    def hang_up(self, client: Client) -> None:
        self.clients.remove(client)
        self.left.append(client)
        client.wire.socket.close()

    def read(self, client: Client) -> None:
        client.wire.read(lambda: False, self.draw.choice([0.0002, 0.001]))

    # -- the schedule ------------------------------------------------------------------

    def run(self) -> None:
        """All steps, then the end: everybody reads, leaves, and the engine drains."""
        if self.is_proved:
            self.prove()
        else:
            self.load(1)
            self.versions.add(1)
            self.publish()
            self.plane.start()
        self.connect()
        for _ in range(self.steps):
            self.step()
        for client in self.clients:
            self.finish(client)
        for call in self.local:
            call.result(timeout=10)
        self.pool.shutdown()
        for client in self.clients:
            client.wire.socket.close()

    def step(self) -> None:
        operator = [
            (0.05, self.publish),
            (0.03, self.connect),
            (0.03, self.call_inside),
        ]
        for chance, act in operator:
            if self.draw.random() < chance:
                return act()
        if not self.clients:
            return self.connect()
        client = self.draw.choice(self.clients)
        if client.wire.closed or len(client.unanswered()) >= STREAMS_MAX:
            return self.finish(client)
        acts = {
            self.ask: 8, self.ask_badly: 1.5, self.ask_half: 1, self.go_on: 1,
            self.cancel: 1.5, self.stream: 0.8, self.read: 2, self.hang_up: 0.15,
        }  # fmt: skip
        (act,) = self.draw.choices(list(acts), list(acts.values()))
        return act(client)

    def finish(self, client: Client) -> None:
        """Read until all that will be answered is; half messages are taken back."""
        for asked in client.unanswered():
            if not asked.is_whole and not asked.is_cancelled:
                asked.is_cancelled = True
                client.wire.send(frame(RESET, 0, asked.stream, CANCEL))
        waits_for = [a for a in client.unanswered() if not a.is_cancelled]
        ends = time.monotonic() + 5
        for asked in waits_for:
            client.wire.wait(asked.stream, max(ends - time.monotonic(), 0.01))

    # -- what must hold ----------------------------------------------------------------

    def judge(self) -> None:
        self.plane.wait_idle()
        seen: Counter[str] = Counter()
        for client in self.clients:
            for asked in client.asked:
                self.judge_asked(client, asked, seen)
            for stream, count in client.streams.items():
                self.judge_stream(client, stream, count)
        for call in self.local:
            done = call.result()
            assert CODES[done.code] in MAY_GET, done.detail
            if done.code == 0:
                self.plane.judge(Response.FromString(done.message))
            seen[CODES[done.code]] += 1
        self.judge_counts(seen)
        assert self.plane.engine.drain(5.0) == 0

    def judge_asked(self, client: Client, asked: Asked, seen: Counter[str]) -> None:
        reply = client.wire.replies.get(asked.stream)
        code = None if reply is None else reply.code
        if asked.is_cancelled:
            # What came before the cancellation must be right; nothing need come.
            if code is not None:
                assert CODES[code] in {*asked.may_get, "CANCELLED"}
        else:
            assert reply is not None, f"stream {asked.stream} was not answered"
            assert code is not None, f"stream {asked.stream}: {reply}"
            assert CODES[code] in asked.may_get, reply.headers
            if asked.is_counted:
                seen[CODES[code]] += 1
        if reply is not None and code == 0:
            size = int.from_bytes(reply.data[1:5])
            assert len(reply.data) == 5 + size, "exactly one message"
            self.plane.judge(Response.FromString(reply.data[5:]), asked.rows)

    def judge_stream(self, client: Client, stream: int, count: int) -> None:
        reply = client.wire.replies.get(stream)
        data, answers = b"" if reply is None else reply.data, 0
        while data:
            size = 5 + int.from_bytes(data[1:5])
            if len(data) < size:
                break  # the test stopped reading
            answer = StreamResponse.FromString(data[5:size])
            if not answer.error_message:
                self.plane.judge(answer.infer_response)
            data, answers = data[size:], answers + 1
        assert answers <= count

    def judge_counts(self, seen: Counter[str]) -> None:
        """Every call counted once, under the code its client got."""
        counted = Counter(self.plane.codes())
        counted.subtract(self.proof)
        assert "UNKNOWN" not in counted
        clients = [*self.clients, *self.left]
        sure = sum(seen.values())
        unsure = sum(n for c in clients for n in c.streams.values())
        unsure += sum(
            a.is_counted and a.is_whole and a.is_cancelled
            for c in self.clients for a in c.asked
        )  # fmt: skip
        unsure += sum(a.is_counted and a.is_whole for c in self.left for a in c.asked)
        assert sure <= sum(counted.values()) <= sure + unsure, (counted, seen, unsure)
        for code, count in seen.items():
            assert count <= counted[code] <= count + unsure, (code, counted, seen)
        extra = sum(counted.values()) - sure
        assert counted["CANCELLED"] <= extra

    def close(self) -> None:
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.wire.socket.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.plane.__exit__()
