"""Which versions the engine holds, and how a configuration changes that.

A version is told apart by what it was made from: the file's signs, the manifest's
checksums and its options. One that is unchanged is left alone, so a reload costs what
is new. Loading comes first and is undone when the configuration cannot take effect
after all; unloading comes last, when nothing routes to a version any more.

A version that cannot be loaded is a problem of the configuration, with two exceptions:
a candidate at start, and a candidate that was unavailable before. A router that came up
without it, or keeps running without it, serves better than one that does not.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from router.config.config import Config
from router.config.model import Model, settings_of
from router.control.guard import guard_options
from router.control.options import version_options
from router.control.serving import Catalogue, ModelEntry, Tensor, VersionEntry
from router.errors import EngineError, ModelError, Problem
from router.models.repository import ModelFile
from router.models.upstream import (
    Described,
    RemoteVersion,
    Signature,
    signature_options,
)

log = logging.getLogger(__name__)

Key = tuple[str, int]
REPORTED = ("providers", "may_batch", "memory_bytes")
MISMATCH = "its inputs or outputs differ from stable's"


class Loader(Protocol):
    """The engine's calls this file makes, and the guard's."""

    def prepare(self, files: Sequence[tuple[ModelFile, Mapping[str, str]]]) -> None: ...

    def load(
        self, model: str, version: int, data: bytes, options: Mapping[str, str]
    ) -> dict[str, Any]: ...

    def unload(self, model: str, version: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What a loaded version was made from."""

    signs: tuple[int, ...]
    checksums: tuple[tuple[str, str], ...]
    """By file; without a name, what is wrong with the manifest."""
    options: tuple[tuple[str, str], ...]


