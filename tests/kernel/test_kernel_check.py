"""What is not a routing table is refused, and nothing refused was read too far.

Every field of a small table is damaged and the revision renewed, so that the check and
not the hash has to find it. Whatever the check still accepts must route on both sides
alike: the address-sanitized build runs the same tests.
"""

import random
import struct
from dataclasses import replace

import pytest
from kernel_plans import buckets_of, plan_of, rule_of

from router._fasthash import Table
from router._fasthash_bytes import (
    ATTRIBUTE,
    HEADER,
    MODEL,
    NODE,
    RULE,
    SHADOW,
    VARIANT,
    revision_of,
)
from router._fasthash_py import read_table
from router.errors import TableError
from router.plan.encode import encode
from router.plan.plan import (
    All,
    Feature,
    MintKey,
    Model,
    Not,
    Op,
    Output,
    Plan,
    Reason,
    Shadow,
    Variant,
)
from router.plan.plan import Test as Ask

SECTIONS = ("models", "variants", "attributes", "unit_keys", "rules", "nodes",
            "operands", "regexes", "maps", "shares", "keys", "shadows")  # fmt: skip
CONDITION = All(
    (
        Ask("city", Op.IN, (b"a", b"bb")),
        Not(Ask("age", Op.RANGE, low=1.0, high=5.0)),
        Ask("app", Op.SEMVER, (b"1.2.3",), flags=3),
        Ask("name", Op.REGEX, (b"x+",)),
        Ask("unit", Op.PREFIX, (b"u",), on_unit=True),
    )
)
SHADOWED = bytes(5000) + bytes([1]) * 5000
HALVES = buckets_of((range(5000), 1), (range(5000, 9000), 2))
SAMPLE = Plan(
    "test",
    (
        *plan_of(
            rule_of("target", CONDITION),
            rule_of("split", buckets=HALVES, reason=Reason.SPLIT),
            options=(Variant("a", 1), Variant("b", 2), Variant("c", 2, 1, True)),
            output=Output("p"),
            has_prediction_id=True,
            shadows=(
                Shadow("sticky", 1, CONDITION, "s", SHADOWED),
                Shadow("drawn", 0, salt="s", sample_bp=500),
            ),
            features=(Feature("name", "x", 2),),
        ).models,
        Model("other", (Variant("x", 1),), 0),
    ),
    (MintKey(1, bytes(32)), MintKey(2, bytes(32))),
)
TABLE = encode(SAMPLE)
PLACES = dict(
    zip(SECTIONS, struct.iter_unpack("<II", TABLE[24 : 24 + 96]), strict=True)
)
MAP_AT, MAP_END = PLACES["maps"][0], PLACES["maps"][0] + 20_000
CALLS = (
    ({"city": "a", "age": 9, "app": "1.0.0", "name": "xx"}, b"user", 0),
    ({"city": "bb", "age": "3", "app": "2.0.0", "name": b"\xff"}, b"u", 1),
    ({}, None, 4),
)


def sealed(data: bytes) -> bytes:
    """The bytes with the revision they must carry."""
    data = bytes(data).ljust(24, b"\0") if len(data) < 24 else bytes(data)
    return data[:16] + revision_of(data).to_bytes(8, "little") + data[24:]


def damaged(at: int, kind: str, value: int | float | bytes) -> bytes:
    data = bytearray(TABLE)
    struct.pack_into("<" + kind, data, at, value)
    return sealed(data)


def at(section: str, index: int, layout: struct.Struct, offset: int) -> int:
    return PLACES[section][0] + index * layout.size + offset


def test_the_sample_is_a_table():
    assert Table(TABLE).revision == read_table(TABLE).revision == revision_of(TABLE)


