"""Scopes, states and evidence for tests of the controller, made small."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.analysis.verdict import Verdict
from router.config.config import Config
from router.config.steps import Criterion
from router.control.decide import Now
from router.control.evidence import Evidence, External, Traffic, UnitCounts
from router.plan.rollout import Phase, ScopeState, Spec
from router.plan.scopes import specs_of

VERSIONS = {"credit": (1, 2, 3, 4)}
AUDIENCES = [
    {"name": "new-york", "when": {"key": "location", "exact": "new-york"}},
    {"name": "california", "when": {"key": "location", "exact": "california"}},
]
GATE = {"metric": "external", "webhook": {"url": "http://localhost/"}}
LADDER: list[dict[str, Any]] = [
    {"weight": {"to": 5, "for": "1h"}},
    {"weight": {"to": 50, "for": "1h"}},
    {"weight": {"to": 100, "for": "1h"}},
]
NOON_MONDAY = 1_700_481_600.0  # 2023-11-20 12:00 UTC


def config(*rollouts: Mapping[str, Any], **sections: Any) -> Config:
    return Config.model_validate(
        {
            "api_version": "router/v1",
            "models": [{"name": "credit", "repository": "r", "stable": 1}],
            "audiences": AUDIENCES,
            "rollouts": rollouts,
            **sections,
        }
    )


def rollout(name: str = "credit-2", **settings: Any) -> dict[str, Any]:
    candidate = {} if "candidates" in settings else {"candidate": 2}
    # One that nothing but requests judges, so that a test says what else does.
    plain = {"guardrails": [{"metric": "fallback_rate", "max": "99%", "min_samples": 1,
                             "dry_run": True}]}  # fmt: skip
    return (
        {"name": name, "model": "credit", "steps": LADDER}
        | candidate
        | plain
        | (settings)
    )


def spec_of(**settings: Any) -> Spec:
    return specs_of(config(rollout(**settings)), VERSIONS)[0]


def state_of(spec: Spec, phase: Phase = Phase.RAMPING, **changes: Any) -> ScopeState:
    """A scope that has begun, at its first step."""
    has_begun = phase != Phase.PENDING
    state = ScopeState(spec.scope, spec.rollout, spec.model, spec.digest)
    changes = {"is_begun": has_begun, "phase": phase} | changes
    if has_begun and "weights_bp" not in changes:
        changes["weights_bp"] = dict.fromkeys(spec.candidates, 500)
    return replace(state, **changes)


def evidence(**changes: Any) -> Evidence:
    """Both versions have served faultlessly for a minute."""
    served = Traffic(requests=1000, recent_requests=100, rate=10.0)
    units = {(2, ""): UnitCounts(1000, 1000, 1000)}
    found = Evidence(candidates={2: served}, stable=served, units=units)
    return replace(found, **changes)


def said(**verdicts: str) -> dict[str, External]:
    """What webhooks said, by criterion."""
    return {
        name: External(0.0, verdict=verdict, reason="so it is")  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    }


def now(wall_s: float = NOON_MONDAY, **changes: Any) -> Now:
    return replace(Now(wall_s), **changes)


def webhook(name: str, **settings: Any) -> dict[str, Any]:
    """A criterion that a webhook judges: `said(name=...)` is its verdict."""
    return {"metric": name, "webhook": {"url": "http://localhost/"}, **settings}


def criterion(**settings: Any) -> Criterion:
    return Criterion.model_validate(settings)


def verdict(word: str, reason: str = "so it is") -> Verdict:
    return Verdict(word, reason)  # type: ignore[arg-type]
