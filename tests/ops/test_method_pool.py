"""Pulling calls and answering them, against a queue instead of an engine."""

import json
import logging
import threading
from dataclasses import dataclass

import pytest

from router.client.messages import message
from router.ops.methods import (
    Code,
    EventKind,
    MethodError,
    MethodPool,
    StreamMethod,
    UnaryMethod,
    serve_event,
)

REQUEST = message("inference.ModelReadyRequest")
RESPONSE = message("inference.ModelReadyResponse")


@dataclass
class Event:
    stream: int
    method: int
    kind: int
    message: bytes = b""


def unary(answer):
    return UnaryMethod("/p.S/M", REQUEST, answer)


def test_an_answer_ends_its_call(plane):
    method = unary(lambda asked: RESPONSE(ready=asked.name == "m"))
    serve_event(
        method, Event(7, 0, 0, REQUEST(name="m").SerializeToString()), plane.sent
    )
    ((stream, data, end, code, _),) = plane.sent.calls
    assert (stream, end, code) == (7, True, Code.OK)
    assert RESPONSE.FromString(data).ready


def test_bytes_that_are_no_message_are_an_invalid_argument(plane):
    serve_event(unary(lambda _: RESPONSE()), Event(1, 0, 0, b"\xff\xff"), plane.sent)
    ((_, data, end, code, detail),) = plane.sent.calls
    assert (data, end, code) == (None, True, Code.INVALID_ARGUMENT)
    assert "inference.ModelReadyRequest" in detail


def test_a_refusal_carries_its_code_and_sentence(plane):
    def refuse(_):
        raise MethodError(Code.NOT_FOUND, "no such thing")

    serve_event(unary(refuse), Event(1, 0, 0), plane.sent)
    assert plane.sent.calls == [(1, None, True, Code.NOT_FOUND, "no such thing")]


def test_a_mistake_of_ours_is_internal_without_a_word_of_it(plane, caplog):
    def fail(_):
        raise KeyError("/etc/secret")

    with caplog.at_level(logging.ERROR):
        serve_event(unary(fail), Event(1, 0, 0), plane.sent)
    assert plane.sent.calls == [(1, None, True, Code.INTERNAL, "internal error")]
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text


def test_a_cancelled_call_is_not_answered(plane):
    serve_event(
        unary(lambda _: RESPONSE()), Event(1, 0, EventKind.CANCELLED), plane.sent
    )
    assert plane.sent.calls == []


class Recorder:
    def __init__(self, fails=False):
        self.seen = []
        self.fails = fails

    def opened(self, stream, request):
        self.seen.append(("opened", stream, request.name))
        if self.fails:
            raise ValueError

    def half_closed(self, stream):
        self.seen.append(("half_closed", stream))

    def gone(self, stream):
        self.seen.append(("gone", stream))


def test_a_stream_is_told_what_happens_in_order(plane):
    recorder = Recorder()
    method = StreamMethod("/p.S/M", REQUEST, recorder)
    for kind in EventKind:
        event = Event(3, 0, kind, REQUEST(name="a").SerializeToString())
        serve_event(method, event, plane.sent)
    assert recorder.seen == [("opened", 3, "a"), ("half_closed", 3), ("gone", 3)]
    assert plane.sent.calls == []


def test_a_stream_that_fails_is_ended_and_forgotten(plane):
    recorder = Recorder(fails=True)
    serve_event(StreamMethod("/p.S/M", REQUEST, recorder), Event(3, 0, 0), plane.sent)
    assert plane.sent.calls == [(3, None, True, Code.INTERNAL, "internal error")]
    assert recorder.seen[-1] == ("gone", 3)


def test_the_pools_thread_ends_when_there_are_no_more_events(plane):
    names = []

    def answer(_):
        names.append(threading.current_thread().name)
        return RESPONSE()

    pool = MethodPool(
        "methods",
        iter([Event(1, 4, 0), Event(2, 4, 0)]),
        plane.sent,
        {4: unary(answer)},
    )
    pool.start()
    pool.join()
    assert names == ["methods", "methods"]
    assert [call[0] for call in plane.sent.calls] == [1, 2]


@pytest.mark.parametrize("code", Code)
def test_no_code_of_this_plane_is_unknown(code):
    assert code != 2
    assert json.dumps(code) == str(int(code))
