"""How good are predictions, from sums that add up over routers, slices and days.

Each record type is a set of sums; `+` merges, and the metrics are properties, NaN while
there is nothing to divide by. Estimates for reports: gates use the bets. Labels that
were chosen by the model's uncertainty need `ope.weighted_mean` instead, because the
plain mean of those is the accuracy on hard cases.
"""

import math
from dataclasses import dataclass

BINS = 10  # of probability, for calibration
CLIP = 1e-15  # a certain and wrong prediction costs 34.5 nats, not infinity


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of a yes-or-no prediction against the truth."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.true_negative + other.true_negative,
            self.false_negative + other.false_negative,
        )

    @property
    def total(self) -> int:
        """How many predictions have a label."""
        return self.positive + self.true_negative + self.false_positive

    @property
    def positive(self) -> int:
        """How many labels are positive."""
        return self.true_positive + self.false_negative

    @property
    def selected(self) -> int:
        """How many predictions are positive."""
        return self.true_positive + self.false_positive

    @property
    def accuracy(self) -> float:
        """The part that is right."""
        return ratio(self.true_positive + self.true_negative, self.total)

    @property
    def precision(self) -> float:
        """The part of positive predictions that is right."""
        return ratio(self.true_positive, self.selected)

    @property
    def recall(self) -> float:
        """The part of positive labels that is found; also the true positive rate."""
        return ratio(self.true_positive, self.positive)

    @property
    def false_positive_rate(self) -> float:
        """The part of negative labels that is predicted positive."""
        return ratio(self.false_positive, self.false_positive + self.true_negative)

    @property
    def selection_rate(self) -> float:
        """The part that is predicted positive."""
        return ratio(self.selected, self.total)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Sums over predicted probabilities and their labels; ten equal bins for bias."""

    units: int = 0
    log_loss_sum: float = 0.0
    brier_sum: float = 0.0
    bin_units: tuple[int, ...] = (0,) * BINS
    bin_predicted: tuple[float, ...] = (0.0,) * BINS
    bin_positive: tuple[int, ...] = (0,) * BINS

    def __add__(self, other: "Probabilities") -> "Probabilities":
        def both(name: str) -> tuple[int, ...]:
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            return tuple(a + b for a, b in pairs)

        return Probabilities(
            self.units + other.units,
            self.log_loss_sum + other.log_loss_sum,
            self.brier_sum + other.brier_sum,
            both("bin_units"),
            both("bin_predicted"),
            both("bin_positive"),
        )

    @property
    def log_loss(self) -> float:
        """Mean surprise, in nats."""
        return ratio(self.log_loss_sum, self.units)

    @property
    def brier(self) -> float:
        """Mean squared distance of probability and truth."""
        return ratio(self.brier_sum, self.units)

    @property
    def calibration_error(self) -> float:
        """Mean distance, over bins, of what was predicted and what came true."""
        gaps = (
            abs(predicted - positive)
            for predicted, positive in zip(
                self.bin_predicted, self.bin_positive, strict=True
            )
        )
        return ratio(math.fsum(gaps), self.units)


@dataclass(frozen=True, slots=True)
class Errors:
    """Sums over a numeric prediction minus the truth."""

    units: int = 0
    total: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.units + other.units,
            self.total + other.total,
            self.absolute + other.absolute,
            self.squares + other.squares,
        )

    @property
    def bias(self) -> float:
        """Mean error: above zero when predictions are too high."""
        return ratio(self.total, self.units)

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return ratio(self.absolute, self.units)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(ratio(self.squares, self.units))


@dataclass(frozen=True, slots=True)
class Rewards:
    """Sums over a reward."""

    units: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Rewards") -> "Rewards":
        return Rewards(
            self.units + other.units,
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        """Mean reward."""
        return ratio(self.total, self.units)

    @property
    def variance(self) -> float:
        """Unbiased variance; NaN below two rewards."""
        if self.units < 2:
            return math.nan
        spread = self.squares - self.total * self.total / self.units
        return max(0.0, spread) / (self.units - 1)


def confused(is_predicted: bool, is_true: bool) -> Confusion:
    """One labelled yes-or-no prediction."""
    return Confusion(
        int(is_predicted and is_true),
        int(is_predicted and not is_true),
        int(not is_predicted and not is_true),
        int(not is_predicted and is_true),
    )


def foreseen(probability: float, is_true: bool) -> Probabilities:
    """One labelled probability."""
    assert 0 <= probability <= 1
    clipped = min(max(probability, CLIP), 1 - CLIP)
    own = min(int(probability * BINS), BINS - 1)
    return Probabilities(
        1,
        -math.log(clipped if is_true else 1 - clipped),
        (probability - is_true) ** 2,
        tuple(int(i == own) for i in range(BINS)),
        tuple(probability if i == own else 0.0 for i in range(BINS)),
        tuple(int(i == own and is_true) for i in range(BINS)),
    )


def missed(predicted: float, truth: float) -> Errors:
    """One labelled number."""
    gap = predicted - truth
    return Errors(1, gap, abs(gap), gap * gap)


def rewarded(reward: float) -> Rewards:
    """One reward."""
    return Rewards(1, reward, reward * reward)


def ratio(part: float, whole: float) -> float:
    """A part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan
