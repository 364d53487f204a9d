"""A version is brought whole, checked and new, or not at all."""

import hashlib
import os
from pathlib import Path

import fsspec
import pytest

from router.errors import ConfigError
from router.models.pull import PullError, pull, version_in
from router.models.repository import list_versions

FAR = "memory://far/3"
DATA = b"model" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


def put(name: str, data: bytes) -> None:
    with fsspec.open(f"{FAR}/{name}", "wb") as opened:
        opened.write(data)


@pytest.fixture(autouse=True)
def far() -> None:
    fsspec.filesystem("memory").store.clear()
    put("model.onnx", DATA)
    put("manifest.yaml", f"files: {{model.onnx: {DIGEST}}}".encode())
    put("secret.txt", b"not listed")


def entries(repository: Path) -> list[str]:
    return sorted(os.listdir(repository)) if repository.exists() else []


def test_exactly_the_files_of_the_manifest_are_brought(tmp_path: Path) -> None:
    weights = b"w"
    put("deep/weights.bin", weights)
    put(
        "manifest.yaml",
        f"files: {{model.onnx: {DIGEST},"
        f" deep/weights.bin: {hashlib.sha256(weights).hexdigest()}}}".encode(),
    )
    pulled = pull(FAR, tmp_path / "new", 3)
    folder = tmp_path / "new" / "3"
    assert (pulled.version, pulled.size_bytes) == (3, len(DATA) + 1)
    assert pulled.files == ("deep/weights.bin", "model.onnx")
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"model.onnx", "manifest.yaml", "deep/weights.bin"}
    assert entries(tmp_path / "new") == ["3"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_file_that_is_not_what_the_manifest_says_leaves_nothing(
    tmp_path: Path,
) -> None:
    put("model.onnx", DATA + b"!")
    with pytest.raises(PullError, match=r"the SHA-256 of model\.onnx is "):
        pull(FAR, tmp_path, 3)
    assert entries(tmp_path) == []


def test_a_file_that_is_missing_leaves_nothing(tmp_path: Path) -> None:
    put("manifest.yaml", f"files: {{model.onnx: {DIGEST}, w: {DIGEST}}}".encode())
    with pytest.raises(PullError, match="not found"):
        pull(FAR, tmp_path, 3)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("kind", ["version", "empty folder", "dangling link"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "3"
    if kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "version":
        (target / "model.onnx").write_bytes(b"mine")
    with pytest.raises(PullError, match="is there already"):
        pull(FAR, tmp_path, 3)
    assert entries(tmp_path) == ["3"]


def test_a_model_without_a_checksum_is_brought_only_on_request(tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm(f"{FAR}/manifest.yaml")
    with pytest.raises(PullError, match="--unverified"):
        pull(FAR, tmp_path, 3)
    pulled = pull(FAR, tmp_path, 4, is_unverified_allowed=True)
    assert pulled.files == ("model.onnx",)
    assert list_versions(tmp_path) == (4,)
    assert entries(tmp_path / "4") == ["model.onnx"]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_manifest_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    text = f"files: {{model.onnx: {DIGEST}, {name}: {DIGEST}}}"
    put("manifest.yaml", text.encode())
    with pytest.raises(ConfigError, match="a file lies in the version's folder"):
        pull(FAR, tmp_path / "r", 3)
    assert entries(tmp_path / "r") == []
    assert entries(tmp_path) in ([], ["r"])


def test_places_that_cannot_be_read_are_errors_with_their_url(tmp_path: Path) -> None:
    for url in ("nosuchscheme://x/3", "http://127.0.0.1:1/3"):
        with pytest.raises(PullError, match=url):
            pull(url, tmp_path, 3)
    with pytest.raises(PullError, match="no version"):
        pull(FAR, tmp_path, 0)
    assert entries(tmp_path) == []


def test_a_version_is_read_off_the_end_of_a_url() -> None:
    assert version_in("s3://bucket/credit/12/") == 12
    assert version_in("http://h/3?token=9") == 3
    assert version_in("http://h/v3") is None
    assert version_in("http://h/3/model") is None
