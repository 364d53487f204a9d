"""The metrics page: names, labels, and buckets that lose nothing.

The list of names is a promise to dashboards and alerts. Removing or renaming one breaks
those who watch a router; adding one needs a line here.
"""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from router.telemetry.prometheus import (
    REQUEST_EDGES,
    STAGE_EDGES,
    ConfigStatus,
    SnapshotCollector,
    TlsStatus,
    classic,
    exposition,
    registry_of,
)
from router.telemetry.status import RenewalStatus

NAMES = {
    "grpc_server_handled": "counter",
    "router_abuse": "counter",
    "router_accepted_connections": "counter",
    "router_body_bytes": "gauge",
    "router_breaker_open": "gauge",
    "router_breaker_trips": "counter",
    "router_build_info": "gauge",
    "router_cancelled": "counter",
    "router_config_last_reload_success_timestamp_seconds": "gauge",
    "router_config_last_reload_successful": "gauge",
    "router_config_revision_info": "gauge",
    "router_connections": "gauge",
    "router_draining": "gauge",
    "router_execution_count": "counter",
    "router_executor_abandoned": "counter",
    "router_executor_refused": "counter",
    "router_executor_running": "gauge",
    "router_executor_terminated": "counter",
    "router_fallbacks": "counter",
    "router_inference_count": "counter",
    "router_inflight": "gauge",
    "router_invalid_outputs": "counter",
    "router_loop_handed_over": "counter",
    "router_loop_runs": "counter",
    "router_loop_turns": "counter",
    "router_published_tables": "counter",
    "router_queue_depth": "gauge",
    "router_refused": "counter",
    "router_refused_connections": "counter",
    "router_request_duration_seconds": "histogram",
    "router_requests": "counter",
    "router_route_decisions": "counter",
    "router_shadow_cpu_seconds": "counter",
    "router_shadow_disagreements": "counter",
    "router_shadow_distance": "histogram",
    "router_shadow_mismatches": "counter",
    "router_shadow_noise_disagreements": "counter",
    "router_shadow_noise_pairs": "counter",
    "router_shadow_requests": "counter",
    "router_shadow_run_seconds": "histogram",
    "router_stage_duration_seconds": "histogram",
    "router_tape_dropped": "counter",
    "router_tape_records": "counter",
    "router_uptime_seconds": "gauge",
    "router_tls_certificate_expiry_timestamp_seconds": "gauge",
    "router_tls_handshakes": "counter",
    "router_tls_reload_successful": "gauge",
    "router_variant_failures": "counter",
    "router_variant_timeouts": "counter",
    "router_version_cpu_seconds": "counter",
    "router_version_failures": "counter",
    "router_version_memory_bytes": "gauge",
    "router_version_overruns": "counter",
    "router_version_ready": "gauge",
    "router_version_retries": "counter",
    "router_upstream_tls_reload_successful": "gauge",
    "router_upstream_tls_certificate_expiry_timestamp_seconds": "gauge",
    "router_version_run_seconds": "counter",
    "router_version_terminated": "counter",
}


def histogram(buckets, total):
    count = sum(n for _, n in buckets)
    return {"count": count, "sum": total, "buckets": buckets}


def variant(name, version, codes, total):
    stages = {s: histogram([], 0.0) for s in ("decode", "queue", "run", "encode")}
    return {
        "model": "m",
        "variant": name,
        "version": version,
        "codes": codes,
        "fallbacks": 1,
        "timeouts": 2,
        "invalid": 3,
        "failures": 4,
        "cancelled": 5,
        "score": {"count": 0, "sum": 0.0, "sum_squares": 0.0},
        "stages": {**stages, "total": total},
    }


