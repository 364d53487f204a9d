"""What must not move: published digests, buckets, claim order and decisions.

A failure here means that users of a running rollout change version on upgrade.
tests/golden/regenerate.py says who is hurt and how to renew the files.
"""

import base64
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from router.plan.encode import encode

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import regenerate  # noqa: E402


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def test_golden_digests_do_not_move(side):
    for vector in golden("digest.json"):
        data = bytes.fromhex(vector["data"])
        assert side.functions.xxh64(data, vector["seed"]) == vector["digest"]


def test_golden_buckets_do_not_move(side):
    for vector in golden("buckets.json"):
        unit = bytes.fromhex(vector["unit"])
        assert side.functions.bucket(unit, vector["salt"]) == vector["bucket"]


def test_the_golden_claim_order_does_not_move(side):
    for vector in golden("claims.json"):
        assert list(side.functions.claim_order(vector["salt"])) == vector["order"]


def test_golden_decisions_do_not_move(side):
    document = golden("decisions.json")
    table = side.table(base64.b64decode(document["table"]))
    for vector in document["vectors"]:
        request = vector["request"]
        unit = request.pop("unit")
        decision = table.route(
            attributes=regenerate.decoded(request.pop("attributes")),
            unit=None if unit is None else bytes.fromhex(unit),
            regex=regenerate.full_match,
            **request,
        )
        assert asdict(decision) == vector["decision"]


def test_the_golden_plan_still_has_the_golden_bytes():
    table = base64.b64decode(golden("decisions.json")["table"])
    assert encode(regenerate.plan()) == table


def test_golden_decisions_show_every_kind_of_answer():
    decisions = [v["decision"] for v in golden("decisions.json")["vectors"]]
    assert {d["reason"] for d in decisions} == {0, 1, 2, 3, 4, 5, 7}  # 6: the engine's
    assert {d["outcome"] for d in decisions} == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["digest.json", "buckets.json", "claims.json",
                                  "decisions.json"])  # fmt: skip
def test_a_golden_file_is_what_its_command_writes(name):
    document = regenerate.documents()[name]
    assert (GOLDEN / name).read_text() == regenerate.text_of(document)
