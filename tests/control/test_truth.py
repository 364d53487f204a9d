"""Labels become verdicts: a real store, real prediction ids, a clock moved by hand."""

import random
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from router.config.load import read_config
from router.control.decide import Now, decide
from router.control.evidence import Evidence, bet_key
from router.control.labels import name_hash
from router.control.transitions import Event
from router.control.truth import CHECKPOINT, Truth
from router.engine._engine import predictions_read
from router.feedback.desk import FeedbackDesk, Settings
from router.feedback.join import Catalogue, ModelTruth, Report, Terms
from router.feedback.writer import Place
from router.plan.claim import BASELINE, BucketMap
from router.plan.compile import States, compile_plan
from router.plan.rollout import Phase, ScopeState
from router.plan.scopes import specs_of
from router.testing import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "feedback"))
from minted import SECRET, mint

HOUR = 3600.0
START = 1_699_999_200.0  # a full hour
VERSIONS = {"credit": (1, 2, 3)}
FILE = """
api_version: router/v1
models:
  - name: credit
    repository: models/credit
    stable: 1
    prediction_id: true
    output: {tensor: p, kind: probability}
audiences:
  - {name: young, when: {key: age, lt: 30}}
rollouts:
  - name: better
    model: credit
    %s
"""
CANARY = """candidate: 2
    steps: [{weight: {to: 50, for: 1h}}, {weight: {to: 100, for: 1h}}]
    guardrails:
      - {metric: %s, %s, min_samples: 200}
"""


@dataclass
class ManualClock:
    time: float = START

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Kept:
    """Checkpoints in memory."""

    texts: dict[str, str] = field(default_factory=dict)

    def save(self, name: str, text: str) -> None:
        self.texts[name] = text

    def load(self, name: str) -> str | None:
        return self.texts.get(name)


def published(body, share=5000, revision=4, attempt=1, candidates=(2,)):
    """A scope on its way, and the plan that it made."""
    config = read_config(FILE % body, "router.yaml")
    (spec,) = specs_of(config, VERSIONS)
    each = share // len(candidates)
    claims = [
        (version, tuple(range(at * each, (at + 1) * each)))
        for at, version in enumerate(candidates)
    ]
    claims.append((BASELINE, tuple(range(9_500, 10_000))))
    state = ScopeState(
        scope=spec.scope, rollout=spec.rollout, model=spec.model,
        spec_digest=spec.digest, phase=Phase.RAMPING, is_begun=True, attempt=attempt,
        revision=revision, maps=(BucketMap(1, tuple(sorted(claims))),),
        weights_bp=dict.fromkeys(candidates, each),
    )  # fmt: skip
    plan = compile_plan(config, States(VERSIONS, {}, (), scopes={spec.scope: state}))
    return spec, state, plan


@dataclass
class Told:
    """A desk that labels are told to, and the truth that reads it."""

    desk: FeedbackDesk
    truth: Truth
    clock: ManualClock
    kept: Kept
    draw: random.Random
    units: int = 0

    def tell(self, version, units, wrong=0.1, **said):
        """Labels of so many new units, some of which the version got wrong."""
        reports = []
        for _ in range(units):
            self.units += 1
            is_wrong = self.draw.random() < wrong
            reports.append(
                Report(
                    mint(
                        self.units, time_s=said.get("made_s", self.clock.time),
                        model=name_hash("credit"), version=version,
                        rule=name_hash(said.get("rule", "better")),
                        rollout_revision=said.get("revision", 4), propensity_bp=5000,
                        score=said.get("score", 0.75), unit_tag=self.units,
                    ),
                    0, said.get("metric", "label"),
                    said["value"](self.draw) if "value" in said
                    else float(not is_wrong),
                )
            )  # fmt: skip
        self.report(reports)

    def report(self, reports):
        for at in range(0, len(reports), 256):
            done = threading.Event()
            self.desk.report(reports[at : at + 256], lambda _, done=done: done.set())
            assert done.wait(10)
        # The first report makes the writer open its store and fold what it holds.
        wait_until(lambda: self.desk.fold.is_complete, "the store to be read")

    def verdicts(self, spec, state):
        self.clock.time += 10  # beyond what a look is remembered for
        return self.truth.verdicts(spec, state)


