"""Who a unit is: the digest against the xxhash package, and the bucket it falls in."""

import random

import pytest
import xxhash

from router import _fasthash
from router._fasthash_py import bucket_of

SEEDS = (0, 1, 0x9E3779B185EBCA87, 2**64 - 1)
MEBIBYTE = 2**20


def test_the_digest_is_xxh64_at_every_length_up_to_300(side):
    data = random.Random(1).randbytes(300)
    for length in range(301):
        seed = SEEDS[length % len(SEEDS)]
        expected = xxhash.xxh64_intdigest(data[:length], seed)
        assert side.functions.xxh64(data[:length], seed) == expected


@pytest.mark.parametrize("length", [1000, 4096, 65_537])
def test_the_digest_of_long_input_is_xxh64(side, length):
    data = random.Random(length).randbytes(length)
    assert side.functions.xxh64(data, 7) == xxhash.xxh64_intdigest(data, 7)


def test_the_digest_of_ten_megabytes_is_xxh64():
    data = bytes(range(256)) * (10 * MEBIBYTE // 256)
    assert _fasthash.xxh64(data, 0) == xxhash.xxh64_intdigest(data, 0)


@pytest.mark.slow
def test_the_specification_digests_ten_megabytes_alike(side):
    data = bytes(range(256)) * (10 * MEBIBYTE // 256)
    assert side.functions.xxh64(data, 0) == xxhash.xxh64_intdigest(data, 0)


@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        (0, 0),
        (2**32 - 1, 0),
        (2**64 - 1, 9999),
        # ceil(2**32 / 10000) = 429497: the first upper half that scales to bucket 1.
        (429_496 << 32, 0),
        (429_497 << 32, 1),
    ],
)
def test_a_bucket_is_the_upper_half_of_the_digest_scaled(digest, expected):
    assert bucket_of(digest) == expected


@pytest.mark.parametrize(
    "unit",
    [b"", b"\x00", b"a\x00", b"a\x00b", b"\xff\xfe", "é".encode("latin-1"), b" " * 33],
)
def test_empty_nul_and_undecodable_units_have_a_bucket(side, unit):
    expected = xxhash.xxh64_intdigest(unit, xxhash.xxh64_intdigest(b"salt", 0))
    assert side.functions.bucket(unit, "salt") == (expected >> 32) * 10_000 >> 32


def test_a_unit_of_ten_megabytes_has_a_bucket():
    unit = b"u" * (10 * MEBIBYTE)
    expected = xxhash.xxh64_intdigest(unit, xxhash.xxh64_intdigest(b"salt", 0))
    assert _fasthash.bucket(unit, "salt") == (expected >> 32) * 10_000 >> 32


def test_salt_and_unit_do_not_run_together(side):
    text = "layer-7:user-42"
    digests = {
        side.functions.xxh64(text[cut:].encode(), side.functions.xxh64(salt, 0))
        for cut in range(len(text) + 1)
        for salt in [text[:cut].encode()]
    }
    assert len(digests) == len(text) + 1


def test_claim_order_is_every_bucket_once(side):
    assert sorted(side.functions.claim_order("roll")) == list(range(10_000))


def test_claim_order_is_that_of_the_bucket_digests(side):
    seed = xxhash.xxh64_intdigest(b"roll", 0)
    digests = [
        xxhash.xxh64_intdigest(bucket.to_bytes(2, "little"), seed)
        for bucket in side.functions.claim_order("roll")
    ]
    assert digests == sorted(digests)


def test_claim_orders_of_two_salts_differ(side):
    first, second = map(side.functions.claim_order, ("a", "b"))
    # Two random orders agree at a place with chance 1/10,000: one place expected.
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 8
