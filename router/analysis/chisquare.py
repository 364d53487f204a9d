"""The chi-square distribution, because importing scipy costs over a second.

Tail by the incomplete gamma function: its series where that converges fast, its
continued fraction elsewhere (Abramowitz and Stegun 6.5.29, 6.5.31). Both need about
the square root of the degrees of freedom in terms.
"""

import math

TINY = 1e-300
PRECISION = 4e-15


def chi_square_tail(value: float, df: int) -> float:
    """The chance that a chi-square variable exceeds the value."""
    assert df > 0
    if value <= 0:
        return 1.0
    a, x = df / 2, value / 2
    if x < a + 1:
        return 1 - _lower_series(a, x)
    return _upper_fraction(a, x)


def chi_square_quantile(tail: float, df: int) -> float:
    """The value that a chi-square variable exceeds with that chance."""
    assert 0 < tail < 1
    low, high = 0.0, float(df)
    while chi_square_tail(high, df) > tail:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if chi_square_tail(middle, df) > tail:
            low = middle
        else:
            high = middle
    return high


def _lower_series(a: float, x: float) -> float:
    """For x < a + 1: every term is smaller than the last, by a growing factor."""
    n, term, total = 1, 1 / a, 1 / a
    while term >= total * PRECISION:
        term *= x / (a + n)
        total += term
        n += 1
    return total * math.exp(a * math.log(x) - x - math.lgamma(a))


def _upper_fraction(a: float, x: float) -> float:
    """For x >= a + 1, by Lentz's method: from the front, without two recurrences."""
    b = x + 1 - a
    c, d = 1 / TINY, 1 / b
    n, fraction, change = 1, d, 0.0
    # Rounding alone moves the last factor by a few 1e-16: do not ask for less.
    while abs(change - 1) >= PRECISION:
        step = -n * (n - a)
        b += 2
        d = 1 / _not_zero(step * d + b)
        c = _not_zero(b + step / c)
        change = c * d
        fraction *= change
        n += 1
    return fraction * math.exp(a * math.log(x) - x - math.lgamma(a))


def _not_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
