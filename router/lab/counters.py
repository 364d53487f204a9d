"""What the simulated engine counts, and how the engine's snapshot spells it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from router.lab.demand import BUCKET_COUNT, EDGES_PER_OCTAVE, FIRST

KINDS = ("exposure", "error", "invalid", "fallback", "over_p90", "over_p99",
         "over_p999", "label")  # fmt: skip

Ints = npt.NDArray[np.int64]
VariantKey = tuple[str, str, int, int]  # model, name, version, ordinal
FirstKey = tuple[str, int, int, str, str, str, int, int]


@dataclass(slots=True)
class Counters:
    """What came of a variant's requests, or of those that a rule gave it."""

    requests: int = 0
    ok: int = 0
    failures: int = 0
    invalid: int = 0
    fallbacks: int = 0
    skipped: int = 0
    scores: int = 0
    score_sum: float = 0.0
    score_squares: float = 0.0
    latency: Ints = field(default_factory=lambda: np.zeros(BUCKET_COUNT, np.int64))


@dataclass(slots=True)
class Firsts:
    """First events of a rule's variant, and the counters of its requests."""

    sticky: Ints = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    other: Ints = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    counters: Counters = field(default_factory=Counters)


@dataclass(slots=True)
class Pairs:
    """A shadow's pairs with what was answered, and stable's with itself."""

    pairs: int = 0
    disagreements: int = 0
    failed: int = 0
    noise_pairs: int = 0
    noise_disagreements: int = 0


def _histogram(latency: Ints) -> dict[str, Any]:
    filled = np.flatnonzero(latency)
    counts = latency[filled].tolist()
    buckets = [[at + FIRST, n] for at, n in zip(filled.tolist(), counts, strict=True)]
    total = sum(n * 2.0 ** (at / EDGES_PER_OCTAVE) for at, n in buckets)
    return {"count": sum(counts), "sum": total, "buckets": buckets}


def _score(counters: Counters) -> dict[str, Any]:
    return {
        "count": counters.scores, "sum": counters.score_sum,
        "sum_squares": counters.score_squares,
    }  # fmt: skip


def variant_json(key: VariantKey, counters: Counters) -> dict[str, Any]:
    model, name, version, ordinal = key
    lost = counters.requests - counters.ok
    codes = {"OK": counters.ok} | ({"INTERNAL": lost} if lost else {})
    return {
        "model": model, "variant": name, "version": version, "ordinal": ordinal,
        "codes": {code: n for code, n in codes.items() if n},
        "failures": counters.failures, "timeouts": 0, "invalid": counters.invalid,
        "fallbacks": counters.fallbacks, "cancelled": 0, "skipped": counters.skipped,
        "score": _score(counters), "stages": {"total": _histogram(counters.latency)},
    }  # fmt: skip


def first_json(key: FirstKey, firsts: Firsts) -> dict[str, Any]:
    scope, attempt, revision, model, rule, variant, version, ordinal = key
    counters = firsts.counters
    return {
        "scope": scope, "attempt": attempt, "rollout_revision": revision,
        "model": model, "rule": rule, "variant": variant, "version": version,
        "ordinal": ordinal,
        "sticky": dict(zip(KINDS, firsts.sticky.tolist(), strict=True)),
        "other": dict(zip(KINDS, firsts.other.tolist(), strict=True)),
        "requests": counters.requests,
        "errors": counters.failures + counters.invalid + counters.skipped,
        "score": _score(counters), "latency": _histogram(counters.latency),
        "clusters": [],
    }  # fmt: skip


def pairs_json(key: VariantKey, pairs: Pairs) -> dict[str, Any]:
    model, shadow, version, _ = key
    return {
        "model": model, "shadow": shadow, "version": version,
        "sampled": pairs.pairs + pairs.failed, "failed": pairs.failed, "waiting": 0,
        "dropped": {}, "pairs": pairs.pairs, "disagreements": pairs.disagreements,
        "mismatched": 0, "cpu_ns": 0,
        "noise": {
            "pairs": pairs.noise_pairs, "disagreements": pairs.noise_disagreements,
        },
    }  # fmt: skip
