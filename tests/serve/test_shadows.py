"""Shadows run what others answer: they are counted, compared, and never in the way."""

import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from plane import INFER, Plane, Request, request, split
from rawwire import RawClient, grpc_fields, message
from shadows import EVERYONE, call, settled, shadowed, state

from router._fasthash import bucket, xxh64
from router.errors import EngineError
from router.plan.encode import encode
from router.plan.plan import Plan, Shadow, Unit
from router.telemetry.shadows import read_pair, read_pairs
from router.telemetry.tape import frames
from router.testing import wait_until

SOON_S = 2.0  # what nothing here may take, and a shadow that hangs would


@pytest.fixture
def plane():
    with Plane(loops=1, shadow_wait_ms=200, abandon_after_ms=100) as made:
        made.load("m", 1, "echo")
        made.load("m", 2, "echo")
        made.load("m", 3, "echo")
        yield made


def table(model):
    return encode(Plan("r", (model,)))


def pairs(plane):
    return list(read_pairs(frames(plane.engine.tape())))


def serve(plane, *shadows, script=None, **settings):
    """Publish and start; version 2 is the shadow `script` unless told otherwise."""
    if script is not None:
        plane.load("m", 2, script)
    plane.publish(shadowed(*(shadows or (Shadow("s", 1),)), **settings))
    plane.start()


# -- who is taken, what is counted ----------------------------------------------------


def test_a_shadow_runs_what_stable_answers_and_counts_apart(plane):
    serve(plane)
    call(plane, 20)
    found = settled(plane)
    assert (found["model"], found["variant"], found["version"]) == ("m", "v2", 2)
    assert (found["sampled"], found["pairs"], found["failed"]) == (20, 20, 0)
    assert found["run"]["count"] == 20
    runs = {v["version"]: v["runs"] for v in plane.snapshot()["versions"]}
    assert runs[1] - runs[3] == 20, "stable's runs are stable's"
    assert runs[2] == runs[3], "a shadow's runs are not its version's"
    served = {v["version"]: v["codes"] for v in plane.snapshot()["variants"]}
    assert served[2] == {}
    plane.wait_idle()


def test_a_shadow_by_bucket_takes_whole_units(plane):
    taken = bytes(int(b < 4000) for b in range(10_000))
    serve(plane, Shadow("s", 1, salt="salt", buckets=taken))
    units = [f"u{n}" for n in range(50)]
    for unit in units * 2:
        call(plane, metadata=(("x-user-id", unit),))
    expected = 2 * sum(bucket(unit.encode(), "salt") < 4000 for unit in units)
    assert 0 < expected < 100
    assert settled(plane)["pairs"] == expected


def test_a_shadow_by_sampling_takes_its_share(plane):
    serve(plane, Shadow("s", 1, sample_bp=3000))
    call(plane, 1000, rows=1)
    found = settled(plane)
    # Binomial(1000, 0.3): standard deviation 14.5; six of them.
    assert abs(found["sampled"] - 300) < 87
    assert found["pairs"] == found["sampled"]


def test_several_shadows_run_the_same_request(plane):
    serve(plane, Shadow("s", 1), Shadow("t", 2), versions=(1, 2, 3))
    call(plane, 10)
    assert settled(plane, "s")["pairs"] == settled(plane, "t")["pairs"] == 10


def test_an_unanswered_request_makes_no_pair(plane):
    plane.load("m", 1, "fail=always")
    serve(plane)
    assert plane.engine.call(INFER, request()).code == 13
    found = settled(plane)
    assert (found["pairs"], found["dropped"]["unanswered"]) == (0, 1)
    plane.wait_idle()


def test_a_refused_request_is_not_taken(plane):
    serve(plane)
    assert plane.engine.call(INFER, request(width=5)).code == 3
    assert plane.engine.call(INFER, request(version="9")).code == 5
    found = settled(plane)
    assert (found["sampled"], found["dropped"]["unanswered"]) == (1, 1)


def test_rows_of_a_request_are_compared_row_by_row(plane):
    serve(plane)
    call(plane, rows=5)
    found = settled(plane)
    assert (found["pairs"], found["rows"], found["rows_differing"]) == (1, 5, 5)


def test_the_noise_floor_is_stable_beside_stable():
    with Plane(loops=1, shadow_noise_bp=10_000) as plane:
        plane.load("m", 1, "echo")
        plane.load("m", 2, "echo")
        serve(plane)
        call(plane, 10)
        found = settled(plane)
        assert (found["pairs"], found["disagreements"]) == (10, 10)
        assert (found["noise"]["pairs"], found["noise"]["disagreements"]) == (10, 0)


# -- shadows that misbehave -----------------------------------------------------------


