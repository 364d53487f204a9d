"""The manifest: what a version is, beside its file.

`manifest.yaml` in a version's folder, or one in the model's folder for all versions, or
with a section per version; the version's own goes first, key by key. It names the
features of each input, the SHA-256 of files, what made the version, and free tags.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from router.config.load import SIZE_MAX, read_mapping
from router.config.manifest import Input, Manifest, ModelManifest, merge
from router.errors import ConfigError, Problem

MANIFEST_NAME = "manifest.yaml"
Read = TypeVar("Read", bound=Manifest)


def read_manifest(repository: Path, version: int) -> Manifest:
    """The manifest of a version; empty when nobody wrote one. ConfigError has every
    problem of the files that make it up."""
    problems: list[Problem] = []
    shared = _read(repository / MANIFEST_NAME, ModelManifest, problems)
    own = _read(repository / str(version) / MANIFEST_NAME, Manifest, problems)
    if problems:
        raise ConfigError(tuple(problems))
    return merge(shared, shared.versions.get(version, Manifest()), own)


def read_inputs(repository: str, version: int) -> Mapping[str, Input]:
    """The inputs that a version's manifest names."""
    return read_manifest(Path(repository), version).inputs


def _read(path: Path, model: type[Read], problems: list[Problem]) -> Read:
    """What a file says; nothing when it is not there or has problems."""
    try:
        with open(path, "rb") as opened:
            return read_mapping(opened.read(SIZE_MAX + 1), str(path), model)
    except FileNotFoundError:
        pass
    except ConfigError as error:
        problems.extend(error.problems)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problems.append(Problem(str(path), 0, "(file)", reason))
    return model()
