"""Current state, as a fold over the control log.

What matters here: a configuration was applied, a route's bucket map changed, a
prediction-id key was made, a rollout's scope moved, an operator set something. The
payloads' layouts are this file's and `scope_records.py`'s; other kinds pass by, so that
an older router can read what a newer one wrote beside them. Replaying the log from its
beginning rebuilds exactly the state it describes.

Buckets are stored as the 16-bit numbers they are, in the order in which they were
claimed.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.control.scope_records import dump_map, load_map, load_scope
from router.errors import StoreError
from router.plan.compile import RouteState, States
from router.plan.plan import MintKey
from router.plan.rollout import ScopeState
from router.store.log import Entry, Record

CONFIG_APPLIED = "config_applied"
ROUTE_CLAIMED = "route_claimed"
ROUTE_RETIRED = "route_retired"
KEY_MADE = "key_made"
FLAG_SET = "flag_set"
FROZEN_SET = "frozen_set"
VARIANT_SET = "variant_set"
RESOURCE_PUT = "resource_put"
RESOURCE_DELETED = "resource_deleted"
REQUEST_DONE = "request_done"
VERSION_LOADED = "version_loaded"
VERSION_UNLOADED = "version_unloaded"
REQUESTS_MAX = 1_000  # answers kept for clients that ask again


@dataclass(frozen=True, slots=True)
class ControlState:
    """What the log comes to at a revision.

    `applied` is the last applied configuration as JSON values, with the versions that
    its repositories had; None when nothing was applied yet. The newest key is the
    first.
    """

    revision: int = 0
    applied: Mapping[str, Any] | None = None
    applied_versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    routes: Mapping[str, RouteState] = field(default_factory=dict)
    keys: tuple[MintKey, ...] = ()
    scopes: Mapping[str, ScopeState] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    is_frozen: bool = False
    disabled: frozenset[tuple[str, int]] = frozenset()
    """(model, version) that an operator or a rollback took out."""
    unloaded: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """(model, version) that an operator unloaded, and why."""
    resources: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """(kind, name) to its body, beside what the file has."""
    requests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The last answered request ids, oldest first."""

    def states(self, versions: Mapping[str, tuple[int, ...]]) -> States:
        """What compiling a configuration needs, given what the repositories hold."""
        return States(
            versions=versions,
            routes=self.routes,
            keys=self.keys,
            scopes=self.scopes,
            disabled=self.disabled | _flagged_off(self.flags),
            shadows_off=frozenset(
                name.removeprefix("shadow/")
                for name, is_on in self.flags.items()
                if name.startswith("shadow/") and not is_on
            ),
        )


def _flagged_off(flags: Mapping[str, bool]) -> frozenset[tuple[str, int]]:
    found = set()
    for name, is_on in flags.items():
        if name.startswith("variant/") and not is_on:
            model, _, version = name.removeprefix("variant/").rpartition("/")
            found.add((model, int(version)))
    return frozenset(found)


NOTHING = ControlState()


def fold(entries: Iterable[Entry], state: ControlState = NOTHING) -> ControlState:
    """The state after these entries; StoreError names one that cannot be read."""
    for entry in entries:
        try:
            state = _next(state, entry.record)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise StoreError(
                f"record {entry.revision} ({entry.record.kind}) of the control log"
                f" cannot be read: {type(error).__name__}"
            ) from error
        state = replace(state, revision=entry.revision)
    return state


def with_records(state: ControlState, records: Sequence[Record]) -> ControlState:
    """The state as if these were stored, under the revision it has."""
    return fold((Entry(state.revision, 0.0, record) for record in records), state)


