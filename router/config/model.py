"""Models: where their versions are, how a unit is found, how they run.

A setting given for one version replaces the model's own, key by key. Which versions
exist is the repository's knowledge, not the file's: functions here take what was
listed.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from router.config.alias import Alias, VersionRef
from router.config.isolation import Isolation, ModelIsolation, Probe, Worker
from router.config.manifest import Input
from router.config.upstream import Upstream
from router.config.values import (
    FROZEN,
    Count,
    Flag,
    Name,
    Number,
    Percent,
    Range,
    Text,
    Texts,
    Version,
    VersionKey,
    Whole,
)


class Unit(BaseModel):
    """Where the unit key is looked for, after `parameters.targeting_key`."""

    model_config = FROZEN
    metadata: Texts = ("x-targeting-key", "x-user-id", "x-session-id")
    """Metadata keys, in order of precedence."""
    tensor: Text | None = None
    """Input whose first element is the unit key."""
    on_missing: Literal["random", "stable", "reject"] = "random"
    """What a request without a unit gets."""


class Output(BaseModel):
    """The output that is judged and scored."""

    model_config = FROZEN
    tensor: Name
    index: Whole = 0
    """Element of a row that is the score."""
    kind: Literal["probability", "class", "value", "embedding", "ranking"] = "value"
    threshold: Number | None = None
    range: Range | None = None
    """Inclusive; a probability is in [0, 1] unless said otherwise."""
    finite: Flag = True
    """An answer with NaN or infinity is a failed answer."""


class Provider(BaseModel):
    """An execution provider and its options, handed to the runtime as they are."""

    model_config = FROZEN
    name: Name
    options: dict[str, str] = Field(default_factory=dict)


class Record(BaseModel):
    """Requests that are put on the tape, to be replayed."""

    model_config = FROZEN
    percent: Percent
    metadata: Texts | None = None
    """Keys that go with them; no others do."""
    max_kb: Annotated[Count, Field(le=4096)] = 64
    """A larger body is left out, and its size is noted."""


def _option(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"  # what ONNX Runtime's option parsers expect
    if isinstance(value, str | int | float):
        return str(value)
    raise PydanticCustomError("option", "a provider option is text, a number or a flag")


def _provider(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        ((name, options),) = value.items()
        if options is None or isinstance(options, dict):
            pairs = (options or {}).items()
            return {"name": name, "options": {str(k): _option(v) for k, v in pairs}}
    return value


def _providers(value: Any) -> Any:
    if isinstance(value, dict):
        return [{name: options} for name, options in value.items()]
    return value


ProviderEntry = Annotated[
    Provider,
    BeforeValidator(_provider, json_schema_input_type=str | dict[str, Any]),
]
Providers = Annotated[
    tuple[ProviderEntry, ...],
    BeforeValidator(
        _providers, json_schema_input_type=list[str | dict[str, Any]] | dict[str, Any]
    ),
    Field(min_length=1),
]


def _batching_shape(value: Any) -> str:
    return "list of sizes" if isinstance(value, list | tuple) else "auto or off"


Batching = Annotated[
    Annotated[Literal["auto", "off"], Tag("auto or off")]
    | Annotated[
        tuple[Annotated[Count, Field(le=65_536)], ...],
        Field(min_length=1),
        Tag("list of sizes"),
    ],
    Discriminator(_batching_shape),
]


Threads = Annotated[Count, Field(le=1024)]
Milliseconds = Annotated[Count, Field(le=3_600_000)]
DelayUs = Annotated[Whole, Field(le=10_000_000)]


class Runtime(BaseModel):
    """How a model's versions run."""

    model_config = FROZEN
    providers: Providers = (Provider(name="cpu"),)
    """Tried in order: names, or `{name: options}`."""
    intra_op_threads: Threads = 1
    batching: Batching = "auto"
    """`auto` batches when a probe shows that rows are independent; or allowed sizes."""
    timeout_ms: Milliseconds | None = None
    """A candidate's share of a deadline, after which stable is asked."""
    max_queue_delay_us: DelayUs = 0
    """How long a batch may wait to fill; above 0 the version runs on executors."""
    queue_ms_max: Milliseconds = 100
    """Predicted wait above which a request is refused at once."""
    concurrency: Threads | None = None
    """Batches of one version that may run at once; unset: as many as executors."""
    isolation: ModelIsolation = "none"
    """Which versions run in a process of their own: none, all, or all but stable."""
    probe: Probe = Probe()
    """Limits of the probe before a version may serve."""
    worker: Worker = Worker()
    """Limits of a version that runs in a process of its own."""


class VersionRuntime(BaseModel):
    """What differs from the model's runtime for one version."""

    model_config = FROZEN
    providers: Providers | None = None
    intra_op_threads: Threads | None = None
    batching: Batching | None = None
    timeout_ms: Milliseconds | None = None
    max_queue_delay_us: DelayUs | None = None
    concurrency: Threads | None = None
    probe: Probe | None = None
    worker: Worker | None = None


