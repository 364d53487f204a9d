"""How a value is read: numbers against float(), times against datetime, versions."""

import math
import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_plans import unhurried

from router import _fasthash, _fasthash_py


def read_both(name, text):
    """What kernel and twin read, which must be the same."""
    ours = getattr(_fasthash, name)(text)
    assert ours == getattr(_fasthash_py, name)(text)
    return ours


@pytest.mark.parametrize(
    "text",
    ["0", "-0", "+1", "7", "1.5", ".5", "5.", "-.5", "1e3", "1E+3", "1e-3", "00012",
     "123456789012345", "1234567890123456789", "9007199254740993", "1e22", "1e23",
     "1e-22", "1e-23", "2.2250738585072014e-308", "5e-324", "1e-400", "1e400", "-1e999",
     "0e99999999999", "0." + "0" * 50 + "1", "9" * 64, "179769313486231580793e289"],
)  # fmt: skip
def test_numbers_are_read_as_float_reads_them(side, text):
    assert side.functions.read_number(text.encode()) == float(text)
    sign = math.copysign(1, side.functions.read_number(text.encode()))
    assert sign == math.copysign(1, float(text))


@pytest.mark.parametrize(
    "text",
    [b"", b"+", b"-", b".", b"e5", b".e5", b"1e", b"1e+", b"1.2.3", b" 1", b"1 ",
     b"1_0", b"inf", b"nan", b"0x10", b"1,5", b"--1", b"1\x00", b"\xd9\xa1",
     b"1" * 65, b"1f"],
)  # fmt: skip
def test_what_is_not_a_plain_decimal_is_not_a_number(side, text):
    assert side.functions.read_number(text) is None


def test_a_number_has_a_decimal_point_in_every_locale():
    import locale

    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):  # whichever the machine has
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
            except locale.Error:
                continue
            assert _fasthash.read_number(b"1.2345678901234567891") == 1.2345678901234568
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


@unhurried(100)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_read_back_exactly(value):
    for text in (repr(value), f"{value:.17e}", f"{value:.6e}"):
        assert read_both("read_number", text.encode()) == float(text)


@unhurried(100)
@given(st.text("0123456789.+-eE", max_size=12))
def test_kernel_and_twin_agree_on_what_is_a_number(text):
    read_both("read_number", text.encode())


@unhurried(100)
@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_times_are_read_as_datetime_reads_them(moment, east_minutes):
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=east_minutes)))
    whole = zoned.replace(microsecond=0)
    elapsed = whole - datetime(1970, 1, 1, tzinfo=UTC)
    expected = elapsed.days * 86_400 + elapsed.seconds + moment.microsecond / 10**6
    text = zoned.isoformat(timespec="microseconds").encode()
    assert read_both("read_time", text) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1970-01-01", 0.0),
        (b"1969-12-31T23:59:59Z", -1.0),
        (b"1970-01-01T00:00:00", 0.0),
        (b"1970-01-01t00:00:01z", 1.0),
        (b"1970-01-01 00:00:01", 1.0),
        (b"1970-01-01T01:00:00+01:00", 0.0),
        (b"1970-01-01T00:00:00-00:30", 1800.0),
        (b"1970-01-01T00:00:00.5", 0.5),
        (b"1970-01-01T00:00:00.1234567899Z", 0.123456789),
        (b"2000-02-29", 951_782_400.0),
        (b"2024-03-01", 1_709_251_200.0),
        (b"0001-01-01", -62_135_596_800.0),
        (b"9999-12-31T23:59:59Z", 253_402_300_799.0),
    ],
)
def test_a_date_or_time_is_seconds_since_1970(side, text, seconds):
    assert side.functions.read_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [b"", b"1970", b"1970-1-1", b"1970-13-01", b"1970-00-01", b"1970-02-29",
     b"1900-02-29", b"2024-02-30", b"2024-04-31", b"2024-12-32", b"0000-01-01",
     b"2024-01-00", b"2024-01-01T", b"2024-01-01T1:00:00", b"2024-01-01T24:00:00",
     b"2024-01-01T00:60:00", b"2024-01-01T00:00:60", b"2024-01-01T00:00:00.",
     b"2024-01-01T00:00:00,5", b"2024-01-01T00:00:00X", b"2024-01-01T00:00:00+24:00",
     b"2024-01-01T00:00:00+00:60", b"2024-01-01T00:00:00+0100", b"2024-01-01x00:00:00",
     b"2024/01/01", b"2024-01-01Z", b"2024-01-01T00:00", b"2024-01-01T00:00:00ZZ",
     b"2024-01-01T00-00:00", b"2024-01-01T00:00-00", b"20a4-01-01",
     b"2024-01-01T00:00:00." + b"1" * 45],
)  # fmt: skip
def test_what_is_not_rfc_3339_is_not_a_time(side, text):
    assert side.functions.read_time(text) is None