def _next(state: ControlState, record: Record) -> ControlState:
    match record.kind:
        case "config_applied":
            payload = json.loads(record.payload)
            versions = {
                str(name): tuple(int(v) for v in listed)
                for name, listed in payload["versions"].items()
            }
            return replace(state, applied=payload["config"], applied_versions=versions)
        case "route_claimed":
            route = _read_route(record)
            return replace(state, routes={**state.routes, route.name: route})
        case "route_retired":
            gone = replace(state.routes[record.subject], is_retired=True)
            return replace(state, routes={**state.routes, gone.name: gone})
        case "key_made":
            payload = json.loads(record.payload)
            secret = bytes.fromhex(payload["secret"])
            made_s = float(payload.get("made_s", 0.0))
            made = MintKey(int(record.subject), secret, made_s)
            older = tuple(k for k in state.keys if k.id != made.id)
            return replace(state, keys=(made, *older))
        case "scope_moved":
            payload = json.loads(record.payload)
            scope = load_scope(record.subject, payload["state"])
            return replace(state, scopes={**state.scopes, scope.scope: scope})
        case "flag_set":
            is_on = bool(json.loads(record.payload)["is_on"])
            return replace(state, flags={**state.flags, record.subject: is_on})
        case "frozen_set":
            return replace(
                state, is_frozen=bool(json.loads(record.payload)["is_frozen"])
            )
        case "variant_set":
            payload = json.loads(record.payload)
            one = frozenset({(str(payload["model"]), int(payload["version"]))})
            without = state.disabled - one
            return replace(
                state, disabled=without | one if payload["is_disabled"] else without
            )
        case "version_loaded" | "version_unloaded":
            model, _, version = record.subject.rpartition("/")
            unloaded = dict(state.unloaded)
            unloaded.pop((model, int(version)), None)
            if record.kind == VERSION_UNLOADED:
                unloaded[model, int(version)] = record.reason
            return replace(state, unloaded=unloaded)
        case "resource_put" | "resource_deleted":
            payload = json.loads(record.payload)
            named = str(payload["kind"]), record.subject
            resources = {k: v for k, v in state.resources.items() if k != named}
            if record.kind == "resource_put":
                resources[named] = payload["body"]
            return replace(state, resources=resources)
        case "request_done":
            payload = json.loads(record.payload)
            kept = list(state.requests.items())[-REQUESTS_MAX + 1 :]
            return replace(state, requests={**dict(kept), record.subject: payload})
        case _:
            return state


def config_record(
    config: Mapping[str, Any],
    versions: Mapping[str, tuple[int, ...]],
    revision: str,
    actor: str,
    reason: str,
) -> Record:
    """A configuration was applied."""
    payload = {"config": config, "versions": {n: list(v) for n, v in versions.items()}}
    return Record(CONFIG_APPLIED, revision, json.dumps(payload), actor, reason)


def route_record(route: RouteState, actor: str, reason: str) -> Record:
    """A route's bucket map changed, or the route was renamed."""
    payload = {
        "model": route.model,
        "audience": route.audience,
        "salt": route.salt,
        "revision": route.revision,
        **dump_map(route.buckets),
    }
    return Record(ROUTE_CLAIMED, route.name, json.dumps(payload), actor, reason)


def retired_record(name: str, actor: str, reason: str) -> Record:
    """A route is no longer in the configuration."""
    return Record(ROUTE_RETIRED, name, "{}", actor, reason)


def key_record(key: MintKey, actor: str, reason: str) -> Record:
    """A prediction-id key was made; from now on it mints."""
    payload = {"secret": key.secret.hex(), "made_s": key.made_s}
    return Record(KEY_MADE, str(key.id), json.dumps(payload), actor, reason)


def flag_record(name: str, is_on: bool, actor: str, reason: str) -> Record:
    """A flag was set."""
    return Record(FLAG_SET, name, json.dumps({"is_on": is_on}), actor, reason)


def frozen_record(is_frozen: bool, actor: str, reason: str) -> Record:
    """Growth was frozen, or thawed."""
    payload = json.dumps({"is_frozen": is_frozen})
    return Record(FROZEN_SET, "rollouts", payload, actor, reason)


def variant_record(
    model: str, version: int, is_disabled: bool, actor: str, reason: str
) -> Record:
    """A version was taken out, or back in."""
    payload = {"model": model, "version": version, "is_disabled": is_disabled}
    subject = f"{model}/{version}"
    return Record(VARIANT_SET, subject, json.dumps(payload), actor, reason)


def load_record(
    model: str, version: int, is_loaded: bool, actor: str, reason: str
) -> Record:
    """A version was loaded or unloaded at run time."""
    kind = VERSION_LOADED if is_loaded else VERSION_UNLOADED
    return Record(kind, f"{model}/{version}", "{}", actor, reason)


def resource_record(
    kind: str, name: str, body: Mapping[str, Any] | None, actor: str, reason: str
) -> Record:
    """A resource was put, or deleted when there is no body."""
    if body is None:
        payload = json.dumps({"kind": kind})
        return Record(RESOURCE_DELETED, name, payload, actor, reason)
    payload = json.dumps({"kind": kind, "body": body})
    return Record(RESOURCE_PUT, name, payload, actor, reason)


def request_record(
    request_id: str, answer: Mapping[str, Any], actor: str, reason: str
) -> Record:
    """A command with a request id was carried out, with this answer."""
    return Record(REQUEST_DONE, request_id, json.dumps(answer), actor, reason)


def _read_route(record: Record) -> RouteState:
    payload = json.loads(record.payload)
    return RouteState(
        name=record.subject,
        model=str(payload["model"]),
        audience=str(payload["audience"]),
        salt=str(payload["salt"]),
        revision=int(payload["revision"]),
        buckets=load_map(payload),
    )
