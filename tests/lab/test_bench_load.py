"""A load is sent as asked, every answer is counted once, and time counts from when a
request was due."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bench_target import (
    BUCKETS,
    CANDIDATE_SHARE,
    Target,
    codes_of,
    counted,
    loaded,
    loopback,
    unix,
)

from router._fasthash import bucket
from router.engine._engine import DATA
from router.engine._engine import bench as engine_bench
from router.errors import EngineError
from router.lab.bench import (
    BenchError,
    BenchResult,
    ClosedLoop,
    Load,
    OpenLoop,
    Requests,
    Units,
    bench,
    make_messages,
    measure,
)
from router.testing import wait_until

TAG = Requests("tag", (("x:FP32", "[[1, 2]]"),))
ROW4 = (("x:FP32", "[[1, 2, 3, 4]]"),)
SHORT_S = 0.2


def load(target: Target, pace: OpenLoop | ClosedLoop, **more: object) -> Load:
    return replace(Load(target.address, pace, duration_s=SHORT_S), **more)


def assert_adds_up(result: BenchResult) -> None:
    assert result.due == result.sent + result.unsent
    assert result.sent == codes_of(result) + result.unanswered
    assert result.latency.count == result.codes.get("OK", 0)
    assert result.latency_of_errors.count == codes_of(result) - result.latency.count
    assert sum(result.versions.values()) == result.codes.get("OK", 0)


def test_constant_arrivals_send_exactly_what_is_due(target: Target) -> None:
    result = bench(load(target, OpenLoop(500), connections=2), TAG)
    assert_adds_up(result)
    assert (result.due, result.sent, result.unsent) == (100, 100, 0)
    assert result.codes == {"OK": 100}
    assert not result.is_void
    assert not result.is_interrupted


def test_counts_are_those_of_the_server(target: Target) -> None:
    before = target.counted("tag")
    result = bench(load(target, ClosedLoop(8), connections=4), TAG)
    after = target.counted("tag")
    assert_adds_up(result)
    assert result.sent > 8
    assert result.in_flight_peak == 8
    advanced = {key: after[key] - before.get(key, 0) for key in after}
    assert result.versions == {
        str(version): count for (version, _), count in advanced.items() if count
    }
    assert {code for (_, code), count in advanced.items() if count} == {"OK"}


def test_poisson_arrivals_keep_the_rate_and_repeat_with_the_seed(
    target: Target,
) -> None:
    pace = OpenLoop(2000, is_poisson=True)
    first, again, other = (
        bench(load(target, pace, seed=seed), TAG) for seed in (1, 1, 2)
    )
    assert first.due == again.due
    assert first.due != other.due
    # A Poisson count of mean 400 has standard deviation 20; this is five of them.
    assert abs(first.due - 400) < 100
    assert_adds_up(first)


def test_a_unit_is_drawn_for_each_request_and_keeps_its_version(target: Target) -> None:
    units = 3
    result = bench(
        load(target, OpenLoop(500), units=Units(units), metadata=(("x-a", "b"),)), TAG
    )
    planned = {
        "2" if bucket(f"u{i}".encode(), "salt") < CANDIDATE_SHARE else "1"
        for i in range(units)
    }
    assert set(result.versions) == planned


def test_without_units_versions_split_as_planned(target: Target) -> None:
    result = bench(load(target, ClosedLoop(16), connections=2, duration_s=0.24), TAG)
    answered = result.codes["OK"]
    share = CANDIDATE_SHARE / BUCKETS
    deviation = (answered * share * (1 - share)) ** 0.5
    assert abs(result.versions["2"] - answered * share) < 5 * deviation


def test_an_unknown_model_is_counted_as_not_found(target: Target) -> None:
    result = bench(load(target, OpenLoop(200)), replace(TAG, model="nobody"))
    assert_adds_up(result)
    assert result.codes == {"NOT_FOUND": 40}
    assert result.error_share == 1
    assert result.versions == {}
    assert result.first_error.startswith("NOT_FOUND: ")


def test_a_server_slower_than_the_rate_makes_the_run_void(target: Target) -> None:
    pace = OpenLoop(1000, in_flight_max=1)
    result = bench(load(target, pace), Requests("slow", ROW4))
    assert_adds_up(result)
    assert result.is_void
    assert result.due == 200
    assert 0 < result.sent <= 21  # 10 ms each
    assert result.held >= result.sent - 1
    assert result.in_flight_peak == 1


def test_latency_counts_the_wait_before_a_late_send(target: Target) -> None:
    pace = OpenLoop(500, in_flight_max=1)
    result = bench(load(target, pace), Requests("slow", ROW4))
    # The n-th of the requests leaves about n * (10 - 2) ms after it was due.
    assert result.latency.max_us > 50_000
    assert result.latency_from_send.p50_us < 30_000 < result.latency.p90_us
    assert result.late >= result.sent - 2
    assert result.late_max_us > 40_000


def test_percentiles_are_ordered_and_end_at_the_maximum(target: Target) -> None:
    found = bench(load(target, OpenLoop(500)), TAG).latency
    ladder = (found.p50_us, found.p90_us, found.p99_us, found.p999_us, found.max_us)
    assert list(ladder) == sorted(ladder)
    assert 0 < found.mean_us <= found.max_us


def test_a_call_that_takes_too_long_is_a_deadline(target: Target) -> None:
    asked = load(target, OpenLoop(20), timeout_s=0.05, duration_s=0.1)
    result = bench(asked, Requests("hanging", ROW4))
    assert_adds_up(result)
    assert result.codes == {"DEADLINE_EXCEEDED": 2}


def test_a_server_that_says_nothing_is_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        result = bench(Load(address, OpenLoop(100), 0.1, timeout_s=0.05), TAG)
    assert_adds_up(result)
    assert result.codes == {"DEADLINE_EXCEEDED": 10}
    assert result.latency_of_errors.p50_us >= 50_000


@contextmanager
def hanging_up() -> Iterator[str]:
    """The address of a server that closes every connection it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=accept, name="hanging up")
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_calls_of_a_lost_connection_are_unavailable() -> None:
    with hanging_up() as address:
        result = bench(Load(address, ClosedLoop(2), SHORT_S), TAG)
    assert_adds_up(result)
    assert set(result.codes) == {"UNAVAILABLE"}
    # Opened again every 100 ms, not as fast as it can be.
    assert result.sent <= 2 * 4


