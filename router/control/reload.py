"""A configuration takes effect: load, store, publish, unload; or it does not, and why.

The order is what makes it safe. Everything that can be refused is tried before anything
is stored, everything is stored before it is published, and the table is published
before a version is unloaded. Whatever goes wrong, the table that was serving keeps
serving.

One at a time, whoever asks: a storm of changes is a sequence of reloads, each of the
newest file, and a version that an operator loads takes the same way as a reload.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from router.clock import Clock
from router.config.check import Checks
from router.config.config import Config, config_revision
from router.config.load import load_config, read_config
from router.config.model import served_versions, stable_of
from router.config.resources import with_resources
from router.control.commands import ApplyConfig
from router.control.files import FileState, has_changed, look_at
from router.control.loads import (
    LoadError,
    NoVersionError,
    Wanted,
    alias_problems,
    loadable,
    named_by,
    source_of,
    taken_out,
    traffic_of,
)
from router.control.publication import REVISION_AT, Publication, refuse_drift
from router.control.renewals import Look, Renewals
from router.control.serving import Served, Serving
from router.control.state import load_record
from router.control.versions import (
    Choice,
    Key,
    Loading,
    Versions,
    catalogue_of,
)
from router.errors import (
    ConfigError,
    ConflictError,
    ModelError,
    RouterError,
    StoreError,
)
from router.models.repository import find_served, list_models
from router.plan.diff import diff_plans
from router.plan.plan import Plan

log = logging.getLogger(__name__)

ACTOR = "router serve"


@dataclass(frozen=True, slots=True)
class Means:
    """What reloading needs of the world."""

    clock: Clock
    checks: Checks


class Reloader:
    """Owner of the configuration file's state, the loaded versions and the plan."""

    def __init__(
        self,
        path: Path,
        means: Means,
        serving: Serving,
        versions: Versions,
        publication: Publication,
    ) -> None:
        self._path, self._means, self._serving = path, means, serving
        self._publication = publication
        self._versions = versions
        self._plan: Plan | None = None
        self._config: Config | None = None
        self._file = FileState(None, b"")
        # Files that the configuration names beside itself.
        self._beside: dict[Path, FileState] = {}
        # What the last configuration was made from, for versions that are renewed.
        self._wanted = Wanted({})
        self.renewals = Renewals(means.clock)
        # Loading is long: who polls and who applies wait for each other here, and not
        # under the publication's lock.
        self._lock = threading.RLock()

    @property
    def applied(self) -> tuple[Config, Plan] | None:
        """What serves: a configuration and its plan; None before the first."""
        routing = self._publication.current
        return None if routing is None else (routing.config, routing.plan)

    def start(self, config: Config) -> None:
        """Let the first configuration take effect; RouterError when it cannot."""
        self._file = look_at(self._path)
        self._watch(config)
        with self._lock:
            self._take(config, "start", self._whole(config))

    @property
    def plan(self) -> Plan | None:
        """What is published; None before the first."""
        return self._plan

    def poll(self) -> bool:
        """Reload when the file has changed, else renew what is due; whether it did."""
        with self._lock:
            return self._poll()

    def _poll(self) -> bool:
        now = look_at(self._path, self._file)
        if not has_changed(self._file, now) and not self._has_changed_beside():
            for key in self.renewals.due():
                self.renewals.tried(key, self._renew(key))
            return False
        self._file = now
        self.reload("the file has changed")
        return True

    def _has_changed_beside(self) -> bool:
        return any(
            has_changed(was, look_at(path, was)) for path, was in self._beside.items()
        )

    def _watch(self, config: Config) -> None:
        """Know the files beside this configuration. What was looked at before it was
        read stays: a change in between is one that is still to be read."""
        paths = [self._path.parent / entry.file for entry in config.qwak]
        self._beside = {path: self._beside.get(path) or look_at(path) for path in paths}

    def reload(self, reason: str) -> bool:
        """Read the file again; on any problem say so and change nothing."""
        with self._lock:
            return self._reload(reason)

    def _reload(self, reason: str) -> bool:
        self._file = look_at(self._path)
        self._beside = {path: look_at(path) for path in self._beside}
        try:
            config = load_config(self._path, self._means.checks)
            self._watch(config)
            self._take(config, reason, self._whole(config))
        except ConfigError as error:
            for problem in error.problems:
                _report(reason, str(problem))
        except RouterError as error:
            _report(reason, str(error))
        except Exception:
            # Whatever it was, the old table serves and the next change is looked at.
            log.exception("a configuration is refused", extra={"fields": {
                "reason": reason}})  # fmt: skip
        else:
            return True
        failed = replace(self._serving.served, was_last_successful=False)
        self._serving.put(failed)
        return False

    def apply(self, command: ApplyConfig) -> str:
        """As `_apply`, one at a time."""
        with self._lock:
            return self._apply(command)

    def _apply(self, command: ApplyConfig) -> str:
        """Let the text of a command take effect and become the file; what happened.

        The file owns what should be, so it has to say what is: it is replaced, whole,
        before anybody is told that the command was carried out. ConfigError has every
        problem; ConflictError when the configuration is not the one that was expected.
        """
        config = read_config(command.text, str(self._path), self._means.checks)
        current = self._publication.current
        now = "" if current is None else current.plan.config_revision
        if command.expected_revision not in ("", now):
            raise ConflictError(
                f"the configuration is at {now}, not at {command.expected_revision}"
            )
        refuse_drift(config, current)
        if command.is_dry_run:
            return f"would become {config_revision(config)}, it is {now}"
        aside = self._path.with_name(f".{self._path.name}.applied")
        try:
            aside.write_text(command.text)
            reason = f"applied by {command.asked.actor}"
            self._take(config, reason, self._whole(config))
            aside.replace(self._path)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error.strerror}"
            ) from error
        finally:
            aside.unlink(missing_ok=True)
        self._file = look_at(self._path)
        self._watch(config)
        return f"applied {config_revision(config)}"

    def _renew(self, key: Key) -> bool:
        """Load one version anew, as the configuration has it that serves; whether it
        can serve. Nothing else is touched, and on any problem nothing at all."""
        assert self._config is not None
        again = "a version is loaded again"
        try:
            return not self._take(self._config, again, self._wanted.renewed(key))
        except RouterError as error:
            _report(again, str(error))
        return False

    def load_version(self, model: str, version: int | None, actor: str) -> None:
        """Load a version that is new in its repository, has another file now, or was
        unloaded; all of them that are not loaded if none is named. RouterError says why
        one cannot serve: it is not routable then, and nothing else has changed."""
        with self._lock:
            assert self._config is not None
            known = self._wanted.listed.get(model, ())
            versions = [version] if version is not None else [
                one for one in loadable(self._config, model, known)
                if not self._versions.is_loaded((model, one))
            ]  # fmt: skip
            failed: list[RouterError] = []
            for one in versions:
                try:
                    self._load(self._config, (model, one), actor)
                except (ModelError, ConfigError, NoVersionError) as error:
                    failed.append(error)
            if len(failed) == 1:
                raise failed[0]
            if failed:
                raise LoadError("; ".join(str(error) for error in failed))

    def _load(self, config: Config, key: Key, actor: str) -> None:
        listed = self._wanted.listed
        source = source_of(config, *key, listed.get(key[0], ()))
        wanted = self._wanted.with_version(source)
        if _stables(config, wanted.listed) != _stables(config, listed):
            what = "it would become stable by arriving: name stable in the file"
            raise ModelError(*key, what)
        why = self._take(config, "a version is loaded at run time", wanted)
        if why:
            raise ModelError(*key, why.removeprefix(str(ModelError(*key, ""))))
        if key in self._publication.state().unloaded:
            self._publication.grow((load_record(*key, True, actor, "loaded"),))

    def unload_version(self, model: str, version: int, actor: str) -> None:
        """Unload a version that serves nobody. RouterError says what it serves."""
        key = model, version
        # Under both locks: nobody gives it traffic between the look and the deed.
        with self._lock, self._publication.lock:
            current = self._publication.current
            assert current is not None
            if not self._versions.is_known(key):
                raise NoVersionError(model, version)
            stables = _stables(current.file, self._wanted.listed)
            serves = named_by(current.config, stables, key)
            serves = serves or traffic_of(current.plan, key)
            if serves:
                raise ModelError(model, version, f"cannot be unloaded: {serves}")
            why = "unloaded at run time"
            # Stored first: a router that dies now comes back as it was asked to be.
            record = load_record(model, version, False, actor, why)
            self._publication.grow((record,))
            self._take(current.file, why, self._wanted.without_version(key, why))

    def _whole(self, config: Config) -> Wanted:
        """All that a configuration wants, looked at anew."""
        listed = list_models(config)
        state = self._publication.state()
        named = with_resources(config, state.resources)
        out = taken_out(named, _stables(config, listed), state)
        return Wanted(listed, find_served(config, listed), Choice(out=out))

    def _take(self, config: Config, reason: str, wanted: Wanted) -> str:
        """Let it take effect. When one version was to be loaded and cannot serve,
        nothing does, and the answer is why."""
        listed, only = wanted.listed, wanted.choice.only
        stables = _stables(config, listed)
        looks = {
            (file.model, file.version): Look.at(file)
            for file in wanted.files
            if (file.model, file.version) not in wanted.choice.out
        }
        loading = self._versions.load(config, wanted.files, stables, wanted.choice)
        absent = loading.unavailable - wanted.choice.out.keys()
        try:
            problems = (*loading.problems, *alias_problems(
                self._config, config, loading.unavailable, str(self._path)
            ))  # fmt: skip
            if problems:
                raise ConfigError(problems)
            for key in absent & (only or frozenset()):
                self._versions.keep_absent(loading, key)
                catalogue = catalogue_of(loading, stables)
                self._serving.put(replace(self._serving.served, catalogue=catalogue))
                return loading.versions[key].entry.reason
            plan, table = self._publish(config, listed, loading, reason)
        except BaseException:
            self._versions.discard(loading)
            raise
        self._versions.commit(loading)
        revision = f"{int.from_bytes(table[REVISION_AT], 'little'):016x}"
        self._serving.put(
            Served(
                catalogue_of(loading, stables),
                plan.config_revision,
                revision,
                True,
                self._means.clock.now(),
            )
        )
        _report_published(self._plan, plan, revision, reason)
        self._warn_about_server(config)
        self._plan, self._config = plan, config
        if not wanted.is_renewal_of(self._wanted):
            self.renewals.take(looks, absent & looks.keys())
        self._wanted = wanted
        return ""

    def _publish(
        self,
        config: Config,
        listed: Mapping[str, tuple[int, ...]],
        loading: Loading,
        reason: str,
    ) -> tuple[Plan, bytes]:
        routing = self._publication.take(
            config, listed, loading.unavailable, ACTOR, reason
        )
        return routing.plan, routing.table

    def _warn_about_server(self, config: Config) -> None:
        if self._config is not None and self._config.server != config.server:
            log.warning("server settings take effect at the next start")


def _stables(config: Config, listed: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {
        model.name: stable_of(model, served_versions(model, listed[model.name]))
        for model in config.models
    }


def _report(reason: str, problem: str) -> None:
    log.error(
        "a configuration is refused",
        extra={"fields": {"reason": reason, "problem": problem}},
    )


def _report_published(old: Plan | None, new: Plan, revision: str, reason: str) -> None:
    diff = diff_plans(old, new)
    log.info(
        "published",
        extra={
            "fields": {
                "reason": reason,
                "config_revision": new.config_revision,
                "table_revision": revision,
                "models": [
                    _describe(model) for model in diff.models if model.change != "same"
                ],
            }
        },
    )


def _describe(model: Any) -> dict[str, Any]:
    return {
        "model": model.name,
        "change": model.change,
        "notes": list(model.notes),
        "rules": [
            {
                "rule": rule.name,
                "change": rule.change,
                "moves_bp": {f"{m.source}->{m.target}": m.share_bp for m in rule.moves},
                "notes": list(rule.notes),
            }
            for rule in model.rules
            if rule.change != "same"
        ],
    }
