"""Feedback messages: what is refused by name, and how streams are answered."""

import pytest

from router.client.messages import message
from router.errors import StoreError, StoreFullError
from router.feedback.desk import BusyError
from router.feedback.join import Answer, Outcome
from router.ops.feedback import ReportStreams, feedback_methods, read_reports
from router.ops.methods import Code, MethodError, serve_event

REQUEST = message("router.v1.ReportRequest")
RESPONSE = message("router.v1.ReportResponse")


class Desk:
    """Keeps the callbacks for the test to call."""

    def __init__(self) -> None:
        self.waiting = []
        self.is_busy = False

    def report(self, reports, done):
        if self.is_busy:
            raise BusyError("too much feedback waits to be stored")
        self.waiting.append((reports, done))

    def answer(self, *outcomes):
        _, done = self.waiting.pop(0)
        done(tuple(Answer(outcome) for outcome in outcomes))

    def fail(self, error):
        _, done = self.waiting.pop(0)
        done(error)


class Event:
    def __init__(self, stream, kind, data=b"") -> None:
        self.stream, self.kind, self.message, self.method = stream, kind, data, 0


def request(**fields):
    made = REQUEST()
    made.reports.add(**{"prediction_id": "p", "label": 1.0, **fields})
    return made


def test_a_report_is_read_as_it_was_sent():
    (report,) = read_reports(
        request(row=3, groups={"b": "2", "a": "1"}, time_ms=5_500, idempotency_id="i")
    )
    assert (report.prediction_id, report.row, report.metric) == ("p", 3, "label")
    assert (report.value, report.groups) == (1.0, (("a", "1"), ("b", "2")))
    assert report.observed_s == 5.5
    assert report.event == ""  # a row has one label, whatever it is called


def test_events_of_a_metric_are_told_apart_by_their_idempotency_id():
    made = REQUEST()
    made.reports.add(metric={"name": "clicks", "value": 2.0}, idempotency_id="a")
    (report,) = read_reports(made)
    assert (report.metric, report.value, report.event) == ("clicks", 2.0, "a")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"label": float("nan")}, "reports[0].label: is not a finite number"),
        ({"label": float("inf")}, "reports[0].label"),
        ({"row": 65_536}, "reports[0].row: 65536, at most 65535"),
        ({"time_ms": -1}, "reports[0].time_ms"),
        ({"idempotency_id": "x" * 65}, "reports[0].idempotency_id: has more than 64"),
        (
            {"groups": {str(n): "v" for n in range(9)}},
            "reports[0].groups: 9, at most 8",
        ),
        ({"groups": {"a": ""}}, "reports[0].groups: a name or a value is empty"),
        ({"groups": {"a": "v" * 65}}, "reports[0].groups['a']"),
    ],
)
def test_a_report_of_the_wrong_form_is_refused_by_name(fields, told):
    with pytest.raises(MethodError) as caught:
        read_reports(request(**fields))
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert told in caught.value.detail


@pytest.mark.parametrize("name", ["", "label", "reward", "x" * 65])
def test_a_metric_needs_a_name_of_its_own(name):
    made = REQUEST()
    made.reports.add(metric={"name": name, "value": 1.0})
    with pytest.raises(MethodError, match=r"metric\.name"):
        read_reports(made)


def test_a_report_without_truth_is_refused():
    made = REQUEST()
    made.reports.add(prediction_id="p")
    with pytest.raises(MethodError, match="needs a label"):
        read_reports(made)


def test_a_message_has_at_most_256_reports():
    made = REQUEST()
    for _ in range(256):
        made.reports.add(label=1.0)
    assert len(read_reports(made)) == 256
    made.reports.add(label=1.0)
    with pytest.raises(MethodError, match="257, at most 256"):
        read_reports(made)


def test_a_unary_report_is_answered_when_it_is_stored(plane):
    desk = Desk()
    method = feedback_methods(desk, plane.sent)[0]
    serve_event(method, Event(5, 0, request().SerializeToString()), plane.sent)
    assert plane.sent.calls == []
    desk.answer(Outcome.JOINED)
    ((stream, data, end, code, _),) = plane.sent.calls
    assert (stream, end, code) == (5, True, Code.OK)
    assert [a.outcome for a in RESPONSE.FromString(data).answers] == [1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFullError("/data/labels.db: full"), Code.RESOURCE_EXHAUSTED),
        (StoreError("/data/labels.db: I/O error"), Code.UNAVAILABLE),
    ],
)
def test_what_cannot_be_stored_is_refused_without_the_path(plane, error, code):
    desk = Desk()
    method = feedback_methods(desk, plane.sent)[0]
    serve_event(method, Event(5, 0, request().SerializeToString()), plane.sent)
    desk.fail(error)
    ((_, data, end, told, detail),) = plane.sent.calls
    assert (data, end, told) == (None, True, code)
    assert "nothing of this" in detail
    assert "/data" not in detail


def test_a_queue_that_is_full_is_resource_exhausted(plane):
    desk = Desk()
    desk.is_busy = True
    for method in feedback_methods(desk, plane.sent):
        serve_event(method, Event(5, 0, request().SerializeToString()), plane.sent)
    assert [call[3] for call in plane.sent.calls] == [Code.RESOURCE_EXHAUSTED] * 2


def test_a_stream_ends_once_its_last_message_is_answered(plane):
    desk = Desk()
    streams = ReportStreams(desk, plane.sent)
    streams.opened(9, request())
    streams.opened(9, request())
    streams.half_closed(9)
    desk.answer(Outcome.JOINED)
    assert [call[2] for call in plane.sent.calls] == [False]
    desk.answer(Outcome.LATE)
    assert [call[2] for call in plane.sent.calls] == [False, False, True]
    assert plane.sent.calls[-1][3] == Code.OK


def test_a_stream_without_messages_ends_at_once(plane):
    ReportStreams(Desk(), plane.sent).half_closed(9)
    assert [call[2] for call in plane.sent.calls] == [True]


def test_a_stream_that_could_not_be_stored_ends_with_the_reason(plane):
    desk = Desk()
    streams = ReportStreams(desk, plane.sent)
    streams.opened(9, request())
    streams.opened(9, request())
    desk.fail(StoreFullError("full"))
    desk.answer(Outcome.JOINED)
    ((_, _, end, code, _),) = plane.sent.calls
    assert (end, code) == (True, Code.RESOURCE_EXHAUSTED)


def test_a_stream_that_is_gone_is_not_answered(plane):
    desk = Desk()
    streams = ReportStreams(desk, plane.sent)
    streams.opened(9, request())
    streams.gone(9)
    desk.answer(Outcome.JOINED)
    assert plane.sent.calls == []
