"""What operators can ask of the controller, as values.

One frozen type a command, so that a command can be stored, compared and sent as it is.
`rollout` names a rollout, which means all its scopes, or one scope (`name/channel`).
What a command may do is `transitions.py`'s; carrying it out is `controller.py`'s.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and why. The same `request_id` is carried out once."""

    actor: str
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Promote:
    """Leave the current step, or go to 100 % at once (`is_full`): a person's word
    stands above gates, and is recorded as such."""

    rollout: str
    is_full: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold until resumed; shares stay as they are."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on where it was paused or held."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Approve:
    """Yes, to an approval step."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Reject:
    """No, to an approval step: everybody returns to stable."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class RollBack:
    """Everybody returns to stable, now."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Retry:
    """Begin a rollout that ended without promotion again, as a new attempt."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Restart:
    """Begin again with the specification that the file has now."""

    rollout: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class SetWeight:
    """The candidate's share from now on; `version` where there are several."""

    rollout: str
    weight_bp: int
    version: int | None
    asked: Asked


@dataclass(frozen=True, slots=True)
class Freeze:
    """No rollout grows until thawed; rolling back still works."""

    is_frozen: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class SetVariant:
    """Take a version out (its share goes to stable, pins are refused), or back in."""

    model: str
    version: int
    is_disabled: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class SetFlag:
    """Turn a rollout, a variant or a shadow on or off: `rollout/<name>`,
    `variant/<model>/<version>`, `shadow/<name>`."""

    name: str
    is_on: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class ApplyConfig:
    """Let a configuration take effect; `expected_revision` is the config revision that
    the operator saw, or empty."""

    text: str
    expected_revision: str
    is_dry_run: bool
    asked: Asked
    name: str = "<apply>"


@dataclass(frozen=True, slots=True)
class PutResource:
    """Store an audience or a route beside those of the file; `body` is JSON as in the
    file. A name that the file owns is refused.

    `is_new` says whether it must not, or must, be there already; None is either.
    """

    kind: Literal["audience", "route"]
    name: str
    body: str
    asked: Asked
    is_new: bool | None = None


@dataclass(frozen=True, slots=True)
class DeleteResource:
    """Remove what was put."""

    kind: Literal["audience", "route"]
    name: str
    asked: Asked


OnRollout = (
    Promote | Pause | Resume | Approve | Reject | RollBack | Retry | Restart | SetWeight
)
Command = (
    OnRollout
    | Freeze
    | SetVariant
    | SetFlag
    | ApplyConfig
    | PutResource
    | DeleteResource
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to. `revision` is the control log's."""

    revision: int
    message: str
    config_revision: str
    table_revision: str
    is_repeat: bool = False
