"""The manifest: what a version is, beside its file.

`manifest.yaml` in a version's folder, or one in the model's folder for all versions, or
with a section per version; the version's own goes first, key by key. It names the
features of each input, the SHA-256 of files and free tags.
"""

from pathlib import Path
from typing import TypeVar

from router.config.load import SIZE_MAX, read_mapping
from router.config.manifest import Manifest, ModelManifest
from router.errors import ConfigError, Problem

Read = TypeVar("Read", bound=Manifest)


def read_manifest(repository: Path, version: int) -> Manifest:
    """The manifest of a version; empty when nobody wrote one."""
    shared = _read(repository / "manifest.yaml", ModelManifest) or ModelManifest()
    own = _read(repository / str(version) / "manifest.yaml", Manifest) or Manifest()
    section = shared.versions.get(version, Manifest())
    return Manifest(
        inputs={**shared.inputs, **section.inputs, **own.inputs},
        files={**shared.files, **section.files, **own.files},
        tags={**shared.tags, **section.tags, **own.tags},
    )


def _read(path: Path, model: type[Read]) -> Read | None:
    try:
        with open(path, "rb") as opened:
            data = opened.read(SIZE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError((Problem(str(path), 0, "(file)", reason),)) from None
    return read_mapping(data, str(path), model)
