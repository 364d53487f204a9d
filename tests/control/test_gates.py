"""Each criterion's verdict at the edge where it changes."""

from typing import Any

import pytest
from rollouts import spec_of

from router.analysis.labelbet import start_label_bet, step_label_bet
from router.analysis.quantile import Histogram
from router.config.steps import Criterion
from router.control.bets import start_bets
from router.control.evidence import (
    Evidence,
    External,
    ShadowCounts,
    Traffic,
    UnitCounts,
    bet_key,
)
from router.control.gates import HARD_FAILURES, judge_criterion, judge_limits
from router.plan.rollout import Spec

SECOND = Histogram((0.1, 1.0), (990, 10, 0))  # 1 % are between 0.1 s and 1 s


def criterion(**written: Any) -> Criterion:
    return Criterion.model_validate(written)


def spec(*guardrails: dict[str, Any]) -> Spec:
    return spec_of(guardrails=list(guardrails))


def judged(written: dict[str, Any], evidence: Evidence) -> str:
    return judge_criterion(criterion(**written), 2, "", spec(written), evidence).verdict


def recent(failures: int, requests: int) -> Traffic:
    return Traffic(recent_requests=requests, recent_failures=failures)


@pytest.mark.parametrize(
    ("candidate", "stable", "is_open", "verdict"),
    [
        ((0, 0), (0, 0), False, "inconclusive"),
        ((0, 0), (0, 0), True, "fail"),
        ((HARD_FAILURES, 400), (0, 400), False, "fail"),
        ((HARD_FAILURES - 1, 19), (0, 400), False, "pass"),
        ((HARD_FAILURES, 401), (0, 400), False, "pass"),  # below one in twenty
        ((HARD_FAILURES, 200), (8, 400), False, "fail"),  # five times stable's share
        ((HARD_FAILURES, 200), (9, 400), False, "pass"),
    ],
)
def test_a_candidate_that_plainly_fails_is_not_tested_any_longer(
    candidate: tuple[int, int], stable: tuple[int, int], is_open: bool, verdict: str
) -> None:
    found = judge_limits(recent(*candidate), recent(*stable), is_open=is_open)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        (ShadowCounts(pairs=99), "inconclusive"),
        (ShadowCounts(pairs=5_000), "pass"),
        (ShadowCounts(pairs=5_000, disagreements=300), "fail"),
        (
            ShadowCounts(pairs=5_000, disagreements=300, noise_pairs=100,
                         noise_disagreements=9),
            "pass",
        ),
    ],
)  # fmt: skip
def test_a_shadow_may_differ_as_often_as_allowed_beyond_the_noise(
    counts: ShadowCounts, verdict: str
) -> None:
    written = {"metric": "disagreement", "max": "1%"}
    assert judged(written, Evidence(shadows={2: counts})) == verdict


@pytest.mark.parametrize(
    ("limit_ms", "share", "verdict"),
    [(1000, "2%", "pass"), (100, "5%", "pass"), (100, "0.1%", "fail")],
)
def test_a_limit_on_slow_answers_is_judged_by_how_many_are_slow(
    limit_ms: float, share: str, verdict: str
) -> None:
    written = {"metric": "slo_exceedance", "threshold_ms": limit_ms, "max": share}
    traffic = Traffic(requests=1000, latency=SECOND)
    assert judged(written, Evidence(candidates={2: traffic})) == verdict


def test_few_requests_decide_nothing() -> None:
    written = {"metric": "error_rate", "max": "1%", "min_samples": 100}
    few = Traffic(requests=99, failures=99)
    assert judged(written, Evidence(candidates={2: few})) == "inconclusive"
    enough = Traffic(requests=100, failures=100)
    assert judged(written, Evidence(candidates={2: enough})) == "fail"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (None, "inconclusive"),
        (External(0.0, reason="an empty answer"), "inconclusive"),
        (External(0.0, value=float("nan")), "inconclusive"),
        (External(0.0, value=5.0), "pass"),
        (External(0.0, value=5.1), "fail"),
        (External(120.0, value=5.1), "fail"),
        (External(121.0, value=5.0), "inconclusive"),
    ],
)
def test_what_a_query_said_counts_while_it_is_fresh(
    said: External | None, verdict: str
) -> None:
    written = {"metric": "queue", "max": 5,
               "prometheus": {"url": "http://h:1", "query": "q"}}  # fmt: skip
    known = {} if said is None else {"queue": said}
    assert judged(written, Evidence(external=known)) == verdict


@pytest.mark.parametrize(("memory", "verdict"), [(110, "pass"), (111, "fail")])
def test_memory_is_compared_with_stables(memory: int, verdict: str) -> None:
    written = {"metric": "memory", "worse_by": "10%"}
    evidence = Evidence(
        candidates={2: Traffic(requests=100, memory_bytes=memory)},
        stable=Traffic(requests=100, memory_bytes=100),
        units={(2, ""): UnitCounts(1, 1)},
    )
    assert judged(written, evidence) == verdict


def test_a_gate_that_wants_proof_passes_when_it_is_there_and_not_before() -> None:
    written = {"metric": "error_rate", "worse_by": "100%", "test": "non_inferior"}
    key = bet_key("error_rate", 2)
    bet = start_bets(spec(written))[key]
    assert bet == start_label_bet(1.0, "no worse")
    verdicts = []
    for _ in range(2):
        evidence = Evidence(
            candidates={2: Traffic(requests=1000)},
            units={(2, ""): UnitCounts(5_000, 5_000)},
            bets={key: bet},
        )
        verdicts.append(judged(written, evidence))
        bet = step_label_bet(bet, (200, 200, 0.5))
    assert verdicts == ["inconclusive", "pass"]
