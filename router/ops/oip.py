"""Open Inference Protocol methods about the server and its models.

What they say comes from the catalogue and the snapshot; they change nothing. ModelInfer
and ModelStreamInfer are the engine's. Sentences and semantics follow Triton where
clients depend on them: ModelReady of an unknown model is an answer (false), versions
are decimal integers, and shapes are whole (`max_batch_size` 0).
"""

from collections.abc import Callable, Mapping
from typing import Any

from router import __version__
from router.client.messages import message
from router.control.serving import ModelEntry, Serving, Tensor, VersionEntry
from router.ops.methods import Code, Method, MethodError, UnaryMethod
from router.ops.statistics import fill_statistics

PREFIX = "/inference.GRPCInferenceService/"
SERVER_NAME = "inference-router"
# Only what is true: clients act on these (perf_analyzer on "statistics").
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "statistics")
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
VERSION_MAX = 2**32 - 1


def oip_methods(
    serving: Serving, snapshot: Callable[[], Mapping[str, Any]]
) -> tuple[Method, ...]:
    """The eight unary methods that are not inference."""
    answers: dict[str, Callable[[Any], Any]] = {
        "ServerLive": _server_live,
        "ServerReady": lambda _: _new("ServerReadyResponse", ready=serving.is_ready()),
        "ServerMetadata": _server_metadata,
        "ModelReady": lambda asked: _model_ready(serving, asked),
        "ModelMetadata": lambda asked: _model_metadata(serving, asked),
        "ModelConfig": lambda asked: _model_config(serving, asked),
        "ModelStatistics": lambda asked: _statistics(serving, snapshot, asked),
        "RepositoryIndex": lambda asked: _repository_index(serving, asked),
    }
    return tuple(
        UnaryMethod(PREFIX + name, message(f"inference.{name}Request"), answer)
        for name, answer in answers.items()
    )


def _new(kind: str, /, **fields: Any) -> Any:
    return message(f"inference.{kind}")(**fields)


def _server_live(_: Any) -> Any:
    # Whoever reads this got an answer out of the process.
    return _new("ServerLiveResponse", live=True)


def _server_metadata(_: Any) -> Any:
    return _new(
        "ServerMetadataResponse",
        name=SERVER_NAME,
        version=__version__,
        extensions=EXTENSIONS,
    )


def parse_version(text: str) -> int | None:
    """A version as clients write it; None when they leave it to us."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 10:
        version = int(text)
        if 0 < version <= VERSION_MAX:
            return version
    raise MethodError(
        Code.INVALID_ARGUMENT,
        f"failed to get model version from specified version string '{text[:64]}', "
        "version should be an integral value > 0",
    )


def _model_ready(serving: Serving, asked: Any) -> Any:
    version = parse_version(asked.version)
    ready = serving.is_version_ready(asked.name, version)
    return _new("ModelReadyResponse", ready=ready)


def _find(serving: Serving, name: str, version: str) -> tuple[ModelEntry, VersionEntry]:
    """The loaded version that is asked for, the stable one by default."""
    number = parse_version(version)
    model = serving.catalogue.models.get(name)
    if model is None:
        raise MethodError(
            Code.NOT_FOUND, f"Request for unknown model: '{name}' is not found"
        )
    number = model.stable if number is None else number
    found = model.find(number)
    if found is None:
        raise MethodError(
            Code.NOT_FOUND,
            f"Request for unknown model: '{name}' version {number} is not found",
        )
    if not found.is_loaded:
        raise MethodError(
            Code.UNAVAILABLE, f"'{name}' version {number} is not at ready state"
        )
    return model, found


def _model_metadata(serving: Serving, asked: Any) -> Any:
    model, found = _find(serving, asked.name, asked.version)
    answer = _new(
        "ModelMetadataResponse",
        name=model.name,
        versions=[str(v.version) for v in model.versions if v.is_loaded],
        platform=found.platform or PLATFORM,
    )
    for tensors, field in (
        (found.inputs, answer.inputs),
        (found.outputs, answer.outputs),
    ):
        for tensor in tensors:
            field.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return answer


def _model_config(serving: Serving, asked: Any) -> Any:
    model, found = _find(serving, asked.name, asked.version)
    answer = _new("ModelConfigResponse")
    config = answer.config
    config.name, config.backend = model.name, BACKEND
    config.platform = found.platform or PLATFORM
    config.default_model_filename = "model.onnx"
    config.version_policy.specific.versions.extend(
        v.version for v in model.versions if v.is_loaded
    )
    for tensors, field in (
        (found.inputs, config.input),
        (found.outputs, config.output),
    ):
        for tensor in tensors:
            field.add(name=tensor.name, data_type=_type(tensor), dims=tensor.shape)
    return answer


def _type(tensor: Tensor) -> str:
    """The name of a datatype in a model configuration."""
    return "TYPE_" + {"BYTES": "STRING"}.get(tensor.datatype, tensor.datatype)


def _statistics(
    serving: Serving, snapshot: Callable[[], Mapping[str, Any]], asked: Any
) -> Any:
    version = parse_version(asked.version)
    if asked.name:
        model, found = _known(serving, asked.name, version)
        versions = [found.version] if found else [v.version for v in model.versions]
        wanted = {(model.name, number) for number in versions}
    else:
        wanted = {
            (model.name, v.version)
            for model in serving.catalogue.models.values()
            for v in model.versions
        }
    answer = _new("ModelStatisticsResponse")
    fill_statistics(answer, snapshot(), wanted)
    return answer


def _known(
    serving: Serving, name: str, version: int | None
) -> tuple[ModelEntry, VersionEntry | None]:
    if version is not None:
        return _find(serving, name, str(version))
    model = serving.catalogue.models.get(name)
    if model is None:
        raise MethodError(
            Code.NOT_FOUND, f"Request for unknown model: '{name}' is not found"
        )
    return model, None


def _repository_index(serving: Serving, asked: Any) -> Any:
    answer = _new("RepositoryIndexResponse")
    for model in serving.catalogue.models.values():
        for entry in model.versions:
            ready = serving.is_version_ready(model.name, entry.version)
            if asked.ready and not ready:
                continue
            # The entry's reason is about loading: of one that is loaded and out now it
            # explains nothing.
            is_explained = ready or not entry.is_loaded
            reason = (entry.reason if is_explained else "") or ("not ready", "")[ready]
            answer.models.add(
                name=model.name,
                version=str(entry.version),
                state="READY" if ready else "UNAVAILABLE",
                reason=reason,
            )
    return answer