@pytest.fixture
def told(tmp_path):
    clock, kept = ManualClock(), Kept()
    catalogue = Catalogue(
        ((3, SECRET),), {name_hash("credit"): ModelTruth("credit", "probability")}, {}
    )
    place = Place(tmp_path / "labels.db", 64 * 1024 * 1024)
    desk = FeedbackDesk(
        Settings(place, Terms(), HOUR), lambda: catalogue, predictions_read, clock
    )
    desk.start()
    yield Told(desk, Truth(desk, kept, clock), clock, kept, random.Random(7))
    desk.close()


def of(verdicts, name, version=2, within=""):
    return verdicts[bet_key(name, version, within=within)]


def test_worse_accuracy_known_an_hour_later_rolls_back_with_the_reason(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.truth.learn(plan)
    made_s = told.clock.time
    told.tell(1, 1, made_s=made_s)  # the store has been read
    assert of(told.verdicts(spec, state), "accuracy").verdict == "inconclusive"
    told.clock.time += HOUR
    told.tell(1, 1500, wrong=0.1, made_s=made_s)
    told.tell(2, 1500, wrong=0.2, made_s=made_s)
    verdicts = told.verdicts(spec, state)
    move = decide(spec, state, Evidence(labels=verdicts), Now(told.clock.time))
    assert move is not None
    assert move.event == Event.ROLL_BACK
    assert move.reason.startswith("accuracy (version 2): accuracy: ")
    numbers = dict(move.judged[0].verdict.numbers)
    assert numbers["units_candidate"] == 1500
    assert numbers["log_e_peak"] > 5
    assert "of 1500 units were bad with the candidate" in move.reason


def test_a_candidate_as_good_is_passed_by_mature_labels_alone(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 5pp"))
    told.truth.learn(plan)
    told.tell(1, 500)
    told.tell(2, 500)
    young = of(told.verdicts(spec, state), "accuracy")
    assert (young.verdict, young.numbers["units"]) == ("inconclusive", 0)
    assert young.numbers["units_early"] == 500
    told.clock.time = START + 2 * HOUR  # its hour has ended, and an hour more
    assert of(told.verdicts(spec, state), "accuracy").verdict == "pass"


def test_labels_that_came_too_late_do_not_promote(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 5pp"))
    told.truth.learn(plan)
    told.clock.time = START + 3 * HOUR
    told.tell(1, 500, made_s=START)
    told.tell(2, 500, made_s=START)
    verdict = of(told.verdicts(spec, state), "accuracy")
    assert (verdict.verdict, verdict.numbers["units"]) == ("inconclusive", 0)


def test_labels_of_an_earlier_attempt_are_not_evidence(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.truth.learn(plan)
    told.tell(1, 1000, wrong=0.0)
    told.tell(2, 1000, wrong=0.5)
    assert of(told.verdicts(spec, state), "accuracy").verdict == "fail"
    again = replace(state, attempt=2, revision=6)
    assert of(told.verdicts(spec, again), "accuracy").verdict == "inconclusive"


def test_a_share_that_nobody_remembers_counts_for_nothing(told):
    spec, state, _ = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.tell(1, 1000, wrong=0.0)
    told.tell(2, 1000, wrong=0.5)
    assert of(told.verdicts(spec, state), "accuracy").verdict == "inconclusive"


def test_shares_are_known_again_after_a_restart(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.truth.learn(plan)
    told.verdicts(spec, state)
    told.tell(1, 1000, wrong=0.0)
    told.tell(2, 1000, wrong=0.5)
    told.truth = Truth(told.desk, told.kept, told.clock)
    told.truth.restore()
    assert of(told.verdicts(spec, state), "accuracy").verdict == "fail"


def test_strata_that_cannot_be_read_are_left_out(told, caplog):
    told.kept.texts[CHECKPOINT] = "[[1]]"
    told.truth.restore()
    assert "count for no rollout" in caplog.text


def test_bad_news_of_one_unit_count_once(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.truth.learn(plan)
    told.tell(1, 400)
    told.tell(2, 400)
    reports = [
        Report(
            mint(
                50_000 + n, time_s=START, model=name_hash("credit"), version=2,
                rule=name_hash("better"), rollout_revision=4, propensity_bp=5000,
                unit_tag=99_999,
            ),
            0, "label", 0.0,
        )
        for n in range(1000)
    ]  # fmt: skip
    told.report(reports)
    verdict = of(told.verdicts(spec, state), "accuracy")
    assert verdict.verdict != "fail"
    assert verdict.numbers["units_early"] == 401


@pytest.mark.parametrize(
    ("metric", "criterion", "good", "bad"),
    [
        ("log_loss", "worse_by: 0.05", 0.1, 0.35),
        ("brier", "worse_by: 10%", 0.1, 0.4),
        ("recall", "worse_by: 1pp", 0.5, 0.5),
        ("precision", "worse_by: 2pp", 0.1, 0.4),
        ("calibration_error", "worse_by: 2pp", 0.25, 0.6),
        ("accuracy", "worse_by: 10%", 0.1, 0.4),
        ("accuracy", "min: 80%", 0.1, 0.4),
        ("brier", "max: 0.18", 0.1, 0.8),
    ],
)
def test_a_metric_of_labels_fails_who_is_worse_and_passes_who_is_not(
    told, metric, criterion, good, bad
):
    spec, state, plan = published(CANARY % (metric, criterion))
    told.truth.learn(plan)
    for hour in range(6):
        told.clock.time = START + hour * HOUR
        told.tell(1, 250, good)
        told.tell(2, 250, good)
    told.clock.time = START + 8 * HOUR
    assert of(told.verdicts(spec, state), metric).verdict == "pass"
    for hour in range(8, 14):
        told.clock.time = START + hour * HOUR
        # Recall: the candidate misses positives that stable finds.
        score = 0.25 if metric == "recall" else 0.75
        told.tell(1, 250, good)
        told.tell(2, 250, bad, score=score)
    assert of(told.verdicts(spec, state), metric).verdict == "fail"


@pytest.mark.parametrize(
    ("metric", "criterion"),
    [
        ("reward", "worse_by: 5%"), ("clicks", "worse_by: 0.1"),
        ("conversion", "worse_by: 5pp"), ("reward", "min: 0.5"),
    ],
)  # fmt: skip
def test_a_lower_mean_fails(told, metric, criterion):
    spec, state, plan = published(CANARY % (metric, criterion))
    told.truth.learn(plan)

    def value(mean):
        return lambda draw: float(draw.random() < mean)

    for hour in range(4):
        told.clock.time = START + hour * HOUR
        told.tell(1, 250, metric=metric, value=value(0.7))
        told.tell(2, 250, metric=metric, value=value(0.7))
    told.clock.time = START + 6 * HOUR
    assert of(told.verdicts(spec, state), metric).verdict == "pass"
    for hour in range(6, 12):
        told.clock.time = START + hour * HOUR
        told.tell(1, 250, metric=metric, value=value(0.7))
        told.tell(2, 250, metric=metric, value=value(0.2))
    assert of(told.verdicts(spec, state), metric).verdict == "fail"


def test_labels_that_are_missing_from_one_variant_hold(told):
    spec, state, plan = published(CANARY % ("accuracy", "worse_by: 1pp"))
    told.truth.learn(plan)
    told.tell(1, 1500)
    told.tell(2, 750)  # dealt half and half
    verdicts = told.verdicts(spec, state)
    assert verdicts["srm"].verdict == "fail"
    move = decide(spec, state, Evidence(labels=verdicts), Now(told.clock.time))
    assert move is not None
    assert (move.event, "label join" in move.reason) == (Event.HOLD, True)


def test_a_slice_that_is_hurt_is_found(told):
    body = CANARY % ("accuracy", "worse_by: 1pp") + "    slices: [young]\n"
    spec, state, plan = published(body)
    told.truth.learn(plan)
    told.tell(1, 4000)
    told.tell(2, 4000)
    told.tell(1, 300, 0.05, rule="better@young")
    told.tell(2, 300, 0.5, rule="better@young")
    found = told.verdicts(spec, state)
    assert of(found, "accuracy", within="young").verdict == "fail"
    # Nothing is mature, so the whole cannot pass; it knows the slice's units too.
    assert of(found, "accuracy").numbers["units_early"] == 4300


# -- experiments -----------------------------------------------------------------------

AB = """strategy: ab
    candidates: [2, 3]
    split: {2: 25, 3: 25}
    primary: {metric: %s, covariate: %s}
    guardrails: [{metric: fallback_rate, max: 99%%, dry_run: true}]
    horizon: 7d
    on_win: promote
"""


def experiment(told, metric="reward", covariate="none"):
    spec, state, plan = published(AB % (metric, covariate), 5000, candidates=(2, 3))
    told.truth.learn(plan)
    return spec, state


def earn(told, means, hours=8, units=300):
    for hour in range(hours):
        told.clock.time = START + hour * HOUR
        for version, mean in means.items():
            said = {"metric": "reward", "value": lambda d, m=mean: d.gauss(m, 1.0)}
            told.tell(version, units * (2 if version == 1 else 1), **said)
    told.clock.time = START + (hours + 2) * HOUR


def test_the_better_variant_of_several_wins_and_is_promoted(told):
    spec, state = experiment(told)
    earn(told, {1: 0.0, 2: 0.05, 3: 0.6})
    verdicts = told.verdicts(spec, state)
    assert verdicts["primary|3"].verdict == "pass"
    assert verdicts["primary|2"].verdict != "pass"
    numbers = verdicts["primary|3"].numbers
    assert numbers["lower"] < 0.6 < numbers["upper"]
    move = decide(spec, state, Evidence(labels=verdicts), Now(told.clock.time))
    assert move is not None
    assert (move.event, move.promotes) == (Event.COMPLETE, 3)


def test_of_two_better_variants_one_wins(told):
    spec, state = experiment(told)
    earn(told, {1: 0.0, 2: 0.6, 3: 1.2})
    verdicts = told.verdicts(spec, state)
    assert verdicts["primary|3"].verdict == "pass"
    assert verdicts["primary|2"].verdict == "inconclusive"
    assert "Version 3 is ahead" in verdicts["primary|2"].reason


def test_no_difference_is_not_decided(told):
    spec, state = experiment(told)
    earn(told, {1: 0.0, 2: 0.0, 3: 0.0})
    verdicts = told.verdicts(spec, state)
    assert {verdicts[f"primary|{v}"].verdict for v in (2, 3)} == {"inconclusive"}
    assert decide(spec, state, Evidence(labels=verdicts), Now(told.clock.time)) is None


def test_a_worse_variant_fails_the_primary(told):
    spec, state = experiment(told)
    earn(told, {1: 0.0, 2: -0.7, 3: 0.0})
    assert told.verdicts(spec, state)["primary|2"].verdict == "fail"


def test_more_accuracy_is_better_although_mistakes_are_counted(told):
    spec, state = experiment(told, "accuracy")
    for hour in range(6):
        told.clock.time = START + hour * HOUR
        told.tell(1, 500, 0.4)
        told.tell(2, 250, 0.1)
        told.tell(3, 250, 0.4)
    told.clock.time = START + 8 * HOUR
    verdict = told.verdicts(spec, state)["primary|2"]
    assert verdict.verdict == "pass"
    assert verdict.numbers["mean_candidate"] == pytest.approx(0.9, abs=0.03)
    assert verdict.numbers["estimate"] == pytest.approx(0.3, abs=0.08)


def test_precision_cannot_be_what_an_experiment_is_about(told):
    spec, state = experiment(told, "precision")
    told.tell(1, 1)
    assert told.verdicts(spec, state)["primary|2"].verdict == "error"


def test_a_value_from_before_narrows_the_interval(told):
    spec, state = experiment(told, "reward", "pre_exposure")
    plain, _ = experiment(told)

    def ids(version, hour, count):
        for _ in range(count):
            told.units += 1
            yield mint(
                told.units, time_s=START + hour * HOUR, model=name_hash("credit"),
                version=version, rule=name_hash("better"), rollout_revision=4,
                unit_tag=told.units,
            )  # fmt: skip

    for hour in range(8):
        told.clock.time = START + hour * HOUR
        reports = []
        for version, count in ((1, 500), (2, 250), (3, 250)):
            for one in ids(version, hour, count):
                before = told.draw.gauss(10, 3)
                earned = before + told.draw.gauss(0.3 * (version == 2), 1)
                reports.append(Report(one, 0, "pre_exposure", before))
                reports.append(Report(one, 0, "reward", earned))
        told.report(reports)
    told.clock.time = START + 10 * HOUR
    adjusted = told.verdicts(spec, state)["primary|2"].numbers
    raw = told.verdicts(plain, state)["primary|2"].numbers
    width, raw_width = (n["upper"] - n["lower"] for n in (adjusted, raw))
    # Nine tenths of the variance are known from before: a third of the width.
    assert width < 0.5 * raw_width
    assert adjusted["lower"] < 0.3 < adjusted["upper"]
