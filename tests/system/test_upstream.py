"""Versions that live in another server: a second router, and peers with faults.

The engine under test and the good server are engines of this process; the bad ones are
scripted sockets that speak as much HTTP/2 as their fault needs. What is claimed: a good
server's answers pass unchanged, a bad one costs no client an error while stable can
answer, and whatever it does, nothing is left of it afterwards.
"""

import contextlib
import itertools
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.testing import wait_until

sys.path.append(str(Path(__file__).resolve().parents[1] / "serve"))
from plane import INFER, Plane, Request, Response, request, split

SIGNATURE = {"input.0": "x|FP32|-1,4", "output.0": "y|FP32|-1,4"}
INNER_TAG = 5001.0

# HTTP/2 by hand: frame types, and the server's empty SETTINGS.
DATA_FRAME, HEADERS_FRAME, RST_FRAME, SETTINGS_FRAME, GOAWAY_FRAME = 0, 1, 3, 4, 7
END_HEADERS, END_STREAM = 4, 1
PREFACE = 24
ANSWER_HEADERS = bytes([0x88, 0x5F, 16]) + b"application/grpc"  # :status 200, literal


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + (struct.pack(">I", stream) + payload)
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, not indexed; both short."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


SETTINGS = frame(SETTINGS_FRAME, 0, 0)
TRAILERS_OK = literal(b"grpc-status", b"0")