NOTHING = Identity((), (), ())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version as it came out of loading; `entry` says whether it can serve."""

    identity: Identity
    entry: VersionEntry


@dataclass(frozen=True, slots=True)
class Choice:
    """Which versions are loaded.

    With `only` the others are taken as they are, whatever their files look like. Those
    in `out` are not loaded, for the reason given. `note` is said of those that are.
    """

    only: frozenset[Key] | None = None
    out: Mapping[Key, str] = field(default_factory=dict)
    note: str = ""


ALL = Choice()


@dataclass(frozen=True, slots=True)
class Loading:
    """What loading came to; nothing is routed to these versions yet."""

    versions: Mapping[Key, Loaded]
    fresh: frozenset[Key]
    problems: tuple[Problem, ...]

    @property
    def unavailable(self) -> frozenset[Key]:
        return frozenset(self.versions.keys() - _loaded(self.versions))


class Versions:
    """Owner of the list of versions that the engine holds for the current table."""

    def __init__(self, engine: Loader, library: str) -> None:
        self._engine, self._library = engine, library
        self._current: dict[Key, Loaded] = {}

    def load(
        self,
        config: Config,
        files: Iterable[ModelFile | RemoteVersion],
        stables: Mapping[str, int],
        choice: Choice = ALL,
    ) -> Loading:
        """Load what is new. With problems in the result, call `discard` with it."""
        only = choice.only
        models = {model.name: model for model in config.models}
        is_start = not self._current
        versions: dict[Key, Loaded] = {}
        fresh, problems = set(), []
        anew = []
        for file in files:
            key = file.model, file.version
            if key in choice.out:
                entry = VersionEntry(file.version, False, choice.out[key])
                versions[key] = Loaded(NOTHING, entry)
                continue
            before = self._current.get(key)
            identity = self._identity(models[file.model], file, stables[file.model])
            is_same = before and before.entry.is_loaded and before.identity == identity
            if before and (is_same or (only is not None and key not in only)):
                versions[key] = before
            else:
                anew.append((file, identity))
        self._engine.prepare(
            [
                (file, dict(who.options))
                for file, who in anew
                if isinstance(file, ModelFile)
            ]
        )
        # Those of other servers last: one that says nothing of itself is like stable.
        for file, identity in sorted(anew, key=_is_remote):
            key = file.model, file.version
            before = self._current.get(key)
            stable = versions.get((file.model, stables[file.model]))
            loaded = self._load(file, identity, stable, before)
            versions[key] = loaded
            if loaded.entry.is_loaded:
                fresh.add(key)
                entry = replace(loaded.entry, reason=choice.note)
                versions[key] = replace(loaded, entry=entry)
            elif not _may_be_absent(key, stables, before, is_start or only is not None):
                problems.append(_problem(file, loaded.entry.reason))
        for key in _mismatches(models, versions, stables):
            fields = {
                "model": key[0],
                "version": key[1],
                "problem": MISMATCH,
                "it_has": _words(versions[key].entry),
                "stable_has": _words(versions[key[0], stables[key[0]]].entry),
            }
            differs = _without(versions[key], MISMATCH)
            before = self._current.get(key)
            if before is None or before.entry.reason != MISMATCH:
                event = "a version cannot stand in for stable"
                log.error(event, extra={"fields": fields})
            if not _may_be_absent(key, stables, before, is_start or only is not None):
                problems.append(_mismatch_problem(key))
            versions[key] = differs
        if only is not None:
            # What could not be loaded before is still explained.
            absent = self._current.keys() - _loaded(self._current) - versions.keys()
            versions |= {key: self._current[key] for key in absent}
        return Loading(versions, frozenset(fresh), tuple(problems))

    def is_known(self, key: Key) -> bool:
        return key in self._current

    def is_loaded(self, key: Key) -> bool:
        return key in _loaded(self._current)

    def discard(self, loading: Loading) -> None:
        """Forget what was loaded for nothing. The current versions stay."""
        held = _loaded(self._current)
        for key in loading.fresh - held:
            self._engine.unload(*key)
        for key in loading.fresh & held:
            # The engine has the new one for its next table: it is never taken for the
            # old one again, whatever the file looks like then.
            self._current[key] = replace(self._current[key], identity=NOTHING)

    def keep_absent(self, loading: Loading, key: Key) -> None:
        """A version that was away still is; only the reason may be another one."""
        self.discard(loading)
        self._current[key] = loading.versions[key]

    def commit(self, loading: Loading) -> None:
        """The table was published: unload what it does not route to."""
        held = _loaded(self._current) | loading.fresh
        wanted = _loaded(loading.versions)
        for key in sorted(held - wanted):
            self._engine.unload(*key)
        self._current = dict(loading.versions)

    def _identity(
        self, model: Model, file: ModelFile | RemoteVersion, stable: int
    ) -> Identity:
        if isinstance(file, RemoteVersion):
            try:
                return Identity((), (), tuple(sorted(file.options().items())))
            except ModelError:
                return NOTHING  # loading says why
        options = version_options(model, file.version, self._library)
        options |= guard_options(model, file.version, stable)
        return Identity(
            _signs(file),
            tuple(sorted({**file.manifest.files, "": file.refusal}.items())),
            tuple(sorted(options.items())),
        )

    def _load(
        self,
        file: ModelFile | RemoteVersion,
        identity: Identity,
        stable: Loaded | None,
        before: Loaded | None,
    ) -> Loaded:
        fields = {"model": file.model, "version": file.version}
        try:
            data, options = b"", dict(identity.options)
            if isinstance(file, RemoteVersion):
                options = file.options()
                known = _known_signature(before, identity)
                options |= known or _signature_options(file, stable)
            else:
                data = file.read()
            report = self._engine.load(file.model, file.version, data, options)
        except (EngineError, ModelError) as error:
            if before is None or before.entry.reason != str(error):
                event, more = "a version cannot be loaded", {"problem": str(error)}
                log.error(event, extra={"fields": fields | more})
            return Loaded(identity, VersionEntry(file.version, False, str(error)))
        for warning in report["warnings"]:
            fields_of_warning = {**fields, "warning": warning}
            log.warning("loaded with a warning", extra={"fields": fields_of_warning})
        log.info(
            "a version is loaded",
            extra={"fields": fields | {key: report[key] for key in REPORTED}},
        )
        return Loaded(identity, _entry(file.version, report))


def catalogue_of(loading: Loading, stables: Mapping[str, int]) -> Catalogue:
    """The versions as clients see them, by model, in ascending order."""
    models: dict[str, list[VersionEntry]] = {name: [] for name in sorted(stables)}
    for (model, _), loaded in sorted(loading.versions.items()):
        models[model].append(loaded.entry)
    return Catalogue(
        {
            name: ModelEntry(name, stables[name], tuple(entries))
            for name, entries in models.items()
        }
    )


def _entry(version: int, report: Mapping[str, Any]) -> VersionEntry:
    return VersionEntry(
        version,
        True,
        platform=report["platform"],
        inputs=tuple(_tensor(tensor) for tensor in report["inputs"]),
        outputs=tuple(_tensor(tensor) for tensor in report["outputs"]),
    )


def _loaded(versions: Mapping[Key, Loaded]) -> set[Key]:
    return {key for key, loaded in versions.items() if loaded.entry.is_loaded}


def _tensor(report: Mapping[str, Any]) -> Tensor:
    return Tensor(report["name"], report["datatype"], tuple(report["shape"]))


def _without(loaded: Loaded, reason: str) -> Loaded:
    return Loaded(loaded.identity, VersionEntry(loaded.entry.version, False, reason))


def _may_be_absent(
    key: Key, stables: Mapping[str, int], before: Loaded | None, may_be_new: bool
) -> bool:
    if stables[key[0]] == key[1]:
        return False
    return may_be_new if before is None else not before.entry.is_loaded


def _mismatches(
    models: Mapping[str, Model],
    versions: Mapping[Key, Loaded],
    stables: Mapping[str, int],
) -> list[Key]:
    """Versions that cannot stand in for stable: a client could tell them apart."""
    found = []
    for (name, version), loaded in versions.items():
        stable = versions[name, stables[name]].entry
        if models[name].on_mismatch == "allow" or not loaded.entry.is_loaded:
            continue
        is_remote = settings_of(models[name], version).upstream is not None
        if stable.is_loaded and not _is_like(loaded.entry, stable, is_remote):
            found.append((name, version))
    return found


def _is_like(entry: VersionEntry, stable: VersionEntry, is_remote: bool) -> bool:
    if not is_remote:
        return _signature(entry) == _signature(stable)
    pairs = ((entry.inputs, stable.inputs), (entry.outputs, stable.outputs))
    return all(
        len(own) == len(theirs)
        and all(any(_is_alike(one, other) for other in theirs) for one in own)
        for own, theirs in pairs
    )


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Same name, datatype and rank; servers differ in which sizes they state."""
    return (
        (one.name, one.datatype) == (other.name, other.datatype)
        and len(one.shape) == len(other.shape)
        and all(-1 in sizes or len(set(sizes)) == 1
                for sizes in zip(one.shape, other.shape, strict=True))
    )  # fmt: skip


