"""Weights in other files: only what may be read is, and then it is the model's own."""

import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from router.errors import ModelError
from router.models import beneath
from router.models.beneath import open_stepwise, read_beneath
from router.models.external import (
    DEPTH_MAX,
    NODES_MAX,
    TooDeepError,
    contents_of,
    external_paths,
    inlined,
)
from router.models.protobuf import delimited, fields, packed, varints
from router.models.repository import ModelFile, find_version

WEIGHTS = np.arange(12, dtype=np.float32)


def tensor(name: str, values: np.ndarray, **entries: str) -> TensorProto:
    """A tensor whose values are said to be elsewhere."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
    made.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        made.external_data.add(key=key, value=value)
    return made


def model(*tensors: TensorProto) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    node = helper.make_node("MatMul", ["x", tensors[0].name], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], list(tensors))
    made: bytes = helper.make_model(graph).SerializeToString()
    return made


def version(folder: Path, name: str, weights: bytes | None) -> ModelFile:
    """A version whose only tensor is in the file `name`, which the manifest allows."""
    (folder / "1").mkdir(parents=True)
    data = model(tensor("w", WEIGHTS[:4], location=name))
    (folder / "1" / "model.onnx").write_bytes(data)
    digest = hashlib.sha256(weights or b"").hexdigest()
    (folder / "1" / "manifest.yaml").write_text(f"files: {{'{name}': {digest}}}")
    if weights is not None:
        path = folder / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights)
    return find_version("m", folder, 1, True)


def test_parts_of_one_file_become_the_values_of_their_tensors() -> None:
    data = model(
        tensor("a", WEIGHTS[:4], location="w", offset="0", length="16"),
        tensor("b", WEIGHTS[4:], location="w", offset="16"),
    )
    made = onnx.ModelProto.FromString(inlined(data, {"w": WEIGHTS.tobytes()}.get))
    assert external_paths(made.SerializeToString()) == ()
    values = [onnx.numpy_helper.to_array(t) for t in made.graph.initializer]
    assert [list(v) for v in values] == [list(WEIGHTS[:4]), list(WEIGHTS[4:])]
    assert made.graph.node == onnx.ModelProto.FromString(data).graph.node


def test_a_model_without_external_data_keeps_its_very_bytes() -> None:
    weight = onnx.numpy_helper.from_array(WEIGHTS[:4].reshape(4, 1), "w")
    data = model(weight)
    assert inlined(data, {}.__getitem__) is data


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "40", "length": "16"}, {"offset": "64"}, {"offset": "-1"},
        {"length": "49"}, {"offset": "x"}, {"length": "9" * 30},
    ],
)  # fmt: skip
def test_a_part_that_is_not_in_its_file_is_refused(entries: dict[str, str]) -> None:
    data = model(tensor("a", WEIGHTS[:4], location="w", **entries))
    with pytest.raises(ValueError, match=r"file|shorter"):
        inlined(data, {"w": WEIGHTS.tobytes()}.__getitem__)


def test_a_file_in_a_folder_of_the_version_is_read(tmp_path: Path) -> None:
    found = version(tmp_path, "deep/er/w.bin", WEIGHTS[:4].tobytes())
    assert external_paths(found.read()) == ()


def refused(found: ModelFile) -> str:
    with pytest.raises(ModelError) as raised:
        found.read()
    return str(raised.value)


def test_a_link_is_not_followed_even_inside_the_folder(tmp_path: Path) -> None:
    found = version(tmp_path, "w.bin", WEIGHTS[:4].tobytes())
    (tmp_path / "1" / "w.bin").rename(tmp_path / "1" / "real.bin")
    (tmp_path / "1" / "w.bin").symlink_to("real.bin")
    assert "leads there by a link" in refused(found)


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    found = version(tmp_path, "sub/w.bin", WEIGHTS[:4].tobytes())
    (tmp_path / "1" / "sub").rename(tmp_path / "outside")
    (tmp_path / "1" / "sub").symlink_to(tmp_path / "outside")
    assert "leads there by a link" in refused(found)


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHTS[:4].tobytes())
    found = version(tmp_path, "w.bin", None)
    os.link(secret, tmp_path / "1" / "w.bin")
    assert "hard link" in refused(found)


def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    found = version(tmp_path, "w.bin", None)
    os.mkfifo(tmp_path / "1" / "w.bin")
    assert "not a regular file" in refused(found)
    (tmp_path / "1" / "w.bin").unlink()
    (tmp_path / "1" / "w.bin").mkdir()
    assert "not a regular file" in refused(found)


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    found = version(tmp_path, "w.bin", None)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(tmp_path / "1" / "w.bin"))
        assert "cannot be read" in refused(found)


@pytest.mark.parametrize("name", ["/etc/hostname", "..", "a/../../w", "", "."])
def test_a_name_that_leads_out_is_refused_by_either_way(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises((OSError, ValueError)):
        read_beneath(tmp_path, name, 100)
    with beneath._opened_folder(tmp_path) as root, pytest.raises(OSError, match=r"\S"):
        open_stepwise(root, name)


def test_without_openat2_links_are_refused_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w").write_bytes(b"weights")
    (tmp_path / "link").symlink_to("sub")
    (tmp_path / "sub" / "l").symlink_to("w")
    with beneath._opened_folder(tmp_path) as root:
        with open(open_stepwise(root, "sub/w"), "rb") as opened:
            assert opened.read() == b"weights"
        for name in ("link/w", "sub/l"):
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                open_stepwise(root, name)


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes(101))
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_beneath(tmp_path, "w", 100)


def test_nodes_are_counted_in_nested_graphs_too() -> None:
    inner = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])] * 3, "i", [], [])
    outer = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([outer], "g", [], [])
    data = helper.make_model(graph).SerializeToString()
    assert contents_of(data).node_count == 7


def test_a_model_of_too_many_nodes_is_refused_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    (tmp_path / "1").mkdir()
    nodes = delimited(1, b"") * (NODES_MAX + 1)
    (tmp_path / "1" / "model.onnx").write_bytes(delimited(7, nodes))
    assert f"more than {NODES_MAX} nodes" in refused(find_version("m", tmp_path, 1))


def test_a_model_of_endless_nesting_is_refused() -> None:
    graph = b""
    for _ in range(DEPTH_MAX):
        graph = delimited(1, delimited(5, delimited(6, graph)))
    with pytest.raises(TooDeepError):
        contents_of(delimited(7, graph))


@given(st.binary(max_size=200))
def test_a_survey_of_any_bytes_ends(data: bytes) -> None:
    contents_of(data)
    contents_of(delimited(7, data))


@given(st.lists(st.integers(0, 2**64 - 1)), st.binary())
def test_fields_are_read_as_they_were_written(
    values: list[int], content: bytes
) -> None:
    data = packed(3, tuple(values)) + delimited(4, content)
    first, second = fields(memoryview(data))
    assert first.content is not None
    assert list(varints(first.content)) == values
    assert (second.number, second.content) == (4, content)