REFUSED = [
    (0, "I", 1, "not a routing table"),
    (4, "I", 1, "format is unknown"),
    (4, "I", 3, "format is unknown"),
    (8, "Q", len(TABLE) + 8, "size"),
    (8, "Q", 2**32 + len(TABLE), "size"),
    (HEADER.size - 4, "I", 1, "header: a reserved"),
    (HEADER.size - 8, "I", 7, "cell_count"),
    *((24 + 8 * i, "I", 124, f"{name}: the section is not aligned")
      for i, name in enumerate(SECTIONS)),
    *((24 + 8 * i, "I", 64, f"{name}: the section is not aligned")
      for i, name in enumerate(SECTIONS)),
    *((24 + 8 * i, "I", 0xFFFFFFF8, f"{name}: the section ends outside")
      for i, name in enumerate(SECTIONS)),
    *((28 + 8 * i, "I", 0xFFFFFFFF, f"{name}: the section ends outside")
      for i, name in enumerate(SECTIONS)),
    (at("models", 0, MODEL, 0), "I", 0xFFFFFFFF, r"models\[0\]: the name"),
    (at("models", 0, MODEL, 4), "I", 0, r"models\[0\]: the name"),
    (at("models", 0, MODEL, 4), "I", 257, r"models\[0\]: the name"),
    (at("models", 1, MODEL, 4), "I", 0, r"models\[1\]: the name"),
    (at("models", 0, MODEL, 8), "I", 2, "the variants are out of range"),
    (at("models", 0, MODEL, 12), "I", 0, "the variants are out of range"),
    (at("models", 0, MODEL, 12), "I", 65, "the variants are out of range"),
    (at("models", 0, MODEL, 16), "I", 0xFFFFFFFF, "the attributes are out of range"),
    (at("models", 0, MODEL, 20), "I", 65, "the attributes are out of range"),
    (at("models", 0, MODEL, 24), "I", 0xFFFFFFFF, "the rules are out of range"),
    (at("models", 0, MODEL, 28), "I", 3, "the rules are out of range"),
    (at("models", 0, MODEL, 32), "I", 0xFFFFFFFF, "the unit keys are out of range"),
    (at("models", 0, MODEL, 36), "I", 65, "the unit keys are out of range"),
    (at("models", 0, MODEL, 44), "I", 257, "a tensor name"),
    (at("models", 0, MODEL, 48), "I", len(TABLE), "a tensor name"),
    (at("models", 0, MODEL, 56), "d", float("nan"), "output range"),
    (at("models", 0, MODEL, 76), "I", 3, "stable is not one"),
    (at("models", 0, MODEL, 76), "I", 2, "stable is disabled"),
    (at("models", 0, MODEL, 80), "I", 1, r"models\[0\]: the cells"),
    (at("models", 0, MODEL, 84), "I", 4, r"models\[0\]: the cells"),
    (at("models", 0, MODEL, 88), "B", 3, "a setting is unknown"),
    (at("models", 0, MODEL, 89), "B", 3, "a setting is unknown"),
    (at("models", 0, MODEL, 90), "B", 4, "a setting is unknown"),
    (at("models", 0, MODEL, 91), "B", 16, "a setting is unknown"),
    (at("models", 0, MODEL, 92), "B", 6, "a setting is unknown"),
    (at("models", 0, MODEL, 93), "B", 1, r"models\[0\]: a reserved"),
    (at("models", 0, MODEL, 94), "H", 10_001, "a setting is unknown"),
    (at("models", 0, MODEL, 120), "I", 0xFFFFFFFF, "the recorded keys are out"),
    (at("models", 0, MODEL, 124), "I", 65, "the recorded keys are out"),
    (at("models", 0, MODEL, 104), "d", float("nan"), "output threshold"),
    (at("models", 0, MODEL, 112), "I", 0xFFFFFFFF, "the shadows are out of range"),
    (at("models", 0, MODEL, 116), "I", 3, "the shadows are out of range"),
    (28 + 8 * 11, "I", 1, "the shadows are out of range"),
    (at("shadows", 0, SHADOW, 4), "I", 0, r"shadows\[0\]: the name"),
    (at("shadows", 0, SHADOW, 16), "I", 0xFFFFFFFF, r"shadows\[0\]: the program"),
    (at("shadows", 0, SHADOW, 20), "I", 4097, r"shadows\[0\]: the program"),
    (at("shadows", 0, SHADOW, 20), "I", 3, r"nodes\[.\]: '(yes|no)' does not jump"),
    (at("shadows", 0, SHADOW, 24), "I", 2, r"shadows\[0\]: the bucket map is out"),
    (at("shadows", 1, SHADOW, 24), "I", 0, r"shadows\[1\]: a bucket is not 0 or 1"),
    (at("shadows", 0, SHADOW, 32), "d", float("nan"), r"shadows\[0\]: a tolerance"),
    (at("shadows", 1, SHADOW, 40), "d", -1.0, r"shadows\[1\]: a tolerance"),
    (at("shadows", 1, SHADOW, 48), "H", 10_001, r"shadows\[1\]: the share"),
    (at("shadows", 1, SHADOW, 50), "B", 3, r"shadows\[1\]: the variant"),
    (at("shadows", 1, SHADOW, 55), "B", 1, r"shadows\[1\]: the share"),
    (MAP_AT + 10_000, "B", 2, r"shadows\[0\]: a bucket is not 0 or 1"),
    (at("variants", 0, VARIANT, 4), "I", 0, r"variants\[0\]: the name"),
    (at("variants", 1, VARIANT, 8), "I", 1, r"variants\[1\]: not after"),
    (at("variants", 2, VARIANT, 12), "H", 0, r"variants\[2\]: not after"),
    (at("variants", 1, VARIANT, 14), "H", 2, r"variants\[1\]: a flag"),
    (at("variants", 1, VARIANT, 20), "I", 1, r"variants\[1\]: a flag"),
    (at("attributes", 0, ATTRIBUTE, 4), "I", 0, r"attributes\[0\]: the name"),
    (at("attributes", 0, ATTRIBUTE, 16), "I", 3, r"attributes\[0\]: the source"),
    (at("attributes", 0, ATTRIBUTE, 16), "I", 2, r"attributes\[0\]: the tensor"),
    (at("attributes", 0, ATTRIBUTE, 12), "I", 1, r"attributes\[0\]: a reserved"),
    (at("attributes", 0, ATTRIBUTE, 20), "I", 1, r"attributes\[0\]: a reserved"),
    (at("attributes", 3, ATTRIBUTE, 12), "I", 0, r"attributes\[3\]: the tensor"),
    (at("attributes", 3, ATTRIBUTE, 8), "I", len(TABLE), r"attributes\[3\]: the ten"),
    (PLACES["unit_keys"][0] + 4, "I", 0, r"unit_keys\[0\]: the name"),
    (PLACES["operands"][0], "I", len(TABLE), r"operands\[0\]"),
    (PLACES["regexes"][0] + 4, "I", 0xFFFFFFFF, r"regexes\[0\]"),
    (PLACES["keys"][0] + 1, "B", 1, r"keys\[0\]: a reserved"),
    (PLACES["keys"][0], "B", 2, r"keys\[1\]: the id is taken"),
    (24 + 8 * 10 + 4, "I", 0, "prediction ids need a key"),
    (at("rules", 0, RULE, 4), "I", 0, r"rules\[0\]: the name"),
    (at("rules", 0, RULE, 16), "I", 0xFFFFFFFF, r"rules\[0\]: the program"),
    (at("rules", 0, RULE, 20), "I", 11, r"rules\[0\]: the program"),
    (at("rules", 0, RULE, 20), "I", 4097, r"rules\[0\]: the program"),
    (at("rules", 0, RULE, 20), "I", 3, r"nodes\[.\]: '(yes|no)' does not jump"),
    (at("rules", 1, RULE, 24), "I", 2, r"rules\[1\]: the bucket map is out"),
    (at("rules", 1, RULE, 28), "I", 1, r"rules\[1\]: the shares are out"),
    (at("rules", 0, RULE, 32), "I", 5, r"rules\[0\]: the cells"),
    (at("rules", 0, RULE, 52), "B", 3, r"rules\[0\]: the variant"),
    (at("rules", 0, RULE, 53), "B", 8, r"rules\[0\]: the reason"),
    (at("rules", 0, RULE, 54), "B", 2, r"rules\[0\]: the reason"),
    (at("rules", 0, RULE, 55), "B", 1, r"rules\[0\]: the reason"),
    (at("rules", 0, RULE, 44), "I", 1, r"rules\[0\]: the scope"),
    (at("rules", 1, RULE, 44), "I", 257, r"rules\[1\]: the scope"),
    (MAP_AT + 77, "B", 3, "the bucket map names no variant"),
    (PLACES["shares"][0], "H", 0, "answers with a share of 0"),
    (PLACES["shares"][0] + 2, "H", 0, "answers with a share of 0"),
    (PLACES["shares"][0] + 2, "H", 6001, "add up to more"),
    (at("nodes", 0, NODE, 0), "B", 12, r"nodes\[0\]: the test is unknown"),
    (at("nodes", 0, NODE, 1), "B", 1, r"nodes\[0\]: a flag"),
    (at("nodes", 2, NODE, 1), "B", 8, r"nodes\[2\]: a flag"),
    (at("nodes", 0, NODE, 2), "H", 5, r"nodes\[0\]: the attribute"),
    (at("nodes", 1, NODE, 4), "H", 1, r"nodes\[1\]: 'yes' does not jump"),
    (at("nodes", 1, NODE, 6), "H", 5, r"nodes\[1\]: 'no' does not jump"),
    (at("nodes", 1, NODE, 16), "d", float("nan"), r"nodes\[1\]: a bound"),
    (at("nodes", 1, NODE, 24), "d", float("nan"), r"nodes\[1\]: a bound"),
    (at("nodes", 0, NODE, 8), "I", 0xFFFFFFFF, r"nodes\[0\]: the operands"),
    (at("nodes", 2, NODE, 12), "I", 0, r"nodes\[2\]: the operand is not"),
    (at("nodes", 2, NODE, 8), "I", 0, r"nodes\[2\]: the operand is not"),
    (at("nodes", 3, NODE, 8), "I", 1, r"nodes\[3\]: the pattern"),
    (at("nodes", 3, NODE, 12), "I", 2, r"nodes\[3\]: the pattern"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "kind", "value", "message"), REFUSED)
