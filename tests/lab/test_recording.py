"""Replay files: whole, or refused with the place of the damage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from router.client.lines import read_arrays, read_request
from router.clock import SystemClock
from router.engine._engine import crc32c
from router.lab.recording import (
    PREFLIGHT_ID,
    Recorded,
    RecordingError,
    ReplayWriter,
    read_replay,
    record,
)
from router.telemetry.tape import FRAME, TapeFiles
from router.testing import messages

HEADER_BYTES = 32
Request = messages()("ModelInferRequest")
Record = messages("router.v1")("Record")


def body(name: str = "credit", id: str = "") -> bytes:  # noqa: A002
    made: bytes = Request(model_name=name, id=id).SerializeToString()
    return made


def some(count: int) -> list[Recorded]:
    return [
        Recorded("credit", body(id=str(i)), (("x-user-id", b"u%d" % i),), "2", i, 99)
        for i in range(count)
    ]


def written(path: Path, requests: list[Recorded]) -> Path:
    with ReplayWriter(path) as writer:
        for each in requests:
            writer.add(each)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    requests = some(3)
    found = list(read_replay(written(tmp_path / "r", requests)))
    assert [(r.model, r.body, r.metadata, r.version, r.time_ms) for r in found] == [
        (r.model, r.body, r.metadata, r.version, r.time_ms) for r in requests
    ]


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "r", some(1)).read_bytes()
    broken = tmp_path / "broken"
    for at in range(len(whole)):
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(
            RecordingError, match=r"damaged|cut off|not a replay|format"
        ):
            list(read_replay(broken))


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "r", some(1)).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(RecordingError):
            list(read_replay(tmp_path / "cut"))


def test_damage_is_named_with_its_offset(tmp_path: Path) -> None:
    path = written(tmp_path / "r", some(2))
    data = bytearray(path.read_bytes())
    length, _ = FRAME.unpack_from(data, HEADER_BYTES)
    second = HEADER_BYTES + FRAME.size + length
    data[second + FRAME.size + 3] ^= 0xFF
    path.write_bytes(data)
    reading = read_replay(path)
    assert next(reading).time_ms == 0
    with pytest.raises(RecordingError, match=f"r: damaged at byte {second}$"):
        next(reading)


def test_more_than_was_written_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "r", some(1))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RecordingError, match="more than the header says"):
        list(read_replay(path))


def fail_while_writing(path: Path) -> None:
    with ReplayWriter(path) as writer:
        writer.add(some(1)[0])
        raise KeyError


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail_while_writing(tmp_path / "r")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a replay file"), (b"hello there, this is a text of some length",
                                  "not a replay file")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        list(read_replay(tmp_path / "r"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nothing: no such file"):
        list(read_replay(tmp_path / "nothing"))


def line(**changes: Any) -> str:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[0.5, 1]]}
    return json.dumps({"model_name": "credit", "inputs": [x], **changes})


def test_lines_written_by_hand_are_requests(tmp_path: Path) -> None:
    extra = {
        "metadata": {"X-User-Id": "u"},
        "parameters": {"a": 1, "b": "c", "d": True},
    }
    (tmp_path / "r").write_text(line() + "\n\n" + line(**extra))
    first, second = read_replay(tmp_path / "r")
    request = read_request(first.body)
    assert first.model == request.model_name == "credit"
    assert read_arrays(request)["x"].tolist() == [[0.5, 1]]
    assert second.metadata == (("x-user-id", b"u"),)
    given = read_request(second.body).parameters
    assert (given["a"].int64_param, given["b"].string_param) == (1, "c")
    assert given["d"].bool_param is True


X: Mapping[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"inputs": []}', "model_name is missing"),
        (line(inputs=[{**X, "shape": [3]}]), "2 values for shape"),
        (line(inputs=[{**X, "datatype": "FP31"}]), "unknown datatype FP31"),
        (line(inputs=[{**X, "data": ["a", "b"]}]), "not FP32 values"),
        (line(inputs=[{"name": "x"}]), "no datatype"),
        (line(inputs={}), "inputs is not a list"),
        (line(metadata={"a": 1}), "not text"),
        (line(input=[]), "unknown key 'input'"),
        (line(parameters={"a": None}), "parameter 'a'"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "r").write_text(line() + "\n" + text)
    with pytest.raises(RecordingError, match=rf"r:2: .*{message}"):
        list(read_replay(tmp_path / "r"))


def tape(folder: Path, requests: list[Recorded]) -> None:
    files = TapeFiles(folder, 1 << 20, 3600.0, SystemClock())
    for each in requests:
        made = Record()
        made.request.model, made.request.body = each.model, each.body
        made.request.body_bytes = 7
        data = made.SerializeToString()
        files.append(FRAME.pack(len(data), crc32c(data)) + data)
    other = Record()
    other.exposure.model = "credit"
    data = other.SerializeToString()
    files.append(FRAME.pack(len(data), crc32c(data)) + data)
    files.close()


def test_a_tape_becomes_a_file_of_what_can_be_asked_again(tmp_path: Path) -> None:
    requests = [
        Recorded("credit", body()), Recorded("credit", b""), Recorded("m", body("m")),
        Recorded("credit", body(id=PREFLIGHT_ID)), Recorded("credit", body(id="last")),
    ]  # fmt: skip
    tape(tmp_path / "tape", requests)
    made = record(str(tmp_path / "tape"), str(tmp_path / "r"), "credit")
    assert (made.kept, made.without_body, made.others, made.own) == (2, 1, 1, 1)
    assert [r.body for r in read_replay(tmp_path / "r")] == [body(), body(id="last")]


def test_a_limit_keeps_the_oldest(tmp_path: Path) -> None:
    tape(tmp_path / "tape", some(5))
    made = record(str(tmp_path / "tape"), str(tmp_path / "r"), limit=2)
    assert (made.kept, made.others) == (2, 3)
    kept = list(read_replay(tmp_path / "r"))
    assert [r.body for r in kept] == [each.body for each in some(2)]


def test_a_tape_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such folder"):
        record(str(tmp_path / "none"), str(tmp_path / "r"))
