"""Reporting truths: one, or a file of them over a stream with a window.

The server stores before it answers, so at most `window` messages wait for an answer at
a time: enough to keep its commits full, few enough that it never has to refuse.
"""

import csv
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import grpc

from router.client.channel import TlsFiles, open_channel
from router.client.messages import message
from router.client.stub import call, streaming
from router.client.truths import Truth
from router.errors import RouterError

SERVICE = "router.v1.Feedback"
TIMEOUT_S = 10.0


def send_one(target: str, truth: Truth, tls: TlsFiles | None = None) -> tuple[str, str]:
    """The outcome and its reason; RouterError when the server refuses."""
    with open_channel(target, tls) as channel:
        try:
            answer = call(channel, f"{SERVICE}/Report", _request([truth]), TIMEOUT_S)
        except grpc.RpcError as error:
            raise _refused(error) from None
    (found,) = answer.answers
    return _name(found), found.reason


def import_truths(
    target: str,
    truths: Iterable[Truth],
    batch: int,
    window: int,
    rejects: str | None = None,
    tls: TlsFiles | None = None,
) -> dict[str, int]:
    """How many truths got which answer.

    With `rejects`, those that did not join are written there as CSV with the reason.
    """
    tally = dict.fromkeys(("JOINED", "DUPLICATE", "LATE", "UNKNOWN"), 0)
    with ExitStack() as stack:
        channel = stack.enter_context(open_channel(target, tls))
        writer: Any = None
        if rejects:
            opened = stack.enter_context(open(rejects, "w", newline=""))
            writer = csv.writer(opened)
            writer.writerow(("prediction_id", "row", "outcome", "reason"))
        sending = _Sending(truths, batch, window)
        answers = streaming(channel, f"{SERVICE}/ReportStream", sending.requests())
        try:
            for sent, answer in sending.answered(answers):
                for truth, found in zip(sent, answer.answers, strict=True):
                    outcome = _name(found)
                    tally[outcome] += 1
                    if writer and outcome in ("LATE", "UNKNOWN"):
                        writer.writerow(
                            (truth.prediction_id, truth.row, outcome, found.reason)
                        )
        except grpc.RpcError as error:
            if sending.error is not None:
                raise sending.error from None
            done = sum(tally.values())
            raise RouterError(f"{_refused(error)}; {done} rows were answered") from None
    return tally


class _Sending:
    """Messages on their way: the reader of answers lets the sender go on."""

    def __init__(self, truths: Iterable[Truth], batch: int, window: int) -> None:
        self._truths, self._batch = iter(truths), batch
        self._free = threading.Semaphore(window)
        self._sent: list[list[Truth]] = []
        self._is_over = False
        self.error: RouterError | None = None

    def requests(self) -> Iterator[Any]:
        """Called on a thread of grpcio's."""
        while True:
            self._free.acquire()
            if self._is_over:
                return
            try:
                part = list(islice(self._truths, self._batch))
            except RouterError as error:
                self.error = error  # grpcio would make "unknown" of it
                raise
            if not part:
                return
            self._sent.append(part)
            yield _request(part)

    def answered(self, answers: Iterable[Any]) -> Iterator[tuple[list[Truth], Any]]:
        """Each answer with what it answers."""
        try:
            for at, answer in enumerate(answers):
                part, self._sent[at] = self._sent[at], []
                yield part, answer
                self._free.release()
        finally:
            self._is_over = True
            self._free.release()


def _request(truths: Iterable[Truth]) -> Any:
    made = message("router.v1.ReportRequest")()
    for truth in truths:
        one = made.reports.add(
            prediction_id=truth.prediction_id,
            row=truth.row,
            idempotency_id=truth.idempotency_id,
            time_ms=truth.time_ms,
            groups=dict(truth.groups),
        )
        if truth.kind in ("label", "reward"):
            setattr(one, truth.kind, truth.value)
        else:
            one.metric.name, one.metric.value = truth.kind, truth.value
    return made


def _name(answer: Any) -> str:
    name: str = (
        answer.DESCRIPTOR.enum_types_by_name["Outcome"]
        .values_by_number[answer.outcome]
        .name
    )
    return name


def _refused(error: Any) -> RouterError:
    return RouterError(f"{error.code().name}: {error.details()}")
