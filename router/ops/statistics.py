"""The snapshot as ModelStatistics, the way Triton's clients read it.

A version's requests are those of every variant it is. The engine times stages, not
outcomes: the duration of failed requests is part of `success.ns`, and `fail` has a
count only. perf_analyzer follows `queue.count`, so every request counts there, also one
that never waited.
"""

from collections.abc import Mapping
from typing import Any

STAGE_FIELDS = {
    "queue": "queue",
    "decode": "compute_input",
    "run": "compute_infer",
    "encode": "compute_output",
}
NS = 1_000_000_000


def fill_statistics(
    answer: Any, snapshot: Mapping[str, Any], wanted: set[tuple[str, int]]
) -> None:
    """Add an entry for each wanted (model, version) the engine knows, in order."""
    variants: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for entry in snapshot["variants"]:
        variants.setdefault((entry["model"], entry["version"]), []).append(entry)
    known = {(v["model"], v["version"]): v for v in snapshot["versions"]}
    for key in sorted(wanted & known.keys()):
        statistics = answer.model_stats.add(name=key[0], version=str(key[1]))
        _fill_version(statistics, known[key])
        _fill_requests(statistics.inference_stats, variants.get(key, []))


def _fill_version(statistics: Any, version: Mapping[str, Any]) -> None:
    statistics.last_inference = int(version["last_ms"])
    statistics.inference_count = version["rows"]
    statistics.execution_count = version["runs"]
    for rows, runs, ns in version["batch_sizes"]:
        batch = statistics.batch_stats.add(batch_size=rows)
        batch.compute_infer.count, batch.compute_infer.ns = runs, ns
    memory = version["memory_bytes"]
    if memory:
        statistics.memory_usage.add(type="CPU", id=0, byte_size=memory)


def _fill_requests(durations: Any, variants: list[Mapping[str, Any]]) -> None:
    for entry in variants:
        requests = sum(entry["codes"].values())
        succeeded = entry["codes"].get("OK", 0)
        durations.success.count += succeeded
        durations.success.ns += int(entry["stages"]["total"]["sum"] * NS)
        durations.fail.count += requests - succeeded
        for stage, field in STAGE_FIELDS.items():
            timed = entry["stages"][stage]
            duration = getattr(durations, field)
            duration.count += requests if stage == "queue" else timed["count"]
            duration.ns += int(timed["sum"] * NS)