def test_a_field_out_of_range_is_refused_and_named(place, kind, value, message):
    with pytest.raises(TableError, match=message):
        Table(damaged(place, kind, value))


@pytest.mark.parametrize("length", [0, 1, 7, 24, HEADER.size - 1, HEADER.size])
def test_a_table_cut_short_is_refused(length):
    with pytest.raises(TableError):
        Table(sealed(TABLE[:length]))


def test_a_table_with_bytes_after_it_is_refused():
    with pytest.raises(TableError, match="size"):
        Table(sealed(TABLE + b"\0"))


def test_a_table_whose_revision_is_not_its_hash_is_refused():
    data = bytearray(TABLE)
    data[MAP_AT] ^= 1
    with pytest.raises(TableError, match="revision"):
        Table(bytes(data))


def test_unsorted_operands_are_refused():
    first = PLACES["operands"][0]
    data = bytearray(TABLE)
    swapped = TABLE[first + 8 : first + 16] + TABLE[first : first + 8]
    data[first : first + 16] = swapped
    with pytest.raises(TableError, match="not sorted"):
        Table(sealed(data))


def test_upper_case_unit_keys_are_refused():
    data = TABLE.replace(b"x-user-id", b"x-User-id")
    with pytest.raises(TableError, match="lower case"):
        Table(sealed(data))


