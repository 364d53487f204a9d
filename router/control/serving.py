"""What is served at the moment, for everything that has to say so.

`Catalogue` is a frozen value, replaced as a whole after each publish. `Serving` owns
the current one and answers the questions of readiness; methods, probes and metrics read
it from any thread. It never changes what is served.

A version is ready when it was loaded and the engine has not taken it out. The engine's
side of that comes from a snapshot at most a second old: readiness is asked often, and a
snapshot lists every version.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from router.clock import Clock

SNAPSHOT_AGE_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as clients see it; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version of a model: its signature, or why it is not there."""

    version: int
    is_loaded: bool
    reason: str = ""
    platform: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model and its versions, in ascending order."""

    name: str
    stable: int
    versions: tuple[VersionEntry, ...]

    def find(self, version: int) -> VersionEntry | None:
        return next((v for v in self.versions if v.version == version), None)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every model served, by name; sorted."""

    models: Mapping[str, ModelEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """The last configuration that took effect, and whether a later one did not."""

    catalogue: Catalogue = Catalogue()
    config_revision: str = ""
    table_revision: str = ""
    was_last_successful: bool = False
    succeeded_at_s: float = 0.0


class Serving:
    """Owner of the current `Served` and of the decision to drain."""

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]], clock: Clock) -> None:
        self._snapshot, self._clock = snapshot, clock
        self._served = Served()
        self._is_draining = False
        self._is_started = False
        self._lock = threading.Lock()
        self._out: frozenset[tuple[str, int]] = frozenset()
        self._out_read_at = float("-inf")

    def put(self, served: Served) -> None:
        """Replace what is served; after the publish that made it true."""
        with self._lock:
            self._served = served
            self._out_read_at = float("-inf")

    def put_revision(self, table_revision: str) -> None:
        """Another table was published for what is served."""
        with self._lock:
            self._served = replace(self._served, table_revision=table_revision)

    def start(self) -> None:
        """From now on requests are answered."""
        self._is_started = True

    def drain(self) -> None:
        """From now on nothing is ready, whatever its state."""
        self._is_draining = True

    @property
    def served(self) -> Served:
        return self._served

    @property
    def catalogue(self) -> Catalogue:
        return self._served.catalogue

    def is_ready(self) -> bool:
        return not self.unready_reasons()

    def is_version_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a version, or the stable one, would answer."""
        entry = self.catalogue.models.get(model)
        if entry is None or self._is_draining or not self._is_started:
            return False
        found = entry.find(entry.stable if version is None else version)
        if found is None or not found.is_loaded:
            return False
        return (model, found.version) not in self._taken_out()

    def unready_reasons(self) -> tuple[str, ...]:
        """Why requests should go elsewhere; empty when they may come."""
        if self._is_draining:
            return ("draining",)
        if not self._is_started or not self._served.table_revision:
            return ("starting",)
        out = self._taken_out()
        return tuple(
            f"model '{entry.name}': no version is ready"
            for entry in self.catalogue.models.values()
            if not any(v.is_loaded and (entry.name, v.version) not in out
                       for v in entry.versions)
        )  # fmt: skip

    def _taken_out(self) -> frozenset[tuple[str, int]]:
        """Versions the engine will not use: not ready, or an open breaker."""
        now = self._clock.monotonic()
        with self._lock:
            if now - self._out_read_at < SNAPSHOT_AGE_MAX_S:
                return self._out
            # Claimed before it is read: others use the last answer meanwhile.
            self._out_read_at = now
        versions = self._snapshot()["versions"]
        out = frozenset(
            (v["model"], v["version"])
            for v in versions
            if not v["is_ready"] or v["breaker"] == "open"
        )
        with self._lock:
            self._out = out
        return out
