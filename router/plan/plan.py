"""What routing should mean, as frozen values: the result of `compile_plan`.

A plan names models, variants, rules and bucket maps; it holds no session, path or
clock. `encode.py` turns it into the routing table; `diff.py` compares two. Ordinals are
positions in a model's `variants`, which are sorted by (version, ordinal) so that
renaming or reordering moves nobody.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

BUCKET_COUNT = 10_000
CONTINUE = 0xFF  # bucket-map entry: the rule does not claim this bucket


class Op(IntEnum):
    """Tests on one attribute; the numbers are the table's (`fh_op`)."""

    PRESENT = 0
    IN = 1
    PREFIX = 2
    SUFFIX = 3
    CONTAINS = 4
    REGEX = 5
    RANGE = 6
    BETWEEN = 7
    EQUAL = 8
    SEMVER = 9
    BEFORE = 10
    AFTER = 11


class SemverAllows(IntFlag):
    """Which outcomes of a semantic-version comparison a SEMVER test accepts."""

    LESS = 1
    EQUAL = 2
    GREATER = 4


@dataclass(frozen=True, slots=True)
class Test:
    """One test: `op` on attribute `key`. Text operands are UTF-8 bytes."""

    key: str  # "unit" names the unit key itself when `on_unit` is set
    op: Op
    operands: tuple[bytes, ...] = ()
    low: float = 0.0
    high: float = 0.0
    flags: int = 0
    on_unit: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """True when every member is; true when empty."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when some member is; false when empty."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Plain negation: true where the member is false, also for a missing value."""

    of: "Condition"


Condition = Test | All | AnyOf | Not


class Reason(IntEnum):
    """Why a variant answered; the numbers are the table's (`fh_reason`)."""

    STATIC = 0
    OVERRIDE = 1
    HOLDOUT = 2
    TARGETING_MATCH = 3
    SPLIT = 4
    DEFAULT = 5
    FALLBACK = 6
    DISABLED = 7


class OnMissing(IntEnum):
    """What a request without a unit gets."""

    RANDOM = 0
    STABLE = 1
    REJECT = 2


class Pins(IntEnum):
    """What a non-empty `model_version` does."""

    ALLOW = 0
    IGNORE = 1
    DENY = 2


class Annotate(IntFlag):
    """Where the decision is told to the client."""

    NONE = 0
    PARAMETERS = 1
    TRAILERS = 2


class OutputKind(IntEnum):
    """What the judged output means."""

    NONE = 0
    PROBABILITY = 1
    CLASS = 2
    VALUE = 3
    EMBEDDING = 4
    RANKING = 5


BASELINE_ORDINAL = 1  # of the variant that is stable once more, measured apart


@dataclass(frozen=True, slots=True)
class Variant:
    """One option: an immutable version, told apart by `ordinal` if two share it."""

    name: str
    version: int
    ordinal: int = 0
    is_disabled: bool = False
    timeout_us: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Condition or everyone, layer, bucket map; the first rule that matches answers.

    `buckets` has BUCKET_COUNT bytes of variant positions or CONTINUE; without it
    everyone who matches gets `variant`. `salt` is the layer's.
    """

    name: str
    condition: Condition | None
    salt: str
    buckets: bytes | None
    variant: int
    reason: Reason
    rollout_revision: int = 0
    scope: str = ""
    """Whose first events its requests count for; it needs a bucket map then."""
    attempt: int = 0
    has_records: bool = False
    """Its first events go on the tape as well, to be merged with other replicas'."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A named column of an input; `key` is how conditions call it."""

    key: str  # input.amount
    tensor: str
    index: int  # in the first row


@dataclass(frozen=True, slots=True)
class Recording:
    """Which requests go on the tape: a sample, with only these metadata keys."""

    share_bp: int
    metadata: tuple[str, ...] = ()
    bytes_max: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Unit:
    """Where the unit key is looked for, after `parameters.targeting_key`."""

    metadata: tuple[str, ...] = ("x-targeting-key", "x-user-id", "x-session-id")
    tensor: str = ""
    on_missing: OnMissing = OnMissing.RANDOM


@dataclass(frozen=True, slots=True)
class Output:
    """The output that is judged and scored. The range is inclusive."""

    tensor: str
    index: int = 0
    kind: OutputKind = OutputKind.VALUE
    low: float = float("-inf")
    high: float = float("inf")
    is_finite: bool = True
    threshold: float = 0.5  # a probability from here on is the second class


@dataclass(frozen=True, slots=True)
class Shadow:
    """A variant that also runs requests which another one answers.

    It takes those that match `condition`: by bucket (`buckets` has BUCKET_COUNT bytes
    of 0 and 1, so a unit is always or never taken) or `sample_bp` of them, drawn for
    each request alone. Numbers agree within `tolerance_abs + tolerance_rel * answered`;
    embeddings and rankings when their distance is at most `tolerance_abs`.
    """

    name: str
    variant: int
    condition: Condition | None = None
    salt: str = ""
    buckets: bytes | None = None
    sample_bp: int = BUCKET_COUNT
    tolerance_abs: float = 1e-5
    tolerance_rel: float = 1e-3
    top_k: int = 10  # places of a ranking that are compared


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its variants in table order, its rules in order of precedence."""

    name: str
    variants: tuple[Variant, ...]
    stable: int
    rules: tuple[Rule, ...] = ()
    unit: Unit = Unit()
    output: Output | None = None
    pins: Pins = Pins.ALLOW
    annotate: Annotate = Annotate.PARAMETERS
    has_fallback: bool = True
    has_prediction_id: bool = False
    queue_us_max: int = 100_000
    shadows: tuple[Shadow, ...] = ()
    features: tuple[Feature, ...] = ()
    recording: Recording | None = None
    has_exposures: bool = False


@dataclass(frozen=True, slots=True)
class MintKey:
    """A prediction-id key: `id` 0-15 and 32 secret bytes. The first one mints.

    `made_s` is when it was made, in seconds since 1970; 0 when nobody wrote it down.
    """

    id: int
    secret: bytes
    made_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `encode` needs. `config_revision` is what an operator applied."""

    config_revision: str
    models: tuple[Model, ...]
    keys: tuple[MintKey, ...] = ()
