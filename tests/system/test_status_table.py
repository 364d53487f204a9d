"""Every situation of the status table, provoked on a live server.

The client is raw, so that code, message and retry advice are the server's own words: a
stock client invents CANCELLED and DEADLINE_EXCEEDED without asking. After each row the
same connection has to answer a good request.
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rawwire import (
    DATA,
    END_STREAM,
    RESET,
    RawClient,
    Reply,
    frame,
    grpc_fields,
    message,
)
from tritonclient.grpc import service_pb2 as pb

from router import testing

ROOT = Path(__file__).resolve().parents[2]


def body(model: str = "tag", fault: float = 0, version: str = "") -> bytes:
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, fault], "<f4").tobytes())
    data: bytes = request.SerializeToString()
    return data


def bad_input(wire: RawClient) -> Reply:
    return wire.call(body()[:-10] + b"\x3a\x07" + b"\0" * 7)


def bad_framing(wire: RawClient) -> Reply:
    return wire.call(b"", prefixed=struct.pack(">BI", 0, 100) + b"short")


def unary_with_two_messages(wire: RawClient) -> Reply:
    return wire.call(b"", prefixed=message(body()) + message(body()))


def unary_without_message(wire: RawClient) -> Reply:
    return wire.call(b"", prefixed=b"")


def compressed_without_encoding(wire: RawClient) -> Reply:
    return wire.call(b"", prefixed=message(body(), flag=1))


def broken_gzip(wire: RawClient) -> Reply:
    prefixed = message(b"this is not gzip", flag=1)
    return wire.call(b"", prefixed=prefixed, grpc_encoding="gzip")


def too_large(wire: RawClient) -> Reply:
    stream = wire.open(grpc_fields())
    wire.send(frame(DATA, 0, stream, struct.pack(">BI", 0, 17 * 1024 * 1024)))
    return wire.wait(stream)


def past_deadline(wire: RawClient) -> Reply:
    return wire.call(body("faulty", testing.FAULT_HANG), grpc_timeout="50m")


def deadline_already_over(wire: RawClient) -> Reply:
    return wire.call(body(), grpc_timeout="0m")


def overload(wire: RawClient) -> Reply:
    """Slow requests until the predicted wait is longer than the model allows."""
    slow = body("faulty", testing.FAULT_SLOW)
    for _ in range(3):  # the prediction is a running average
        wire.call(slow)
    for _ in range(40):
        stream = wire.open(grpc_fields(grpc_timeout="20S"))
        wire.send(frame(DATA, END_STREAM, stream, message(slow)))
    wire.read(lambda: any(r.code == 8 for r in wire.replies.values()), 10)
    refused = [r for r in wire.replies.values() if r.code == 8]
    for stream, reply in wire.replies.items():
        if stream and not reply.ended:
            wire.send(frame(RESET, 0, stream, struct.pack(">I", 8)))
    return refused[0]


Row = tuple[str, Callable[[RawClient], Reply], int, str, str | None]
# Situation, how to get there, gRPC code, a word of the message, retry pushback.
ROWS: list[Row] = [
    ("ok", lambda w: w.call(body()), 0, "", None),
    ("bad_input", bad_input, 3, "x", None),
    ("undecodable", lambda w: w.call(b"\xff\xff"), 3, "", None),
    ("bad_framing", bad_framing, 13, "", None),
    ("bad_framing", unary_with_two_messages, 13, "", None),
    ("bad_framing", unary_without_message, 13, "", None),
    ("bad_framing", compressed_without_encoding, 13, "", None),
    ("bad_framing", broken_gzip, 13, "", None),
    ("unknown_model", lambda w: w.call(body("nobody")), 5, "nobody", None),
    ("unknown_model", lambda w: w.call(body(version="9")), 5, "9", None),
    ("overload", overload, 8, "faulty", "100"),
    ("message_too_large", too_large, 8, "16777216", "-1"),
    ("deadline", past_deadline, 4, "", None),
    ("deadline", deadline_already_over, 4, "", None),
    (
        "model_failed",
        lambda w: w.call(body("faulty", testing.FAULT_FAIL)),
        13,
        "faulty",
        None,
    ),
    (
        "model_failed",
        lambda w: w.call(body("faulty", testing.FAULT_NAN)),
        13,
        "faulty",
        None,
    ),
    ("unknown_method", lambda w: w.call(b"", "/no.Such/Method"), 12, "", None),
    (
        "bad_encoding",
        lambda w: w.call(b"", prefixed=message(b"x", 1), grpc_encoding="snappy"),
        12,
        "grpc-encoding",
        None,
    ),
    ("refused_pin", lambda w: w.call(body("guarded", version="2")), 3, "", None),
    ("refused_unit", lambda w: w.call(body("strict")), 3, "", None),
]
# Not reached by a row: the first has a test of its own below, the next two are in
# test_restart.py, and the data listener asks for no credentials yet.
ELSEWHERE = {"cancelled", "draining", "not_ready", "unauthenticated", "forbidden"}


@pytest.fixture
def wire(world: testing.Server) -> Iterator[RawClient]:
    with RawClient(world.address) as made:
        yield made


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{row[0]}-{index}" for index, row in enumerate(ROWS)]
)
def test_a_situation_has_its_code_message_and_advice(wire: RawClient, row: Row) -> None:
    _, provoke, code, word, pushback = row
    reply = provoke(wire)
    assert reply.headers.get(":status") == "200"
    assert reply.code == code, reply
    assert word in reply.headers.get("grpc-message", ""), reply
    assert reply.headers.get("grpc-retry-pushback-ms") == pushback
    assert wire.call(body()).code == 0
    assert wire.goaway is None


def test_a_failed_model_tells_nothing_about_its_inside(wire: RawClient) -> None:
    said = wire.call(body("faulty", testing.FAULT_FAIL)).headers["grpc-message"]
    for word in ("Gather", "onnx", "node", "idx", "bounds", "/"):
        assert word not in said, said


def test_a_cancelled_call_is_counted_as_cancelled(
    world: testing.Server, wire: RawClient
) -> None:
    def cancelled() -> float:
        return world.metric("router_requests_total", model="faulty", code="CANCELLED")

    before = cancelled()
    stream = wire.open(grpc_fields(grpc_timeout="20S"))
    hang = message(body("faulty", testing.FAULT_HANG))
    wire.send(frame(DATA, END_STREAM, stream, hang))
    assert wire.ping()
    wire.send(frame(RESET, 0, stream, struct.pack(">I", 8)))
    testing.wait_until(lambda: cancelled() == before + 1, "the cancel is counted")
    # The run was ended too: the model answers again long before the call's deadline.
    assert wire.call(body("faulty")).code == 0


def test_what_is_not_grpc_gets_415(wire: RawClient) -> None:
    reply = wire.call(b"{}", content_type="application/json")
    assert reply.headers[":status"] == "415"
    assert wire.call(body()).code == 0


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;a=b"])
def test_other_spellings_of_grpc_are_grpc(wire: RawClient, kind: str) -> None:
    assert wire.call(body(), content_type=kind).code == 0


def situations() -> list[str]:
    """The rows of the table in the code."""
    source = (ROOT / "router/engine/base/status.cc").read_text()
    table = source[source.index("kTable") : source.index("static_assert")]
    return re.findall(r'\{Code::\w+, [^,]+, "(\w+)"\}', table)


def test_every_situation_is_provoked_somewhere() -> None:
    assert {row[0] for row in ROWS} | ELSEWHERE == set(situations())


def test_unknown_is_no_answer_of_this_server() -> None:
    source = (ROOT / "router/engine/base/status.cc").read_text()
    assert "{Code::unknown" not in source


def test_the_document_shows_the_table() -> None:
    document = (ROOT / "docs/status-codes.md").read_text()
    shown = re.findall(r"^\| `([a-z_]+)` \|", document, re.MULTILINE)
    assert shown == situations()
