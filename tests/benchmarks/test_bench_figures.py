"""What is read from h2load and from a router's metrics, and what is made of it."""

import numpy as np
import pytest

from benchmarks.h2load import parse_log, parse_summary, percentile
from benchmarks.pairs import Comparison, alternate, compare
from benchmarks.report import Budget, Row, table
from benchmarks.servers import total

REPORT = """\
starting benchmark...
finished in 1.52s, 262396.43 req/s, 30.78MB/s
requests: 400000 total, 400000 started, 400000 done, 399998 succeeded, 2 failed, 2 errored, 0 timeout
status codes: 399998 2xx, 0 3xx, 0 4xx, 0 5xx
"""  # noqa: E501  a report is what it is
METRICS = """\
# HELP router_requests_total Requests.
# TYPE router_requests_total counter
router_requests_total{model="a",version="1",variant="stable",code="OK"} 40.0
router_requests_total{model="a",version="2",variant="candidate",code="OK"} 2.0
router_requests_total{model="a",version="1",variant="stable",code="INTERNAL"} 7.0
# HELP router_published_tables_total Tables.
# TYPE router_published_tables_total counter
router_published_tables_total 3.0
"""


def row(budget: Budget | None, better: str = "lower") -> Row:
    compared = Comparison(1.2, 1.1, 1.3, 0.5, 12.0, 10.0, 20)
    return Row("small 1x1", "p50 us", "router", "floor", better, compared, budget)  # type: ignore[arg-type]


def test_a_report_gives_the_rate_and_the_calls_that_succeeded() -> None:
    assert parse_summary(REPORT) == (262396.43, 399998)


def test_what_is_not_a_report_is_refused() -> None:
    with pytest.raises(ValueError, match="not a report"):
        parse_summary("h2load: could not connect")


def test_a_log_gives_the_durations_in_order() -> None:
    durations = parse_log("1795312661172950\t200\t358\n1795312661172953\t200\t31\n")
    assert durations.tolist() == [31, 358]


def test_a_percentile_lies_between_whole_microseconds_by_its_rank() -> None:
    # Of ten calls cut to 20, the median is half way between 20 and 21.
    assert percentile(np.full(10, 20), 0.5) == 20.5


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.75, 3.0), (0.99, 3.96)])
def test_a_percentile_counts_the_calls_below(share: float, value: float) -> None:
    assert percentile(np.array([0, 1, 2, 3]), share) == pytest.approx(value)


def test_a_counter_is_summed_over_the_labels_not_named() -> None:
    assert total(METRICS, "router_requests_total", code="OK") == 42
    assert total(METRICS, "router_requests_total", code="OK", version="2") == 2
    assert total(METRICS, "router_published_tables_total") == 3


def test_ratios_are_taken_pair_by_pair() -> None:
    compared = compare([10.0, 30.0, 100.0], [10.0, 20.0, 50.0])
    assert compared == Comparison(
        ratio=1.5,
        ratio_low=1.25,
        ratio_high=1.75,
        difference=10.0,
        subject=30.0,
        reference=20.0,
        pairs=3,
    )


def test_series_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([1.0, 2.0], [1.0])


def test_each_run_goes_first_in_turn() -> None:
    order: list[str] = []
    results = alternate({n: lambda n=n: order.append(n) or n for n in "abc"}, rounds=3)
    assert "".join(order) == "abcbcacab"
    assert results == {"a": ["a"] * 3, "b": ["b"] * 3, "c": ["c"] * 3}


@pytest.mark.parametrize(
    ("budget", "better", "is_met"),
    [
        (None, "lower", None),
        (Budget("ratio", 1.2), "lower", True),
        (Budget("ratio", 1.1), "lower", False),
        (Budget("ratio", 1.2), "higher", True),
        (Budget("ratio", 1.3), "higher", False),
        (Budget("difference", 0.5), "lower", True),
        (Budget("difference", 0.4), "lower", False),
        (Budget("subject", 12.0), "lower", True),
        (Budget("subject", 11.9), "lower", False),
        (Budget("ratio", 1.1, 0.5), "lower", True),
        (Budget("ratio", 1.1, 0.4), "lower", False),
        (Budget("ratio", 1.2, 0.4), "lower", True),
        (Budget("ratio", 1.3, -0.5), "higher", True),
        (Budget("ratio", 1.3, -0.6), "higher", False),
    ],
)
def test_a_budget_is_met_up_to_and_including_its_limit(
    budget: Budget | None, better: str, is_met: bool | None
) -> None:
    assert row(budget, better).is_met is is_met


def test_a_missed_budget_is_seen_in_the_table() -> None:
    printed = table([row(None), row(Budget("ratio", 1.1))])
    assert "router 12" in printed
    assert "ratio <= 1.1: MISSED" in printed


def test_what_else_is_enough_is_seen_in_the_table() -> None:
    assert "ratio <= 1.1 or 0.5 apart: met" in table([row(Budget("ratio", 1.1, 0.5))])
