"""A slice of stable set apart: same version, same session, counted and queued apart."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
from plane import INFER, Plane, Response, request
from rawwire import DATA, END_STREAM, RawClient, frame, grpc_fields, message

from router._fasthash import bucket
from router.plan.plan import Model, Reason, Rule, Variant
from router.testing import wait_until

VARIANTS = (Variant("v1", 1), Variant("v1-baseline", 1, 1), Variant("v2", 2))
HALVES = bytes(b * 2 // 10_000 for b in range(10_000))
RULE = Rule("canary", None, "salt", HALVES, 0, Reason.SPLIT, 1, "s", 1)
MODEL = Model("m", VARIANTS, 0, (RULE,))


def ask(plane: Plane, unit: str, version: str = "") -> Any:
    metadata = [("x-user-id", unit.encode())]
    got = plane.engine.call(INFER, request(version=version), metadata)
    assert got.code == 0, got.detail
    return Response.FromString(got.message)


def plane_of(script: str = "echo", **options: int) -> Plane:
    plane = Plane(**{"loops": 1, **options})
    for version in (1, 2):
        plane.load("m", version, script)
    plane.publish(MODEL)
    plane.start()
    return plane


def test_the_slice_is_stable_counted_and_told_apart() -> None:
    with plane_of() as plane:
        answers = [ask(plane, f"user-{n}") for n in range(100)]
        told = [answer.parameters["route_variant"].string_param for answer in answers]
        assert {answer.model_version for answer in answers} == {"1"}
        assert 20 < told.count("v1-baseline") < 80
        variants = {v["variant"]: v for v in plane.snapshot()["variants"]}
        for name in ("v1", "v1-baseline"):
            entry = variants[name]
            assert entry["codes"] == {"OK": told.count(name)}
            assert entry["stages"]["run"]["count"] == told.count(name)
        assert (
            variants["v1-baseline"]["version"],
            variants["v1-baseline"]["ordinal"],
        ) == (1, 1)
        routed = [e for e in plane.snapshot()["routed"] if e["rule"] == "canary"]
        by_ordinal = {(e["version"], e["ordinal"]): e["metadata"] for e in routed}
        assert by_ordinal == {
            (1, 0): told.count("v1"), (1, 1): told.count("v1-baseline"), (2, 0): 0,
        }  # fmt: skip


def test_the_slice_shares_the_session() -> None:
    with plane_of() as plane:
        for n in range(20):
            ask(plane, f"user-{n}")
        versions = plane.snapshot()["versions"]
        assert [(v["version"], v["rows"]) for v in versions] == [(1, 20), (2, 0)]


def test_a_pin_means_stable_and_not_its_slice() -> None:
    with plane_of() as plane:
        answer = ask(plane, "anyone", version="1")
        assert answer.parameters["route_variant"].string_param == "v1"


def test_nothing_of_the_slice_is_batched_with_stable() -> None:
    # One executor, kept busy: what waits behind it could join one run.
    with plane_of("delay_us=20000", executors=1, loop_run_us=0) as plane:
        units = [f"user-{n}" for n in range(12)]
        callers = [threading.Thread(target=ask, args=(plane, unit)) for unit in units]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        (version, _) = plane.snapshot()["versions"]
        assert version["rows"] == 12
        assert 2 <= version["runs"] < 12  # some were, but not those of the two together


def test_whoever_runs_first_changes_from_turn_to_turn() -> None:
    rounds, delay_s = 8, 0.01
    model = replace(MODEL, rules=())
    with plane_of(
        f"delay_us={int(delay_s * 1e6)}", executors=1, loop_run_us=0
    ) as plane:
        plane.publish(model)
        with RawClient(plane.address) as client:
            for _ in range(rounds):
                # One read brings both, stable's always first.
                streams = [client.open(grpc_fields()) for _ in range(2)]
                client.send(
                    b"".join(
                        frame(
                            DATA, END_STREAM, stream, message(request(version=str(v)))
                        )
                        for v, stream in enumerate(streams, 1)
                    )
                )
                for stream in streams:
                    assert client.wait(stream).code == 0
        total = {
            v["variant"]: v["stages"]["total"] for v in plane.snapshot()["variants"]
        }
        for variant in ("v1", "v2"):
            # Bucket indices are 32 to the octave: first means one delay, second two.
            waits = [
                2.0 ** (i / 32) for i, n in total[variant]["buckets"] for _ in range(n)
            ]
            assert len(waits) == rounds
            assert sum(wait < 1.5 * delay_s for wait in waits) >= rounds // 4, waits


def test_under_load_and_publishes_every_request_is_counted_in_one_place() -> None:
    """Stock clients on several loops, while revisions of the rollout come and go."""
    callers, each, revisions = 4, 150, 5
    units = [f"user-{n}" for n in range(100)]
    with plane_of(loops=2) as plane, ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask_often, plane.address, units, each)
                 for _ in range(callers)]  # fmt: skip
        for revision in range(2, revisions + 1):
            served = each * callers * (revision - 1) // revisions
            wait_until(lambda n=served: answered(plane) >= n, "more answers")
            rule = replace(RULE, rollout_revision=revision)
            plane.publish(replace(MODEL, rules=(rule,)))
        told = sum((future.result() for future in asked), Counter())
        wait_until(lambda: plane.snapshot()["calls"] == 0, "all is counted")
        firsts = plane.snapshot()["firsts"]
    by_variant: Counter[str] = Counter()
    exposed: Counter[int] = Counter()
    for entry in firsts:
        by_variant[entry["variant"]] += entry["requests"]
        exposed[entry["ordinal"]] += entry["sticky"]["exposure"]
    assert by_variant == told
    assert sum(told.values()) == callers * each
    assert told["v1-baseline"] > 0
    # One filter for all loops and revisions: a unit is new once.
    dealt = [HALVES[bucket(unit.encode(), "salt")] for unit in units]
    assert exposed == {0: dealt.count(0), 1: dealt.count(1)}
    seen = {entry["rollout_revision"] for entry in firsts if entry["requests"]}
    assert len(seen) > 1, "all was over before a publish"


def answered(plane: Plane) -> int:
    return sum(plane.codes().values())


def ask_often(address: str, units: list[str], times: int) -> Counter[str]:
    """So many calls of a client of its own; the variants that answered."""
    told: Counter[str] = Counter()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        call = channel.unary_unary(INFER, None, Response.FromString)
        for at in range(times):
            metadata = (("x-user-id", units[at % len(units)]),)
            answer = call(request(), metadata=metadata, timeout=30)
            told[answer.parameters["route_variant"].string_param] += 1
    return told