class VersionSettings(BaseModel):
    """What differs for one version."""

    model_config = FROZEN
    name: Name | None = None
    """The variant's name in annotations and metrics; the version number if unset."""
    disabled: Flag = False
    """Loaded but never chosen; its share goes to stable and pins to it are refused."""
    isolation: Isolation | None = None
    """Whether it runs in a process of its own; the model's setting if unset."""
    upstream: Upstream | None = None
    """Other servers that answer for this version; nothing is loaded here then."""
    runtime: VersionRuntime = VersionRuntime()
    """Keys given here replace the model's."""


def _versions_shape(value: Any) -> str:
    if isinstance(value, dict):
        return "settings by version"
    return "list of versions" if isinstance(value, list | tuple) else "all of them"


Versions = Annotated[
    Annotated[Literal["all"], Tag("all of them")]
    | Annotated[tuple[Version, ...], Field(min_length=1), Tag("list of versions")]
    | Annotated[
        dict[VersionKey, VersionSettings],
        Field(min_length=1),
        Tag("settings by version"),
    ],
    Discriminator(_versions_shape),
]


class Force(BaseModel):
    """Callers that may choose: for tests and demonstrations, off unless given."""

    model_config = FROZEN
    header: Name = "x-router-variant"
    """Metadata key or parameter; its value is a version or a variant's name."""


class Model(BaseModel):
    """One model and its versions."""

    model_config = FROZEN
    name: Name
    repository: Text | None = None
    """Folder with one folder per version: `<version>/model.onnx`. Not needed when every
    version is another server's."""
    stable: VersionRef | None = None
    """The version that serves by default; the lowest one if unset."""
    aliases: dict[Alias, Version] = Field(default_factory=dict)
    """Names that stand for versions in the rest of the file; `stable` is one too."""
    versions: Versions = "all"
    """`all`, a list of those to serve, or settings by version (all are served)."""
    unit: Unit = Unit()
    output: Output | None = None
    runtime: Runtime = Runtime()
    pins: Literal["allow", "ignore", "deny"] = "allow"
    """What a request that names a version gets."""
    annotate: Literal["parameters", "trailers", "both", "none"] = "parameters"
    """Where the decision is told to the client."""
    fallback: Flag = True
    """Stable answers for a candidate that fails, is late or answers nonsense."""
    force: Force | None = None
    prediction_id: Flag = False
    on_mismatch: Literal["refuse", "allow"] = "refuse"
    """A version whose inputs or outputs differ from stable's."""
    inputs: dict[Name, Input] = Field(default_factory=dict)
    """A name for each column of an input; the manifest's if unset."""
    exposures: Flag = False
    """Every answer leaves an exposure on the tape."""
    record: Record | None = None
    allow_external_data: Flag = False
    """Weights in files beside model.onnx; each must be in the manifest."""


def served_versions(model: Model, listed: tuple[int, ...]) -> tuple[int, ...]:
    """The versions to load, in order: all that were listed, or those the file lists."""
    if isinstance(model.versions, tuple):
        return tuple(sorted(set(model.versions)))
    return tuple(sorted(set(listed)))


def stable_of(model: Model, served: tuple[int, ...]) -> int:
    """The version that serves by default.

    The lowest one when the file does not say: a version that arrives in the repository
    then never takes traffic by arriving.
    """
    return min(served) if model.stable is None else model.stable


def resolve_version(
    model: Model, wanted: int | str, served: tuple[int, ...]
) -> int | None:
    """The version that a number or an alias means: `stable`, or the name of a version.

    None when the alias is unknown. A number means itself, served or not.
    """
    if isinstance(wanted, int):
        return wanted
    if wanted == "stable":
        return stable_of(model, served)
    named = model.versions.items() if isinstance(model.versions, dict) else ()
    return next((v for v, own in named if own.name == wanted), None)


def upstream_versions(model: Model) -> tuple[int, ...]:
    """The versions that other servers answer for, in order."""
    if not isinstance(model.versions, dict):
        return ()
    settings = model.versions.items()
    return tuple(sorted(version for version, own in settings if own.upstream))


def settings_of(model: Model, version: int) -> VersionSettings:
    """What the file says about one version."""
    if isinstance(model.versions, dict):
        return model.versions.get(version, VersionSettings())
    return VersionSettings()


def runtime_of(model: Model, version: int) -> Runtime:
    """How one version runs: the model's settings, overlaid with the version's."""
    own = settings_of(model, version).runtime
    given = {
        name: value
        for name in VersionRuntime.model_fields
        if (value := getattr(own, name)) is not None
    }
    return model.runtime.model_copy(update=given)


def is_isolated(model: Model, version: int, stable: int) -> bool:
    """Whether a version runs in a process of its own."""
    if settings_of(model, version).upstream is not None:
        return False  # it has processes of its own already
    own = settings_of(model, version).isolation
    if own is not None:
        return own == "process"
    is_candidate = version != stable
    isolation = model.runtime.isolation
    return isolation == "process" or (isolation == "candidates" and is_candidate)
