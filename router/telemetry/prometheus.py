"""The snapshot as Prometheus metrics.

Nothing is counted here: a scrape reads one snapshot and writes it down. Names keep
Prometheus's rules (base units, `_total`, `_info`) and `promtool check metrics` is
clean. Labels hold configured names and fixed words only, never a unit or an attribute's
value; what a client can invent is folded into an empty label by the engine.

The engine's histograms have edges 2**(i/32) seconds (native schema 5). Classic buckets
are sums of those up to an edge that both share, so re-aggregating loses no count and
moves none. `tests/telemetry/test_prometheus.py` holds the list of names.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from router.telemetry.counted import Counted
from router.telemetry.shadows import shadow_counters, shadow_histograms
from router.telemetry.status import RenewalStatus

Snapshot = Mapping[str, Any]
Labels = tuple[str, ...]

SCHEMA_STEPS = 32
# 15 µs to 8 s by half octaves: below is the floor of an RPC, above is a timeout.
REQUEST_EDGES = tuple(range(-16 * SCHEMA_STEPS, 3 * SCHEMA_STEPS + 1, 16))
# 1 µs to 4 s by octaves: stages are many series and a factor of two finds the culprit.
STAGE_EDGES = tuple(range(-20 * SCHEMA_STEPS, 2 * SCHEMA_STEPS + 1, 32))
STAGES = ("decode", "queue", "run", "encode")
SOURCES = ("parameter", "metadata", "tensor", "sequence", "none")
SERVICE = "grpc_type", "grpc_service", "grpc_method", "grpc_code"
STREAMING = frozenset({"ModelStreamInfer", "ServerReflectionInfo", "ReportStream"})
SERVER_STREAMING = frozenset({"Watch"})


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """What became of the last configuration: which one serves, since when."""

    config_revision: str
    table_revision: str
    was_last_successful: bool
    succeeded_at_s: float


@dataclass(frozen=True, slots=True)
class TlsStatus:
    """A listener's certificate: until when it is good, what became of the last one."""

    listener: str
    was_last_successful: bool
    expires_at_s: float


