"""What outlives what, where the order is the unlucky one.

Each case is one that a sanitizer or an assertion once stopped at, or that a reader
feared. Without a sanitizer most of them pass by luck.
"""

import contextlib
import os
import resource
import socket
import threading

from plane import INFER, STREAM_INFER, Plane, Response, StreamResponse, request, split
from rawwire import DATA, END_STREAM, RawClient, frame, grpc_fields, message

from router.engine._engine import DATA as DATA_LISTENER
from router.testing import wait_until


def loop_runs(plane: Plane) -> int:
    return sum(loop["loop_runs"] for loop in plane.snapshot()["loops"])


def test_an_answer_to_a_stream_that_an_error_ended_goes_nowhere():
    with Plane(loop_run_us=100_000) as plane:
        plane.load("m", 1, "echo")
        plane.publish(split("m", [1], 0))
        plane.start()
        plane.prove("m", 1)
        before = plane.codes()
        with RawClient(plane.address) as client:
            pairs = [*grpc_fields(STREAM_INFER), ("triton_grpc_error", "true")]
            stream = client.open(pairs)
            # One read brings both: the bad one ends the stream before the other runs.
            both = message(request()) + message(request(width=5))
            client.send(frame(DATA, 0, stream, both))
            reply = client.wait(stream)
            assert (reply.code, reply.data) == (3, b"")
            assert client.ping()
        plane.wait_idle()
        after = plane.codes()
        assert loop_runs(plane) > 0
        assert after["INVALID_ARGUMENT"] == 1
        assert after["CANCELLED"] == 1
        assert after["OK"] == before["OK"]


def test_a_stream_without_that_wish_answers_the_good_ones():
    with Plane(loop_run_us=100_000) as plane:
        plane.load("m", 1, "echo")
        plane.publish(split("m", [1], 0))
        plane.start()
        plane.prove("m", 1)
        with RawClient(plane.address) as client:
            stream = client.open(grpc_fields(STREAM_INFER))
            both = message(request()) + message(request(width=5))
            client.send(frame(DATA, END_STREAM, stream, both))
            reply = client.wait(stream)
            assert reply.code == 0
        first = 5 + int.from_bytes(reply.data[1:5])
        answers = [
            StreamResponse.FromString(reply.data[5:first]),
            StreamResponse.FromString(reply.data[first + 5 :]),
        ]
        assert sorted(bool(a.error_message) for a in answers) == [False, True]


def test_a_table_may_leave_with_the_last_fallback_that_finds_no_room():
    with Plane(executors=1, batches_queued_max=1) as plane:
        plane.load("m", 1, "loop=0")
        plane.load("m", 2, "loop=0;delay_us=30000;fail=always")
        # Its batches wait a tenth of a second for company and fill the queue meanwhile.
        plane.load("wait", 1, "loop=0", max_queue_delay_us=95_000)
        waits = split("wait", [1], 0)
        plane.publish(split("m", [1, 2], 10_000, "old"), waits)
        plane.start()
        with RawClient(plane.address) as client:
            fails = client.open(grpc_fields())
            client.send_data(fails, message(request()))
            running = lambda: plane.snapshot()["executors"]["running"] == 1  # noqa: E731
            wait_until(running, "the candidate runs")
            plane.publish(split("m", [1, 2], 10_000, "new"), waits)
            queued = client.open(grpc_fields())
            client.send_data(queued, message(request("wait")))
            reply = client.wait(fails)
            assert reply.code == 8, reply.headers
            assert client.wait(queued).code == 0
        plane.wait_idle()


def test_a_call_inside_ends_when_the_engine_stops_before_its_method_answers():
    plane = Plane()
    with plane:
        plane.load("m", 1, "echo")
        plane.publish(split("m", [1], 0))
        path = "/test.Service/Never"
        plane.engine.method(path, streaming=False, pool=0, listeners=DATA_LISTENER)
        plane.start()
        codes: list[int] = []
        caller = threading.Thread(
            target=lambda: codes.append(plane.engine.call(path, b"").code), daemon=True
        )
        caller.start()
        assert plane.engine.next(0, 5_000) is not None
        plane.engine.stop()
        caller.join(5)
        assert codes == [14]


def test_a_drain_tells_those_who_call_inside_that_its_grace_is_over():
    with Plane() as plane:
        plane.load("m", 1, "echo")
        plane.publish(split("m", [1], 0))
        path = "/test.Service/Never"
        plane.engine.method(path, streaming=False, pool=0, listeners=DATA_LISTENER)
        plane.start()
        codes: list[int] = []
        caller = threading.Thread(
            target=lambda: codes.append(plane.engine.call(path, b"").code), daemon=True
        )
        caller.start()
        assert plane.engine.next(0, 5_000) is not None
        plane.engine.drain(0.0)
        caller.join(5)
        assert codes == [14]


def test_an_engine_that_left_a_hung_run_behind_takes_no_more_messages():
    with Plane(executors=1, abandon_after_ms=20) as plane:
        plane.load("m", 1, "loop=0;hang_forever")
        plane.publish(split("m", [1], 0))
        plane.start()
        done = plane.engine.call(INFER, request(), (), 0.02)
        assert done.code == 4
        plane.engine.stop()
        assert not plane.engine.send(0, b"", end=True)
        assert plane.engine.drain(0.0) == 0


def test_an_old_weight_answers_whoever_was_routed_to_it():
    with Plane() as plane:
        plane.load("m", 1, "loop=0;delay_us=50000")
        plane.publish(split("m", [1], 0, "old"))
        plane.start()
        with RawClient(plane.address) as client:
            stream = client.open(grpc_fields())
            client.send_data(stream, message(request()))
            running = lambda: plane.snapshot()["executors"]["running"] == 1  # noqa: E731
            wait_until(running, "the old weight runs")
            plane.load("m", 1, "loop=0")
            plane.publish(split("m", [1], 0, "new"))
            plane.engine.unload("m", 1)
            reply = client.wait(stream)
        answer = Response.FromString(reply.data[5:])
        plane.judge(answer)
        assert answer.outputs[0].name == "y"
        plane.wait_idle()


def test_without_descriptors_new_connections_are_refused_and_old_ones_served():
    with Plane() as plane, contextlib.ExitStack() as stack:
        plane.load("m", 1, "echo")
        plane.publish(split("m", [1], 0))
        plane.start()
        old = stack.enter_context(RawClient(plane.address))
        assert old.ping()
        late = [stack.enter_context(socket.socket()) for _ in range(20)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (late[-1].fileno() + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        host, port = plane.address.rsplit(":", 1)
        for one in late:
            one.settimeout(10)
            one.connect((host, int(port)))
        wait_until(lambda: plane.snapshot()["refused_connections"] == 20, "refusals")
        assert old.call(request()).code == 0
        turns = plane.snapshot()["loops"][0]["turns"]
        assert old.ping()
        # A loop that is woken by what it cannot take turns thousands of times instead.
        assert plane.snapshot()["loops"][0]["turns"] - turns < 20
