"""The feedback service: messages to reports, answers to messages.

A request is refused as a whole when one of its reports has not the right form, with the
name of the field; what a report *means* (is it late, whose prediction is it) is an
answer. Answers go out when the labels are on disk, from the thread that put them there.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from router.client.messages import message
from router.errors import StoreError, StoreFullError
from router.feedback.desk import BusyError, FeedbackDesk
from router.feedback.join import LABEL, REWARD, Answer, Report
from router.ops.methods import (
    Code,
    DeferredMethod,
    Method,
    MethodError,
    Reply,
    Send,
    StreamMethod,
)

PREFIX = "/router.v1.Feedback/"
REPORTS_MAX = 256
ROW_MAX = 65_535
GROUPS_MAX = 8
TEXT_BYTES_MAX = 64
TIME_MS_MAX = 2**53

REQUEST = "router.v1.ReportRequest"
RESPONSE = "router.v1.ReportResponse"


def feedback_methods(desk: FeedbackDesk, send: Send) -> tuple[Method, ...]:
    """Report and ReportStream."""
    request = message(REQUEST)
    return (
        DeferredMethod(PREFIX + "Report", request, lambda r, to: _report(desk, r, to)),
        StreamMethod(PREFIX + "ReportStream", request, ReportStreams(desk, send)),
    )


def _report(desk: FeedbackDesk, request: Any, reply: Reply) -> None:
    def done(result: tuple[Answer, ...] | StoreError) -> None:
        if isinstance(result, StoreError):
            reply.refuse(refusal(result))
        else:
            reply.answer(response(result))

    take(desk, request, done)


def take(
    desk: FeedbackDesk,
    request: Any,
    done: Callable[[tuple[Answer, ...] | StoreError], None],
) -> None:
    """Hand the reports of a message to the desk; MethodError when it may not."""
    reports = read_reports(request)
    try:
        desk.report(reports, done)
    except BusyError as error:
        raise MethodError(Code.RESOURCE_EXHAUSTED, str(error)) from None


def refusal(error: StoreError) -> MethodError:
    """What clients are told; the log has the file and the cause."""
    if isinstance(error, StoreFullError):
        return MethodError(
            Code.RESOURCE_EXHAUSTED, "no room for labels; nothing of this is stored"
        )
    return MethodError(
        Code.UNAVAILABLE, "labels cannot be stored now; nothing of this is"
    )


def response(answers: tuple[Answer, ...]) -> Any:
    """The answers as a message."""
    made = message(RESPONSE)()
    for answer in answers:
        made.answers.add(outcome=int(answer.outcome), reason=answer.reason)
    return made


@dataclass(slots=True)
class _Stream:
    """A stream with messages that wait for their answers."""

    pending: int = 0
    has_ended: bool = False


class ReportStreams:
    """Owner of the open streams' counts of unanswered messages."""

    def __init__(self, desk: FeedbackDesk, send: Send) -> None:
        self._desk, self._send = desk, send
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def opened(self, stream: int, request: Any) -> None:
        with self._lock:
            self._streams.setdefault(stream, _Stream()).pending += 1
        take(self._desk, request, lambda result: self._answer(stream, result))

    def half_closed(self, stream: int) -> None:
        with self._lock:
            state = self._streams.setdefault(stream, _Stream())
            state.has_ended = True
            is_over = state.pending == 0
        if is_over:
            self._end(stream)

    def gone(self, stream: int) -> None:
        with self._lock:
            self._streams.pop(stream, None)

    def _answer(self, stream: int, result: tuple[Answer, ...] | StoreError) -> None:
        with self._lock:
            state = self._streams.get(stream)
            if state is None:
                return  # what is stored is stored, but nobody listens
            state.pending -= 1
            is_over = state.has_ended and state.pending == 0
        if isinstance(result, StoreError):
            error = refusal(result)
            self.gone(stream)
            self._send(stream, None, end=True, code=error.code, detail=error.detail)
            return
        if not self._send(stream, response(result).SerializeToString(), end=False):
            self.gone(stream)
        elif is_over:
            self._end(stream)

    def _end(self, stream: int) -> None:
        self.gone(stream)
        self._send(stream, None, end=True)


def read_reports(request: Any) -> tuple[Report, ...]:
    """The reports of a message; MethodError names the field that is wrong."""
    if len(request.reports) > REPORTS_MAX:
        raise _invalid("reports", f"{len(request.reports)}, at most {REPORTS_MAX}")
    return tuple(
        _read_report(one, f"reports[{at}]") for at, one in enumerate(request.reports)
    )


def _read_report(one: Any, place: str) -> Report:
    kind = one.WhichOneof("truth")
    if kind is None:
        raise _invalid(place, "needs a label, a reward or a metric")
    metric, value = kind, getattr(one, kind)
    if kind == "metric":
        metric, value = value.name, value.value
        _check_text(metric, f"{place}.metric.name")
        if not metric or metric in (LABEL, REWARD):
            raise _invalid(f"{place}.metric.name", f"'{metric}' is no name of a metric")
    if not math.isfinite(value):
        raise _invalid(f"{place}.{kind}", "is not a finite number")
    if one.row > ROW_MAX:
        raise _invalid(f"{place}.row", f"{one.row}, at most {ROW_MAX}")
    if not 0 <= one.time_ms <= TIME_MS_MAX:
        raise _invalid(f"{place}.time_ms", "is no time in milliseconds since 1970")
    _check_text(one.idempotency_id, f"{place}.idempotency_id")
    # A row has one label and one reward, whatever they are called.
    event = one.idempotency_id if kind == "metric" else ""
    return Report(
        one.prediction_id, one.row, metric, value, event,
        _groups(one, place) if one.groups else (), one.time_ms / 1000,
    )  # fmt: skip


def _groups(one: Any, place: str) -> tuple[tuple[str, str], ...]:
    if len(one.groups) > GROUPS_MAX:
        raise _invalid(f"{place}.groups", f"{len(one.groups)}, at most {GROUPS_MAX}")
    for key, value in one.groups.items():
        _check_text(key, f"{place}.groups")
        _check_text(value, f"{place}.groups['{key}']")
        if not key or not value:
            raise _invalid(f"{place}.groups", "a name or a value is empty")
    return tuple(sorted(one.groups.items()))


def _check_text(text: str, place: str) -> None:
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise _invalid(place, f"has more than {TEXT_BYTES_MAX} bytes")


def _invalid(place: str, what: str) -> MethodError:
    return MethodError(Code.INVALID_ARGUMENT, f"{place}: {what}")
