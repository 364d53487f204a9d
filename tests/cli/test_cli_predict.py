"""`router predict` puts text into tensors, and reads what comes back."""

import math
from pathlib import Path
from typing import Any

import pytest

from router.cli.main import main
from router.client.infer import Question, predict
from router.client.values import (
    PredictError,
    pack_values,
    read_values,
    unpack_values,
)
from router.testing import Server, tag, write_model


@pytest.mark.parametrize(
    ("text", "declared", "shape", "values"),
    [
        ("1,2,3", (-1, 3), [1, 3], ["1", "2", "3"]),
        ("1, 2", (-1, -1), [1, 2], ["1", "2"]),
        ("7", (), [], ["7"]),
        ("1,2", (-1,), [2], ["1", "2"]),
        ("[[1, 2], [3, 4]]", (-1, 2), [2, 2], [1, 2, 3, 4]),
        ("[]", (-1,), [0], []),
    ],
)
def test_text_is_read_as_a_tensor(
    text: str, declared: tuple[int, ...], shape: list[int], values: list[Any]
) -> None:
    assert read_values("x", text, declared) == (shape, values)


@pytest.mark.parametrize(
    ("text", "declared", "message"),
    [
        ("1,2", (-1, 3), "2 values do not fill"),
        ("[1,", (-1,), "not JSON"),
        ("[[1], [2, 3]]", (-1, 2), "different lengths"),
    ],
)
def test_text_that_is_no_tensor_says_why(
    text: str, declared: tuple[int, ...], message: str
) -> None:
    with pytest.raises(PredictError, match=message):
        read_values("x", text, declared)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", (True, False)), ("UINT8", (0, 255)), ("UINT16", (65_535,)),
        ("UINT32", (2**32 - 1,)), ("UINT64", (2**64 - 1,)), ("INT8", (-128,)),
        ("INT16", (-1,)), ("INT32", (-1,)), ("INT64", (-(2**63),)), ("FP16", (0.5,)),
        ("BF16", (1.5, -2.0)), ("FP32", (0.25,)), ("FP64", (0.1, math.inf)),
        ("BYTES", ("ä", "")),
    ],
)  # fmt: skip
def test_every_datatype_goes_there_and_back(
    datatype: str, values: tuple[Any, ...]
) -> None:
    texts = [str(value) for value in values]
    assert unpack_values(datatype, pack_values("x", datatype, texts)) == values


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", "300"), ("INT32", "x"), ("BOOL", "maybe"), ("FP32", None), ("FP8", "1")],
)
def test_a_value_of_another_datatype_is_refused(datatype: str, value: Any) -> None:
    with pytest.raises(PredictError, match=datatype if value != "maybe" else "BOOL"):
        pack_values("x", datatype, [value])


@pytest.mark.slow
def test_a_real_server_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path
    repository = write_model(folder / "models", "credit", {1: tag(1), 2: tag(2)})
    config = {
        "models": [{"name": "credit", "repository": str(repository), "stable": 1}],
        "audiences": [{"name": "ny", "when": {"key": "location", "exact": "new-york"}}],
        "routes": [{"model": "credit", "audience": "ny", "version": 2}],
    }
    row = (("x", "1,2"),)
    with Server(folder, config) as server:
        asked = Question("credit", row, "u1", (("location", "new-york"),))
        answer = predict(server.address, asked, timeout_s=10)
        assert (answer.model, answer.version) == ("credit", "2")
        assert {t.name: t.values for t in answer.outputs} == {
            "tag": (2.0,),
            "sum": (3.0,),
        }
        assert ("route_reason", "TARGETING_MATCH") in answer.parameters
        plain = predict(server.address, Question("credit", row), 10)
        assert plain.version == "1"
        with pytest.raises(PredictError, match="no input 'zz'"):
            predict(server.address, Question("credit", (("zz", "1"),)), 10)
        with pytest.raises(PredictError, match="NOT_FOUND"):
            predict(server.address, Question("fraud", row), 10)
        with pytest.raises(SystemExit) as ended:
            main(["predict", server.address, "credit", "--input", "x=1,2"])
        assert ended.value.code == 0
        assert "version 1" in capsys.readouterr().out