def test_a_drained_server_loses_no_call_to_its_successor() -> None:
    with loopback() as first, loaded() as second:

        def hand_over() -> None:
            wait_until(lambda: sum(first.counted("tag").values()) > 20, "some answers")
            second.listen(first.listener.fileno(), DATA)
            second.start()
            first.engine.drain(5)

        thread = threading.Thread(target=hand_over, name="hand over")
        thread.start()
        result = bench(load(first, OpenLoop(500), connections=8), TAG)
        thread.join()
        served = [
            sum(counted(engine, "tag").values()) for engine in (first.engine, second)
        ]
    assert_adds_up(result)
    assert result.codes == {"OK": 100}
    assert result.connections_lost == 0
    assert sum(served) == 100
    assert min(served) > 0


def test_a_readable_descriptor_ends_the_run(target: Target) -> None:
    read_fd, write_fd = os.pipe()
    try:
        os.write(write_fd, b"\2")
        result = bench(load(target, OpenLoop(100), duration_s=60), TAG, read_fd)
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert result.is_interrupted
    assert result.elapsed_s < 5
    assert_adds_up(result)


def test_a_unix_socket_is_a_target(tmp_path: Path) -> None:
    with unix(tmp_path) as target:
        result = bench(load(target, OpenLoop(200)), TAG)
    assert result.codes == {"OK": 40}


def test_every_message_is_sent_in_turn(target: Target) -> None:
    (good,) = make_messages(TAG, {}, 0)
    result = measure(load(target, OpenLoop(100)), (good, b"\xff"))
    assert result.codes == {"OK": 10, "INVALID_ARGUMENT": 10}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "refused"),
        ("unix:/nowhere/at.all", "No such file"),
        ("nowhere", "HOST:PORT"),
        ("127.0.0.1:65536", "HOST:PORT"),
    ],
)
def test_a_target_that_is_not_there_is_an_error(address: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        measure(Load(address, ClosedLoop()), (b"",))


@pytest.mark.parametrize(
    "options",
    [{"rate_milli": "-1"}, {"concurrency": "0"}, {"stop_fd": "x"}, {"what": "1"},
     {"duration_ns": "600000000001"}, {"timeout_ms": "0"}],
)  # fmt: skip
def test_a_wrong_option_is_named_and_the_sockets_are_closed(
    options: dict[str, str],
) -> None:
    one, other = socket.socketpair()
    with other:
        other.settimeout(5)
        with pytest.raises(EngineError, match=next(iter(options))):
            engine_bench(options, [b""], [one.detach()])
        assert other.recv(1) == b""


def test_more_connections_than_calls_cannot_be_had(target: Target) -> None:
    with pytest.raises(BenchError, match="3 connections cannot share 2 calls"):
        bench(load(target, ClosedLoop(2), connections=3), TAG)