def test_a_shadow_that_fails_is_counted_and_nobody_notices(plane):
    serve(plane, script="fail=every:2")
    call(plane, 20)
    found = settled(plane)
    # A batch that fails fails whole.
    assert found["failed"] > 0
    assert found["failed"] + found["pairs"] == 20
    assert plane.snapshot()["versions"][1]["failures"] == 0


def test_a_shadow_that_answers_nonsense_differs(plane):
    serve(plane, script="nan")
    call(plane, 3)
    found = settled(plane)
    assert (found["nan"], found["mismatched"], found["disagreements"]) == (3, 3, 3)
    assert found["distance"]["count"] == 0


def test_a_shadow_of_another_shape_differs(plane):
    serve(plane, script="wrong_shape")
    call(plane, 3)
    found = settled(plane)
    assert (found["shape"], found["mismatched"], found["disagreements"]) == (3, 3, 3)


def test_a_shadow_that_cannot_take_the_request_fails(plane):
    serve(plane, script="width=8")
    call(plane, 3)
    assert settled(plane)["failed"] == 3


def test_a_shadow_that_hangs_is_ended_and_stable_never_waits(plane):
    serve(plane, Shadow("s", 1), Shadow("t", 2), script="hang", versions=(1, 2, 3))
    begun = time.monotonic()
    call(plane, 20)
    assert time.monotonic() - begun < SOON_S
    found = settled(plane)
    assert found["failed"] >= 1
    assert found["failed"] + found["dropped"]["late"] == 20
    plane.wait_idle()


def test_a_shadow_that_cannot_be_ended_loses_its_thread_and_no_more(plane):
    serve(plane, Shadow("s", 1), Shadow("t", 2), script="hang_forever",
          versions=(1, 2, 3))  # fmt: skip
    call(plane)
    wait_until(lambda: _is_stuck(plane), "it is given up")
    # The other one has a new thread.
    before = settled(plane, "t")["pairs"]
    call(plane, 5)
    assert settled(plane, "t")["pairs"] == before + 5


def _is_stuck(plane):
    call(plane)
    return state(plane)["dropped"]["stuck"] > 0


def test_a_full_queue_drops_and_clients_do_not_wait():
    with Plane(loops=1, shadow_queue=4) as plane:
        plane.load("m", 1, "echo")
        plane.load("m", 2, "delay_us=30000")
        serve(plane)
        begun = time.monotonic()
        call(plane, 100)
        assert time.monotonic() - begun < SOON_S
        assert state(plane)["waiting"] <= 4
        found = settled(plane)
        assert found["dropped"]["full"] > 0
        assert found["pairs"] + found["dropped"]["full"] == 100


def test_what_shadows_hold_is_bounded():
    with Plane(loops=1, shadow_bytes_max=1000) as plane:
        plane.load("m", 1, "echo")
        plane.load("m", 2, "echo")
        serve(plane)
        for _ in range(5):
            call(plane, rows=1)
            settled(plane)
        call(plane, 5, rows=100)
        found = settled(plane)
        assert (found["pairs"], found["dropped"]["memory"]) == (5, 5)
        plane.wait_idle()


# -- tables, drain, other servers -----------------------------------------------------


def test_a_table_is_held_while_its_shadow_runs_and_no_longer(plane):
    serve(plane, script="delay_us=100000")
    call(plane)
    plane.publish(split("m", [1], 0))
    assert plane.snapshot()["tables"] == 2
    call(plane, 3)
    plane.wait_idle()
    assert settled(plane)["pairs"] == 1


def test_publishing_under_shadow_traffic_loses_no_answer(plane):
    serve(plane)
    for turn in range(10):
        call(plane, 10)
        plane.publish(shadowed(Shadow("s", 1 + turn % 2), versions=(1, 2, 3)))
    wait_until(lambda: _total(plane, "waiting") == 0, "shadows are done")
    plane.wait_idle()
    assert _total(plane, "pairs") == 100


def _total(plane, key):
    return sum(shadow[key] for shadow in plane.snapshot()["shadows"])


@pytest.mark.parametrize("script", ["delay_us=100000", "hang", "hang_forever"])
def test_stopping_waits_for_no_shadow(script):
    plane = Plane(loops=1)
    plane.load("m", 1, "echo")
    plane.load("m", 2, script)
    serve(plane)
    call(plane, 50)
    begun = time.monotonic()
    plane.engine.stop()
    assert time.monotonic() - begun < SOON_S
    plane.socket.close()


def test_draining_takes_no_more_and_waits_for_none(plane):
    serve(plane, script="hang")
    with RawClient(plane.address) as client:
        stream = client.open(grpc_fields())
        client.send_data(stream, message(request()))
        assert client.wait(stream).code == 0
    begun = time.monotonic()
    assert plane.engine.drain(10.0) == 0
    assert time.monotonic() - begun < SOON_S
    plane.engine.call(INFER, request())
    assert state(plane)["dropped"]["draining"] == 1


