"""Models on disk: Triton's layout, `<repository>/<version>/model.onnx`.

A version is a folder named by a positive integer without leading zeros. Links are
followed only as far as they stay inside the repository. A file's checksum is taken of
the very bytes that are handed to the engine, so that nothing can change between the
check and the load. `config.pbtxt` may lie beside the versions; nothing is read from it.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from router.config.config import Config
from router.config.manifest import Manifest
from router.config.model import (
    Model,
    served_versions,
    settings_of,
    upstream_versions,
)
from router.errors import ConfigError, ModelError, Problem, RouterError
from router.models.beneath import read_beneath
from router.models.external import (
    NODES_MAX,
    SIZE_MAX,
    Contents,
    TooDeepError,
    contents_of,
    inlined,
)
from router.models.manifest import read_manifest
from router.models.upstream import RemoteVersion

FILE_NAME = "model.onnx"
VERSION_MAX = 2**32 - 1  # the routing table's field
_VERSION = re.compile(r"[1-9][0-9]{0,9}")


class RepositoryError(RouterError):
    """A repository that cannot be read."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A version on disk: where it is and what is known about it."""

    model: str
    version: int
    path: Path
    manifest: Manifest
    is_external_data_allowed: bool = False
    refusal: str = ""
    """What is wrong with the manifest: nothing can be checked against it then."""

    def read(self) -> bytes:
        """The model's bytes, checked against the manifest; ModelError if they fail.

        With external data allowed, the files it names are checked too and their weights
        are put into the bytes: nothing that runs opens a file.
        """
        if self.refusal:
            raise _wrong(self, self.refusal)
        data = _read(self, self.path)
        _verify(self, FILE_NAME, data)
        contents = _survey(self, data)
        if not contents.paths:
            return data
        if not self.is_external_data_allowed:
            raise _wrong(
                self, "has external data; set allow_external_data: true to allow it"
            )
        files: dict[str, bytes] = {}
        left = SIZE_MAX - len(data)
        for name in contents.paths:
            files[name] = _read_beside(self, name, left)
            left -= len(files[name])
        try:
            whole = inlined(data, files.__getitem__)
        except ValueError as error:
            raise _wrong(self, f"external data: {error}") from None
        if len(whole) > SIZE_MAX:
            raise _wrong(self, f"has more than {SIZE_MAX} bytes with its external data")
        return whole


def list_versions(repository: str | Path) -> tuple[int, ...]:
    """The versions in a repository, in order; RepositoryError if it cannot be read."""
    root = Path(repository)
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RepositoryError(f"cannot read the repository: {reason}") from None
    return tuple(
        sorted(
            int(entry.name)
            for entry in entries
            if _VERSION.fullmatch(entry.name)
            and int(entry.name) <= VERSION_MAX
            and _find(root, int(entry.name))
        )
    )


def find_version(
    model: str,
    repository: str | Path,
    version: int,
    is_external_data_allowed: bool = False,
) -> ModelFile:
    """One version of a model. ModelError when it is not there."""
    root = Path(repository)
    path = _find(root, version)
    if path is None:
        raise ModelError(
            model, version, f"no {version}/{FILE_NAME} inside the model's repository"
        )
    manifest, refusal = Manifest(), ""
    try:
        manifest = read_manifest(root, version)
    except ConfigError as error:
        refusal = "; ".join(_brief(problem, root) for problem in error.problems)
    return ModelFile(model, version, path, manifest, is_external_data_allowed, refusal)


def find_served(
    config: Config, versions: Mapping[str, tuple[int, ...]]
) -> tuple[ModelFile | RemoteVersion, ...]:
    """Every version that a configuration serves, given what the repositories hold."""
    return tuple(
        find_source(model, version)
        for model in config.models
        for version in served_versions(model, versions[model.name])
    )


def list_models(config: Config) -> dict[str, tuple[int, ...]]:
    """The versions in each model's repository, and those of other servers."""
    return {
        model.name: tuple(
            sorted(
                {
                    *(list_versions(model.repository) if model.repository else ()),
                    *upstream_versions(model),
                }
            )
        )
        for model in config.models
    }


def find_source(model: Model, version: int) -> ModelFile | RemoteVersion:
    """Where a version comes from. ModelError when it is not there."""
    upstream = settings_of(model, version).upstream
    if upstream is not None:
        return RemoteVersion(model.name, version, upstream)
    if model.repository is None:
        raise ModelError(model.name, version, "there is no repository to find it in")
    allowed = model.allow_external_data
    return find_version(model.name, model.repository, version, allowed)


def _find(root: Path, version: int) -> Path | None:
    """Where a version's model is; None when there is none inside the repository.

    A folder that cannot be looked into (rights, a server that is away) is not an empty
    one: the path is given, and whoever reads it is told what is wrong.
    """
    path = root / str(version) / FILE_NAME
    try:
        resolved = path.resolve(strict=True)
        is_file = stat.S_ISREG(resolved.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None  # missing, or a ring of links
    except OSError as error:
        return None if error.errno == errno.ELOOP else path
    return resolved if is_file and resolved.is_relative_to(root.resolve()) else None


def _brief(problem: Problem, root: Path) -> str:
    """A problem without the path of the repository: clients are told of it."""
    file = os.path.relpath(problem.file, root)
    return str(replace(problem, file=file))


def _survey(file: ModelFile, data: bytes) -> Contents:
    try:
        contents = contents_of(data)
    except TooDeepError as error:
        raise _wrong(file, str(error)) from None
    if contents.node_count > NODES_MAX:
        raise _wrong(file, f"has more than {NODES_MAX} nodes")
    return contents


def _read_beside(file: ModelFile, name: str, size_max: int) -> bytes:
    """A file that the model names, if it may be read and is what the manifest says."""
    if name not in file.manifest.files:
        raise _wrong(file, f"external data '{name}' is not in the manifest")
    try:
        data = read_beneath(file.path.parent, name, size_max)
    except ValueError as error:
        raise _wrong(file, f"external data '{name}': {error}") from None
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            reason = "is outside its folder, or leads there by a link"
        else:
            reason = f"cannot be read: {(error.strerror or 'error').lower()}"
        raise _wrong(file, f"external data '{name}' {reason}") from None
    _verify(file, name, data)
    return data


def _read(file: ModelFile, path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size > SIZE_MAX:
                raise _wrong(file, f"{path.name} has more than {SIZE_MAX} bytes")
            return opened.read(SIZE_MAX)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise _wrong(file, f"cannot read {path.name}: {reason}") from None


def _verify(file: ModelFile, name: str, data: bytes) -> None:
    expected = file.manifest.files.get(name)
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise _wrong(file, f"the SHA-256 of {name} is not the manifest's")


def _wrong(file: ModelFile, message: str) -> ModelError:
    return ModelError(file.model, file.version, message)
