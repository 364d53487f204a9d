"""How the kernel reads a value: as a number, a time, a semantic version, a name.

Inline functions only, compiled into `_fasthash`. Each returns False for text outside
its grammar, never stops early on NUL and never reads past `length`. The grammars are
spelled out in `_fasthash_py.py`, the specification; tests hold the two together.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from router._fasthash cimport FH_BOOL, FH_BYTES, FH_INT, fh_slot


cdef extern from *:
    """
    #include <locale.h>
    #include <stdlib.h>
    /* Every power of ten that a double holds exactly. */
    static const double fh_pow10[23] = {
      1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
      1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static const int fh_days_before[12] = {
      0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    /* A decimal point whatever locale the process has; made once, at import. */
    static locale_t fh_c_locale;
    static int fh_locale_ready(void) {
      fh_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
      return fh_c_locale != (locale_t)0;
    }
    static double fh_strtod(const char *text) {
      return strtod_l(text, NULL, fh_c_locale);
    }
    static double fh_quotient(double a, double b) { return a / b; }
    """
    const double *fh_pow10
    const int *fh_days_before
    int fh_locale_ready() nogil
    double fh_strtod(const char *text) noexcept nogil
    double fh_quotient(double a, double b) noexcept nogil


cdef enum:
    INTEGER_LENGTH_MAX = 20  # -9223372036854775808
    # A value longer than this is neither a number nor a time. 64 bytes hold any double
    # written in full to 17 digits with its exponent, and bound the work of one parse.
    VALUE_LENGTH_MAX = 64


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return c"0" <= c <= c"9"


cdef inline bint is_identifier(uint8_t c) noexcept nogil:
    return is_digit(c) or c"a" <= c <= c"z" or c"A" <= c <= c"Z" or c == c"-"


cdef inline bint parse_number(
    const uint8_t *text, uint32_t length, double *out
) noexcept nogil:
    cdef uint32_t i = 0, exponent_first
    cdef uint64_t mantissa = 0
    cdef int32_t significant = 0, written = 0, decimals = 0, exponent = 0
    cdef bint is_fraction = False, is_negative, has_negative_exponent = False
    cdef double value
    cdef char copy[VALUE_LENGTH_MAX + 1]
    if length == 0 or length > VALUE_LENGTH_MAX:
        return False
    is_negative = text[0] == c"-"
    if is_negative or text[0] == c"+":
        i = 1
    while i < length and (is_digit(text[i]) or (text[i] == c"." and not is_fraction)):
        if text[i] == c".":
            is_fraction = True
        else:
            written += 1
            decimals += is_fraction
            if mantissa or text[i] != c"0":
                significant += 1
            if significant <= 15:
                mantissa = mantissa * 10 + (text[i] - c"0")
        i += 1
    if written == 0:
        return False
    if i < length and (text[i] == c"e" or text[i] == c"E"):
        i += 1
        if i < length and (text[i] == c"+" or text[i] == c"-"):
            has_negative_exponent = text[i] == c"-"
            i += 1
        exponent_first = i
        while i < length and is_digit(text[i]):
            if exponent < 10_000:  # far beyond any double; the slow path reads the rest
                exponent = exponent * 10 + (text[i] - c"0")
            i += 1
        if i == exponent_first:
            return False
    if i != length:
        return False
    exponent = (-exponent if has_negative_exponent else exponent) - decimals
    if significant <= 15 and -22 <= exponent <= 22:
        # Both factors are exact in a double, so one operation rounds once: correctly.
        if exponent < 0:
            value = fh_quotient(<double>mantissa, fh_pow10[-exponent])
        else:
            value = <double>mantissa * fh_pow10[exponent]
        out[0] = -value if is_negative else value
        return True
    memcpy(copy, text, length)
    copy[length] = 0
    out[0] = fh_strtod(copy)
    return True


cdef inline int32_t read_digits(const uint8_t *text, int32_t count) noexcept nogil:
    """The number in exactly `count` digits, or -1."""
    cdef int32_t i, value = 0
    for i in range(count):
        if not is_digit(text[i]):
            return -1
        value = value * 10 + (text[i] - c"0")
    return value


cdef inline int32_t read_two(
    const uint8_t *text, uint32_t length, uint32_t at, uint8_t before
) noexcept nogil:
    """The two digits at `at`, preceded by `before` (0: by nothing), or -1."""
    if at + 2 > length or (before and text[at - 1] != before):
        return -1
    return read_digits(text + at, 2)


cdef inline bint is_leap_year(int32_t year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef inline bint parse_date(
    const uint8_t *text, uint32_t length, int64_t *days
) noexcept nogil:
    """Days from 1970-01-01 to the YYYY-MM-DD that `text` starts with."""
    cdef int32_t year, month, day, days_in_month, past
    if length < 10:
        return False
    year = read_digits(text, 4)
    month = read_two(text, length, 5, c"-")
    day = read_two(text, length, 8, c"-")
    if year < 1 or month < 1 or month > 12 or day < 1:
        return False
    days_in_month = 31
    if month == 2:
        days_in_month = 28 + is_leap_year(year)
    elif month < 12:
        days_in_month = fh_days_before[month] - fh_days_before[month - 1]
    if day > days_in_month:
        return False
    past = year - 1
    days[0] = (
        365 * past + past // 4 - past // 100 + past // 400
        + fh_days_before[month - 1] + (month > 2 and is_leap_year(year))
        + day - 1 - 719_162  # days from 0001-01-01 to 1970-01-01
    )
    return True


cdef inline bint parse_offset(
    const uint8_t *text, uint32_t length, int64_t *seconds
) noexcept nogil:
    """Seconds east of UTC: nothing, Z, or a sign and HH:MM."""
    cdef int32_t hours, minutes
    seconds[0] = 0
    if length == 0:
        return True
    if length == 1:
        return text[0] == c"Z" or text[0] == c"z"
    if length != 6 or (text[0] != c"+" and text[0] != c"-"):
        return False
    hours = read_two(text, length, 1, 0)
    minutes = read_two(text, length, 4, c":")
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return False
    seconds[0] = hours * 3600 + minutes * 60
    if text[0] == c"-":
        seconds[0] = -seconds[0]
    return True


cdef inline bint parse_time(
    const uint8_t *text, uint32_t length, double *out
) noexcept nogil:
    """Seconds since 1970 of an RFC 3339 date or date-time."""
    cdef int64_t days = 0, offset = 0
    cdef int32_t hour, minute, second
    cdef int64_t fraction = 0
    cdef uint32_t i = 19, digits = 0
    if length > VALUE_LENGTH_MAX or not parse_date(text, length, &days):
        return False
    if length == 10:
        out[0] = <double>(days * 86_400)
        return True
    if text[10] != c"T" and text[10] != c"t" and text[10] != c" ":
        return False
    hour = read_two(text, length, 11, 0)
    minute = read_two(text, length, 14, c":")
    second = read_two(text, length, 17, c":")
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return False
    if i < length and text[i] == c".":
        i += 1
        while i < length and is_digit(text[i]):
            if digits < 9:  # nanoseconds; a double cannot tell more apart
                fraction = fraction * 10 + (text[i] - c"0")
                digits += 1
            i += 1
        if digits == 0:
            return False
    if not parse_offset(text + i, length - i, &offset):
        return False
    out[0] = <double>(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
    out[0] += fh_quotient(<double>fraction, fh_pow10[digits])
    return True


ctypedef struct Span:
    const uint8_t *data
    uint32_t length


ctypedef struct Semver:
    Span core[3]
    Span prerelease  # empty: none


cdef inline bint is_numeric(Span identifier) noexcept nogil:
    cdef uint32_t i
    for i in range(identifier.length):
        if not is_digit(identifier.data[i]):
            return False
    return True


cdef inline Span cut_identifier(Span *rest) noexcept nogil:
    """The identifier `rest` starts with; leaves what follows its dot."""
    cdef Span first
    cdef uint32_t i = 0
    while i < rest.length and rest.data[i] != c".":
        i += 1
    first.data, first.length = rest.data, i
    rest.data += i
    rest.length -= i
    if rest.length:
        rest.data += 1
        rest.length -= 1
    return first


cdef inline bint are_identifiers(Span text, bint may_lead_with_zero) noexcept nogil:
    """Whether `text` is dotted identifiers, none empty."""
    cdef Span one
    cdef uint32_t i
    if text.length == 0 or text.data[text.length - 1] == c".":
        return False
    while text.length:
        one = cut_identifier(&text)
        if one.length == 0:
            return False
        for i in range(one.length):
            if not is_identifier(one.data[i]):
                return False
        if (
            not may_lead_with_zero and one.length > 1 and one.data[0] == c"0"
            and is_numeric(one)
        ):
            return False
    return True


cdef inline bint parse_semver(
    const uint8_t *text, uint32_t length, Semver *out
) noexcept nogil:
    cdef uint32_t i = 0, start, part
    cdef Span build
    for part in range(3):
        if part:
            if i == length or text[i] != c".":
                return False
            i += 1
        start = i
        while i < length and is_digit(text[i]):
            i += 1
        if i == start or (i - start > 1 and text[start] == c"0"):
            return False
        out.core[part].data, out.core[part].length = text + start, i - start
    out.prerelease.data, out.prerelease.length = text + i, 0
    if i < length and text[i] == c"-":
        i += 1
        start = i
        while i < length and text[i] != c"+":
            i += 1
        out.prerelease.data, out.prerelease.length = text + start, i - start
        if not are_identifiers(out.prerelease, False):
            return False
    if i < length and text[i] == c"+":
        build.data, build.length = text + i + 1, length - i - 1
        if not are_identifiers(build, True):
            return False
        i = length
    return i == length


cdef inline int compare_bytes(Span a, Span b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, min(a.length, b.length))
    if order:
        return order
    return (a.length > b.length) - (a.length < b.length)


cdef inline int compare_identifiers(Span a, Span b) noexcept nogil:
    cdef bint a_is_numeric = is_numeric(a), b_is_numeric = is_numeric(b)
    if a_is_numeric != b_is_numeric:
        return -1 if a_is_numeric else 1
    # No leading zeros, so the longer number is the larger, however many digits.
    if a_is_numeric and a.length != b.length:
        return 1 if a.length > b.length else -1
    return compare_bytes(a, b)


cdef inline int compare_semver(const Semver *a, const Semver *b) noexcept nogil:
    """Negative, 0 or positive: semver.org 2.0.0, section 11."""
    cdef int order
    cdef uint32_t part
    cdef Span a_rest = a.prerelease, b_rest = b.prerelease
    for part in range(3):
        order = compare_identifiers(a.core[part], b.core[part])
        if order:
            return order
    if a_rest.length == 0 or b_rest.length == 0:
        return (a_rest.length == 0) - (b_rest.length == 0)
    while a_rest.length and b_rest.length:
        order = compare_identifiers(cut_identifier(&a_rest), cut_identifier(&b_rest))
        if order:
            return order
    return (a_rest.length > 0) - (b_rest.length > 0)


cdef inline bint is_utf8(const uint8_t *text, uint32_t length) noexcept nogil:
    """Whether a protobuf string or a metric label may carry these bytes."""
    cdef uint32_t i = 0, more, k, code
    while i < length:
        if text[i] < 0x80:
            i += 1
            continue
        if 0xC2 <= text[i] <= 0xDF:
            more, code = 1, text[i] & 0x1F
        elif 0xE0 <= text[i] <= 0xEF:
            more, code = 2, text[i] & 0x0F
        elif 0xF0 <= text[i] <= 0xF4:
            more, code = 3, text[i] & 0x07
        else:
            return False
        if length - i <= more:
            return False
        for k in range(1, more + 1):
            if text[i + k] & 0xC0 != 0x80:
                return False
            code = code << 6 | (text[i + k] & 0x3F)
        if (
            (more == 2 and (code < 0x800 or 0xD800 <= code <= 0xDFFF))
            or (more == 3 and not 0x10000 <= code <= 0x10FFFF)
        ):
            return False
        i += more + 1
    return True


cdef inline bint slot_text(
    const fh_slot *slot, uint8_t *scratch, const uint8_t **data, uint32_t *length
) noexcept nogil:
    """The value as text: a decimal integer, true or false, or the bytes themselves.

    A double has no one spelling, so it has no text and every test of text is false.
    """
    cdef uint64_t rest
    cdef uint32_t at = INTEGER_LENGTH_MAX
    if slot.kind == FH_BYTES:
        data[0], length[0] = slot.data, slot.length
        return True
    if slot.kind == FH_BOOL:
        data[0] = <const uint8_t *>(b"true" if slot.integer else b"false")
        length[0] = 4 if slot.integer else 5
        return True
    if slot.kind != FH_INT:
        return False
    rest = -<uint64_t>slot.integer if slot.integer < 0 else <uint64_t>slot.integer
    while at == INTEGER_LENGTH_MAX or rest:
        at -= 1
        scratch[at] = <uint8_t>(c"0" + rest % 10)
        rest = rest // 10
    if slot.integer < 0:
        at -= 1
        scratch[at] = c"-"
    data[0], length[0] = scratch + at, INTEGER_LENGTH_MAX - at
    return True
