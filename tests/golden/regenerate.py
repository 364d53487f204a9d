"""Write the golden vectors of assignment: `python tests/golden/regenerate.py`.

A change in digest.json, buckets.json or claims.json re-deals every user of every
rollout: it is a major version, and every other implementation of the bucketing has to
follow. A change in decisions.json means that published tables read differently, or that
the bytes of a table changed and routers of two versions can no longer share one. The
vectors come from the specification, `router/_fasthash_py.py`; the tests hold the kernel
to them.

Plain JSON, so that other languages can use them. Bytes are hexadecimal, the table
base64; an attribute that is {"hex": ...} is bytes. A regex test is a full match.
"""

import base64
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router import _fasthash_py as specification
from router.plan.encode import encode
from router.plan.plan import (
    BUCKET_COUNT,
    CONTINUE,
    All,
    AnyOf,
    Feature,
    MintKey,
    Model,
    Not,
    OnMissing,
    Op,
    Output,
    OutputKind,
    Pins,
    Plan,
    Reason,
    Rule,
    Test,
    Unit,
    Variant,
)

DIRECTORY = Path(__file__).parent
SALTS = ("", "credit", "layer-1", "été")
UNITS = (
    b"", b"\x00", b"a", b"user-1", b"user-2", b"42", b"4242424242424242",
    b"\xff\xfe\x00",
    b"0123456789abcdef0123456789abcde", b"0123456789abcdef0123456789abcdef",
    b"3f2504e0-4f89-41d3-9a0c-0305e82c3301", b"first.last@example.com",
    "zoë@exämple.com".encode(), bytes(range(256)),
)  # fmt: skip
NUMBER = 0x0123456789ABCDEF


def digests() -> list[dict[str, Any]]:
    return [
        {"data": unit.hex(), "seed": seed, "digest": specification.xxh64(unit, seed)}
        for unit in UNITS
        for seed in (0, 1, 2**64 - 1)
    ]


def buckets() -> list[dict[str, Any]]:
    return [
        {"unit": unit.hex(), "salt": salt, "bucket": specification.bucket(unit, salt)}
        for unit in UNITS
        for salt in SALTS
    ]


def claims() -> list[dict[str, Any]]:
    return [{"salt": "credit-2", "order": list(specification.claim_order("credit-2"))}]


def plan() -> Plan:
    """A little of everything a table can say."""
    map_of = bytearray([CONTINUE]) * BUCKET_COUNT
    for bucket in specification.claim_order("credit-2")[:3000]:
        map_of[bucket] = 1
    for bucket in specification.claim_order("credit-2")[3000:4000]:
        map_of[bucket] = 2
    adults = All((Test("location", Op.IN, (b"new-york", b"boston")),
                  Test("age", Op.RANGE, low=18.0, high=65.0)))  # fmt: skip
    staff = AnyOf((Test("unit", Op.SUFFIX, (b"@example.com",), on_unit=True),
                   Not(Test("app", Op.SEMVER, (b"2.0.0-rc.1",), flags=6))))  # fmt: skip
    recent = Test("joined", Op.AFTER, low=1_700_000_000.0)
    named = Test("name", Op.REGEX, (b"[a-z]{3,}",))
    credit = Model(
        "credit",
        (Variant("one", 1), Variant("two", 2), Variant("two-b", 2, 1, True, 20_000)),
        0,
        (
            Rule("adults", adults, "routes", None, 1, Reason.TARGETING_MATCH),
            Rule("staff", All((Test("app", Op.PRESENT), staff)), "routes", None, 1,
                 Reason.OVERRIDE),
            Rule("credit-2", None, "credit", bytes(map_of), 1, Reason.SPLIT, 5),
            Rule("recent", AnyOf((recent, named)), "x", None, 0, Reason.HOLDOUT, 6),
        ),
        output=Output("probabilities", 1, OutputKind.PROBABILITY, 0.0, 1.0),
        has_prediction_id=True,
        features=(Feature("age", "X", 1),),
    )  # fmt: skip
    bare = Model("bare", (Variant("7", 7),), 0, pins=Pins.DENY,
                 unit=Unit(("x-user-id",), "user", OnMissing.REJECT))  # fmt: skip
    return Plan("golden", (credit, bare), (MintKey(1, bytes(range(32))),))


REQUESTS: tuple[tuple[str, dict[str, Any], bytes | None, int], ...] = (
    ("credit", {"location": "new-york", "age": 30}, b"user-1", -1),
    ("credit", {"location": "boston", "age": "65.0"}, b"user-1", -1),
    ("credit", {"location": "boston", "age": "66"}, b"user-1", -1),
    ("credit", {"location": {"hex": "ff"}, "age": 2.5}, b"user-2", -1),
    ("credit", {"app": "1.9.9"}, b"user-3", -1),
    ("credit", {"app": "2.0.0-rc.1"}, b"me@example.com", -1),
    ("credit", {"app": "2.0.0"}, b"user-3", -1),
    ("credit", {"joined": "2024-02-29T12:00:00+01:00"}, b"user-4", -1),
    ("credit", {"joined": "2020-02-29", "name": "abc"}, b"user-5", -1),
    ("credit", {"joined": "2020-02-29", "name": "ABC"}, b"user-6", -1),
    ("credit", {}, None, -1),
    ("credit", {}, b"", -1),
    ("credit", {}, b"user-1", 1),
    ("credit", {}, b"user-1", 2),
    ("credit", {}, b"user-1", 3),
    ("bare", {}, None, -1),
    ("bare", {}, b"user-1", -1),
    ("bare", {}, b"user-1", 7),
    *(("credit", {}, b"%d" % n, -1) for n in range(40)),
)


def full_match(pattern: bytes, value: bytes) -> bool:
    return re.fullmatch(pattern, value) is not None


def decoded(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as `route` takes them."""
    return {
        key: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        for key, value in attributes.items()
    }


def decisions() -> dict[str, Any]:
    data = encode(plan())
    table = specification.read_table(data)
    vectors = []
    for model, attributes, unit, pin in REQUESTS:
        source = 4 if unit is None else 1
        decision = table.route(
            model, decoded(attributes), unit, source, pin, NUMBER, full_match
        )
        request = {
            "model": model, "attributes": attributes, "unit_source": source, "pin": pin,
            "unit": None if unit is None else unit.hex(), "random": NUMBER,
        }  # fmt: skip
        vectors.append({"request": request, "decision": asdict(decision)})
    return {"table": base64.b64encode(data).decode(), "vectors": vectors}


def documents() -> dict[str, Any]:
    """What each golden file must say."""
    return {
        "digest.json": digests(),
        "buckets.json": buckets(),
        "claims.json": claims(),
        "decisions.json": decisions(),
    }


def text_of(document: Any) -> str:
    """One vector a line, so that a change shows as the vectors that changed."""
    if isinstance(document, list):
        lines = ",\n".join(json.dumps(vector) for vector in document)
        return f"[\n{lines}\n]\n"
    if not isinstance(document, dict):
        return json.dumps(document)
    fields = (f'"{key}": {text_of(value).strip()}' for key, value in document.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


if __name__ == "__main__":
    for name, document in documents().items():
        (DIRECTORY / name).write_text(text_of(document))
