"""What a rollout is once interpreted, and what is stored of its progress.

A rollout has one *scope*, or one for each channel; a scope is the thing that moves: it
has its own phase, step and bucket maps, and all scopes of a rollout claim buckets in
one order, so that a unit's sets nest. `Spec` is what the file asks of a scope, with
policies, ramps and defaults worked in; `ScopeState` is what the control log knows of
it. Both are frozen values; `scopes.py` makes the first from a configuration,
`control/` moves the second.

In a scope's bucket maps version 0 stands for the *baseline slice*: stable buckets that
are claimed, queued and batched like a candidate's, because latency is compared like
with like only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from router.config.rollout import Primary, Window
from router.config.steps import Criterion
from router.plan.claim import BucketMap


class Phase(StrEnum):
    """How far a scope has come."""

    PENDING = "pending"
    SHADOWING = "shadowing"
    RAMPING = "ramping"
    HOLDING = "holding"
    AWAITING_APPROVAL = "awaiting_approval"
    BAKING = "baking"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


ENDED = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.FAILED})


@dataclass(frozen=True, slots=True)
class PreflightStep:
    """Replay a recording against the candidate before any user meets it."""

    replay: str
    max_disagreement_bp: int
    tolerance: float
    latency_worse_by: float | None  # relative
    attestation: str | None


@dataclass(frozen=True, slots=True)
class ShadowStep:
    """Copy a share of requests to the candidate."""

    share_bp: int
    is_sticky: bool
    min_samples: int
    soak_s: float
    gates: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class WeightStep:
    """Give candidates these shares, and stay for at least `soak_s`.

    `weights_bp` by version. A ramp becomes one of these for every increment. With
    `is_open_ended` (an A/B experiment) the step is left only when the experiment is
    decided or its horizon is over.
    """

    weights_bp: tuple[tuple[int, int], ...]
    soak_s: float
    min_units: int
    gates: tuple[Criterion, ...]
    is_open_ended: bool = False


@dataclass(frozen=True, slots=True)
class ApprovalStep:
    """Wait for a person."""

    group: str | None
    timeout_s: float | None
    rolls_back_on_timeout: bool


@dataclass(frozen=True, slots=True)
class BakeStep:
    """Keep watching after the last weight."""

    soak_s: float
    min_units: int
    gates: tuple[Criterion, ...]


Step = PreflightStep | ShadowStep | WeightStep | ApprovalStep | BakeStep


@dataclass(frozen=True, slots=True)
class Spec:
    """What the file asks of one scope; `digest` changes when its meaning does."""

    scope: str  # the rollout's name, or name/channel
    rollout: str
    model: str
    strategy: str
    candidates: tuple[int, ...]
    stable: int
    waves: tuple[str, ...]  # audience names in order; ("",): everyone who takes part
    audience: str | None  # narrows every wave
    channel: str | None
    channel_key: str
    after: str | None  # scope whose promotion starts this one
    delay_s: float
    layer_salt: str  # what a unit's bucket is drawn by
    claim_salt: str  # what orders the claiming of buckets
    steps: tuple[Step, ...]
    guardrails: tuple[Criterion, ...]
    windows: tuple[Window, ...]
    progress_deadline_s: float | None
    rolls_back_on_deadline: bool
    alpha: float
    has_baseline: bool
    slices: tuple[str, ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    primary: Primary | None
    horizon_s: float | None
    promotes_on_win: bool
    disables_on_rollback: bool
    silence_s: float
    flag: str
    digest: str


@dataclass(frozen=True, slots=True)
class ScopeState:
    """What is stored of a scope.

    `step` indexes the specification's steps, `wave` its waves. `maps` holds one bucket
    map a wave that has begun; those of earlier waves stay at their last weight.
    `revision` (rollout_revision) counts changes of the maps over all attempts: it is
    the stratum of the statistics. `attempt` counts starts: evidence is never carried
    from one to the next. `elapsed_s` is the time that the current step has really run,
    `age_s` the attempt; neither counts while holding by a person's word, while the
    process is down, or by the wall clock.
    """

    scope: str
    rollout: str
    model: str
    spec_digest: str
    phase: Phase = Phase.PENDING
    is_begun: bool = False
    attempt: int = 1
    wave: int = 0
    step: int = 0
    revision: int = 0
    maps: tuple[BucketMap, ...] = ()
    is_paused: bool = False
    is_off: bool = False  # by its flag: no share, no shadow, progress kept
    hold_reason: str = ""
    is_approved: bool = False
    elapsed_s: float = 0.0
    age_s: float = 0.0
    is_retired: bool = False  # no longer in the configuration
    weights_bp: Mapping[int, int] = field(default_factory=dict)  # candidates, this wave
    units_at_step: int = 0
    """Units of the candidate that had been seen when the step began."""
    requests_at_step: int = 0
    """Requests that candidates had served by then."""