@unhurried(100)
@given(st.text("0123456789-:TZ.+ ", max_size=30))
def test_kernel_and_twin_agree_on_what_is_a_time(text):
    read_both("read_time", text.encode())
    read_both("read_time", b"2024-02-2" + text.encode())
    read_both("read_time", b"2024-02-29T12:" + text.encode())


# Ascending, from semver.org section 11 and the corners around it.
ASCENDING = (
    b"0.0.0-0", b"0.0.0", b"0.0.9", b"0.0.10", b"0.9.0", b"0.10.0", b"1.0.0-alpha",
    b"1.0.0-alpha.1", b"1.0.0-alpha.beta", b"1.0.0-beta", b"1.0.0-beta.2",
    b"1.0.0-beta.11", b"1.0.0-rc.1", b"1.0.0-rc.1.0", b"1.0.0-rc.1a", b"1.0.0",
    b"2.0.0-99999999999999999999", b"2.0.0-100000000000000000000", b"2.0.0--", b"2.0.0",
    b"99999999999999999999999.0.0",
)  # fmt: skip
NOT_VERSIONS = (
    b"", b"1", b"1.2", b"1.2.3.4", b"v1.2.3", b"01.2.3", b"1.02.3", b"1.2.03",
    b"1.2.3-", b"1.2.3+", b"1.2.3-a..b", b"1.2.3-.a", b"1.2.3-a.", b"1.2.3-01",
    b"1.2.3-a.01", b"1.2.3-\xc3\xa9", b"1.2.3 ", b" 1.2.3", b"1.2.3+a+b", b"1.2.3+a..b",
    b"1.2.3+a.", b"1..3", b"1.2.", b"-1.2.3", b"1.2.3_a", b"1.2.3-+b", b"1.2.x",
    b"1.2.3\x00",
)  # fmt: skip


def test_versions_are_ordered_by_precedence(side):
    for i, left in enumerate(ASCENDING):
        for k, right in enumerate(ASCENDING):
            assert side.functions.order_semver(left, right) == (i > k) - (i < k)


@pytest.mark.parametrize("build", [b"+1", b"+a.b", b"+001", b"+-"])
def test_build_metadata_is_ignored(side, build):
    assert side.functions.order_semver(b"1.2.3" + build, b"1.2.3") == 0
    assert side.functions.order_semver(b"1.2.3-rc.1", b"1.2.3-rc.1" + build) == 0


@pytest.mark.parametrize("text", NOT_VERSIONS)
def test_what_is_not_a_semantic_version_compares_with_nothing(side, text):
    assert side.functions.order_semver(text, b"1.2.3") is None
    assert side.functions.order_semver(b"1.2.3", text) is None


@unhurried(100)
@given(st.lists(st.text("01a-.+", max_size=8), min_size=2, max_size=2))
def test_kernel_and_twin_agree_on_versions(tails):
    left, right = (b"1.0.0" + tail.encode() for tail in tails)
    ours = _fasthash.order_semver(left, right)
    assert ours == _fasthash_py.order_semver(left, right)


def test_numbers_of_every_shape_agree_with_float():
    dealer = random.Random(5)
    for _ in range(2000):
        digits = "".join(dealer.choices("0123456789", k=dealer.randint(1, 25)))
        cut = dealer.randint(0, len(digits))
        text = f"{digits[:cut]}.{digits[cut:]}e{dealer.randint(-330, 310)}"
        assert _fasthash.read_number(text.encode()) == float(text)
