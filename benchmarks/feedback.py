"""Do 10,000 labels a second slow the inference they are about?

One router under a paced load, a quarter of what it can do at 8x8. In every other run
labels of earlier predictions are streamed to it, 64 reports a message, each about
another prediction. Figures: microseconds with labels beside without, and labels stored
and answered a second beside how many were due. A lost call, a wrong answer, or a report
that was not JOINED ends the benchmark with an error.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2

from benchmarks import h2load, models, servers
from benchmarks.h2load import Load, LostCallError, Measured
from benchmarks.models import SMALL
from benchmarks.pairs import alternate, compare
from benchmarks.report import Budget, Options, Row, main, paced_row
from benchmarks.servers import RELEASE, Server

ONLY = (SMALL,)
LOAD_SHARE = 0.25
LABELS_PER_S = 10_000
BATCH = 64
WINDOW = 64
# A run has to hold many commits, and a p99 needs more calls than a median.
RUN_LENGTHS = 4
# Labels go on until the load has ended, which starts a little later than they do.
SPARE = 1.5
ANSWER_TIMEOUT_S = 60.0
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
REPORT_STREAM = "/router.v1.Feedback/ReportStream"
BUDGETS = {"p99_us": Budget("ratio", 1.1, 300.0), "labels": Budget("ratio", 0.99)}


class LostLabelError(Exception):
    """A report about a real prediction was not stored."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A run, and the labels a second that were stored and answered during it."""

    measured: Measured
    labels_per_s: float = 0.0


def rows(chosen: Options) -> list[Row]:
    """p99 and p50 with labels beside without, and how many labels were stored."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", ONLY)
        body = models.write_body(SMALL, folder / "body")
        with servers.router(
            folder, repository, ONLY, {2: 50, 1: 50}, more=labelling(repository)
        ) as router:
            load = h2load.paced(router, Load(8, 8, body), chosen.seconds, LOAD_SHARE)
            if chosen.short:
                # Looks for lost calls and labels; a slow machine is neither.
                load = replace(load, pace_min=0.0)
            runs = _alternated(router, load, chosen)
            router.check(SMALL)
    labels = [run.labels_per_s for run in runs["labelled"]]
    return [
        paced_row(runs, "p99_us", "labelled", BUDGETS),
        paced_row(runs, "p50_us", "labelled", BUDGETS),
        Row(
            case="small 8x8 paced",
            figure="labels/s",
            subject="joined",
            reference="due",
            better="higher",
            compared=compare(labels, [LABELS_PER_S] * len(labels)),
            budget=BUDGETS["labels"],
        ),
    ]


def labelling(repository: Path) -> dict[str, object]:
    """A model whose answers can be labelled."""
    output = {"tensor": "y", "index": 1, "kind": "probability"}
    model = {
        "name": SMALL.name,
        "repository": str(repository / SMALL.name),
        "stable": 1,
        "prediction_id": True,
        "output": output,
    }
    return {"models": [model]}


def _alternated(
    router: Server, load: Load, chosen: Options
) -> dict[str, list[Labelled]]:
    seconds = chosen.seconds * RUN_LENGTHS
    calls = h2load.calls_in(load, seconds)

    def quiet() -> Labelled:
        return Labelled(h2load.run(router, load, calls))

    def labelled() -> Labelled:
        batches = int(seconds * SPARE * LABELS_PER_S / BATCH)
        messages = reports(predict(router, batches * BATCH))
        return with_labels(router, messages, lambda: h2load.run(router, load, calls))

    made = {"labelled": labelled, "quiet": quiet}
    return alternate({k: h2load.on_pace(run) for k, run in made.items()}, chosen.rounds)


def predict(router: Server, count: int) -> list[str]:
    """The ids of so many predictions, made now."""
    request = models.request_of(SMALL).SerializeToString()
    answer = service_pb2.ModelStreamInferResponse.FromString
    found: list[str] = []
    # A stream may have so many requests open.
    may_go = threading.Semaphore(WINDOW)

    def asked() -> Iterator[bytes]:
        for one in repeat(request, count):
            if not may_go.acquire(timeout=ANSWER_TIMEOUT_S):
                return
            yield one

    with grpc.insecure_channel(f"127.0.0.1:{router.port}") as channel:
        call = channel.stream_stream(STREAM_INFER, None, answer)
        for told in call(asked(), timeout=ANSWER_TIMEOUT_S):
            if told.error_message:
                raise LostCallError(f"{len(found)} predictions: {told.error_message}")
            may_go.release()
            found.append(told.infer_response.parameters["prediction_id"].string_param)
    return found


@cache
def _message(name: str) -> type[Any]:
    # A pool of our own, of the release's: the checkout's package has no descriptors.
    pool = DescriptorPool()
    compiled = (RELEASE / "router" / "wire.desc").read_bytes()
    for file in FileDescriptorSet.FromString(compiled).file:
        pool.AddSerializedFile(file.SerializeToString())
    made: type[Any] = GetMessageClass(pool.FindMessageTypeByName(f"router.v1.{name}"))
    return made


def reports(ids: Sequence[str]) -> list[bytes]:
    """A label of each prediction, so many a message."""
    made = []
    for start in range(0, len(ids), BATCH):
        message = _message("ReportRequest")()
        for at, one in enumerate(ids[start : start + BATCH]):
            message.reports.add(prediction_id=one, label=float(at % 2))
        made.append(message.SerializeToString())
    return made


def with_labels(
    router: Server, messages: Sequence[bytes], measure: Callable[[], Measured]
) -> Labelled:
    """Measure while labels arrive at their pace; every one has to be joined."""
    finished = threading.Event()
    answers: list[bytes] = []
    moments: list[float] = []  # of answers
    problems: list[grpc.RpcError] = []

    def due() -> Iterator[bytes]:
        begun = time.monotonic()
        for at, message in enumerate(messages):
            wait_s = begun + at * BATCH / LABELS_PER_S - time.monotonic()
            if finished.wait(max(wait_s, 0.0)):
                return
            yield message

    def report() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            call = channel.stream_stream(REPORT_STREAM, None, None)
            try:
                for answer in call(due(), timeout=ANSWER_TIMEOUT_S):
                    answers.append(answer)
                    moments.append(time.monotonic())
            except grpc.RpcError as error:
                problems.append(error)

    reporter = threading.Thread(target=report, name="reporter")
    reporter.start()
    try:
        measured = measure()
    finally:
        finished.set()
        reporter.join()
    if problems:
        raise LostLabelError(f"{len(answers)} answers, then {problems[0]}")
    _check(messages, answers)
    if len(answers) < 2:
        return Labelled(measured)
    # From the first answer on: how long a commit takes is not how many there are.
    took_s = moments[-1] - moments[0]
    return Labelled(measured, (len(answers) - 1) * BATCH / took_s)


def _check(messages: Sequence[bytes], answers: Sequence[bytes]) -> None:
    name = _message("Answer").Outcome.Name
    for at, answer in enumerate(answers):
        for place, one in enumerate(
            _message("ReportResponse").FromString(answer).answers
        ):
            if name(one.outcome) == "JOINED":
                continue
            sent = _message("ReportRequest").FromString(messages[at]).reports[place]
            told = f"{sent.prediction_id!r} is {name(one.outcome)}: {one.reason}"
            raise LostLabelError(f"message {at}, report {place}: {told}")


if __name__ == "__main__":
    main("feedback", __doc__, rows)
