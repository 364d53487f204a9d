"""Current state, as a fold over the control log.

Three kinds of records matter here: a configuration was applied, a route's bucket map
changed, a prediction-id key was made. The payloads' layouts are this file's; other
kinds pass by, so that an older router can read what a newer one wrote beside them.
Replaying the log from its beginning rebuilds exactly the state it describes.

Buckets are stored as the 16-bit numbers they are, in the order in which they were
claimed.
"""

import base64
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from router.errors import StoreError
from router.plan.claim import BucketMap
from router.plan.compile import RouteState, States
from router.plan.plan import MintKey
from router.store.log import Entry, Record

CONFIG_APPLIED = "config_applied"
ROUTE_CLAIMED = "route_claimed"
ROUTE_RETIRED = "route_retired"
KEY_MADE = "key_made"


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

    def states(self, versions: Mapping[str, tuple[int, ...]]) -> States:
        """What compiling a configuration needs, given what the repositories hold."""
        return States(versions, self.routes, self.keys)


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
            key = MintKey(int(record.subject), secret)
            others = tuple(k for k in state.keys if k.id != key.id)
            return replace(state, keys=(key, *others))
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
        "rest": route.buckets.rest,
        "claims": {
            str(version): base64.b64encode(
                struct.pack(f"<{len(claimed)}H", *claimed)
            ).decode()
            for version, claimed in route.buckets.claims
        },
    }
    return Record(ROUTE_CLAIMED, route.name, json.dumps(payload), actor, reason)


def retired_record(name: str, actor: str, reason: str) -> Record:
    """A route is no longer in the configuration."""
    return Record(ROUTE_RETIRED, name, "{}", actor, reason)


def key_record(key: MintKey, actor: str, reason: str) -> Record:
    """A prediction-id key was made; from now on it mints."""
    payload = {"secret": key.secret.hex()}
    return Record(KEY_MADE, str(key.id), json.dumps(payload), actor, reason)


def _read_route(record: Record) -> RouteState:
    payload = json.loads(record.payload)
    claims = []
    for version, text in payload["claims"].items():
        packed = base64.b64decode(text, validate=True)
        claims.append((int(version), struct.unpack(f"<{len(packed) // 2}H", packed)))
    rest = payload["rest"]
    return RouteState(
        name=record.subject,
        model=str(payload["model"]),
        audience=str(payload["audience"]),
        salt=str(payload["salt"]),
        revision=int(payload["revision"]),
        buckets=BucketMap(None if rest is None else int(rest), tuple(sorted(claims))),
    )
