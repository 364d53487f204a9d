"""What a manifest beside a model may say: what the version is and what made it.

Everything is optional, and nothing is free-form but the text that says so: a key that
is misspelt is a problem, because a checksum that nobody reads protects nobody. Paths
under `files` stay in the version's folder; what lies elsewhere is an artefact with a
URI.
"""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.values import (
    FROZEN,
    Instant,
    Name,
    Text,
    VersionKey,
    as_tuple,
)

SHA256 = r"^[0-9a-f]{64}$"


def _sha256(value: str) -> str:
    # The pattern alone would print an expression at somebody who pasted a digest.
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise PydanticCustomError(
            "sha256", "a SHA-256 is 64 digits of 0-9 and a-f, as sha256sum prints it"
        )
    return value


def _file_name(value: str) -> str:
    if value.startswith("/") or {"", ".", ".."} & set(value.split("/")):
        raise PydanticCustomError(
            "file_name",
            "a file lies in the version's folder: write its path from there",
        )
    return value


def _features(value: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise PydanticCustomError(
            "features", "each column has a name of its own; given twice: {twice}",
            {"twice": ", ".join(twice)},
        )  # fmt: skip
    return value


Sha256 = Annotated[
    Text, AfterValidator(_sha256), Field(json_schema_extra={"pattern": SHA256})
]
FileName = Annotated[Name, AfterValidator(_file_name)]
Features = Annotated[tuple[Name, ...], AfterValidator(_features)]
Commit = Annotated[Text, StringConstraints(pattern=r"^[0-9A-Za-z._/@+-]+$")]


class Input(BaseModel):
    """One input tensor: a name for each of its columns."""

    model_config = FROZEN
    features: Features = ()


class Artefact(BaseModel):
    """Something a version was made from, told by its name and, best, its SHA-256."""

    model_config = FROZEN
    name: Name
    uri: Text | None = None
    """Where it is kept; never opened."""
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _can_be_found(self) -> "Artefact":
        if self.uri is None and self.sha256 is None:
            raise PydanticCustomError(
                "artefact", "needs a uri, a sha256 or both: a name alone finds nothing"
            )
        return self


Artefacts = Annotated[
    tuple[Artefact, ...],
    BeforeValidator(as_tuple, json_schema_input_type=Artefact | list[Artefact]),
]


class Training(BaseModel):
    """The run that made a version."""

    model_config = FROZEN
    commit: Commit | None = None
    """Revision of the code that trained it."""
    repository: Text | None = None
    """Where that code is kept."""
    run: Text | None = None
    """What the training system calls the run."""


class Manifest(BaseModel):
    """What a version is and came from."""

    model_config = FROZEN
    inputs: dict[Name, Input] = Field(default_factory=dict)
    files: dict[FileName, Sha256] = Field(default_factory=dict)
    """SHA-256 of files in the version's folder."""
    training: Training = Training()
    data: Artefacts = ()
    """Data sets it was trained on."""
    preprocessing: Artefacts = ()
    """What prepares its inputs: encoders, vocabularies, scalers."""
    configuration: Artefacts = ()
    """What the training run was configured with."""
    created: Instant | None = None
    """When it was made: a time such as 2030-01-31T12:00:00Z."""
    description: Text | None = None
    """Anything a person should know."""
    tags: dict[Name, str] = Field(default_factory=dict)


class ModelManifest(Manifest):
    """A manifest in the model's folder: for all versions, and for each."""

    versions: dict[VersionKey, Manifest] = Field(default_factory=dict)


def merge(*manifests: Manifest) -> Manifest:
    """One manifest of several, key by key; what a later one says replaces."""
    said: dict[str, Any] = {}
    for manifest in manifests:
        for name in manifest.model_fields_set & Manifest.model_fields.keys():
            value, before = getattr(manifest, name), said.get(name)
            if isinstance(value, dict):
                value = {**(before or {}), **value}
            elif isinstance(value, Training) and before is not None:
                value = before.model_copy(update=value.model_dump(exclude_unset=True))
            said[name] = value
    return Manifest.model_construct(_fields_set=set(said), **said)
