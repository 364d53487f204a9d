"""Models on disk: what is a version, what may be followed, what must match."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from router.config.config import Config
from router.config.manifest import Artefact, Input, Manifest, Training
from router.errors import ConfigError, ModelError
from router.models.external import external_paths
from router.models.manifest import read_manifest
from router.models.repository import (
    RepositoryError,
    find_served,
    find_version,
    list_models,
    list_versions,
)


def linear(location: str = "") -> bytes:
    """y = x * w; with a location, w is said to lie in that file."""
    weight = numpy_helper.from_array(np.ones((4, 1), np.float32), "w")
    if location:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 1])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("offset", "0"), ("location", location)):
            weight.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    made: bytes = helper.make_model(graph).SerializeToString()
    return made


def write(root: Path, name: str, data: bytes = b"model") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_versions_are_folders_named_by_positive_integers(tmp_path: Path) -> None:
    for name in (
        "1",
        "2",
        "10",
        "0",
        "03",
        "x",
        "-1",
        "4294967296",
        "1_0",
        "99999999999",
    ):
        write(tmp_path, f"{name}/model.onnx")
    write(tmp_path, "7/other.onnx")
    write(tmp_path, "config.pbtxt")
    write(tmp_path, "8")
    (tmp_path / "9" / "model.onnx").mkdir(parents=True)
    assert list_versions(tmp_path) == (1, 2, 10)


def test_a_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no such file"):
        list_versions(tmp_path / "absent")


def test_links_are_followed_only_inside_the_repository(tmp_path: Path) -> None:
    outside = write(tmp_path, "outside/model.onnx")
    root = tmp_path / "models"
    write(root, "1/model.onnx")
    write(root, "store/a.onnx")
    (root / "2").symlink_to("1")
    (root / "3").mkdir()
    (root / "3" / "model.onnx").symlink_to("../store/a.onnx")
    (root / "4").symlink_to(outside.parent)
    (root / "5").mkdir()
    (root / "5" / "model.onnx").symlink_to(outside)
    (root / "6").symlink_to("6")
    assert list_versions(root) == (1, 2, 3)
    with pytest.raises(ModelError, match="model 'm' version 5: "):
        find_version("m", root, 5)


def test_a_repository_may_be_a_link_itself(tmp_path: Path) -> None:
    write(tmp_path, "real/1/model.onnx")
    (tmp_path / "models").symlink_to("real")
    assert list_versions(tmp_path / "models") == (1,)


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    data = linear()
    write(tmp_path, "1/model.onnx", data)
    found = find_version("m", tmp_path, 1)
    assert (found.version, found.manifest, found.read()) == (1, Manifest(), data)


def test_a_checksum_that_does_not_match_refuses_the_version(tmp_path: Path) -> None:
    data = linear()
    path = write(tmp_path, "1/model.onnx", data)
    manifest = f"files: {{model.onnx: {digest(data)}}}"
    write(tmp_path, "1/manifest.yaml", manifest.encode())
    found = find_version("m", tmp_path, 1)
    assert found.read() == data
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match=r"SHA-256 of model\.onnx"):
        found.read()


def test_a_file_that_goes_away_is_an_error_of_its_version(tmp_path: Path) -> None:
    path = write(tmp_path, "1/model.onnx")
    found = find_version("m", tmp_path, 1)
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot read model\.onnx: no such file"):
        found.read()


def test_manifests_add_up_and_the_versions_own_goes_first(tmp_path: Path) -> None:
    write(tmp_path, "1/model.onnx")
    write(
        tmp_path,
        "manifest.yaml",
        b"tags: {team: risk, kind: all, run: a}\n"
        b"inputs: {X: {features: [amount, age]}}\n"
        b"versions: {1: {tags: {kind: section, run: b}}, 2: {tags: {kind: two}}}\n",
    )
    write(tmp_path, "1/manifest.yaml", b"tags: {run: c}\n")
    assert read_manifest(tmp_path, 1) == Manifest(
        inputs={"X": Input(features=("amount", "age"))},
        tags={"team": "risk", "kind": "section", "run": "c"},
    )
    assert read_manifest(tmp_path, 2).tags["kind"] == "two"
    assert read_manifest(tmp_path, 3).tags["kind"] == "all"


@pytest.mark.parametrize(
    "text",
    ["files: {model.onnx: abc}", "inputs: {X: {featurs: []}}", "a: ]", "tags: 3"],
)
def test_a_wrong_manifest_is_a_problem_of_its_file(tmp_path: Path, text: str) -> None:
    write(tmp_path, "manifest.yaml", text.encode())
    with pytest.raises(ConfigError, match=r"manifest\.yaml:1: "):
        read_manifest(tmp_path, 1)


def test_every_problem_of_both_manifests_is_found_in_one_run(tmp_path: Path) -> None:
    write(
        tmp_path,
        "manifest.yaml",
        b"tags: {a: b}\ntags: {a: c}\nfiles: {../x: abc}\ntraning: {}\n",
    )
    write(
        tmp_path,
        "1/manifest.yaml",
        b"data: {name: sales}\ncreated: yesterday\n"
        b"inputs: {X: {features: [a, b, a]}}\n",
    )
    with pytest.raises(ConfigError) as caught:
        read_manifest(tmp_path, 1)
    shared, own = tmp_path / "manifest.yaml", tmp_path / "1" / "manifest.yaml"
    assert [str(problem) for problem in caught.value.problems] == [
        f"{shared}:2: tags: this key is given twice; the first is on line 1",
        f"{shared}:3: files.../x: a file lies in the version's folder: write its path"
        " from there (found '../x')",
        f"{shared}:3: files.../x: a SHA-256 is 64 digits of 0-9 and a-f, as sha256sum"
        " prints it (found 'abc')",
        f"{shared}:4: traning: unknown key; did you mean 'training'?",
        f"{own}:1: data: needs a uri, a sha256 or both: a name alone finds nothing",
        f"{own}:2: created: write a time such as 2030-01-31T12:00:00Z"
        " (found 'yesterday')",
        f"{own}:3: inputs.X.features: each column has a name of its own; given"
        " twice: a",
    ]


def test_a_wrong_manifest_refuses_its_version_and_no_other(tmp_path: Path) -> None:
    for version in (1, 2):
        write(tmp_path, f"{version}/model.onnx", linear())
    write(tmp_path, "2/manifest.yaml", b"fils: {}")
    assert find_version("m", tmp_path, 1).read()
    with pytest.raises(ModelError, match=r"version 2: 2/manifest\.yaml:1: fils: unk"):
        find_version("m", tmp_path, 2).read()


def test_what_made_a_version_is_kept_key_by_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        "manifest.yaml",
        b"training: {repository: 'git@example.com:risk.git', commit: main}\n"
        b"data: {name: sales, uri: 's3://sales/2029'}\n"
        b"preprocessing: {name: scaler, sha256: " + b"a" * 64 + b"}\n"
        b"description: all of them\n",
    )
    write(
        tmp_path,
        "1/manifest.yaml",
        b"training: {commit: 1a2b3c, run: '77'}\n"
        b"data: [{name: sales, uri: 's3://sales/2030'}, {name: x, uri: y}]\n"
        b"configuration: {name: params.yaml, uri: here}\n"
        b"created: 2030-01-31T12:00:00Z\n",
    )
    assert read_manifest(tmp_path, 1) == Manifest(
        training=Training(
            repository="git@example.com:risk.git", commit="1a2b3c", run="77"
        ),
        data=(
            Artefact(name="sales", uri="s3://sales/2030"),
            Artefact(name="x", uri="y"),
        ),
        preprocessing=(Artefact(name="scaler", sha256="a" * 64),),
        configuration=(Artefact(name="params.yaml", uri="here"),),
        created="2030-01-31T12:00:00Z",
        description="all of them",
    )


def test_a_folder_that_cannot_be_looked_into_is_not_an_empty_one(
    tmp_path: Path,
) -> None:
    # A name too long for the file system stands for every error that is not "no such
    # file": the tests may run as root, whom no rights keep out.
    write(tmp_path, "1/model.onnx")
    (tmp_path / "2").symlink_to("x" * 300)
    assert list_versions(tmp_path) == (1, 2)
    with pytest.raises(ModelError, match=r"2/manifest\.yaml: .*name too long"):
        find_version("m", tmp_path, 2).read()


def test_a_manifest_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").mkdir()
    with pytest.raises(ConfigError, match="directory"):
        read_manifest(tmp_path, 1)


def test_external_data_is_refused_unless_allowed(tmp_path: Path) -> None:
    write(tmp_path, "1/model.onnx", linear("weights.bin"))
    with pytest.raises(ModelError, match="allow_external_data: true"):
        find_version("m", tmp_path, 1).read()


def test_external_data_that_is_allowed_has_to_be_in_the_manifest(
    tmp_path: Path,
) -> None:
    data, weights = linear("weights.bin"), bytes(16)
    write(tmp_path, "1/model.onnx", data)
    path = write(tmp_path, "1/weights.bin", weights)
    with pytest.raises(ModelError, match=r"'weights\.bin' is not in the manifest"):
        find_version("m", tmp_path, 1, True).read()
    manifest = f"files: {{weights.bin: {digest(weights)}}}"
    write(tmp_path, "1/manifest.yaml", manifest.encode())
    whole = find_version("m", tmp_path, 1, True).read()
    assert external_paths(whole) == ()
    tensor = onnx.ModelProto.FromString(whole).graph.initializer[0]
    assert tensor.raw_data == weights
    path.write_bytes(bytes(17))
    with pytest.raises(ModelError, match=r"SHA-256 of weights\.bin"):
        find_version("m", tmp_path, 1, True).read()


def test_external_data_stays_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "1/model.onnx", linear("link"))
    (tmp_path / "1" / "link").symlink_to(write(tmp_path, "secret", b"s"))
    manifest = f"files: {{link: {digest(b's')}}}"
    write(tmp_path, "1/manifest.yaml", manifest.encode())
    with pytest.raises(ModelError, match="outside its folder, or leads there by a"):
        find_version("m", tmp_path, 1, True).read()


def test_a_tensor_in_a_nested_graph_is_found() -> None:
    outer = onnx.ModelProto()
    node = outer.graph.node.add()
    node.attribute.add().g.CopyFrom(
        onnx.ModelProto.FromString(linear("deep.bin")).graph
    )
    assert external_paths(outer.SerializeToString()) == ("deep.bin",)


def test_tensors_of_attributes_functions_and_sparse_values_are_found() -> None:
    model = onnx.ModelProto()

    def outside(tensor: TensorProto, name: str) -> None:
        tensor.external_data.add(key="location", value=name)

    attribute = model.functions.add().node.add().attribute.add()
    outside(attribute.t, "a")
    outside(attribute.tensors.add(), "b")
    outside(attribute.sparse_tensor.values, "c")
    outside(model.graph.sparse_initializer.add().indices, "d")
    assert external_paths(model.SerializeToString()) == ("a", "b", "c", "d")
    assert external_paths(linear()) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x3a", b"\x3a\x05ab", b"\x80" * 20, b"\x3b", b"\x3a\xff\xff\xff\xff\xff",
        b"\x08\x80", b"\x09\x01", b"\x0d\x01\x02\x03\x04\x3a\x00",
    ],
)  # fmt: skip
def test_bytes_that_are_no_model_name_no_files(data: bytes) -> None:
    assert external_paths(data) == ()


def test_every_cut_of_a_model_ends_the_walk() -> None:
    data = linear("weights.bin")
    for end in range(len(data)):
        assert external_paths(data[:end]) in ((), ("weights.bin",))


def test_served_versions_are_found_for_every_model(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/3"):
        write(tmp_path, f"{name}/model.onnx")
    config = Config.model_validate(
        {
            "api_version": "router/v1",
            "models": [
                {"name": "a", "repository": str(tmp_path / "a"), "versions": [2]},
                {"name": "b", "repository": str(tmp_path / "b")},
            ],
        }
    )
    listed = list_models(config)
    assert listed == {"a": (1, 2), "b": (3,)}
    assert [(f.model, f.version) for f in find_served(config, listed)] == [
        ("a", 2),
        ("b", 3),
    ]
