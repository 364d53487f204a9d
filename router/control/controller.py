"""Carries out what operators ask, and answers what they want to know.

A command is checked, turned into records, and made effective under the publication's
lock, so that two operators are answered one after the other. The answer says which
revision it left behind. A request id that was seen is answered as it was answered then.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol, get_args

from router.config.check import Checks, check_config
from router.config.config import Config
from router.config.problems import Known
from router.config.resources import read_resource, refuse_owned, with_resources
from router.control.carry import claimed, settle, share_bp
from router.control.commands import (
    ApplyConfig,
    Asked,
    Command,
    DeleteResource,
    Done,
    Freeze,
    OnRollout,
    PutResource,
    SetFlag,
    SetVariant,
)
from router.control.evidence import Evidence
from router.control.gates import Judged
from router.control.publication import Publication, Routing
from router.control.scope_records import record_of
from router.control.state import (
    flag_record,
    frozen_record,
    request_record,
    resource_record,
    variant_record,
)
from router.control.steer import steer
from router.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    Problem,
    RefusedError,
)
from router.plan.rollout import ScopeState, Spec
from router.store.log import Entry, Record

HISTORY_MAX = 10_000


class History(Protocol):
    """The control log's reading side."""

    def read(self, since: int = 0) -> tuple[Entry, ...]: ...

    def watch(self, since: int, timeout_s: float) -> tuple[Entry, ...]: ...