def upstream(address):
    return {
        "kind": "upstream", "targets": address, "upstream_model": "m",
        "input.0": "x|FP32|-1,4", "output.0": "y|FP32|-1,4",
    }  # fmt: skip


def test_a_shadow_may_live_in_another_server(plane):
    with Plane(loops=1) as far:
        far.load("m", 1, "echo")
        far.publish(split("m", [1], 0))
        far.start()
        plane.engine.load("m", 3, b"", upstream(far.address))
        plane.tags["m", 3] = far.tags["m", 1]
        serve(plane, Shadow("s", 1), versions=(1, 3))
        # Both of version 1 of a plane answer 1000 + loadings.
        call(plane, 10)
        found = settled(plane)
        assert (found["pairs"], found["failed"]) == (10, 0)
        assert found["run"]["count"] == 10
        assert far.codes()["OK"] == 10
        plane.wait_idle()


def test_a_shadow_in_a_server_that_is_away_or_silent_fails(plane):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        plane.engine.load("m", 3, b"", upstream(address))
        serve(plane, Shadow("s", 1), versions=(1, 3))
        begun = time.monotonic()
        call(plane, 5)
        assert time.monotonic() - begun < SOON_S
        found = settled(plane)
        assert (found["pairs"], found["failed"]) == (0, 5)


# -- pairs on the tape ----------------------------------------------------------------


def named(unit, id_="secret"):
    made = Request.FromString(request(id=id_))
    made.parameters["targeting_key"].string_param = unit
    return made.SerializeToString()


def test_the_worst_pairs_are_kept_without_the_unit(plane):
    serve(plane, Shadow("s", 1, salt="salt", buckets=EVERYONE))
    assert plane.engine.call(INFER, named("alice")).code == 0
    settled(plane)
    (pair,) = pairs(plane)
    assert (pair.model, pair.shadow) == ("m", "s")
    assert (pair.version, pair.shadow_version) == (1, 2)
    assert pair.differs
    assert not pair.is_random
    tags = [plane.tags["m", 1], plane.tags["m", 2]]
    assert pair.distance == abs(tags[0] - tags[1])
    for tensor, tag in zip((*pair.answered, *pair.shadowed), tags, strict=True):
        assert (tensor.name, tensor.datatype, tensor.shape) == ("y", "FP32", (1, 4))
        assert np.frombuffer(tensor.data, "<f4").tolist() == [tag] * 4
    assert pair.digest == xxh64(b"alice", xxh64(b"salt", 0))
    kept = Request.FromString(pair.body)
    assert kept.raw_input_contents == [bytes(16)]
    assert (kept.id, len(kept.parameters)) == ("", 0)
    assert b"alice" not in pair.body
    assert pair.body_bytes == len(named("alice"))


def test_few_pairs_are_kept_of_many_alike(plane):
    serve(plane)
    call(plane, 300)
    settled(plane)
    kept = pairs(plane)
    assert sum(not pair.is_random for pair in kept) == 1
    assert len(kept) <= 3


def test_pairs_that_cannot_be_compared_are_kept_with_the_reason(plane):
    serve(plane, script="nan")
    call(plane, 20)
    settled(plane)
    found = [pair.mismatch for pair in pairs(plane) if not pair.is_random]
    assert set(found) == {("nan",)}
    assert len(found) == 4


def test_a_body_in_which_an_input_is_the_unit_is_not_kept(plane):
    serve(plane, unit=Unit(tensor="x"))
    call(plane)
    settled(plane)
    (pair,) = pairs(plane)
    assert pair.body == b""
    assert pair.body_bytes > 0


@pytest.mark.parametrize(
    ("payload", "why"),
    [(b"\x10", "cut off"), (b"\x12\x05ab", "cut off"), (b"\x41\x00", "cut off"),
     (b"\x0b", "unknown kind")],
)  # fmt: skip
def test_bytes_that_are_no_pair_are_refused(payload, why):
    with pytest.raises(ValueError, match=why):
        read_pair(payload)


def test_a_disabled_shadow_needs_no_version(plane):
    made = shadowed(Shadow("s", 1))
    off = replace(made.variants[1], version=7, is_disabled=True)
    plane.engine.publish(table(replace(made, variants=(made.variants[0], off))))
    plane.start()
    call(plane, 3)
    assert state(plane)["sampled"] == 0


def test_a_shadow_that_is_not_loaded_is_refused(plane):
    with pytest.raises(EngineError, match="version 9 is not loaded"):
        plane.engine.publish(table(shadowed(Shadow("s", 1), versions=(1, 9))))
