"""What a manifest beside a model may say: features, checksums, tags."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from router.config.values import FROZEN, Name, Text, VersionKey

Sha256 = Annotated[Text, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Input(BaseModel):
    """One input tensor: a name for each of its columns."""

    model_config = FROZEN
    features: tuple[Name, ...] = ()


class Manifest(BaseModel):
    """What a version is and came from."""

    model_config = FROZEN
    inputs: dict[Name, Input] = Field(default_factory=dict)
    files: dict[Name, Sha256] = Field(default_factory=dict)
    """SHA-256 of files in the version's folder."""
    tags: dict[Name, str] = Field(default_factory=dict)


class ModelManifest(Manifest):
    """A manifest in the model's folder: for all versions, and for each."""

    versions: dict[VersionKey, Manifest] = Field(default_factory=dict)