@dataclass(frozen=True, slots=True)
class ScopeView:
    """One scope, as people look at it."""

    spec: Spec
    state: ScopeState
    judged: tuple[Judged, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    waits_for: str = ""
    """What growth is waiting for."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything there is to see, at one instant."""

    routing: Routing
    scopes: tuple[ScopeView, ...]
    flags: Mapping[str, bool] = field(default_factory=dict)
    is_frozen: bool = False
    is_stalled: bool = False
    """The controller has not ticked lately: nothing grows."""
    waiting: int = 0
    """Records that took effect and are not stored yet."""


class Watcher(Protocol):
    """What the ticking side knows of scopes."""

    def progress(self, spec: Spec, state: ScopeState) -> ScopeState: ...

    def views(self) -> tuple[ScopeView, ...]: ...

    def is_stalled(self) -> bool: ...

    def moved(self, spec: Spec, before: ScopeState, after: ScopeState, event: str,
              reason: str, actor: str, revision: int) -> None: ...  # fmt: skip


# Lets a configuration text take effect or, when it is a trial, says what would happen.
Apply = Callable[[ApplyConfig], str]


class Controller:
    """The operators' door. Any thread may call it."""

    def __init__(
        self,
        publication: Publication,
        history: History,
        watcher: Watcher,
        apply: Apply,
        checks: Checks,
    ) -> None:
        self._publication, self._history = publication, history
        self._watcher, self._apply, self._checks = watcher, apply, checks

    def execute(self, command: Command) -> Done:
        """Carry out a command once; RefusedError, NotFoundError, ConflictError,
        ConfigError or StoreError say why not."""
        asked = command.asked
        if isinstance(command, ApplyConfig):
            # Loads models, which may take minutes: not under the lock.
            repeat = self._repeated(command)
            if repeat is not None:
                return repeat
            message = self._apply(command)
            with self._publication.lock:
                if asked.request_id and not command.is_dry_run:
                    self._publication.grow(self._answered(command, message))
                return self._done(message)
        with self._publication.lock:
            repeat = self._repeated(command)
            if repeat is not None:
                return repeat
            message = self._carry_out(command)
            return self._done(message)

    def view(self) -> View:
        """What there is to see: each scope as it is now, with the last verdicts."""
        with self._publication.lock:
            routing = self._routing()
            state = self._publication.state()
            seen = {one.spec.scope: one for one in self._watcher.views()}
            scopes = tuple(
                _now(seen.get(spec.scope), spec, self._watcher.progress(spec, current))
                for spec, current in routing.scopes()
            )
        return View(
            routing, scopes, state.flags, state.is_frozen,
            self._watcher.is_stalled(), self._publication.waiting,
        )  # fmt: skip

    def history(
        self, rollout: str | None = None, limit: int = 100
    ) -> tuple[Entry, ...]:
        """What happened, the newest last; of one rollout, or of everything."""
        entries = [
            entry
            for entry in self._history.read()
            if rollout is None or _names(entry, rollout)
        ]
        return tuple(entries[-min(limit, HISTORY_MAX) :])

    def watch(self, since: int, timeout_s: float) -> tuple[Entry, ...]:
        """What happened after a revision, as soon as something does."""
        return self._history.watch(since, timeout_s)

    def _carry_out(self, command: Command) -> str:
        asked = command.asked
        match command:
            case Freeze():
                record = frozen_record(command.is_frozen, asked.actor, asked.reason)
                word = "frozen" if command.is_frozen else "thawed"
                self._commit(command, [record], f"growth is {word}", command.is_frozen)
                return f"growth is {word}"
            case SetVariant():
                return self._set_variant(command)
            case SetFlag():
                return self._set_flag(command)
            case PutResource() | DeleteResource():
                return self._set_resource(command)
            case _ if isinstance(command, get_args(OnRollout)):
                return self._steer(command)
        raise AssertionError(f"not a command: {command}")

    def _steer(self, command: OnRollout) -> str:
        routing = self._routing()
        before: list[ScopeState] = []
        after: list[ScopeState] = []
        records: list[Record] = []
        moves = []
        for spec, state in self._scopes(routing, command.rollout):
            current = self._watcher.progress(spec, state)
            steered, move = steer(spec, current, command)
            now = claimed(self._routing(), spec, steered)
            _refuse_frozen(routing, state, now)
            before.append(state)
            after.append(now)
            moves.append((spec, state, now, move))
            records.append(
                record_of(now, state, str(move.event), command.asked.actor, move.reason)
            )
        message = "; ".join(f"{now.scope}: {now.phase}" for now in after)
        records += self._answered(command, message)
        routing = settle(self._publication, before, after, records)
        for spec, state, now, move in moves:
            self._watcher.moved(
                spec, state, now, str(move.event), move.reason, command.asked.actor,
                routing.state.revision,
            )  # fmt: skip
        return message

    def _set_variant(self, command: SetVariant) -> str:
        model = next(
            (m for m in self._routing().plan.models if m.name == command.model), None
        )
        versions = () if model is None else tuple(v.version for v in model.variants)
        if model is None or command.version not in versions:
            raise NotFoundError(f"no version {command.version} of '{command.model}'")
        if (
            command.is_disabled
            and model.variants[model.stable].version == command.version
        ):
            raise RefusedError("stable cannot be taken out: nothing would be left")
        asked = command.asked
        record = variant_record(
            command.model,
            command.version,
            command.is_disabled,
            asked.actor,
            asked.reason,
        )
        word = "disabled" if command.is_disabled else "enabled"
        message = f"version {command.version} of '{command.model}' is {word}"
        self._commit(command, [record], message, command.is_disabled)
        return message

    def _set_flag(self, command: SetFlag) -> str:
        routing, asked = self._routing(), command.asked
        records: list[Record] = []
        for spec, state in self._flagged(routing, command):
            now = replace(self._watcher.progress(spec, state), is_off=not command.is_on)
            _refuse_frozen(routing, state, now)
            records.append(record_of(now, state, "flag", asked.actor, asked.reason))
        records.append(
            flag_record(command.name, command.is_on, asked.actor, asked.reason)
        )
        message = f"{command.name} is {'on' if command.is_on else 'off'}"
        self._commit(command, records, message, not command.is_on)
        return message

    def _flagged(
        self, routing: Routing, command: SetFlag
    ) -> tuple[tuple[Spec, ScopeState], ...]:
        """The scopes that a flag turns on and off; none for shadows and variants."""
        named = tuple(one for one in routing.scopes() if one[0].flag == command.name)
        if named:
            return named
        kind, _, name = command.name.partition("/")
        if kind == "rollout":
            return self._scopes(routing, name)
        if kind == "shadow":
            self._scopes(routing, name)  # which must exist
            return ()
        if kind != "variant":
            raise NotFoundError(
                f"no flag '{command.name}': write rollout/<name>, shadow/<name>,"
                " variant/<model>/<version>, or the flag that a rollout names"
            )
        model, _, version = name.rpartition("/")
        for one in routing.plan.models:
            for variant in one.variants:
                if (one.name, str(variant.version)) != (model, version):
                    continue
                is_stable = one.variants[one.stable].version == variant.version
                if is_stable and not command.is_on:
                    raise RefusedError(
                        "stable cannot be turned off: nothing would be left"
                    )
                return ()
        raise NotFoundError(f"no variant '{name}'")

    def _set_resource(self, command: PutResource | DeleteResource) -> str:
        routing, asked = self._routing(), command.asked
        refuse_owned(routing.file, command.kind, command.name)
        key = command.kind, command.name
        if isinstance(command, DeleteResource):
            if key not in routing.state.resources:
                raise NotFoundError(f"no {command.kind} '{command.name}' was put")
            record = resource_record(*key, None, asked.actor, asked.reason)
            left = {k: v for k, v in routing.state.resources.items() if k != key}
            message = f"{command.kind} '{command.name}' is deleted"
        else:
            if command.is_new is True and key in routing.state.resources:
                raise RefusedError(f"{command.kind} '{command.name}' exists: update it")
            if command.is_new is False and key not in routing.state.resources:
                raise NotFoundError(f"no {command.kind} '{command.name}'")
            try:
                given = json.loads(command.body)
            except ValueError as error:
                raise RefusedError(f"the body is not JSON: {error}") from None
            body = read_resource(*key, given)
            record = resource_record(*key, body, asked.actor, asked.reason)
            left = {**routing.state.resources, key: body}
            message = f"{command.kind} '{command.name}' is stored"
        self._check(with_resources(routing.file, left))
        self._commit(command, [record], message, False)
        return message

    def _check(self, config: Config) -> None:
        findings = tuple(check_config(config, self._checks, Known()))
        if findings:
            raise ConfigError(
                tuple(
                    Problem(
                        "<put>", 0, ".".join(str(part) for part in one.path),
                        one.message, one.value, one.remedy,
                    )
                    for one in findings
                )
            )  # fmt: skip

    def _commit(
        self, command: Command, records: Sequence[Record], message: str, shrinks: bool
    ) -> None:
        """Make records that concern no share claim effective."""
        everything = [*records, *self._answered(command, message)]
        if shrinks:
            self._publication.shrink(everything)
        else:
            self._publication.grow(everything)

    def _scopes(
        self, routing: Routing, rollout: str
    ) -> tuple[tuple[Spec, ScopeState], ...]:
        found = tuple(
            (spec, state)
            for spec, state in routing.scopes()
            if rollout in (spec.rollout, spec.scope)
        )
        if not found:
            raise NotFoundError(f"no rollout '{rollout}'")
        return found

    def _repeated(self, command: Command) -> Done | None:
        """The answer to a request id that was seen; ConflictError when it was used for
        something else."""
        request_id = command.asked.request_id
        seen = (
            self._publication.state().requests.get(request_id) if request_id else None
        )
        if seen is None:
            return None
        if seen["command"] != _signature(command):
            raise ConflictError(
                f"request id '{request_id}' was used for another command"
            )
        return replace(self._done(str(seen["message"])), is_repeat=True)

    def _answered(self, command: Command, message: str) -> list[Record]:
        asked: Asked = command.asked
        if not asked.request_id:
            return []
        answer = {"command": _signature(command), "message": message}
        return [request_record(asked.request_id, answer, asked.actor, asked.reason)]

    def _done(self, message: str) -> Done:
        routing = self._routing()
        return Done(
            revision=routing.state.revision,
            message=message,
            config_revision=routing.plan.config_revision,
            table_revision=routing.table_revision,
        )

    def _routing(self) -> Routing:
        current = self._publication.current
        if current is None:
            raise RefusedError("the router is still starting")
        return current


def _now(seen: ScopeView | None, spec: Spec, state: ScopeState) -> ScopeView:
    """The scope as it is, with what the last tick saw of it unless it has moved on."""
    if seen is None or seen.state.attempt != state.attempt:
        return ScopeView(spec, state)
    has_moved = (seen.state.phase, seen.state.step) != (state.phase, state.step)
    waits_for = state.hold_reason if has_moved else seen.waits_for
    return replace(seen, spec=spec, state=state, waits_for=waits_for)


def _refuse_frozen(routing: Routing, before: ScopeState, after: ScopeState) -> None:
    if routing.state.is_frozen and share_bp(after) > share_bp(before):
        raise RefusedError(f"{after.scope}: growth is frozen: thaw it first")


def _signature(command: Command) -> str:
    """What was asked, without by whom: the same wish again is a repetition."""
    fields = {k: v for k, v in asdict(command).items() if k != "asked"}
    return json.dumps([type(command).__name__, fields], sort_keys=True)


def _names(entry: Entry, rollout: str) -> bool:
    subject = entry.record.subject
    return (
        subject == rollout
        or subject.startswith(f"{rollout}/")
        or (entry.record.kind == "flag_set" and subject == f"rollout/{rollout}")
    )