class Peer:
    """A server whose fault is a function of a connection; each gets a thread."""

    def __init__(self, fault: Callable[[socket.socket], None], port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port), backlog=256)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.fault = fault
        self.accepted = 0
        self.open: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.accepted += 1
            self.open.append(connection)
            serving = threading.Thread(target=self._serve, args=(connection,))
            serving.daemon = True
            serving.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.fault(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.open:
            connection.close()
        self.thread.join()


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("the end")
        data += more
    return data


def requests_of(connection: socket.socket) -> Iterator[int]:
    """The streams whose requests have come in whole."""
    read_exactly(connection, PREFACE)
    connection.sendall(SETTINGS)
    while True:
        head = read_exactly(connection, 9)
        read_exactly(connection, int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind == SETTINGS_FRAME and not flags & 1:
            connection.sendall(frame(SETTINGS_FRAME, 1, 0))
        if kind == DATA_FRAME and flags & END_STREAM:
            yield int.from_bytes(head[5:9], "big")


def silent(connection: socket.socket) -> None:
    for _ in requests_of(connection):
        pass


def mute(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def resetting(connection: socket.socket) -> None:
    for stream in requests_of(connection):
        connection.sendall(frame(RST_FRAME, 0, stream, struct.pack(">I", 2)))


def closing(connection: socket.socket) -> None:
    next(requests_of(connection))


def cutting(connection: socket.socket) -> None:
    next(requests_of(connection))
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def babbling(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)


def answering(body: bytes, flag: int = 0, trailers: bytes = TRAILERS_OK) -> Callable:
    def answer(connection: socket.socket) -> None:
        for stream in requests_of(connection):
            message = struct.pack(">BI", flag, len(body)) + body
            connection.sendall(
                frame(HEADERS_FRAME, END_HEADERS, stream, ANSWER_HEADERS)
                + frame(DATA_FRAME, 0, stream, message)
                + frame(HEADERS_FRAME, END_HEADERS | END_STREAM, stream, trailers)
            )

    return answer


def relaying(address: str) -> Callable:
    """The good server at the address, through us."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def relay(connection: socket.socket) -> None:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=pump, args=(server, connection))
            back.start()
            pump(connection, server)
            back.join()

    return relay


def boasting(connection: socket.socket) -> None:
    """Declares a message of 4 GiB and sends a little of it."""
    for stream in requests_of(connection):
        message = struct.pack(">BI", 0, 0xFFFFFFFF) + bytes(1000)
        connection.sendall(
            frame(HEADERS_FRAME, END_HEADERS, stream, ANSWER_HEADERS)
            + frame(DATA_FRAME, 0, stream, message)
        )


def heading(connection: socket.socket) -> None:
    """Headers without an end."""
    for stream in requests_of(connection):
        connection.sendall(frame(HEADERS_FRAME, 0, stream, ANSWER_HEADERS))
        for _ in range(100):
            more = literal(b"x-more", b"y" * 100) * 50
            connection.sendall(frame(9, 0, stream, more))


def fat_trailers(connection: socket.socket) -> None:
    trailers = TRAILERS_OK + literal(b"x-more", b"y" * 120) * 160
    answering(b"", 0, trailers)(connection)


def reply(values: int = 4, name: str = "y", datatype: str = "FP32") -> bytes:
    made = Response(model_name="inner", model_version="9")
    made.outputs.add(name=name, datatype=datatype).shape.extend((1, values))
    made.raw_output_contents.append(struct.pack("<f", 7.0) * values)
    data: bytes = made.SerializeToString()
    return data


FAULTS = {
    "mute": mute,
    "silent": silent,
    "resets": resetting,
    "closes": closing,
    "cuts": cutting,
    "no HTTP/2": babbling,
    "no message": answering(b"\xff\xff\xff"),
    "other shape": answering(reply(5)),
    "other datatype": answering(reply(datatype="INT32")),
    "other name": answering(reply(name="z")),
    "compressed": answering(b"\x1f\x8b", 1),
    "huge message": boasting,
    "endless headers": heading,
    "endless trailers": fat_trailers,
}


class Front(Plane):
    """The engine under test: version 1 is local, version 2 is what a test says."""

    def upstream(self, *targets: str, **options: str) -> None:
        self.engine.load("m", 2, b"", {
            "kind": "upstream", "targets": ",".join(targets), "upstream_model": "inner",
            **SIGNATURE, **options,
        })  # fmt: skip
        self.tags["m", 2] = int(INNER_TAG)

    def targets(self) -> dict[str, Any]:
        return {each["target"]: each for each in self.snapshot()["upstreams"]}

    def let_go(self) -> None:
        """Route to version 1 alone and wait until nothing of the other is left."""
        self.publish(split("m", [1], 0, rule="alone"))
        wait_until(
            lambda: all(each["connections"] == 0 for each in self.targets().values()),
            "connections to upstreams are closed",
        )


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(loops=2) as plane:
        plane.load("m", 1, "echo")
        yield plane


@pytest.fixture
def inner() -> Iterator[Plane]:
    with Plane(loops=1) as plane:
        plane.load("inner", 5, "echo")
        plane.publish(split("inner", [5], 0))
        plane.start()
        yield plane


def serve(front: Front, *targets: str, share: int = 5000, **options: str) -> None:
    front.upstream(*targets, **options)
    front.publish(split("m", [1, 2], share))
    front.start()


def ask(channel: grpc.Channel, version: str = "", timeout: float = 5.0) -> Any:
    answer = channel.unary_unary(INFER)(request(version=version), timeout=timeout)
    return Response.FromString(answer)


def code_of(channel: grpc.Channel, timeout: float = 5.0) -> grpc.StatusCode:
    """What a client gets that asks for version 2 and no other."""
    try:
        ask(channel, "2", timeout)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_split_between_a_local_version_and_another_router_serves_both(
    front: Front, inner: Plane
) -> None:
    serve(front, inner.address)
    with grpc.insecure_channel(front.address) as channel:
        call = channel.unary_unary(INFER)
        seen = set()
        for i in range(100):
            answer = Response.FromString(call(request(rows=1 + i % 3, id=str(i))))
            front.judge(answer, rows=1 + i % 3)
            assert answer.id == str(i)
            seen.add(answer.model_version)
    assert seen == {"1", "2"}
    front.wait_idle()
    front.let_go()


def test_typed_contents_pass_like_raw_ones(front: Front, inner: Plane) -> None:
    serve(front, inner.address)
    asked = Request(model_name="m", model_version="2")
    x = asked.inputs.add(name="x", datatype="FP32")
    x.shape.extend((1, 4))
    x.contents.fp32_contents.extend((1.0, 2.0, 3.0, 4.0))
    with grpc.insecure_channel(front.address) as channel:
        answer = Response.FromString(
            channel.unary_unary(INFER)(asked.SerializeToString())
        )
    front.judge(answer)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_stable_answers_for_a_server_with_a_fault(front: Front, fault: str) -> None:
    peer = Peer(FAULTS[fault])
    try:
        serve(front, peer.address, share=10_000, connect_timeout_ms="500")
        with grpc.insecure_channel(front.address) as channel:
            for _ in range(20):
                answer = ask(channel, timeout=1.0)
                assert answer.model_version == "1"
                front.judge(answer)
        assert front.codes() == {"OK": 20}
        front.wait_idle()
        front.let_go()
    finally:
        peer.close()


def test_stable_answers_when_the_server_is_not_there(front: Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        gone = f"127.0.0.1:{unused.getsockname()[1]}"
    serve(front, gone, share=10_000)
    with grpc.insecure_channel(front.address) as channel:
        answers = [ask(channel).model_version for _ in range(20)]
        assert code_of(channel) is grpc.StatusCode.INTERNAL
    assert answers == ["1"] * 20
    front.wait_idle()


class Recorder(grpc.GenericRpcHandler):
    """A grpcio server that keeps what it was sent and answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, dict[str, Any], float | None]] = []
        self.code = grpc.StatusCode.OK
        self.message = "said by the server"
        self.cancelled = threading.Event()
        self.release = threading.Event()
        self.holds = False
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def service(self, details: Any) -> Any:
        metadata = dict(details.invocation_metadata)

        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            self.seen.append((data, metadata, context.time_remaining()))
            if self.holds:
                context.add_callback(self.cancelled.set)
                self.release.wait(10)
            if self.code is not grpc.StatusCode.OK:
                context.abort(self.code, self.message)
            return reply()

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.release.set()
    made.server.stop(0).wait()


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
        ("UNAVAILABLE", "INTERNAL"),
        ("INTERNAL", "INTERNAL"),
        ("NOT_FOUND", "INTERNAL"),
        ("CANCELLED", "INTERNAL"),
        ("DEADLINE_EXCEEDED", "INTERNAL"),  # long before the deadline
        ("UNAUTHENTICATED", "INTERNAL"),
    ],
)
def test_codes_of_a_server_become_ours(
    front: Front, recorder: Recorder, said: str, got: str
) -> None:
    serve(front, recorder.address)
    recorder.code = grpc.StatusCode[said]
    with grpc.insecure_channel(front.address) as channel:
        assert code_of(channel) is grpc.StatusCode[got]


