"""Requests are made from what the model declares."""

import pytest

from router.client.messages import message
from router.client.values import PredictError, unpack_values
from router.lab.bench import BenchError, Requests, make_messages

DECLARED = {"x": ("FP32", (-1, 2)), "ids": ("INT64", (3,)), "text": ("BYTES", (-1, -1))}


def read(data: bytes) -> dict[str, tuple[str, tuple[int, ...], tuple[object, ...]]]:
    made = message("inference.ModelInferRequest").FromString(data)
    return {
        tensor.name: (
            tensor.datatype,
            tuple(tensor.shape),
            unpack_values(tensor.datatype, raw),
        )
        for tensor, raw in zip(made.inputs, made.raw_input_contents, strict=True)
    }


def test_open_dimensions_are_the_batch_and_then_one() -> None:
    for data in make_messages(Requests("m", batch=4), DECLARED, 0):
        shapes = {name: shape for name, (_, shape, _) in read(data).items()}
        assert shapes == {"x": (4, 2), "ids": (3,), "text": (4, 1)}


def test_drawn_values_have_their_datatype_and_small_integers() -> None:
    found = read(make_messages(Requests("m"), DECLARED, 0)[0])
    assert all(0 <= value < 1 for value in found["x"][2])
    assert all(value in range(10) for value in found["ids"][2])
    assert all(value in "0123456789" for value in found["text"][2])


@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64",
     "FP16", "BF16", "FP32", "FP64", "BYTES"],
)  # fmt: skip
def test_every_datatype_can_be_drawn(datatype: str) -> None:
    (kind, shape, values) = read(
        make_messages(Requests("m"), {"x": (datatype, (5,))}, 0)[0]
    )["x"]
    assert (kind, shape, len(values)) == (datatype, (5,), 5)


def test_messages_differ_and_repeat_with_the_seed() -> None:
    made = make_messages(Requests("m"), DECLARED, 7)
    assert len(set(made)) == len(made) == 16
    assert made == make_messages(Requests("m"), DECLARED, 7)
    assert made != make_messages(Requests("m"), DECLARED, 8)


def test_large_inputs_are_drawn_a_few_times_only() -> None:
    assert len(make_messages(Requests("m"), {"x": ("BOOL", (200_000,))}, 0)) == 2


def test_given_inputs_are_sent_as_given_and_the_rest_is_drawn() -> None:
    asked = Requests("m", (("x", "1,2"), ("ids", "[7, 8, 9]")), version=3)
    (first, *_) = make_messages(asked, DECLARED, 0)
    found = read(first)
    assert found["x"] == ("FP32", (1, 2), (1.0, 2.0))
    assert found["ids"] == ("INT64", (3,), (7, 8, 9))
    assert "text" in found
    made = message("inference.ModelInferRequest").FromString(first)
    assert (made.model_name, made.model_version) == ("m", "3")


def test_an_input_with_its_datatype_needs_no_declaration() -> None:
    (only,) = make_messages(Requests("m", (("x:INT8", "1,2,3"),)), {}, 0)
    assert read(only) == {"x": ("INT8", (1, 3), (1, 2, 3))}


def test_an_input_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(BenchError, match="no input 'y': it has x, ids, text"):
        make_messages(Requests("m", (("y", "1"),)), DECLARED, 0)


def test_a_batch_needs_an_open_dimension() -> None:
    with pytest.raises(BenchError, match="leaves no"):
        make_messages(Requests("m", batch=2), {"x": ("FP32", (1, 2))}, 0)


def test_values_of_another_datatype_are_refused() -> None:
    with pytest.raises(PredictError, match="input 'ids': not INT64"):
        make_messages(Requests("m", (("ids", '[1, 2, "x"]'),)), DECLARED, 0)
