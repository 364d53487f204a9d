"""An operator's configuration takes effect: claim, try it out, store.

What changed is stored before anybody may act on the plan, so that a router that dies at
any moment comes back with every bucket where the last acknowledged apply put it.
Applying the same configuration again appends nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from router.clock import Clock
from router.config.config import (
    Config,
    config_revision,
    dump_config,
    restore_config,
)
from router.config.route import route_name
from router.control.scope_records import record_of
from router.control.state import (
    NOTHING,
    ControlState,
    config_record,
    fold,
    key_record,
    retired_record,
    route_record,
    with_records,
)
from router.errors import StoreError
from router.plan.compile import compile_plan, next_routes, unbegun
from router.plan.plan import CONTINUE, MintKey, Plan
from router.plan.scopes import specs_of
from router.store.log import Conflict, Entry, Record
from router.store.sqlite import SqliteLog

ATTEMPTS_MAX = 5  # appends that lose to another writer before we give up

Versions = Mapping[str, tuple[int, ...]]
Entropy = Callable[[int], bytes]


class ControlLog(Protocol):
    """The calls of the control log that applying needs."""

    def append(
        self, expected_revision: int, records: tuple[Record, ...]
    ) -> int | Conflict: ...

    def read(self, since: int = 0) -> tuple[Entry, ...]: ...


def apply_config(
    config: Config,
    versions: Versions,
    log: ControlLog,
    actor: str,
    entropy: Entropy,
    reason: str = "",
    *,
    known: ControlState = NOTHING,
    try_out: Callable[[ControlState], object] = lambda _: None,
) -> ControlState:
    """The state that a configuration leads to, once everything it decides is stored.

    `versions` are those in each model's repository; `entropy` makes secret bytes;
    `known` is a state folded before, so that only newer records are read. `try_out`
    gets the state before it is stored: what it raises keeps it from being stored.
    """
    state = fold(log.read(known.revision), known)
    for _ in range(ATTEMPTS_MAX):
        records = pending_records(config, versions, state, actor, entropy, reason)
        after = with_records(state, records)
        try_out(after)
        if not records:
            return after
        answer = log.append(state.revision, records)
        if not isinstance(answer, Conflict):
            # Nobody wrote in between, or it were a conflict: nothing is to be read.
            return replace(after, revision=answer)
        state = fold(log.read(state.revision), state)
    raise StoreError("the control log keeps changing: another router writes to it")


def pending_records(
    config: Config,
    versions: Versions,
    state: ControlState,
    actor: str,
    entropy: Entropy,
    reason: str,
) -> tuple[Record, ...]:
    """What has to be stored before the configuration may take effect."""
    routes = next_routes(config, state.states(versions))
    records = [
        route_record(route, actor, reason)
        for route in routes
        if route != state.routes.get(route.name)
    ]
    gone = _gone(config, state)
    records += [retired_record(name, actor, reason) for name in gone]
    records += _scope_records(config, versions, state, actor, reason)
    records += _regrouped_records(config, versions, state, records, actor, reason)
    if not state.keys and any(model.prediction_id for model in config.models):
        records.append(key_record(MintKey(0, entropy(32)), actor, reason))
    dumped = dump_config(config)
    if state.applied != dumped or dict(state.applied_versions) != dict(versions):
        records.append(
            config_record(dumped, versions, config_revision(config), actor, reason)
        )
    return tuple(records)


def _gone(config: Config, state: ControlState) -> list[str]:
    configured = {route_name(route) for route in config.routes}
    return [
        name
        for name, route in sorted(state.routes.items())
        if name not in configured and not route.is_retired
    ]


def _scope_records(
    config: Config, versions: Versions, state: ControlState, actor: str, reason: str
) -> list[Record]:
    """Scopes that appear, and those that are gone and give their buckets back.

    One that comes back under its name begins anew: nobody watched in between. One that
    has not begun takes the steps that the file has now.
    """
    specs = {spec.scope: spec for spec in specs_of(config, versions)}
    records = []
    for name, spec in specs.items():
        before = state.scopes.get(name)
        if before is None:
            new = unbegun(spec)
            new = replace(new, is_off=not state.flags.get(spec.flag, True))
            records.append(record_of(new, new, "added", actor, reason))
        elif before.is_retired:
            new = replace(
                unbegun(spec), attempt=before.attempt + 1, revision=before.revision,
                is_off=not state.flags.get(spec.flag, True),
            )  # fmt: skip
            records.append(record_of(new, before, "added", actor, reason))
        elif not before.is_begun and before.spec_digest != spec.digest:
            # Nothing was measured yet, so there is nothing that other steps contradict.
            new = replace(before, spec_digest=spec.digest)
            records.append(record_of(new, before, "edited", actor, reason))
    for name, before in sorted(state.scopes.items()):
        if name not in specs and not before.is_retired:
            after = replace(
                before, is_retired=True, maps=(), weights_bp={},
                revision=before.revision + bool(before.maps),
            )  # fmt: skip
            records.append(record_of(after, before, "retired", actor, reason))
    return records


def _regrouped_records(
    config: Config,
    versions: Versions,
    state: ControlState,
    records: list[Record],
    actor: str,
    reason: str,
) -> list[Record]:
    """Scopes that hold the same buckets, and are compared with other ones.

    Where another rollout may answer the same request, what no candidate holds is left
    to it; when such a rival comes or goes, or a holdout does, the rest changes hands
    without a claim. Units that were dealt before and after that had other chances, so
    the counts must not meet in one stratum.
    """
    before = applied_plan(state)
    if before is None or not config.rollouts:
        return []
    entries = (Entry(state.revision, 0.0, record) for record in records)
    now = fold(entries, state)
    old, new = _groups(before), _groups(compile_plan(config, now.states(versions)))
    scopes = {key[0] for key, group in new.items() if old.get(key, group) != group}
    return [
        record_of(replace(was, revision=was.revision + 1), was, "regrouped", actor,
                  reason)
        for scope, was in sorted(now.scopes.items())
        if scope in scopes
    ]  # fmt: skip


def _groups(
    plan: Plan,
) -> dict[tuple[str, str, int], tuple[tuple[int, int] | None, ...]]:
    """Who has each bucket, by scope, rule and revision: version and ordinal, or None
    where later rules are asked."""
    found = {}
    for model in plan.models:
        who = [(variant.version, variant.ordinal) for variant in model.variants]
        for rule in model.rules:
            if rule.scope and rule.buckets is not None:
                found[rule.scope, rule.name, rule.rollout_revision] = tuple(
                    None if bucket == CONTINUE else who[bucket]
                    for bucket in rule.buckets
                )
    return found


def applied_plan(state: ControlState) -> Plan | None:
    """The plan that was last applied; None when there is none, or it does not fit this
    release."""
    config = None if state.applied is None else restore_config(state.applied)
    if config is None:
        return None
    return compile_plan(config, state.states(state.applied_versions))


def read_state(path: str | Path, clock: Clock) -> ControlState:
    """What a control log says, without changing it; nothing when there is no file."""
    if not Path(path).exists():
        return ControlState()
    log = SqliteLog(path, clock, is_read_only=True)
    try:
        return fold(log.read())
    finally:
        log.close()
