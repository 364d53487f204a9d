"""Budgets that burn: counted by minutes, told once, and the same to Prometheus."""

import json
import subprocess

import pytest

from router.config.alerts import Alerts, Slo
from router.control.slo import (
    EDGE_FIRST,
    EDGE_LAST,
    EDGE_STEP,
    BurnWatch,
    Tally,
    edge_of,
    edge_text,
    rules_of,
    tallies,
)
from router.telemetry.prometheus import REQUEST_EDGES

AVAILABLE = Slo(name="up", model="credit", objective=99.9)
FAST = Slo(name="fast", model="credit", objective=99, latency="50ms")
NOW = 1_700_000_000.0


def snapshot(ok=0, errors=0, buckets=(), variant="2"):
    return {
        "variants": [
            {
                "model": "credit", "version": 2, "variant": variant,
                "codes": {"OK": ok, "INTERNAL": errors, "INVALID_ARGUMENT": 99},
                "stages": {"total": {"buckets": list(buckets)}},
            },
            {
                "model": "other", "version": 1, "variant": "1",
                "codes": {"INTERNAL": 1000}, "stages": {"total": {"buckets": []}},
            },
        ]
    }  # fmt: skip


def test_the_edges_are_those_of_the_exported_histogram():
    edges = tuple(range(EDGE_FIRST, EDGE_LAST + 1, EDGE_STEP))
    assert edges == REQUEST_EDGES


@pytest.mark.parametrize(
    ("latency_s", "edge"),
    [(0.0625, -128), (0.05, -128), (0.0626, -112), (1e-9, EDGE_FIRST), (60, EDGE_LAST)],
)
def test_a_latency_is_rounded_up_to_an_exported_edge(latency_s, edge):
    assert edge_of(latency_s) == edge
    assert float(edge_text(-128)) == 0.0625


def test_mistakes_of_clients_are_neither_good_nor_bad():
    (tally,) = tallies([AVAILABLE], snapshot(ok=90, errors=10)).values()
    assert tally == Tally(10, 100)


def test_slow_is_beyond_the_edge():
    buckets = [(-129, 5), (-128, 4), (-127, 3)]
    (tally,) = tallies([FAST], snapshot(buckets=buckets)).values()
    assert tally == Tally(3, 12)


class Watch:
    """A watch, a minute at a time."""

    def __init__(self, *slos, errors_min=5):
        self.watch = BurnWatch(Alerts(slos=slos, errors_min=errors_min))
        self.seconds, self.ok, self.errors = 0.0, 0, 0
        self.minute(0, 0, 0.0)

    def minute(self, ok, errors, seconds=60.0):
        self.seconds += seconds
        self.ok, self.errors = self.ok + ok, self.errors + errors
        if not self.watch.is_due(self.seconds):
            return ()
        return self.watch.advance(snapshot(self.ok, self.errors), NOW + self.seconds)


def test_a_fast_burn_pages_and_ends_when_the_trouble_ends():
    watch = Watch(AVAILABLE)
    assert watch.minute(1000, 0) == ()
    (begun,) = watch.minute(900, 100)
    assert (begun.kind, begun.severity.name, begun.is_resolved) == (
        "slo_burn", "PAGE", False,
    )  # fmt: skip
    assert dict(begun.fields)["slo"] == "up"
    # Five minutes later the short window of the page is clean; the ticket's is not.
    events = [event for _ in range(400) for event in watch.minute(1000, 0)]
    over = [event for event in events if event.is_resolved]
    assert over[0].dedupe_key == begun.dedupe_key
    assert not watch.minute(1000, 0)


def test_a_few_errors_of_few_requests_are_no_alarm():
    watch = Watch(AVAILABLE)
    assert watch.minute(0, 4) == ()
    assert watch.minute(0, 1) != ()


def test_seconds_within_a_minute_are_not_looked_at():
    watch = Watch(AVAILABLE)
    assert watch.minute(0, 100, 59.0) == ()
    assert watch.minute(0, 0, 1.0) != ()


def test_a_variant_that_counts_anew_is_not_counted_below_nothing():
    watch = Watch(AVAILABLE)
    watch.minute(10_000, 0)
    watch.ok = watch.errors = 0
    assert watch.minute(100, 0) == ()


def test_without_objectives_there_is_nothing_to_look_at():
    assert not BurnWatch(Alerts()).is_due(1e9)


def write_rules(folder):
    path = folder / "rules.yaml"
    odd = Slo(name='o"dd', model="a\\b", objective=99.95)
    path.write_text(json.dumps(rules_of(Alerts(slos=(AVAILABLE, FAST, odd)))))
    return path


def test_promtool_accepts_the_rules(tmp_path):
    done = subprocess.run(
        ["promtool", "check", "rules", write_rules(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "24 rules found" in done.stdout


def test_the_rules_fire_and_end_as_the_router_does(tmp_path):
    write_rules(tmp_path)
    series = 'router_requests_total{model="credit",version="2",variant="2",code="%s"}'

    def fires(at, expected):
        return {"alertname": "RouterSloBurn", "eval_time": at, "exp_alerts": expected}

    test = {
        "rule_files": ["rules.yaml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series % "OK", "values": "0+1000x200"},
                    {"series": series % "INTERNAL", "values": "0x60 0+100x20 2000x120"},
                ],
                "alert_rule_test": [fires("59m", [])],
                "promql_expr_test": [
                    {
                        "expr": 'router:slo_errors:ratio_rate5m{slo="up"} > bool .01',
                        "eval_time": "70m",
                        "exp_samples": [
                            {
                                "labels": '{slo="up",model="credit",version="2",'
                                'variant="2"}',
                                "value": 1,
                            }
                        ],
                    },
                    {
                        "expr": 'count(ALERTS{alertname="RouterSloBurn",window="1h"})',
                        "eval_time": "75m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    },
                    {
                        "expr": 'ALERTS{alertname="RouterSloBurn",window="1h"}',
                        "eval_time": "100m",
                        "exp_samples": [],
                    },
                ],
            }
        ],
    }  # fmt: skip
    path = tmp_path / "rules_test.yaml"
    path.write_text(json.dumps(test))
    done = subprocess.run(
        ["promtool", "test", "rules", path],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
