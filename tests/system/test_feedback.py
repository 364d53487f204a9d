"""Feedback through the real server: stock client, real ids, real disk, kill -9."""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from entries import model

from router import testing
from router.cli.main import _guarded, router
from router.clock import SystemClock
from router.control.labels import rotate_key_in

METHOD = "/router.v1.Feedback/"
X = {"x": np.zeros((1, 16), np.float32)}


class Feedback:
    """A plain grpcio client of the feedback service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.message = testing.messages("router.v1")
        answer = self.message("ReportResponse").FromString
        self.report = channel.unary_unary(
            METHOD + "Report", lambda m: m.SerializeToString(), answer
        )
        self.stream = channel.stream_stream(
            METHOD + "ReportStream", lambda m: m.SerializeToString(), answer
        )

    def request(self, *ids: str, **fields: Any) -> Any:
        made = self.message("ReportRequest")()
        for one in ids:
            made.reports.add(prediction_id=one, **{"label": 1.0, **fields})
        return made

    def outcomes(self, answer: Any) -> list[str]:
        names = self.message("Answer").Outcome.Name
        return [names(one.outcome) for one in answer.answers]


def config(directory: Path) -> dict[str, Any]:
    versions = {1: testing.mlp(seed=1), 2: testing.mlp(seed=2)}
    testing.write_model(directory / "models", "credit", versions)
    output = {"tensor": "probabilities", "index": 1, "kind": "probability"}
    entry = model(
        directory / "models", "credit", stable=1, prediction_id=True, output=output
    )
    route = {
        "model": "credit",
        "name": "half",
        "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}],
    }
    return {"models": [entry], "routes": [route]}


def predict(server: testing.Server, count: int) -> list[str]:
    with testing.Caller(server.address) as caller:
        return [
            caller.infer("credit", X, {"x-user-id": f"u{at}"}).params["prediction_id"]
            for at in range(count)
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("feedback")
    with testing.Server(directory, config(directory)) as made:
        yield made


@pytest.fixture
def feedback(server: testing.Server) -> Iterator[Feedback]:
    with grpc.insecure_channel(server.address) as channel:
        yield Feedback(channel)


def test_a_label_of_a_real_answer_joins_once(server, feedback) -> None:
    (one,) = predict(server, 1)
    assert len(one) == 64
    request = feedback.request(one)
    assert feedback.outcomes(feedback.report(request, timeout=10)) == ["JOINED"]
    assert feedback.outcomes(feedback.report(request, timeout=10)) == ["DUPLICATE"]
    assert server.metric("router_feedback_reports_total", outcome="duplicate") >= 1


def test_ids_of_nobody_are_unknown_and_say_so(feedback) -> None:
    answer = feedback.report(feedback.request("x" * 64, "", "é"), timeout=10)
    assert feedback.outcomes(answer) == ["UNKNOWN"] * 3
    assert "keys" in answer.answers[0].reason


def test_a_stream_is_answered_message_by_message(server, feedback) -> None:
    ids = predict(server, 20)
    requests = [feedback.request(*ids[at : at + 5]) for at in range(0, 20, 5)]
    answers = [
        feedback.outcomes(a) for a in feedback.stream(iter(requests), timeout=10)
    ]
    assert answers == [["JOINED"] * 5] * 4


def test_a_wrong_report_names_its_field_and_ends_the_stream(feedback) -> None:
    bad = feedback.request("p", label=float("nan"))
    call = feedback.stream(iter([feedback.request("p"), bad]), timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "reports[0].label" in caught.value.details()


def test_feedback_is_listed_by_reflection(server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        message = testing.messages("grpc.reflection.v1")
        request = message("ServerReflectionRequest")(list_services="")
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            lambda m: m.SerializeToString(),
            message("ServerReflectionResponse").FromString,
        )
        (answer,) = call(iter([request]), timeout=10)
    listed = [one.name for one in answer.list_services_response.service]
    assert "router.v1.Feedback" in listed


@pytest.mark.slow
def test_a_full_label_store_refuses_and_inference_goes_on(tmp_path) -> None:
    small = {**config(tmp_path), "feedback": {"mib_max": 1}}
    with testing.Server(tmp_path, small) as server:
        ids = predict(server, 50)
        with grpc.insecure_channel(server.address) as channel:
            client = Feedback(channel)
            code = fill(client, ids)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(predict(server, 5)) == 5
        assert server.metric("router_feedback_refused_total", cause="store_full") > 0
        assert server.get("/readyz")[0] == 200


def fill(client: Feedback, ids: list[str]) -> grpc.StatusCode:
    """Report until it is refused; the code."""

    def requests() -> Iterator[Any]:
        for row in range(1_000):
            yield client.request(*ids, row=row)

    try:
        for _ in client.stream(requests(), timeout=60):
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.soak)],
)
def test_every_acknowledged_label_is_there_once_after_kills(tmp_path, kills) -> None:
    server = testing.Server(tmp_path, config(tmp_path))
    server.start()
    ids = predict(server, 64)
    acknowledged: set[tuple[str, int]] = set()
    sent = 0
    for _ in range(kills):
        sent = report_until_killed(server, ids, sent, acknowledged)
        server.start()
    assert len(acknowledged) > kills * 64
    with grpc.insecure_channel(server.address) as channel:
        client = Feedback(channel)
        rows = sorted({row for _, row in acknowledged})
        requests = (client.request(*ids, row=row) for row in rows)
        for row, answer in zip(rows, client.stream(requests, timeout=120), strict=True):
            told = dict(zip(ids, client.outcomes(answer), strict=True))
            for one in ids:
                if (one, row) in acknowledged:
                    assert told[one] == "DUPLICATE", (one, row)
    assert server.stop() == 0
    assert stored_twice(tmp_path / "run" / "labels.db") == 0


def report_until_killed(
    server: testing.Server,
    ids: list[str],
    row: int,
    acknowledged: set[tuple[str, int]],
) -> int:
    """Stream messages, kill the server after some answers; the next unused row."""
    rows: list[int] = []
    enough = threading.Event()

    def requests(client: Feedback) -> Iterator[Any]:
        while not enough.is_set() and len(rows) < 400:
            rows.append(row + len(rows))
            yield client.request(*ids, row=rows[-1])

    with grpc.insecure_channel(server.address) as channel:
        client = Feedback(channel)
        answers = client.stream(requests(client), timeout=60)
        try:
            for at, answer in enumerate(answers):
                acknowledged.update(
                    (one, rows[at])
                    for one, outcome in zip(ids, client.outcomes(answer), strict=True)
                    if outcome == "JOINED"
                )
                if at == 3 and not enough.is_set():
                    enough.set()
                    server.kill()
        except grpc.RpcError:
            assert enough.is_set()
    return row + len(rows)


def stored_twice(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        (damage,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert damage == "ok"
        query = "SELECT count(*) - count(DISTINCT hex(prediction) || row) FROM label"
        return int(connection.execute(query).fetchone()[0])


def test_a_file_is_imported_once_however_often(server, tmp_path, capsys) -> None:
    ids = predict(server, 300)
    path = tmp_path / "labels.csv"
    lines = [f"{one},1" for one in [*ids, "nobody"]]
    path.write_text("\n".join(["prediction_id,label", *lines, ""]))
    rejects = tmp_path / "rejects.csv"
    command = ["feedback", "import", server.address, str(path), "--batch", "32"]
    for joined, duplicates in ((300, 0), (0, 300)):
        code = run(*command, "--window", "2", "--rejects", str(rejects))
        told = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert code == 1  # one row is unknown
        assert told == {
            "joined": str(joined), "duplicate": str(duplicates), "late": "0",
            "unknown": "1",
        }  # fmt: skip
    assert "nobody,0,UNKNOWN" in rejects.read_text()


def test_a_bad_row_ends_an_import_with_its_line(server, tmp_path, capsys) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prediction_id,label\nx,1\ny,oops\n")
    assert run("feedback", "import", server.address, str(path)) == 1
    assert f"{path}:3: label: 'oops'" in capsys.readouterr().err


def test_one_truth_is_sent_from_the_command_line(server, capsys) -> None:
    (one,) = predict(server, 1)
    assert run("feedback", "send", server.address, one, "--metric", "clicks=2") == 0
    assert capsys.readouterr().out == "JOINED\n"


def test_ids_of_a_replaced_key_are_still_read(tmp_path) -> None:
    made = config(tmp_path)
    with testing.Server(tmp_path, made) as server:
        (before,) = predict(server, 1)
        state = tmp_path / "run" / "state.db"
        rotate_key_in(str(state), secrets.token_bytes, SystemClock())
        server.reload({**made, "feedback": {"window": "6d"}})
        (after,) = predict(server, 1)
        with grpc.insecure_channel(server.address) as channel:
            client = Feedback(channel)
            answer = client.report(client.request(before, after), timeout=10)
        assert client.outcomes(answer) == ["JOINED", "JOINED"]
        # The first character tells the key.
        assert before[:2] != after[:2]


def run(*arguments: str) -> int:
    return _guarded(lambda: router.main(arguments, "router", standalone_mode=False))
