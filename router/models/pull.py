"""Brings a version into a repository: whole, checked and new, or not at all.

The manifest at the source says which files there are and what their SHA-256 is; no
others are fetched. Everything is written into a folder of another name beside the
versions, forced to disk, and renamed: a router that looks meanwhile sees the version or
does not. A version that is there already is never touched.

Which places can be read is fsspec's business (local folders, HTTP, S3, GCS, Azure and
more, each with its own package); it is an extra, so it is imported when it is needed.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.config.load import SIZE_MAX as MANIFEST_BYTES_MAX
from router.config.load import read_mapping
from router.config.manifest import Manifest
from router.errors import RouterError
from router.models.external import SIZE_MAX
from router.models.manifest import MANIFEST_NAME
from router.models.repository import FILE_NAME, VERSION_MAX

CHUNK_BYTES = 1024 * 1024
FILES_MAX = 1_000  # a model with its weights has some dozens
PREFIX = ".pull-"  # no version's name, so nobody takes it for one
_LAST_NUMBER = re.compile(r"(?:^|/)([1-9][0-9]{0,9})/*$")


class PullError(RouterError):
    """A version that could not be brought, or is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was brought, and where it is now."""

    version: int
    path: str
    files: tuple[str, ...]
    size_bytes: int


def version_in(url: str) -> int | None:
    """The version that a URL ends with, if it does."""
    found = _LAST_NUMBER.search(url.partition("?")[0])
    return int(found[1]) if found else None


def pull(
    url: str, repository: Path, version: int, *, is_unverified_allowed: bool = False
) -> Pulled:
    """Bring the version folder at a URL into a repository. PullError says why not.

    Without checksums in the manifest only the model is fetched, and that has to be
    allowed.
    """
    if not 1 <= version <= VERSION_MAX:
        raise PullError(f"{version} is no version: from 1 to {VERSION_MAX}")
    target = repository / str(version)
    _refuse_present(target)
    with _explained(url):
        repository.mkdir(parents=True, exist_ok=True)
        source = _Source(url)
        manifest, text = source.manifest()
        files: dict[str, str | None] = {**manifest.files}
        if FILE_NAME not in files:
            if not is_unverified_allowed:
                raise PullError(
                    f"{url}: its {MANIFEST_NAME} has no SHA-256 of {FILE_NAME};"
                    " --unverified takes it as it is"
                )
            files[FILE_NAME] = None
        if len(files) > FILES_MAX:
            raise PullError(f"{url}: more than {FILES_MAX} files")
        partial = Path(tempfile.mkdtemp(prefix=PREFIX, dir=repository))
        try:
            size = sum(
                source.fetch(name, partial / name, digest)
                for name, digest in files.items()
                if name != MANIFEST_NAME
            )
            if text is not None:
                _write(partial / MANIFEST_NAME, iter((text,)))
            _place(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Pulled(version, str(target), tuple(sorted(files)), size)


class _Source:
    """A version folder somewhere, by fsspec."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise PullError(
                "pull needs fsspec: pip install 'inference-router[pull]'"
            ) from None
        self._url = url
        self._files, root = url_to_fs(url)
        self._root = str(root).rstrip("/")

    def manifest(self) -> tuple[Manifest, bytes | None]:
        """The manifest and its bytes; an empty one when there is none."""
        try:
            with self._open(MANIFEST_NAME) as opened:
                text = opened.read(MANIFEST_BYTES_MAX + 1)
        except FileNotFoundError:
            return Manifest(), None
        return read_mapping(text, f"{self._url}/{MANIFEST_NAME}", Manifest), text

    def fetch(self, name: str, target: Path, expected: str | None) -> int:
        """Write a file and check what was written; its size."""
        digest = hashlib.sha256()
        with self._open(name) as opened:
            size = _write(target, _chunks(opened, digest, name))
        if expected is not None and digest.hexdigest() != expected:
            raise PullError(
                f"{self._url}: the SHA-256 of {name} is {digest.hexdigest()},"
                f" its manifest says {expected}"
            )
        return size

    def _open(self, name: str) -> Any:
        return self._files.open(f"{self._root}/{name}", "rb")


def _chunks(opened: Any, digest: Any, name: str) -> Iterator[bytes]:
    size = 0
    while chunk := opened.read(CHUNK_BYTES):
        size += len(chunk)
        if size > SIZE_MAX:
            raise PullError(f"{name} has more than {SIZE_MAX} bytes")
        digest.update(chunk)
        yield chunk


def _write(path: Path, chunks: Iterator[bytes]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as opened:
        size = sum(opened.write(chunk) for chunk in chunks)
        opened.flush()
        os.fsync(opened.fileno())
    return size


def _place(partial: Path, target: Path) -> None:
    """Make the folder the version, unless somebody was faster."""
    partial.chmod(0o755)  # made for its maker only; a router may be somebody else
    for folder in (partial, *(p for p in partial.rglob("*") if p.is_dir())):
        _sync(folder)
    _refuse_present(target)
    # Fails on a folder that has something in it: what is there stays there.
    os.rename(partial, target)
    _sync(target.parent)


def _refuse_present(target: Path) -> None:
    if os.path.lexists(target):
        raise PullError(f"{target} is there already; versions are never overwritten")


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except RouterError:
        raise
    except FileNotFoundError as error:
        raise PullError(f"{url}: not found: {error}") from error
    except Exception as error:
        # Every kind of place has errors of its own, and fsspec passes them through.
        raise PullError(f"{url}: {type(error).__name__}: {error}") from error