def snapshot():
    version = {
        "model": "m", "version": 2, "is_ready": True, "breaker": "open", "runs": 5,
        "rows": 9, "run_ns": 2_000_000_000, "cpu_ns": 1_500_000_000, "failures": 0,
        "terminated": 0, "overruns": 0, "breaker_trips": 1, "memory_bytes": 77,
        "queued": 3,
    }  # fmt: skip
    routed = {
        "model": "m", "rule": 'a "b"\n', "variant": "v2", "reason": "SPLIT",
        "parameter": 0, "metadata": 6, "tensor": 0, "sequence": 0, "none": 1,
    }  # fmt: skip
    return {
        "time_s": 1.0, "uptime_s": 2.0, "generation": 3, "table_revision": "a" * 16,
        "is_draining": False, "connections": 4, "accepted": 5, "refused_connections": 6,
        "calls": 7, "body_bytes": 8, "abuse": {"ping_flood": 9},
        "tls_handshakes": {"ok": 11, "timeout": 1},
        "tape": {"written": {"exposure": 8}, "dropped": {"exposure": 1}},
        "refused": [{"situation": "quota", "code": "RESOURCE_EXHAUSTED", "count": 2}],
        "variants": [
            variant("v2", 2, {"OK": 3, "INTERNAL": 1}, histogram([[-320, 4]], 0.25)),
            variant("v2", 2, {"OK": 1}, histogram([[-320, 1]], 0.5)),
            variant("", 0, {"NOT_FOUND": 2}, histogram([], 0.0)),
        ],
        "routed": [routed],
        "shadows": [
            {
                "model": "m", "shadow": "night", "variant": "v2", "version": 2,
                "failed": 2, "pairs": 10, "disagreements": 4,
                "dropped": {"full": 3, "late": 1},
                "missing": 0, "dtype": 0, "shape": 0, "nan": 1,
                "distance": {"sum": 2.5, "histogram": [[-20, 4], [1, 5]]},
                "run": histogram([[-320, 10]], 0.5), "cpu_ns": 250_000_000,
                "noise": {"pairs": 7, "disagreements": 6},
            }
        ],
        "versions": [version],
        "methods": [
            {"path": "/inference.GRPCInferenceService/ModelInfer", "codes": {"OK": 5}},
            {"path": "/grpc.health.v1.Health/Watch", "codes": {"INVALID_ARGUMENT": 1}},
        ],
        "executors": {
            "abandoned": 0, "terminated_loop": 1, "terminated_executor": 2,
            "refused": 3, "running": 4,
        },
        "loops": [{"turns": 10, "loop_runs": 5, "handed_over": 1}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def page():
    status = ConfigStatus("c" * 16, "a" * 16, False, 1_700_000_000.0)
    tls = [TlsStatus("data", True, 1_800_000_000.0), TlsStatus("admin", False, 1.0)]
    build = {"version": "1.2.3"}
    renewals = [
        RenewalStatus("m", 3, True, 4),
        RenewalStatus("m", 2, False, 0, True, False, 2.0),
    ]
    collector = SnapshotCollector(
        snapshot, status_of(status), build, lambda: tls, lambda: renewals
    )
    text, content_type = exposition(registry_of(collector))
    assert content_type.startswith("text/plain")
    return text.decode()


def status_of(status):
    return lambda: status


def value(page, name, **labels):
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_the_names_and_types_are_the_ones_promised(page):
    families = {f.name: f.type for f in text_string_to_metric_families(page)}
    assert families == NAMES


def test_promtool_has_nothing_to_say(page):
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_requests_are_counted_by_variant_and_code(page):
    labels = {"model": "m", "version": "2", "variant": "v2"}
    assert value(page, "router_requests_total", **labels, code="OK") == 4
    assert value(page, "router_requests_total", **labels, code="INTERNAL") == 1
    assert value(page, "router_requests_total", version="", code="NOT_FOUND") == 2


def test_two_entries_of_one_series_are_one_series(page):
    labels = {"model": "m", "version": "2", "variant": "v2"}
    assert value(page, "router_request_duration_seconds_count", **labels) == 5
    assert value(page, "router_request_duration_seconds_sum", **labels) == 0.75
    assert value(page, "router_fallbacks_total", **labels) == 2


def test_decisions_keep_the_rule_even_when_its_name_is_awkward(page):
    name = "router_route_decisions_total"
    assert value(page, name, rule='a "b"\n', source="metadata") == 6
    assert value(page, name, source="none") == 1


def test_nanoseconds_become_seconds_and_states_become_numbers(page):
    labels = {"model": "m", "version": "2"}
    assert value(page, "router_version_cpu_seconds_total", **labels) == 1.5
    assert value(page, "router_breaker_open", **labels) == 1
    assert value(page, "router_version_ready", **labels) == 1
    assert value(page, "router_config_last_reload_successful") == 0


def test_a_listener_says_whether_its_newest_certificate_is_in_use(page):
    name = "router_tls_reload_successful"
    assert value(page, name, listener="data") == 1
    assert value(page, name, listener="admin") == 0
    expiry = "router_tls_certificate_expiry_timestamp_seconds"
    assert value(page, expiry, listener="data") == 1_800_000_000
    assert value(page, "router_tls_handshakes_total", outcome="ok") == 11


def test_a_version_that_is_away_is_not_ready_and_its_tries_are_counted(page):
    assert value(page, "router_version_ready", model="m", version="3") == 0
    assert value(page, "router_version_retries_total", model="m", version="3") == 4


def test_an_upstream_says_whether_its_newest_certificate_is_in_use(page):
    assert value(page, "router_upstream_tls_reload_successful", version="2") == 0
    expiry = "router_upstream_tls_certificate_expiry_timestamp_seconds"
    assert value(page, expiry, version="2") == 2


def test_a_shadow_says_what_became_of_its_requests_and_how_far_answers_are(page):
    mine = {"model": "m", "shadow": "night", "version": "2"}
    total = "router_shadow_requests_total"
    assert value(page, total, outcome="ok", **mine) == 10
    assert value(page, total, outcome="error", **mine) == 2
    assert value(page, total, outcome="dropped_full", **mine) == 3
    assert value(page, "router_shadow_mismatches_total", reason="nan", **mine) == 1
    assert value(page, "router_shadow_disagreements_total", **mine) == 4
    assert value(page, "router_shadow_noise_pairs_total", **mine) == 7
    assert value(page, "router_shadow_noise_disagreements_total", **mine) == 6
    assert value(page, "router_shadow_cpu_seconds_total", **mine) == 0.25
    bucket = "router_shadow_distance_bucket"
    below = repr(2.0**-20)
    assert value(page, bucket, le=below, **mine) == 4
    assert value(page, bucket, le="1.0", **mine) == 4
    assert value(page, bucket, le="4.0", **mine) == 9
    assert value(page, "router_shadow_distance_sum", **mine) == 2.5
    assert value(page, "router_shadow_run_seconds_count", **mine) == 10


def test_stock_grpc_dashboards_find_their_names(page):
    assert value(page, "grpc_server_handled_total", grpc_method="ModelInfer") == 5
    code = {"grpc_code": "InvalidArgument", "grpc_type": "server_stream"}
    assert value(page, "grpc_server_handled_total", **code) == 1


@pytest.mark.parametrize("edges", [REQUEST_EDGES, STAGE_EDGES])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_bucket_at_an_edge_belongs_below_it_as_both_are_inclusive(edges, off):
    at = len(edges) // 2
    found = classic([(edges[at] + off, 1)], edges)
    first = next(i for i, (_, count) in enumerate(found) if count)
    assert first == (at if off <= 0 else at + 1)


@given(
    st.lists(st.tuples(st.integers(-640, 224), st.integers(0, 10**9)), max_size=50),
    st.sampled_from([REQUEST_EDGES, STAGE_EDGES]),
)
def test_classic_buckets_say_exactly_what_native_ones_do(buckets, edges):
    for name, cumulative in classic(buckets, edges):
        limit = float(name)
        assert cumulative == sum(n for i, n in buckets if 2.0 ** (i / 32) <= limit)