def test_what_a_server_says_of_an_input_reaches_the_client_cleaned(
    front: Front, recorder: Recorder
) -> None:
    serve(front, recorder.address)
    recorder.code = grpc.StatusCode.INVALID_ARGUMENT
    recorder.message = "x is\nwrong " + "ä" * 1000
    with (
        grpc.insecure_channel(front.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        ask(channel, "2")
    details = caught.value.details()
    assert details.startswith("x is wrong ä")
    assert len(details.encode()) <= 256


def test_a_request_is_forwarded_byte_for_byte_but_for_its_names(
    front: Front, recorder: Recorder
) -> None:
    serve(front, recorder.address, upstream_version="31")
    asked = Request.FromString(request(version="2", id="me"))
    asked.parameters["priority"].int64_param = 3
    asked.inputs[0].parameters["binary"].bool_param = True
    asked.outputs.add(name="y")
    # A field nobody knows, and the name once more: the last one counts.
    unknown = bytes([0xFA, 0x06, 3]) + b"abc"
    data = bytes([0x0A, 1]) + b"q" + unknown + asked.SerializeToString()
    with grpc.insecure_channel(front.address) as channel:
        channel.unary_unary(INFER)(data)
    ((got, _, _),) = recorder.seen
    names = bytes([0x0A, 5]) + b"inner" + bytes([0x12, 2]) + b"31"
    old_names = bytes([0x0A, 1]) + b"m" + bytes([0x12, 1]) + b"2"
    rest = asked.SerializeToString()
    assert rest.startswith(old_names)
    assert got == names + unknown + rest[len(old_names) :]


def test_deadline_and_trace_reach_the_server(front: Front, recorder: Recorder) -> None:
    serve(front, recorder.address)
    carried = {"traceparent": "00-1-2-01", "tracestate": "a=1", "baggage": "k=v",
               "x-request-id": "r1"}  # fmt: skip
    metadata = (*carried.items(), ("x-user-id", "somebody"))
    with grpc.insecure_channel(front.address) as channel:
        channel.unary_unary(INFER)(request(version="2"), timeout=7, metadata=metadata)
    ((_, got, remaining),) = recorder.seen
    assert {key: got.get(key) for key in carried} == carried
    assert "x-user-id" not in got
    assert remaining is not None
    assert 5 < remaining < 7.5


def test_a_cancelled_call_is_cancelled_at_the_server(
    front: Front, recorder: Recorder
) -> None:
    serve(front, recorder.address)
    recorder.holds = True
    with grpc.insecure_channel(front.address) as channel:
        call = channel.unary_unary(INFER).future(request(version="2"), timeout=20)
        wait_until(lambda: bool(recorder.seen), "the server has the call")
        call.cancel()
        assert recorder.cancelled.wait(5)
    front.wait_idle()
    (target,) = front.targets().values()
    assert target["sent"]["cancelled"] == 1


def test_a_deadline_that_passes_at_the_server_is_the_clients(
    front: Front, recorder: Recorder
) -> None:
    serve(front, recorder.address)
    recorder.holds = True
    with grpc.insecure_channel(front.address) as channel:
        assert code_of(channel, 0.3) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert recorder.cancelled.wait(5)
    front.wait_idle()


def test_a_dead_target_costs_no_error_while_another_lives(
    front: Front, inner: Plane
) -> None:
    peer = Peer(closing)
    try:
        serve(front, peer.address, inner.address)
        with grpc.insecure_channel(front.address) as channel:
            codes = [code_of(channel) for _ in range(200)]
        # What the bad one had already seen may fail, until it is left out.
        wait_until(
            lambda: front.targets()[peer.address]["ejected"] == 1, "it is left out"
        )
        assert codes.count(grpc.StatusCode.INTERNAL) <= 5 * 2 + 2
        assert codes[-50:] == [grpc.StatusCode.OK] * 50
    finally:
        peer.close()


@pytest.mark.slow
def test_a_server_that_stops_is_noticed_long_before_the_deadline(
    front: Front, inner: Plane
) -> None:
    """It takes connections and reads, but answers neither calls nor PINGs."""
    peer = Peer(silent)
    try:
        serve(front, peer.address, keepalive_ms="300", keepalive_timeout_ms="300")
        with grpc.insecure_channel(front.address) as channel:
            began = time.monotonic()
            assert code_of(channel, 20) is grpc.StatusCode.INTERNAL
            assert time.monotonic() - began < 10
            (target,) = front.targets().values()
            assert (target["connections"], target["ejected"]) == (0, 1)
            # It is well again: another connection serves.
            peer.fault = relaying(inner.address)
            wait_until(lambda: code_of(channel) is grpc.StatusCode.OK, "it serves")
        assert peer.accepted >= 2
    finally:
        peer.close()


@pytest.mark.slow
def test_a_server_that_only_takes_its_time_keeps_its_connection(
    front: Front, recorder: Recorder
) -> None:
    serve(front, recorder.address, keepalive_ms="100", keepalive_timeout_ms="400")
    recorder.holds = True
    with grpc.insecure_channel(front.address) as channel:
        call = channel.unary_unary(INFER).future(request(version="2"), timeout=20)
        wait_until(lambda: bool(recorder.seen), "the server has the call")
        # Seven intervals and more than three PINGs' time.
        assert not recorder.cancelled.wait(1.5)
        recorder.release.set()
        assert Response.FromString(call.result()).model_version == "2"
        assert code_of(channel) is grpc.StatusCode.OK
    (target,) = front.targets().values()
    assert target["sent"]["answered"] == 2
    assert target["connections"] == 1


@pytest.mark.slow
def test_an_old_connection_is_replaced_without_an_error(
    front: Front, inner: Plane
) -> None:
    peer = Peer(relaying(inner.address))
    try:
        serve(front, peer.address, connection_age_ms="200")
        with grpc.insecure_channel(front.address) as channel:
            codes = set()

            def step() -> bool:
                codes.update(code_of(channel) for _ in range(10))
                return peer.accepted >= 3

            wait_until(step, "connections are replaced")
        assert codes == {grpc.StatusCode.OK}
        front.wait_idle()
        front.let_go()
    finally:
        peer.close()


@pytest.mark.slow
def test_a_server_that_comes_back_is_asked_again(front: Front, inner: Plane) -> None:
    is_bad = [True]

    def changing(connection: socket.socket) -> None:
        (closing if is_bad[0] else relaying(inner.address))(connection)

    peer = Peer(changing)
    try:
        serve(front, peer.address, inner.address)
        with grpc.insecure_channel(front.address) as channel:

            def asks_until(met: Callable[[dict[str, Any]], bool]) -> None:
                def step() -> bool:
                    for _ in range(20):
                        code_of(channel)
                    return met(front.targets()[peer.address])

                wait_until(step, "the target changes", 20)

            asks_until(lambda target: target["ejected"] > 0)
            is_bad[0] = False
            asks_until(lambda bad: bad["ejected"] == 0 and bad["sent"]["answered"] > 10)
    finally:
        peer.close()


def test_a_request_nobody_saw_is_sent_again(front: Front, inner: Plane) -> None:
    """The server goes away between two requests: the second one finds the other."""
    serve(front, inner.address)
    count = itertools.count()

    def going(connection: socket.socket) -> None:
        for stream in requests_of(connection):
            next(count)
            last_seen = struct.pack(">II", max(stream - 2, 0), 0)
            connection.sendall(frame(GOAWAY_FRAME, 0, 0, last_seen))
            connection.shutdown(socket.SHUT_WR)
            break
        mute(connection)

    peer = Peer(going)
    try:
        front.upstream(peer.address, inner.address)
        front.publish(split("m", [1, 2], 5000, rule="two"))
        with grpc.insecure_channel(front.address) as channel:
            codes = {code_of(channel) for _ in range(50)}
        assert codes == {grpc.StatusCode.OK}
        assert next(count) > 0
        assert front.targets()[peer.address]["sent"]["resent"] > 0
    finally:
        peer.close()


@pytest.mark.slow
def test_thousands_of_faults_leave_nothing_behind(front: Front) -> None:
    faults = itertools.cycle(FAULTS[name] for name in FAULTS if name != "mute")
    peer = Peer(lambda connection: next(faults)(connection))
    try:
        serve(front, peer.address, share=10_000, connect_timeout_ms="300")
        with grpc.insecure_channel(front.address) as channel:
            call = channel.unary_unary(INFER)
            for _ in range(40):
                waiting = [call.future(request(version=version), timeout=0.2)
                           for version in ["2", ""] * 40]  # fmt: skip
                for each in waiting:
                    each.exception()
        front.wait_idle()
        front.let_go()
    finally:
        peer.close()
