"""Configuration in the engine's words: key/value text.

Units change here and nowhere else. What the engine is not told has the default that
`engine/serve/options.h` and `engine/run/version.h` state.
"""

import importlib.util
from pathlib import Path

from router.config.model import Model, runtime_of
from router.config.server import Server
from router.errors import RouterError

MS = 1000
LOOPS_MAX = 64  # the engine's; `server.loops` has the same limit


def find_runtime_library() -> str:
    """The path of ONNX Runtime's C library inside its wheel.

    The Python module is found, not imported: it is a second copy of the runtime, with
    threads and memory of its own, that the server has no use for.
    """
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or ():
        found = sorted(Path(folder, "capi").glob("libonnxruntime.so*"))
        if found:
            return str(found[-1])
    raise RouterError("onnxruntime is not installed: pip install onnxruntime")


def engine_options(server: Server, core_count: int) -> dict[str, str]:
    """What `Engine` is made with."""
    limits = server.limits
    numbers: dict[str, float] = {
        "loops": server.loops or min(max(1, core_count // 2), LOOPS_MAX),
        "spin_us": server.spin_us,
        "loop_run_us": server.loop_run_us,
        "executors": server.executors or core_count,
        "streams_max": limits.streams_max,
        "stream_window": limits.window_stream_bytes,
        "connection_window": limits.window_connection_bytes,
        "message_in_max": limits.message_in_bytes_max,
        "message_out_max": limits.message_out_bytes_max,
        "metadata_bytes_max": limits.metadata_bytes_max,
        "metadata_fields_max": limits.metadata_keys_max,
        "body_bytes_max": limits.bodies_bytes_max,
        "connections_max": limits.connections_max,
        "connections_per_peer_max": limits.connections_per_peer_max,
        "deadline_default_ms": limits.deadline_default_s * MS,
        "deadline_max_ms": limits.deadline_max_s * MS,
        "handshake_ms": limits.handshake_timeout_s * MS,
        "slow_message_ms": limits.progress_timeout_s * MS,
        "idle_ms": limits.idle_timeout_s * MS,
        "age_ms": limits.age_max_s * MS,
        "age_grace_ms": limits.age_grace_s * MS,
    }
    return {key: str(max(round(number), 0)) for key, number in numbers.items()}


def version_options(model: Model, version: int, library: str) -> dict[str, str]:
    """What a version is loaded with."""
    runtime = runtime_of(model, version)
    options = {
        "kind": "ort",
        "library": library,
        "providers": ",".join(provider.name for provider in runtime.providers),
        "intra_op_threads": str(runtime.intra_op_threads),
        "max_queue_delay_us": str(runtime.max_queue_delay_us),
    }
    for provider in runtime.providers:
        for key, value in provider.options.items():
            options[f"provider.{provider.name}.{key}"] = value
    if isinstance(runtime.batching, str):
        options["batching"] = runtime.batching
    else:
        options["batching"] = "sizes"
        options["batch_sizes"] = ",".join(str(size) for size in runtime.batching)
    if runtime.concurrency is not None:
        options["concurrency"] = str(runtime.concurrency)
    return options