@pytest.mark.parametrize(
    "name",
    [b"\xff", b"\x80", b"\xc0\x80", b"\xc2", b"\xe0\x80\x80", b"\xed\xa0\x80",
     b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe2\x82",
     b"\xc2\x41"],
)  # fmt: skip
def test_a_name_that_is_not_utf_8_is_refused(name):
    placeholder = "n" * len(name)
    plan = Plan("test", (replace(SAMPLE.models[1], name=placeholder),))
    data = encode(plan)
    with pytest.raises(TableError, match="UTF-8"):
        Table(sealed(data.replace(placeholder.encode(), name, 1)))


@pytest.mark.parametrize("name", ["é", "€", "𝄞", "\u07ff", "\U0010ffff", "\ud7ff"])
def test_a_name_of_any_utf_8_is_accepted(name):
    plan = Plan("test", (replace(SAMPLE.models[1], name=name),))
    assert Table(encode(plan)).route(name, {}, b"u", 0).variant == 0


def same_length(pattern: bytes, value: bytes) -> bool:
    """In place of a regex, because a damaged pattern need not be one."""
    return len(pattern) == len(value)


def route_if_accepted(data: bytes) -> bool:
    """Whether the check accepts; then every route has to work, on both sides alike."""
    try:
        kernel = Table(data)
    except TableError:
        return False
    twin = read_table(data)
    for model in twin.models:
        for attributes, unit, source in CALLS:
            for pin in (-1, 2):
                asked = (model, attributes, unit, source, pin, 1, same_length)
                assert kernel.route(*asked) == twin.route(*asked)
                taken = asked[:-1]
                assert kernel.shadows(*taken) == twin.shadows(*taken)
    return True


def flip_everywhere(places: range | list[int], bits: range) -> tuple[int, int]:
    """(tried, accepted) after flipping each of these bits alone."""
    tried = accepted = 0
    for place in places:
        for bit in bits:
            data = bytearray(TABLE)
            data[place] ^= 1 << bit
            tried += 1
            accepted += route_if_accepted(sealed(data))
    return tried, accepted


OUTSIDE_THE_MAP = [*range(MAP_AT), *range(MAP_END, len(TABLE))]


def test_a_flipped_bit_is_refused_or_harmless():
    dealer = random.Random(11)
    tried, accepted = flip_everywhere(dealer.sample(OUTSIDE_THE_MAP, 150), range(3, 5))
    assert 0 < accepted < tried


@pytest.mark.slow
def test_every_flipped_bit_outside_the_map_is_refused_or_harmless():
    tried, accepted = flip_everywhere(OUTSIDE_THE_MAP, range(8))
    assert 0 < accepted < tried


@pytest.mark.slow
def test_every_flipped_bit_of_the_map_is_refused_or_harmless():
    tried, accepted = flip_everywhere(range(MAP_AT, MAP_END), range(0, 8, 7))
    assert 0 < accepted < tried


def test_random_words_anywhere_are_refused_or_harmless():
    dealer = random.Random(12)
    for _ in range(300):
        data = bytearray(TABLE)
        for _ in range(dealer.randint(1, 3)):
            place = dealer.choice(OUTSIDE_THE_MAP) & ~3
            word = dealer.choice((0, 1, 2, 0xFF, 0xFFFF, 0xFFFFFFFF, len(TABLE)))
            struct.pack_into("<I", data, place, word)
        route_if_accepted(sealed(data))


def test_random_bytes_are_refused():
    dealer = random.Random(13)
    for length in range(0, 400, 7):
        assert not route_if_accepted(sealed(dealer.randbytes(length)))
        assert not route_if_accepted(sealed(TABLE[:24] + dealer.randbytes(length)))
