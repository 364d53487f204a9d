"""Sums of labels and what they come to; scikit-learn as the oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minted import CATALOGUE, CREDIT, NOW, PRICE, RULE
from sklearn import metrics

from router.feedback.evidence import Question, is_mature, label_evidence
from router.feedback.fold import COHORT_S, OTHER, SLICES_MAX, LabelFold
from router.feedback.join import ModelTruth
from router.feedback.sums import NOTHING, SIZE, Sum, add_row, measure, merge
from router.store.labels import LabelRow

HOUR = 3600
MATURITY_S = 72 * HOUR
PROBABILITY = ModelTruth("credit", "probability")


def row(score=0.75, value=1.0, **said) -> LabelRow:
    made_s = said.pop("made_s", int(NOW))
    values = {
        "made_s": made_s, "prediction": b"", "row": 0, "metric": "label", "event": "",
        "value": value, "observed_s": made_s + said.pop("delay_s", 60.0),
        "received_s": NOW, "groups": "", "model_hash": CREDIT, "version": 2,
        "rule_hash": RULE, "rollout_revision": 1, "variant": 1, "bucket": 5,
        "is_fallback": False, "is_sticky": True, "propensity_bp": 500, "score": score,
        "unit_tag": 1,
    }  # fmt: skip
    return LabelRow(**{**values, **said})


def summed(rows, truth=PROBABILITY):
    sums = list(NOTHING)
    for one in rows:
        add_row(sums, one, truth)
    return tuple(sums)


def test_the_vector_has_a_place_for_everything():
    assert SIZE == Sum.BIN_LABEL + 10
    assert Sum.BEFORE_VALUE == Sum.BIN_COUNT - 1


def test_measures_of_probabilities_are_those_of_scikit_learn():
    draw = np.random.default_rng(1)
    scores = draw.random(500)
    labels = (draw.random(500) < scores**2).astype(float)
    found = measure(summed(map(row, scores, labels)), "probability")
    said = (scores >= 0.5).astype(float)
    assert found.labels == 500
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, said))
    assert found.precision == pytest.approx(metrics.precision_score(labels, said))
    assert found.recall == pytest.approx(metrics.recall_score(labels, said))
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, scores))
    assert found.brier == pytest.approx(metrics.brier_score_loss(labels, scores))


def test_measures_of_values_are_those_of_scikit_learn():
    draw = np.random.default_rng(2)
    scores, labels = draw.normal(10, 3, (2, 300))
    truth = ModelTruth("price", "value")
    found = measure(summed(map(row, scores, labels), truth), "value")
    assert found.mae == pytest.approx(metrics.mean_absolute_error(labels, scores))
    assert found.rmse == pytest.approx(
        math.sqrt(metrics.mean_squared_error(labels, scores))
    )
    assert found.bias == pytest.approx(float(np.mean(scores - labels)))
    assert (found.accuracy, found.log_loss) == (None, None)


@pytest.mark.parametrize(
    ("score", "threshold", "cell"),
    [
        (0.5, 0.5, Sum.TRUE_POSITIVE),  # at the threshold is above it
        (0.49, 0.5, Sum.FALSE_NEGATIVE),
        (0.7, 0.8, Sum.FALSE_NEGATIVE),
    ],
)
def test_the_threshold_is_the_models(score, threshold, cell):
    sums = summed([row(score, 1.0)], ModelTruth("credit", "probability", threshold))
    assert sums[cell] == 1
    assert sum(sums[Sum.TRUE_POSITIVE : Sum.RIGHT]) == 1


def test_calibration_bins_hold_mean_score_and_mean_label():
    found = measure(
        summed([row(0.05, 0.0), row(0.0, 0.0), row(0.95, 1.0), row(1.0, 0.0)]),
        "probability",
    )
    low, high = found.calibration[0], found.calibration[9]
    assert (low.count, low.score, low.label) == (2, pytest.approx(0.025), 0.0)
    assert (high.count, high.score, high.label) == (2, pytest.approx(0.975), 0.5)
    # |.05 - 0| + |1.95 - 1| over four labels
    assert found.calibration_error == pytest.approx((0.05 + 0.95) / 4)


@pytest.mark.parametrize(
    ("score", "value"), [(None, 1.0), (0.5, 2.0), (1.5, 1.0), (0.5, 0.5)]
)
def test_a_label_that_cannot_be_compared_is_counted_as_such(score, value):
    sums = summed([row(score, value)])
    assert (sums[Sum.UNUSABLE], sums[Sum.LABELS], sums[Sum.JOINED]) == (1, 0, 1)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert measure(summed([row(1.0, 0.0)]), "probability").log_loss == pytest.approx(
        -math.log(1e-7)
    )


def test_a_class_is_right_or_wrong():
    truth = ModelTruth("digits", "class")
    found = measure(summed([row(3, 3), row(3, 4), row(4, 4)], truth), "class")
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.precision is None


def test_rewards_have_a_mean_and_no_label():
    rows = [row(0.5, value, metric="reward") for value in (1.0, 2.0, 6.0)]
    found = measure(summed(rows), "probability")
    assert (found.mean, found.labels) == (3.0, 0)


def test_no_labels_measure_nothing():
    for kind in ("probability", "class", "value"):
        found = measure(NOTHING, kind)
        assert (found.labels, found.accuracy, found.rmse, found.mean) == (
            0, None, None, None,
        )  # fmt: skip


rows_drawn = st.lists(
    st.tuples(st.integers(0, 1000).map(lambda n: n / 1000), st.sampled_from([0.0, 1.0]))
)


@settings(deadline=None, max_examples=50)
@given(rows_drawn, rows_drawn)
def test_sums_of_parts_are_sums_of_the_whole(left, right):
    parts = merge(summed(row(*one) for one in left), summed(row(*o) for o in right))
    whole = summed(row(*one) for one in left + right)
    assert parts == pytest.approx(whole)


# -- folding and evidence --------------------------------------------------------------


def folded(*rows) -> LabelFold:
    made = LabelFold(CATALOGUE.models.get, MATURITY_S)
    made.add(rows)
    return made


def evidence(fold, now, slice_name="", revision=None):
    question = Question(
        "credit", "credit-2", RULE, "label", "probability", slice_name, revision
    )
    return label_evidence(question, fold.read(CREDIT, "label"), MATURITY_S, now)


def test_a_cohort_is_mature_once_its_last_prediction_is():
    cohort = int(NOW) // COHORT_S
    closes = (cohort + 1) * COHORT_S
    assert is_mature(cohort, MATURITY_S, closes + MATURITY_S)
    assert not is_mature(cohort, MATURITY_S, closes + MATURITY_S - 1)


def test_only_mature_cohorts_may_promote_and_all_may_abort():
    old, young = int(NOW), int(NOW) + 10 * HOUR
    fold = folded(row(made_s=old), row(made_s=young, unit_tag=2, version=1))
    now = (old // HOUR + 1) * HOUR + MATURITY_S
    found = evidence(fold, now)
    assert [one.version for one in found.early.versions] == [1, 2]
    assert [one.version for one in found.mature.versions] == [2]
    assert (found.cohorts, found.newest_mature_s) == (1, (old // HOUR + 1) * HOUR)


def test_labels_after_the_maturity_time_are_no_part_of_a_mature_reading():
    in_time = row(delay_s=MATURITY_S, unit_tag=1)
    after = row(delay_s=MATURITY_S + 1, unit_tag=2)
    found = evidence(folded(in_time, after), NOW + 10 * MATURITY_S)
    assert found.mature.of(2).joined == 1
    assert found.early.of(2).joined == 2


def test_a_fallback_is_neither_versions_label():
    fold = folded(row(is_fallback=True))
    assert fold.read(CREDIT, "label") == ()
    assert fold.counts.fallbacks == 1


def test_a_unit_has_one_first_negative_label_under_a_rule():
    wrong = [row(0.2, 1.0, made_s=int(NOW) + at * HOUR, unit_tag=7) for at in range(3)]
    other = row(0.2, 1.0, unit_tag=8)
    found = evidence(folded(*wrong, other), NOW)
    (stratum,) = found.early.strata
    assert (stratum.joined, stratum.negatives) == (4, 2)


def test_units_that_are_not_sticky_are_one_a_request():
    rows = [row(0.2, 1.0, unit_tag=7, is_sticky=False) for _ in range(3)]
    (stratum,) = evidence(folded(*rows), NOW).early.strata
    assert (stratum.is_sticky, stratum.negatives) == (False, 3)


def test_strata_keep_the_propensity_of_the_decision():
    rows = [
        row(unit_tag=1, propensity_bp=500, rollout_revision=1),
        row(unit_tag=2, propensity_bp=9_500, rollout_revision=1, version=1),
        row(unit_tag=3, propensity_bp=2_500, rollout_revision=2),
    ]
    found = evidence(folded(*rows), NOW)
    keys = [
        (s.rollout_revision, s.propensity_bp, s.version) for s in found.early.strata
    ]
    assert keys == [(1, 500, 2), (1, 9_500, 1), (2, 2_500, 2)]
    of_one = evidence(folded(*rows), NOW, revision=2)
    assert [v.joined for v in of_one.early.versions] == [1]


def test_groups_are_slices_beside_everyone():
    rows = [row(groups='[["region","north"]]'), row(groups='[["region","south"]]')]
    fold = folded(*rows)
    assert evidence(fold, NOW).early.of(2).joined == 2
    assert evidence(fold, NOW, "region=north").early.of(2).joined == 1


def test_more_slices_than_are_kept_are_one():
    rows = [row(groups=f'[["id","{at}"]]') for at in range(SLICES_MAX + 5)]
    fold = folded(*rows)
    assert evidence(fold, NOW, "id=0").early.of(2).joined == 1
    assert evidence(fold, NOW, OTHER).early.of(2).joined == 5


def test_a_label_of_a_model_that_is_gone_is_counted_as_left_out():
    fold = folded(row(model_hash=99))
    assert fold.counts.unnamed == 1
    assert fold.read(99, "label") == ()


def test_models_and_metrics_are_apart():
    fold = folded(row(), row(model_hash=PRICE), row(metric="reward"))
    assert len(fold.read(CREDIT, "label")) == 1
    assert len(fold.read(PRICE, "label")) == 1
    assert len(fold.read(CREDIT, "reward")) == 1
