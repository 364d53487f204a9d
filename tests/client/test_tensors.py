"""Arrays survive the protocol, and what does not fit is an error."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from router.client.tensors import as_array, datatype_of, pack, unpack
from router.client.values import pack_values, unpack_values

KINDS = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64",
]  # fmt: skip


@given(
    st.sampled_from(KINDS).flatmap(
        lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, min_side=0))
    )
)
def test_an_array_comes_back_as_it_was_sent(array: np.ndarray) -> None:
    back = unpack(datatype_of(array), array.shape, pack(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_the_wire_is_little_endian_and_row_major(order: str, endian: str) -> None:
    array = np.array([[1, 2], [3, 4]], np.dtype("f4").newbyteorder(endian), order=order)
    assert pack(array) == np.array([1, 2, 3, 4], "<f4").tobytes()
    assert datatype_of(array) == "FP32"


def test_texts_are_sent_with_their_lengths() -> None:
    array = np.array(["a", "", "bc"])
    assert datatype_of(array) == "BYTES"
    assert pack(array) == b"\1\0\0\0a\0\0\0\0\2\0\0\0bc"
    assert list(unpack("BYTES", (3,), pack(array))) == [b"a", b"", b"bc"]
    objects = np.array([b"\xff", "é"], object)
    assert list(unpack("BYTES", (2,), pack(objects))) == [b"\xff", "é".encode()]


def test_bf16_is_sent_as_it_is_and_comes_as_float32() -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    assert datatype_of(array) == "BF16"
    back = unpack("BF16", (2,), pack(array))
    assert back.dtype == np.float32
    assert list(back) == [1.5, -2.0]


def test_a_list_of_floats_is_what_models_take() -> None:
    assert datatype_of(as_array([[1.0, 2.0]])) == "FP32"
    assert datatype_of(as_array(1.0)) == "FP32"
    assert datatype_of(as_array([1, 2])) == "INT64"
    assert datatype_of(as_array(np.zeros(1))) == "FP64"  # said so by whoever made it


def test_the_prompt_and_the_client_write_the_same_bytes() -> None:
    for kind, datatype in (("int32", "INT32"), ("float64", "FP64"), ("bool", "BOOL")):
        array = np.array([0, 1, 1], kind)
        assert pack(array) == pack_values("x", datatype, array.tolist())
        back = unpack(datatype, (3,), pack(array))
        assert tuple(back) == unpack_values(datatype, pack(array))


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", (2,), b"\0" * 4),
        ("FP32", (1,), b"\0" * 3),
        ("BYTES", (1,), b"\1\0\0"),
        ("BYTES", (1,), b"\2\0\0\0a"),
        ("BYTES", (1,), b"\0\0\0\0\0"),
        ("FP7", (1,), b"\0"),
    ],
)
def test_contents_that_do_not_fit_are_an_error(
    datatype: str, shape: tuple[int, ...], raw: bytes
) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack(datatype, shape, raw)


def test_an_array_without_a_wire_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="complex64"):
        datatype_of(np.zeros(1, np.complex64))
