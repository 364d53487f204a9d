"""What a repository on disk holds, for people and scripts that look at it.

A place is a configuration, or a folder: of a model, with its versions in it, or of
several models. Nothing here is loaded or changed. A version that has a problem is shown
with it, because that is when somebody looks.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from router.config.load import load_config
from router.config.manifest import Manifest
from router.config.model import Model, served_versions, stable_of
from router.errors import ModelError, RouterError
from router.models.beneath import read_beneath
from router.models.external import SIZE_MAX
from router.models.repository import (
    FILE_NAME,
    RepositoryError,
    find_version,
    list_versions,
)
from router.models.signature import FileSignature, signature_of

NO_SIGNATURE, NO_MANIFEST = FileSignature(), Manifest()
OK, DIFFERS, MISSING, NOT_LISTED = "ok", "differs", "missing", "not listed"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A model's repository, and what the configuration says of its versions."""

    model: str
    repository: Path
    versions: tuple[int, ...]
    stable: int | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    served: tuple[int, ...] | None = None
    """Those that the configuration serves; None without one."""

    def resolve(self, reference: str) -> int:
        """The version that a number or an alias means."""
        aliases = dict(self.aliases)
        if self.stable is not None:
            aliases.setdefault("stable", self.stable)
        found = int(reference) if reference.isdecimal() else aliases.get(reference)
        if found is None:
            known = f"; known: {', '.join(sorted(aliases))}" if aliases else ""
            raise RepositoryError(
                f"model '{self.model}' has no alias '{reference}'{known}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Card:
    """A version on disk: what it is called, what it is, where it came from."""

    model: str
    version: int
    names: tuple[str, ...]
    is_served: bool
    size_bytes: int = 0
    sha256: str = ""
    signature: FileSignature = NO_SIGNATURE
    manifest: Manifest = NO_MANIFEST
    problem: str = ""
    """Why it could not be served, as far as the files tell."""


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What became of a file's checksum."""

    model: str
    version: int
    file: str
    verdict: str
    detail: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.verdict not in (OK, NOT_LISTED)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two versions do not have in common."""

    what: str
    left: str
    right: str


def shelves_of(place: str, model: str | None = None) -> tuple[Shelf, ...]:
    """The models at a place, or the one that is named; RouterError without any."""
    path = Path(place)
    found = _of_folder(path) if path.is_dir() else _of_config(place)
    if model is not None:
        found = tuple(shelf for shelf in found if shelf.model == model)
    if not found:
        what = f"no model '{model}'" if model else "no model"
        raise RepositoryError(f"{place}: {what} with a repository here")
    return found


def shelf_of(place: str, model: str | None = None) -> Shelf:
    """The only model at a place, or the one that is named."""
    found = shelves_of(place, model)
    if len(found) > 1:
        names = ", ".join(shelf.model for shelf in found)
        raise RepositoryError(f"{place}: name a model with --model; known: {names}")
    return found[0]


def card_of(shelf: Shelf, version: int) -> Card:
    """All that is known about a version."""
    names = [name for name, meant in shelf.aliases.items() if meant == version]
    if version == shelf.stable and "stable" not in names:
        names.insert(0, "stable")
    is_served = shelf.served is None or version in shelf.served
    card = Card(shelf.model, version, tuple(names), is_served)
    found = find_version(shelf.model, shelf.repository, version, True)
    card = replace(card, manifest=found.manifest)
    try:
        data = found.path.read_bytes()
        card = replace(
            card,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            signature=signature_of(data),
        )
        found.read()
    except ModelError as error:
        card = replace(card, problem=error.problem)
    except OSError as error:
        card = replace(card, problem=f"{FILE_NAME}: {error.strerror}")
    return card


def verify_version(shelf: Shelf, version: int) -> Iterator[FileVerdict]:
    """What becomes of the checksum of each file: those listed, and the model's own."""
    found = find_version(shelf.model, shelf.repository, version, True)
    if found.refusal:
        yield FileVerdict(shelf.model, version, "manifest", "wrong", found.refusal)
        return
    listed = dict(found.manifest.files)
    for name in sorted({FILE_NAME, *listed}):
        verdict, detail = _verdict(found.path, name, listed.get(name))
        yield FileVerdict(shelf.model, version, name, verdict, detail)


def diff_cards(left: Card, right: Card) -> tuple[Difference, ...]:
    """What differs between two versions, key by key."""
    one, other = _flat(left), _flat(right)
    return tuple(
        Difference(key, one.get(key, ""), other.get(key, ""))
        for key in dict.fromkeys([*one, *other])
        if one.get(key, "") != other.get(key, "")
    )


def _verdict(model: Path, name: str, expected: str | None) -> tuple[str, str]:
    if expected is None:
        return NOT_LISTED, ""
    try:
        # The model itself may be a link within the repository, and was found so.
        data = (
            model.read_bytes()
            if name == FILE_NAME
            else read_beneath(model.parent, name, SIZE_MAX)
        )
    except FileNotFoundError:
        return MISSING, ""
    except (OSError, ValueError) as error:
        return "unreadable", getattr(error, "strerror", None) or str(error)
    digest = hashlib.sha256(data).hexdigest()
    return (OK, "") if digest == expected else (DIFFERS, f"it is {digest}")


def _flat(card: Card) -> dict[str, str]:
    flat = {"sha256": card.sha256, "size_bytes": str(card.size_bytes)}
    for kind in ("inputs", "outputs"):
        for tensor in getattr(card.signature, kind):
            flat[f"{kind}.{tensor.name}"] = str(tensor)
    said = card.manifest.model_dump(mode="json", exclude_unset=True)
    flat |= {f"manifest.{key}": text for key, text in _leaves(said, "")}
    return flat


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from _leaves(
                {k: v for k, v in inner.items() if k != "name"},
                f"{path}.{inner.get('name', '')}",
            )
    elif value is not None:
        listed = isinstance(value, list)
        yield path, ", ".join(map(str, value)) if listed else str(value)


def _of_folder(path: Path) -> tuple[Shelf, ...]:
    versions = list_versions(path)
    if versions:
        return (Shelf(path.resolve().name, path, versions),)
    return tuple(
        Shelf(folder.name, folder, versions)
        for folder in sorted(path.iterdir())
        if folder.is_dir() and (versions := list_versions(folder))
    )


def _of_config(place: str) -> tuple[Shelf, ...]:
    config = load_config(place)
    return tuple(
        _of_model(model, Path(model.repository))
        for model in config.models
        if model.repository is not None
    )


def _of_model(model: Model, repository: Path) -> Shelf:
    versions = list_versions(repository)
    served = served_versions(model, versions)
    stable = stable_of(model, served) if served else None
    return Shelf(model.name, repository, versions, stable, model.aliases, served)


def versions_wanted(shelf: Shelf, references: tuple[str, ...]) -> tuple[int, ...]:
    """Those that are named, or all. RouterError for one that is not there."""
    if not references:
        return shelf.versions
    found = tuple(shelf.resolve(text) for text in references)
    for version in found:
        if version not in shelf.versions:
            known = ", ".join(map(str, shelf.versions)) or "none"
            raise RouterError(
                f"model '{shelf.model}' has no version {version}; it has {known}"
            )
    return found


def repository_of(place: str, model: str | None) -> Path:
    """The folder that a model's versions lie in; it need not exist yet."""
    if not Path(place).is_file():
        return Path(place) / model if model else Path(place)
    found = [
        Path(one.repository)
        for one in load_config(place).models
        if one.repository is not None and model in (None, one.name)
    ]
    if len(found) != 1:
        what = f"no model '{model}'" if model else "name a model with --model:"
        raise RepositoryError(f"{place}: {what} with a repository here")
    return found[0]
