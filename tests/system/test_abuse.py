"""Clients that mean harm, over raw sockets. The server loses them and nobody else.

Every test ends the same way: a well-behaved client on another connection still gets its
answer, and what was held for the abuser is given back.
"""

import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from rawwire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RESET,
    SETTINGS,
    WINDOW,
    RawClient,
    fields,
    frame,
    grpc_fields,
    message,
)

from router import testing

X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def wire(world: testing.Server) -> Iterator[RawClient]:
    with RawClient(world.address) as made:
        yield made


@pytest.fixture(autouse=True)
def _others_are_served(world: testing.Server) -> Iterator[None]:
    with testing.Caller(world.address) as caller:
        yield
        assert caller.infer("tag", X, timeout_s=5).model == "tag"


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def hangs_up(sock: socket.socket) -> bool:
    """Whether the server ends the connection, whatever it says before."""
    sock.settimeout(10)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        b"\0" * 64,
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + b"\0" * 64,
        PREFACE + b"\xff" * 64,
        PREFACE + frame(DATA, 0, 0, b"on stream zero"),
        PREFACE + frame(SETTINGS, 0, 0, b"odd"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, b"\x88"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        PREFACE + frame(SETTINGS, 0, 0) + frame(CONTINUATION, 0, 1, b""),
        PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW, 0, 0, struct.pack(">I", 0)),
    ],
    ids=lambda opening: repr(opening[-20:]),
)
def test_what_is_not_http2_is_hung_up_on(world: testing.Server, opening: bytes) -> None:
    with connect(world.address) as sock:
        sock.sendall(opening)
        assert hangs_up(sock)


def test_a_client_that_says_nothing_is_no_burden(world: testing.Server) -> None:
    before = world.metric("router_connections")
    silent = [connect(world.address) for _ in range(50)]
    for sock in silent:
        sock.close()
    testing.wait_until(
        lambda: world.metric("router_connections") <= before, "connections are freed"
    )


FLOODS = {
    "ping_flood": frame(PING, 0, 0, b"\0" * 8),
    "settings_flood": frame(SETTINGS, 0, 0),
    "priority_flood": frame(PRIORITY, 0, 1, b"\0\0\0\3\x10"),
    "window_flood": frame(WINDOW, 0, 0, struct.pack(">I", 1)),
    "unknown_frames": frame(0xEE, 0, 0, b"\0" * 8),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_cheap_frames_ends_the_connection(
    world: testing.Server, wire: RawClient, kind: str
) -> None:
    before = world.metric("router_abuse_total", kind=kind)
    for _ in range(200):
        if not wire.send(FLOODS[kind] * 500):
            break
        wire.read(lambda: False, 0.001)
        if wire.closed:
            break
    assert wire.wait_closed()
    wire.socket.close()
    testing.wait_until(
        lambda: world.metric("router_abuse_total", kind=kind) > before, "it is counted"
    )


def test_empty_data_without_end_is_a_flood(
    world: testing.Server, wire: RawClient
) -> None:
    stream = wire.open(grpc_fields())
    for _ in range(200):
        if not wire.send(frame(DATA, 0, stream) * 500):
            break
        wire.read(lambda: False, 0.001)
        if wire.closed:
            break
    assert wire.wait_closed()
    wire.socket.close()
    testing.wait_until(
        lambda: world.metric("router_abuse_total", kind="empty_data") > 0,
        "it is counted",
    )


def test_rapid_resets_end_the_connection(wire: RawClient) -> None:
    cancel = struct.pack(">I", 8)
    for number in range(1, 20_000, 2):
        head = frame(HEADERS, END_HEADERS, number, fields(grpc_fields()))
        if not wire.send(head + frame(RESET, 0, number, cancel)):
            break
    assert wire.wait_closed()


def test_endless_continuation_ends_the_connection(wire: RawClient) -> None:
    wire.send(frame(HEADERS, 0, 1, fields(grpc_fields())))
    piece = frame(CONTINUATION, 0, 1, fields([("x-a", "b" * 100)]))
    for _ in range(5_000):
        if not wire.send(piece):
            break
    assert wire.wait_closed()


def test_headers_by_the_thousand_are_refused_and_cost_little(
    wire: RawClient,
) -> None:
    # One indexed byte per header: 16,000 of them in one frame.
    block = fields(grpc_fields()) + b"\x82" * 16_000
    stream = 1
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
    reply = wire.wait(stream)
    assert wire.closed or reply.reset is not None or reply.code not in (None, 0)


@pytest.mark.parametrize(("count", "size"), [(200, 10), (4, 3_000)])
def test_metadata_over_the_limit_is_refused_and_the_connection_lives(
    wire: RawClient, count: int, size: int
) -> None:
    extra = {f"x-{i}": "v" * size for i in range(count)}
    reply = wire.call(b"", **extra)
    assert reply.reset is not None or reply.code == 8
    assert wire.ping()


def test_more_streams_than_allowed_end_the_connection_of_who_was_told(
    wire: RawClient,
) -> None:
    assert wire.ping()  # the server's settings are known and acknowledged
    for _ in range(150):
        wire.open(grpc_fields())
    assert wire.wait_closed()
    assert wire.goaway == 1


def test_a_message_that_declares_four_gigabytes_allocates_nothing(
    world: testing.Server, wire: RawClient
) -> None:
    before = world.metric("router_body_bytes")
    stream = wire.open(grpc_fields())
    wire.send(frame(DATA, 0, stream, struct.pack(">BI", 0, 0xFFFFFFFF)))
    assert wire.wait(stream).code == 8
    assert world.metric("router_body_bytes") <= before + 65536


def test_a_compression_bomb_is_stopped_at_the_limit(wire: RawClient) -> None:
    import gzip

    bomb = gzip.compress(b"\0" * (64 * 1024 * 1024))
    reply = wire.call(b"", prefixed=message(bomb, 1), grpc_encoding="gzip")
    assert reply.code == 8
    assert reply.headers["grpc-retry-pushback-ms"] == "-1"


def test_bodies_of_clients_that_left_are_given_back(world: testing.Server) -> None:
    for _ in range(10):
        with RawClient(world.address) as wire:
            stream = wire.open(grpc_fields())
            half = struct.pack(">BI", 0, 1_000_000) + b"\0" * 10_000
            wire.send(frame(DATA, 0, stream, half))
            assert wire.ping()
    testing.wait_until(
        lambda: world.metric("router_body_bytes") == 0, "bodies are given back"
    )
    testing.wait_until(lambda: world.metric("router_inflight") == 0, "no call is left")


def test_a_reader_that_never_reads_holds_only_its_window(
    world: testing.Server, wire: RawClient
) -> None:
    # Ten answers of 200 KB that the client never takes.
    from tritonclient.grpc import service_pb2 as pb

    request = pb.ModelInferRequest(model_name="echo_fp32")
    request.inputs.add(name="x", datatype="FP32", shape=[50_000])
    request.raw_input_contents.append(b"\0" * 200_000)
    for _ in range(10):
        stream = wire.open(grpc_fields())
        wire.send_data(stream, message(request.SerializeToString()))
    with testing.Caller(world.address) as caller:
        for _ in range(20):
            assert caller.infer("tag", X, timeout_s=5).model == "tag"
