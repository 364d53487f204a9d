"""Faults of upstream servers, thousands of them, of which nothing may be left.

    python tests/soak/upstream_faults.py [--minutes 10] [--callers 2] [--seed 1]

A router before one good server and many that answer well for a while and then do
something wrong: reset, cut, stall, answer slowly, answer garbage, say goodbye, vanish
from their port for a moment. Clients ask all the while; most name the version, so that
neither breaker nor fallback stands between them and the faults. Prints answers by code,
faults by kind, what the router counted, and its resident size over time. Fails when a
client sees an error that stable should have answered for, a code that is not ours, on a
gauge that does not return to zero, on memory or descriptors that grow, and when the
router does not leave cleanly.
"""

import argparse
import contextlib
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import grpc

from router import testing

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "system"), str(HERE.parent / "serve")]
from plane import INFER  # noqa: E402
from test_upstream import (  # noqa: E402
    ANSWER_HEADERS,
    DATA_FRAME,
    END_HEADERS,
    END_STREAM,
    GOAWAY_FRAME,
    HEADERS_FRAME,
    PREFACE,
    RST_FRAME,
    SETTINGS_FRAME,
    TRAILERS_OK,
    Peer,
    frame,
    literal,
    read_exactly,
)

PING_FRAME, MESSAGE_PREFIX = 6, 5
PEERS = 28
FAULT_SHARE = 0.25
# Of faults: those that end a connection and whatever else is on it, for which a server
# is left alone a while. More of them are fewer faults.
FATAL_SHARE = 0.15
VANISH_EVERY_S, VANISH_S = 1.0, 0.3
SAMPLE_EVERY_S = 1.0
IN_FLIGHT = 12
# What somebody may be told who wants the faulty version and no other.
PINNED_CODES = {"OK", "INTERNAL", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
CHECKED = b"\x08\x01"  # SERVING
# Long for those whom stable answers, short for those who wait for a stalled server.
DEADLINE_S, PINNED_DEADLINE_S = 5.0, 0.25
# What an allocator keeps of a burst is not growth.
GROWTH_BYTES = 8 << 20
GROWTH_FDS = 16
Response = testing.messages()("ModelInferResponse")
Request = testing.messages()("ModelInferRequest")


def reply(values: int = 1, name: str = "tag", value: float = 7.0) -> bytes:
    made = Response(model_name="tag", model_version="2")
    for each in (name, "sum"):
        made.outputs.add(name=each, datatype="FP32").shape.extend((1, values))
        made.raw_output_contents.append(struct.pack("<f", value) * values)
    data: bytes = made.SerializeToString()
    return data


def answer(stream: int, body: bytes, trailers: bytes = TRAILERS_OK) -> bytes:
    message = struct.pack(">BI", 0, len(body)) + body
    return (
        frame(HEADERS_FRAME, END_HEADERS, stream, ANSWER_HEADERS)
        + frame(DATA_FRAME, 0, stream, message)
        + frame(HEADERS_FRAME, END_HEADERS | END_STREAM, stream, trailers)
    )


GOOD, BAD_SHAPE, BAD_NAME = reply(), reply(5), reply(name="other")
FAT = TRAILERS_OK + literal(b"x-more", b"y" * 120) * 160
# What is sent for a stream instead of an answer.
SAID = {
    "reset": lambda s: frame(RST_FRAME, 0, s, struct.pack(">I", 2)),
    "refused": lambda s: frame(RST_FRAME, 0, s, struct.pack(">I", 7)),
    "garbage": lambda s: answer(s, b"\xff\xff\xff"),
    "no message": lambda s: frame(
        HEADERS_FRAME, END_HEADERS | END_STREAM, s, ANSWER_HEADERS
    ),
    "other shape": lambda s: answer(s, BAD_SHAPE),
    "other name": lambda s: answer(s, BAD_NAME),
    "endless trailers": lambda s: answer(s, GOOD, FAT),
    "half an answer": lambda s: answer(s, GOOD)[:60],
    "no HTTP/2": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20,
    "stall": lambda _: b"",
    "goodbye": lambda s: frame(GOAWAY_FRAME, 0, 0, struct.pack(">II", s, 0)),
}
FATAL = ("close", "cut", "goodbye", "no HTTP/2", "half an answer")
KINDS = tuple(sorted({*SAID, "close", "cut", "slow"}))
MILD = tuple(kind for kind in KINDS if kind not in FATAL)


def sized_requests_of(connection: socket.socket) -> Iterator[tuple[int, int]]:
    """Streams whose requests have come in whole, and the sizes of their last frames."""
    read_exactly(connection, PREFACE)
    connection.sendall(frame(SETTINGS_FRAME, 0, 0))
    while True:
        head = read_exactly(connection, 9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        body = read_exactly(connection, size)
        if kind == SETTINGS_FRAME and not flags & 1:
            connection.sendall(frame(SETTINGS_FRAME, 1, 0))
        if kind == PING_FRAME and not flags & 1:
            connection.sendall(frame(PING_FRAME, 1, 0, body))
        if kind == DATA_FRAME and flags & END_STREAM:
            yield int.from_bytes(head[5:9], "big"), size


def cut(connection: socket.socket) -> None:
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class Faulty:
    """The scripted servers, and what they have done. Counts are approximate: their
    threads do not wait for one another."""

    def __init__(self, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.peers = [Peer(self.serve) for _ in range(PEERS)]
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.vanish, name="vanish")
        self.thread.start()

    def serve(self, connection: socket.socket) -> None:
        for stream, size in sized_requests_of(connection):
            if size == MESSAGE_PREFIX:  # a health check asks nothing
                connection.sendall(answer(stream, CHECKED))
                continue
            if self.random.random() > FAULT_SHARE:
                connection.sendall(answer(stream, GOOD))
                continue
            is_fatal = self.random.random() < FATAL_SHARE
            kind = self.random.choice(FATAL if is_fatal else MILD)
            self.done[kind] += 1
            if kind == "slow":
                time.sleep(0.15)
                connection.sendall(answer(stream, GOOD))
            elif kind == "close":
                return
            elif kind == "cut":
                cut(connection)
                return
            else:
                connection.sendall(SAID[kind](stream))

    def vanish(self) -> None:
        """Take a server away from its port, and put it back."""
        while not self.is_over.wait(VANISH_EVERY_S):
            at = self.random.randrange(PEERS)
            port = int(self.peers[at].address.rpartition(":")[2])
            self.peers[at].close()
            self.done["vanish"] += 1
            self.is_over.wait(VANISH_S)
            self.peers[at] = Peer(self.serve, port)

    def close(self) -> None:
        self.is_over.set()
        self.thread.join()
        for peer in self.peers:
            peer.close()


class Callers:
    """Clients that always have some calls out; what became of them."""

    def __init__(self, address: str, count: int, version: str) -> None:
        self.codes: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self._version = version
        self._deadline_s = PINNED_DEADLINE_S if version else DEADLINE_S
        self._address, self._is_over = address, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        made = Request(model_name="tag", model_version=self._version)
        made.inputs.add(name="x", datatype="FP32").shape.extend((1, 2))
        made.raw_input_contents.append(bytes(8))
        body = made.SerializeToString()
        with grpc.insecure_channel(self._address) as channel:
            call = channel.unary_unary(INFER)
            while not self._is_over.is_set():
                waiting = [call.future(body, timeout=self._deadline_s)
                           for _ in range(IN_FLIGHT)]  # fmt: skip
                for each in waiting:
                    error = each.exception()
                    self.codes["OK" if error is None else error.code().name] += 1
                    if error is None:
                        version = Response.FromString(each.result()).model_version
                        self.served[version] += 1

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def config(folder: Path, targets: list[str], share: int) -> dict[str, object]:
    if not (folder / "models").exists():
        testing.write_model(folder / "models", "tag", {1: testing.tag(1)})
    upstream = {"targets": targets, "model": "tag", "connect_timeout_ms": 300,
                "keepalive_ms": 300, "keepalive_timeout_ms": 300,
                "connection_age_s": 5}  # fmt: skip
    model = {
        "name": "tag", "repository": str(folder / "models/tag"), "stable": 1,
        "versions": {2: {"upstream": upstream}} if share else [1],
        "runtime": {"timeout_ms": 100},
    }  # fmt: skip
    split = [{"version": 1, "weight": 100 - share}, {"version": 2, "weight": share}]
    routes = [{"model": "tag", "split": split}] if share else []
    return {"models": [model], "routes": routes}


@contextlib.contextmanager
def good_server(folder: Path) -> Iterator[testing.Server]:
    testing.write_model(folder / "models", "tag", {2: testing.tag(7)})
    model = {"name": "tag", "repository": str(folder / "models/tag")}
    with testing.Server(folder, {"models": [model]}) as server:
        yield server


def judged(samples: list[int], most: int, what: str) -> list[str]:
    """Whether the last third is larger than the one before it; the first is warm-up."""
    third = len(samples) // 3
    before, after = median(samples[third : 2 * third]), median(samples[2 * third :])
    print(f"{what}: {before:.0f}, then {after:.0f}")
    return [] if after <= before + most else [f"{what} grew"]


def settle(front: testing.Server, folder: Path) -> list[str]:
    """Route to stable alone; whatever is left then has leaked."""
    front.reload(config(folder, [], 0))
    problems = []
    for name in ("router_upstream_connections", "router_upstream_ejected",
                 "router_inflight", "router_body_bytes", "router_queue_depth",
                 "router_executor_running"):  # fmt: skip
        try:
            testing.wait_until(lambda name=name: front.metric(name) == 0, name)
        except TimeoutError:
            problems.append(f"{name} is {front.metric(name):g}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, back = Path(name) / "front", Path(name) / "back"
        folder.mkdir()
        back.mkdir()
        faulty = Faulty(chosen.seed)
        try:
            with good_server(back) as good:
                problems = soak(chosen, folder, good.address, faulty)
        finally:
            faulty.close()
    for problem in problems:
        print("PROBLEM", problem)
    return 1 if problems else 0


def soak(
    chosen: argparse.Namespace, folder: Path, good: str, faulty: Faulty
) -> list[str]:
    targets = [good, *(peer.address for peer in faulty.peers)]
    sizes, files = [], []
    with testing.Server(folder, config(folder, targets, 100)) as front:
        routed = Callers(front.address, 1, "")
        pinned = Callers(front.address, chosen.callers, "2")
        until = time.monotonic() + 60 * chosen.minutes
        while time.monotonic() < until and front.is_running:
            time.sleep(SAMPLE_EVERY_S)
            sizes.append(resident(front.pid))
            files.append(descriptors(front.pid))
        for callers in (routed, pinned):
            callers.close()
            print("answers", dict(callers.codes), "by version", dict(callers.served))
        print("faults", sum(faulty.done.values()), dict(faulty.done))
        _, page = front.get("/metrics")
        counted: Counter[str] = Counter()
        counter = "router_upstream_requests_total"
        for _, labels, value in testing.samples(page, counter):
            counted[labels.get("outcome", "")] += int(value)
        print("attempts by outcome", dict(counted))
        problems = settle(front, folder)
    problems += judged(sizes, GROWTH_BYTES, "resident bytes")
    problems += judged(files, GROWTH_FDS, "descriptors")
    for callers, good_codes in ((routed, {"OK"}), (pinned, PINNED_CODES)):
        problems += [f"{count} calls ended with {code}"
                     for code, count in callers.codes.items()
                     if code not in good_codes]  # fmt: skip
    missing = set(KINDS) - set(faulty.done)
    return problems + [f"no fault of kind {kind}" for kind in missing]


if __name__ == "__main__":
    sys.exit(main())