class SnapshotCollector(Collector):
    """Metric families from the engine's snapshot and the configuration's status.

    Called on the ops thread. The sources are functions, because a collector outlives
    their values.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        status: Callable[[], ConfigStatus],
        build: Mapping[str, str],
        tls: Callable[[], Iterable[TlsStatus]] = tuple,
        renewals: Callable[[], Iterable[RenewalStatus]] = tuple,
        others: Callable[[], Iterable[Counted]] = tuple,
    ) -> None:
        self._snapshot, self._status, self._build = snapshot, status, dict(build)
        self._tls, self._renewals, self._others = tls, renewals, others

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not take a snapshot."""
        return ()

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from _requests(snapshot)
        yield from _stages(snapshot)
        yield from _routes(snapshot)
        renewals = tuple(self._renewals())
        yield from _versions(snapshot, [one for one in renewals if one.is_absent])
        yield from _renewals(renewals)
        yield from _workers(snapshot)
        yield from _upstreams(snapshot)
        yield from (_counter(*each) for each in shadow_counters(snapshot))
        yield from (_histogram(*each) for each in shadow_histograms(snapshot))
        yield from _server(snapshot)
        yield from _tape(snapshot)
        yield from _methods(snapshot)
        yield from _certificates(snapshot, tuple(self._tls()))
        yield from _config(self._status(), self._build)
        for one in self._others():
            made = _gauge if one.is_gauge else _counter
            yield made(one.name, one.text, one.labels, one.rows)


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry with this collector alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """The text of a scrape and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _counter(
    name: str, text: str, labels: Labels, rows: Iterable[tuple[Labels, float]]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in _summed(rows):
        family.add_metric(values, count)
    return family


def _gauge(
    name: str, text: str, labels: Labels, rows: Iterable[tuple[Labels, float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in _summed(rows):
        family.add_metric(values, value)
    return family


def _summed(rows: Iterable[tuple[Labels, float]]) -> list[tuple[Labels, float]]:
    # Two entries with one set of labels would make the whole scrape invalid.
    sums: dict[Labels, float] = defaultdict(float)
    for values, count in rows:
        sums[values] += count
    return list(sums.items())


def classic(
    buckets: Iterable[tuple[int, int]], edges: tuple[int, ...]
) -> list[tuple[str, float]]:
    """Cumulative classic buckets of a native histogram; `edges` are native indices."""
    counts = [0] * (len(edges) + 1)
    for index, count in buckets:
        counts[_slot(index, edges)] += count
    names = [repr(2.0 ** (edge / SCHEMA_STEPS)) for edge in edges] + ["+Inf"]
    return [(name, float(n)) for name, n in zip(names, accumulate(counts), strict=True)]


def _slot(index: int, edges: tuple[int, ...]) -> int:
    # Edges are evenly spaced. Native buckets and `le` are both upper-inclusive, so a
    # bucket whose own edge is ours belongs below it.
    step = edges[1] - edges[0]
    return min(max(-((edges[0] - index) // step), 0), len(edges))


def _histogram(
    name: str,
    text: str,
    labels: Labels,
    rows: Iterable[tuple[Labels, Mapping[str, Any]]],
    edges: tuple[int, ...],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    merged: dict[Labels, tuple[list[tuple[int, int]], float]] = {}
    for values, histogram in rows:
        pairs, total = merged.get(values, ([], 0.0))
        more = [(index, count) for index, count in histogram["buckets"]]
        merged[values] = pairs + more, total + histogram["sum"]
    for values, (pairs, total) in merged.items():
        family.add_metric(values, classic(pairs, edges), total)
    return family


# -- what the snapshot holds -----------------------------------------------------------


def _variant(entry: Mapping[str, Any]) -> Labels:
    # Version 0 stands for none: requests refused before one was chosen.
    return entry["model"], str(entry["version"] or ""), entry["variant"]


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    variants = snapshot["variants"]
    labels = "model", "version", "variant"
    yield _counter(
        "router_requests",
        "Requests answered, by the variant they were assigned to and the gRPC code.",
        (*labels, "code"),
        (
            ((*_variant(entry), code), count)
            for entry in variants
            for code, count in entry["codes"].items()
        ),
    )
    for key, name, text in (
        ("fallbacks", "router_fallbacks", "Candidates that failed; stable answered."),
        ("timeouts", "router_variant_timeouts", "Attempts that ran out of their time."),
        ("invalid", "router_invalid_outputs", "Answers outside what was declared."),
        ("failures", "router_variant_failures", "Attempts that failed in the model."),
        ("cancelled", "router_cancelled", "Calls the client gave up."),
    ):
        rows = ((_variant(entry), entry[key]) for entry in variants)
        yield _counter(name, text, labels, rows)
    yield _counter(
        "router_refused",
        "Requests refused before a variant was chosen.",
        ("reason", "code"),
        (((e["situation"], e["code"]), e["count"]) for e in snapshot["refused"]),
    )


def _stages(snapshot: Snapshot) -> Iterator[Metric]:
    variants = snapshot["variants"]
    yield _histogram(
        "router_request_duration_seconds",
        "From the last byte read to the answer written, inside the server.",
        ("model", "version", "variant"),
        ((_variant(entry), entry["stages"]["total"]) for entry in variants),
        REQUEST_EDGES,
    )
    yield _histogram(
        "router_stage_duration_seconds",
        "Parts of a request.",
        ("model", "version", "variant", "stage"),
        (
            ((*_variant(entry), stage), entry["stages"][stage])
            for entry in variants
            for stage in STAGES
        ),
        STAGE_EDGES,
    )


def _routes(snapshot: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "router_route_decisions",
        "Decisions, by rule, reason and where the unit key came from.",
        ("model", "rule", "variant", "reason", "source"),
        (
            (
                (entry["model"], entry["rule"], entry["variant"], entry["reason"], key),
                entry[key],
            )
            for entry in snapshot["routed"]
            for key in SOURCES
            if entry[key]
        ),
    )


def _versions(snapshot: Snapshot, absent: list[RenewalStatus]) -> Iterator[Metric]:
    versions = snapshot["versions"]
    labels = "model", "version"

    def rows(value: Callable[[Mapping[str, Any]], float]) -> list[tuple[Labels, float]]:
        return [((v["model"], str(v["version"])), value(v)) for v in versions]

    for name, text, value in (
        ("router_inference_count", "Rows inferred.", lambda v: v["rows"]),
        ("router_execution_count", "Batches run.", lambda v: v["runs"]),
        ("router_version_run_seconds", "Time in runs.", lambda v: v["run_ns"] / 1e9),
        (
            "router_version_cpu_seconds",
            "CPU time of runs.",
            lambda v: v["cpu_ns"] / 1e9,
        ),
        ("router_version_failures", "Runs that failed.", lambda v: v["failures"]),
        ("router_version_terminated", "Runs ended early.", lambda v: v["terminated"]),
        ("router_version_overruns", "Runs far over time.", lambda v: v["overruns"]),
        ("router_breaker_trips", "Times the breaker opened.", _trips),
    ):
        yield _counter(name, text, labels, rows(value))
    for name, text, value in (
        ("router_version_memory_bytes", "Memory held.", lambda v: v["memory_bytes"]),
        ("router_queue_depth", "Attempts waiting.", lambda v: v["queued"]),
        ("router_breaker_open", "1 when taken out.", lambda v: v["breaker"] == "open"),
    ):
        yield _gauge(name, text, labels, rows(value))
    ready = rows(lambda v: v["is_ready"])
    away: list[tuple[Labels, float]] = [((v.model, str(v.version)), 0) for v in absent]
    yield _gauge("router_version_ready", "1 when it can answer.", labels, ready + away)


def _renewals(statuses: tuple[RenewalStatus, ...]) -> Iterator[Metric]:
    labels = "model", "version"
    rows = [((one.model, str(one.version)), one) for one in statuses]
    tls = [(key, one) for key, one in rows if one.has_tls]
    if rows:
        name, text = "router_version_retries", "Tries to bring back one that is away."
        yield _counter(name, text, labels, ((key, one.retries) for key, one in rows))
    if tls:
        name = "router_upstream_tls_reload_successful"
        text = "1 when the newest certificate files are in use."
        yield _gauge(
            name, text, labels, ((key, one.is_tls_current) for key, one in tls)
        )
        name = "router_upstream_tls_certificate_expiry_timestamp_seconds"
        text = "When our own certificate expires; 0 without one."
        yield _gauge(name, text, labels, ((key, one.expires_at_s) for key, one in tls))


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    workers = snapshot.get("workers", ())
    if not workers:
        return

    def rows(key: str) -> list[tuple[Labels, float]]:
        return [((w["model"], str(w["version"])), float(w[key])) for w in workers]

    labels = "model", "version"
    yield _counter("router_worker_restarts", "Starts again.", labels, rows("restarts"))
    for key, name, text in (
        ("is_up", "router_worker_up", "1 when it answers."),
        ("is_quarantined", "router_worker_quarantined", "1 when it was given up."),
        ("memory_bytes", "router_worker_memory_bytes", "Memory resident in it."),
    ):
        yield _gauge(name, text, labels, rows(key))


def _upstreams(snapshot: Snapshot) -> Iterator[Metric]:
    upstreams = snapshot.get("upstreams", ())
    if not upstreams:
        return

    def of(entry: Mapping[str, Any]) -> Labels:
        return entry["model"], str(entry["version"]), entry["target"]

    labels = "model", "version", "target"
    yield _counter(
        "router_upstream_requests",
        "Attempts sent to another server, by what became of them.",
        (*labels, "outcome"),
        (
            ((*of(entry), outcome), count)
            for entry in upstreams
            for outcome, count in entry["sent"].items()
        ),
    )
    for key, name, text in (
        ("connections", "router_upstream_connections", "Open connections."),
        ("ejected", "router_upstream_ejected", "Addresses left out, over all loops."),
    ):
        yield _gauge(name, text, labels, ((of(e), float(e[key])) for e in upstreams))
    failures: list[tuple[Labels, float]] = [
        ((v["model"], str(v["version"])), v["lookup_failures"])
        for v in snapshot["versions"]
        if "lookup_failures" in v
    ]
    name, text = "router_upstream_lookup_failures", "Names looked up in vain."
    yield _counter(name, text, ("model", "version"), failures)


def _tape(snapshot: Snapshot) -> Iterator[Metric]:
    tape = snapshot.get("tape")
    if not tape:
        return
    for key, name, text in (
        ("written", "router_tape_records", "Records of the tape, by kind."),
        ("dropped", "router_tape_dropped", "Records that found no room."),
    ):
        rows = (((kind,), count) for kind, count in tape[key].items())
        yield _counter(name, text, ("kind",), rows)


def _trips(version: Mapping[str, Any]) -> float:
    return float(version["breaker_trips"])


def _server(snapshot: Snapshot) -> Iterator[Metric]:
    executors, loops = snapshot["executors"], snapshot["loops"]
    for name, text, value in (
        ("router_inflight", "Calls in flight.", snapshot["calls"]),
        ("router_connections", "Open connections.", snapshot["connections"]),
        ("router_body_bytes", "Request bodies held.", snapshot["body_bytes"]),
        ("router_draining", "1 while draining.", snapshot["is_draining"]),
        ("router_uptime_seconds", "Time since start.", snapshot["uptime_s"]),
        ("router_executor_running", "Batches running.", executors["running"]),
    ):
        yield _gauge(name, text, (), [((), value)])
    for name, text, value in (
        ("router_accepted_connections", "Connections.", snapshot["accepted"]),
        (
            "router_refused_connections",
            "Connections over a limit.",
            snapshot["refused_connections"],
        ),
        ("router_published_tables", "Tables published.", snapshot["generation"]),
        ("router_executor_abandoned", "Executors lost.", executors["abandoned"]),
        ("router_executor_refused", "Batches refused.", executors["refused"]),
    ):
        yield _counter(name, text, (), [((), value)])
    terminated = (
        ((place,), executors[f"terminated_{place}"]) for place in ("loop", "executor")
    )
    yield _counter(
        "router_executor_terminated", "Runs the watchdog ended.", ("place",), terminated
    )
    abuse = (((kind,), count) for kind, count in snapshot["abuse"].items())
    yield _counter("router_abuse", "Breaches of the protocol.", ("kind",), abuse)
    for key, text in (
        ("turns", "Turns of a loop."),
        ("loop_runs", "Batches a loop ran itself."),
        ("handed_over", "Batches handed to executors."),
    ):
        rows = (((str(index),), loop[key]) for index, loop in enumerate(loops))
        name = "router_loop_" + key.removeprefix("loop_")
        yield _counter(name, text, ("loop",), rows)


def _grpc_type(method: str) -> str:
    if method in STREAMING:
        return "bidi_stream"
    return "server_stream" if method in SERVER_STREAMING else "unary"


def _methods(snapshot: Snapshot) -> Iterator[Metric]:
    # The names stock gRPC dashboards ask for.
    rows = []
    for entry in snapshot["methods"]:
        service, _, method = entry["path"].strip("/").rpartition("/")
        for code, count in entry["codes"].items():
            rows.append(((_grpc_type(method), service, method, _camel(code)), count))
    yield _counter(
        "grpc_server_handled", "RPCs completed on the server.", SERVICE, rows
    )


def _camel(code: str) -> str:
    # go-grpc-prometheus writes codes as Go does: OK, InvalidArgument.
    if code == "OK":
        return code
    return "".join(word.capitalize() for word in code.split("_"))


def _certificates(
    snapshot: Snapshot, statuses: tuple[TlsStatus, ...]
) -> Iterator[Metric]:
    if not statuses:
        return
    yield _counter(
        "router_tls_handshakes",
        "TLS handshakes, by how they ended.",
        ("outcome",),
        (((outcome,), count) for outcome, count in snapshot["tls_handshakes"].items()),
    )
    yield _gauge(
        "router_tls_reload_successful",
        "1 when the newest certificate files are in use.",
        ("listener",),
        (((one.listener,), one.was_last_successful) for one in statuses),
    )
    yield _gauge(
        "router_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use expires.",
        ("listener",),
        (((one.listener,), one.expires_at_s) for one in statuses),
    )


def _config(status: ConfigStatus, build: Mapping[str, str]) -> Iterator[Metric]:
    revisions = status.config_revision, status.table_revision
    yield _gauge(
        "router_config_revision_info",
        "Always 1; the configuration and table that serve.",
        ("config_revision", "table_revision"),
        [(revisions, 1)],
    )
    yield _gauge(
        "router_config_last_reload_successful",
        "1 when the last configuration took effect.",
        (),
        [((), status.was_last_successful)],
    )
    yield _gauge(
        "router_config_last_reload_success_timestamp_seconds",
        "When a configuration last took effect.",
        (),
        [((), status.succeeded_at_s)],
    )
    yield _gauge(
        "router_build_info",
        "Always 1; what is running.",
        tuple(build),
        [(tuple(build.values()), 1)],
    )
