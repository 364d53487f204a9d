"""One alpha for a rollout, and discoveries among many slices."""

import math

import pytest

from router.analysis.alpha import adjusted_p, e_bh, log_e_from_p, spread_alpha
from router.errors import RouterError


def test_the_parts_of_alpha_add_up_to_the_whole() -> None:
    parts = spread_alpha(0.05, ["errors", "latency", "score"], {"errors": 2.0})
    assert parts == pytest.approx({"errors": 0.025, "latency": 0.0125, "score": 0.0125})
    assert math.fsum(parts.values()) == pytest.approx(0.05)
    assert spread_alpha(0.01, ["errors"]) == {"errors": 0.01}
    assert spread_alpha(0.01, []) == {}


@pytest.mark.parametrize(
    ("alpha", "names", "weights", "said"),
    [
        (0.0, ["a"], None, "alpha must be between 0 and 1 (found 0.0)"),
        (1.0, ["a"], None, "alpha must be between 0 and 1 (found 1.0)"),
        (0.05, ["a", "a"], None, "named twice"),
        (0.05, ["a"], {"a": 0.0}, "guardrail 'a': its weight must be above 0"),
        (0.05, ["a"], {"b": 1.0}, "weights for no guardrail: b"),
    ],
)
def test_an_alpha_that_cannot_be_spread_says_why(
    alpha: float, names: list[str], weights: dict[str, float] | None, said: str
) -> None:
    with pytest.raises(RouterError, match=said.replace("(", r"\(").replace(")", r"\)")):
        spread_alpha(alpha, names, weights)


GOLDEN = [200, 90, 40, 9, 3, 1.2, 0.4, 0.1]


def test_e_bh_has_its_golden_value() -> None:
    log_es = {f"slice {i}": math.log(e) for i, e in enumerate(GOLDEN)}
    assert e_bh(log_es, 0.05) == ("slice 0", "slice 1")


def test_e_bh_claims_exactly_at_its_bar() -> None:
    # One of two slices: E >= 2 / 0.05. Both: the weaker E >= 2 / (2 * 0.05).
    bar = math.log(2 / 0.05)
    assert e_bh({"a": bar, "b": 0.0}, 0.05) == ("a",)
    assert e_bh({"a": math.nextafter(bar, 0), "b": 0.0}, 0.05) == ()
    assert e_bh({"a": math.log(20), "b": math.log(20)}, 0.05) == ("a", "b")
    assert e_bh({"a": math.log(21), "b": math.log(19)}, 0.05) == ()
    assert e_bh({}, 0.05) == ()


def test_e_bh_claims_weaker_slices_when_enough_are_strong_together() -> None:
    strong = {"a": math.log(22), "b": math.log(21), "c": math.log(20.5)}
    assert e_bh(strong, 0.05) == ("a", "b", "c")


def test_adjusted_p_values_have_their_golden_values() -> None:
    found = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    golden = [0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.10571, 0.216, 0.216, 0.216]
    assert adjusted_p(found) == pytest.approx(golden, abs=5e-6)
    assert adjusted_p(found[::-1]) == pytest.approx(golden[::-1], abs=5e-6)
    assert adjusted_p([]) == ()


def test_a_p_value_becomes_an_e_value_with_mean_one() -> None:
    assert log_e_from_p(0.0001) == pytest.approx(math.log(50))
    # The mean of p**-0.5 / 2 over uniform p, by the midpoint rule; its error near zero
    # is about a third of sqrt(step), 3e-3 here.
    steps = 10_000
    mean = math.fsum(math.exp(log_e_from_p((i + 0.5) / steps)) for i in range(steps))
    assert mean / steps == pytest.approx(1, abs=5e-3)
    assert log_e_from_p(1.0) == pytest.approx(math.log(0.5))
    for wrong in (0.0, 1.1):
        with pytest.raises(AssertionError):
            log_e_from_p(wrong)
