"""What the overview shows: one value made of the controller's view, the catalogue and
the engine's counts.

Plain numbers and texts, so that the page and `/overview.json` cannot disagree. Looking
changes nothing but what is remembered here to turn counts into rates; however many
look, the sources are asked once a second.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.control.controller import ScopeView, View
from router.control.describe import flags_of, next_step_in_s, shares_of, step_words
from router.control.serving import ModelEntry, Serving
from router.errors import RefusedError

AGE_MAX_S = 1.0
RATE_S = 10.0  # what a rate is an average over, while somebody looks
POINTS_MAX = 32

Counts = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where it all comes from. `now_s` is monotonic."""

    view: Callable[[], View]
    serving: Serving
    snapshot: Callable[[], Mapping[str, Any]]
    now_s: Callable[[], float]
    version: str


class Overview:
    """Owner of the last overview made, and of the counts before it. Any thread may
    read."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        # At the start nothing is counted: the first look sees the average since then.
        self._points: deque[tuple[float, Counts]] = deque([(sources.now_s(), {})])
        self._made: dict[str, Any] = {}
        self._made_at_s = float("-inf")

    def read(self) -> dict[str, Any]:
        """Everything there is to see, at most a second old."""
        with self._lock:
            now_s = self._sources.now_s()
            if now_s - self._made_at_s >= AGE_MAX_S:
                self._made = self._make(now_s)
                self._made_at_s = now_s
            return self._made

    def _make(self, now_s: float) -> dict[str, Any]:
        sources = self._sources
        counts = read_counts(sources.snapshot())
        while len(self._points) > 1 and (
            self._points[1][0] <= now_s - RATE_S or len(self._points) >= POINTS_MAX
        ):
            self._points.popleft()
        rates = rates_of(self._points[0], (now_s, counts))
        self._points.append((now_s, counts))
        try:
            view = sources.view()
        except RefusedError:
            view = None  # still starting
        served = sources.serving.served
        reasons = sources.serving.unready_reasons()
        return {
            "version": sources.version,
            "is_ready": not reasons,
            "unready_reasons": list(reasons),
            "config_revision": served.config_revision,
            "table_revision": served.table_revision,
            "was_last_reload_successful": served.was_last_successful,
            "is_frozen": bool(view and view.is_frozen),
            "is_stalled": bool(view and view.is_stalled),
            "waiting": view.waiting if view else 0,
            "models": [
                _model(model, sources.serving, view, counts, rates)
                for model in served.catalogue.models.values()
            ],
            "rollouts": [_scope(one) for one in view.scopes] if view else [],
            "flags": flags_of(view) if view else {},
        }


def read_counts(snapshot: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Requests each version answered or failed to, all its variants together."""
    found: dict[tuple[str, int], int] = {}
    for entry in snapshot.get("variants", ()):
        key = entry["model"], entry["version"]
        found[key] = found.get(key, 0) + int(sum(entry["codes"].values()))
    return found


def rates_of(
    before: tuple[float, Counts], now: tuple[float, Counts]
) -> dict[tuple[str, int], float]:
    """Requests a second between two points; none where a counter began again."""
    elapsed_s = max(now[0] - before[0], 1e-9)
    return {
        key: max(0, count - before[1].get(key, 0)) / elapsed_s
        for key, count in now[1].items()
    }


def _model(
    model: ModelEntry,
    serving: Serving,
    view: View | None,
    counts: Counts,
    rates: Mapping[tuple[str, int], float],
) -> dict[str, Any]:
    planned = (
        {} if view is None else {one.name: one for one in view.routing.plan.models}
    )
    variants = planned[model.name].variants if model.name in planned else ()
    disabled = {one.version for one in variants if one.is_disabled}
    total = sum(rates.get((model.name, one.version), 0.0) for one in model.versions)
    versions = []
    for one in model.versions:
        key = model.name, one.version
        rate = rates.get(key, 0.0)
        versions.append(
            {
                "version": one.version,
                "names": [
                    v.name
                    for v in variants
                    if v.version == one.version and v.ordinal == 0
                ],
                "is_stable": one.version == model.stable,
                "is_loaded": one.is_loaded,
                "is_ready": serving.is_version_ready(*key),
                "is_disabled": one.version in disabled,
                "reason": one.reason,
                "requests": counts.get(key, 0),
                "requests_per_s": rate,
                "share": rate / total if total else None,
            }
        )
    return {"name": model.name, "stable": model.stable, "versions": versions}


def _scope(one: ScopeView) -> dict[str, Any]:
    spec, state = one.spec, one.state
    return {
        "scope": spec.scope,
        "rollout": spec.rollout,
        "model": spec.model,
        "strategy": spec.strategy,
        "audience": spec.audience or "",
        "phase": str(state.phase),
        "is_paused": state.is_paused,
        "is_off": state.is_off,
        "attempt": state.attempt,
        "step": state.step,
        "steps": [step_words(step) for step in spec.steps],
        "wave": state.wave,
        "waves": list(spec.waves),
        "waits_for": one.waits_for,
        "elapsed_s": state.elapsed_s,
        "next_step_in_s": next_step_in_s(one),
        "shares": [
            {
                "version": share.version,
                "is_stable": share.version == spec.stable,
                "asked_bp": share.asked_bp,
                "claimed_bp": share.claimed_bp,
                "requests_per_s": share.requests_per_s,
            }
            for share in shares_of(one)
        ],
        "verdicts": [
            {
                "name": judged.name,
                "role": judged.role,
                "version": judged.version,
                "slice": judged.within,
                "verdict": str(judged.verdict.verdict),
                "reason": judged.verdict.reason,
                "action": str(judged.action),
                "is_dry_run": judged.is_dry_run,
            }
            for judged in one.judged
        ],
    }