def _words(entry: VersionEntry) -> dict[str, list[str]]:
    return {
        kind: [f"{each.name} {each.datatype} {list(each.shape)}" for each in tensors]
        for kind, tensors in (("inputs", entry.inputs), ("outputs", entry.outputs))
    }


def _signature(entry: VersionEntry) -> tuple[frozenset[Tensor], frozenset[Tensor]]:
    return frozenset(entry.inputs), frozenset(entry.outputs)


def _is_remote(item: tuple[ModelFile | RemoteVersion, Identity]) -> bool:
    return isinstance(item[0], RemoteVersion)


def _known_signature(before: Loaded | None, identity: Identity) -> dict[str, str]:
    """What is known already when nothing but certificates is new: the server may be
    away just then, and replacing a certificate must not depend on it."""
    if before is None or not before.entry.is_loaded:
        return {}
    if _but_certificates(before.identity) != _but_certificates(identity):
        return {}
    entry = before.entry
    return signature_options(
        Signature(entry.platform, _described(entry.inputs), _described(entry.outputs))
    )


def _but_certificates(identity: Identity) -> dict[str, str]:
    pems = {"tls_ca", "tls_cert", "tls_key"}
    return {name: text for name, text in identity.options if name not in pems}


def _signature_options(file: RemoteVersion, stable: Loaded | None) -> dict[str, str]:
    """What the server says of its model or, when it says nothing, what stable has."""
    said = file.ask()
    if said.inputs and said.outputs:
        return signature_options(said)
    if stable is None or not stable.entry.is_loaded:
        problem = "its server names no inputs or outputs, and there is no other version"
        raise ModelError(file.model, file.version, problem)
    entry = stable.entry
    log.warning(
        "a server says nothing of its model: taken to be like stable",
        extra={"fields": {"model": file.model, "version": file.version}},
    )
    return signature_options(
        Signature(said.platform, _described(entry.inputs), _described(entry.outputs))
    )


def _described(tensors: tuple[Tensor, ...]) -> tuple[Described, ...]:
    return tuple((each.name, each.datatype, each.shape) for each in tensors)


def _problem(file: ModelFile | RemoteVersion, reason: str) -> Problem:
    place = str(file.path) if isinstance(file, ModelFile) else file.upstream.targets[0]
    return Problem(place, 0, f"models.{file.model}.{file.version}", reason)


def _mismatch_problem(key: Key) -> Problem:
    return Problem(
        f"{key[1]}/model.onnx", 0, f"models.{key[0]}.{key[1]}",
        MISMATCH, "", "or set on_mismatch: allow",
    )  # fmt: skip


def _signs(file: ModelFile) -> tuple[int, ...]:
    """Cheap signs that the file is the one that was loaded."""
    try:
        found = os.stat(file.path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
