"""What a rollout's evidence looked like over time, for reports; bounded.

The control log remembers each move with its evidence; between moves there is nothing.
`Series` keeps a point every few seconds. A full series is thinned to every second
point, and from then on takes points half as often: a report of an hour and one of a
month have the same size. Losing the last minute of it in a crash costs a report its
last points and no decision anything.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.analysis.aipw import UNITS_MIN, effect_bounds
from router.analysis.verdict import Number, Verdict
from router.clock import Clock
from router.control.controller import ScopeView
from router.control.evidence import bet_key
from router.control.gates import Judged, alpha_of
from router.errors import StoreError
from router.plan.rollout import ENDED

log = logging.getLogger(__name__)

POINT_S = 5.0
POINTS_MAX = 600
SAVE_S = 60.0
AFTER_END = 24  # points that are still taken once a rollout has ended
NUMBERS = ("log_e", "estimate", "lower", "upper")


def series_name(scope: str) -> str:
    """The checkpoint that holds a scope's series."""
    return f"series/{scope}"


def points_of(view: ScopeView, at_s: float) -> dict[str, Any]:
    """One point: phase, shares, traffic, and each test's few numbers."""
    evidence = view.evidence
    traffic = {**evidence.candidates, view.spec.stable: evidence.stable}
    return {
        "at": round(at_s, 1),
        "phase": str(view.state.phase),
        "step": view.state.step,
        "attempt": view.state.attempt,
        "shares": {str(v): bp for v, bp in view.state.weights_bp.items()},
        "rates": {str(v): round(one.rate, 3) for v, one in traffic.items()},
        "requests": {str(v): one.requests for v, one in traffic.items()},
        "failures": {str(v): one.failures for v, one in traffic.items()},
        "tests": {key: _numbers(verdict) for key, verdict in tests_of_view(view)},
    }


def tests_of_view(view: ScopeView) -> Iterator[tuple[str, Verdict]]:
    """Every verdict by a key, and the effects that nothing is decided by."""
    for one in view.judged:
        yield bet_key(one.name, one.version, within=one.within), one.verdict
    spec = view.spec
    if spec.primary is not None:
        for version in spec.candidates:
            verdict = view.evidence.labels.get(f"primary|{version}")
            if verdict is not None:
                yield bet_key(f"primary: {spec.primary.metric}", version), verdict
    for (version, within), state in view.evidence.effects.items():
        if state.effect.units < UNITS_MIN:
            continue
        lower, upper = effect_bounds(state.effect, alpha_of(spec), state.precision)
        numbers: dict[str, Number] = {
            "estimate": state.effect.estimate, "lower": lower, "upper": upper,
            "units": state.effect.units,
        }  # fmt: skip
        said = "the difference of error rates; nothing is decided by it."
        verdict = Verdict("inconclusive", said, numbers)
        yield bet_key("error rate difference", version, within=within), verdict


def _numbers(verdict: Verdict) -> list[float | str | None]:
    """The verdict, ln E, and the effect with its interval if it is one."""
    numbers = verdict.numbers
    has_effect = "estimate" in numbers
    found = [
        numbers.get(name) if name == "log_e" or has_effect else None for name in NUMBERS
    ]
    return [verdict.verdict, *(_rounded(one) for one in found)]


def _rounded(value: Number | None) -> float | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


@dataclass(slots=True)
class _Line:
    """The points of one scope, and how far apart they are."""

    every_s: float = POINT_S
    points: list[dict[str, Any]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    phase: str = ""
    after_end: int = 0


class Series:
    """Owner of the points of every scope; the ticker's thread uses it."""

    def __init__(self, checkpoints: Any, clock: Clock) -> None:
        self._checkpoints, self._clock = checkpoints, clock
        self._lines: dict[str, _Line] = {}
        self._saved_s = clock.monotonic()

    def take(self, views: Iterable[ScopeView]) -> None:
        """Take a point of each scope whose time has come, and of each that moved."""
        now, has_moved = self._clock.now(), False
        views = tuple(views)
        for view in views:
            line = self._line(view.spec.scope)
            phase = str(view.state.phase)
            moved = phase != line.phase
            line.after_end = 0 if moved or phase not in ENDED else line.after_end + 1
            line.phase, has_moved = phase, has_moved or moved
            last = line.points[-1]["at"] if line.points else -math.inf
            is_over = line.after_end > AFTER_END * POINT_S / 0.25
            if not moved and (now - last < line.every_s or is_over):
                continue
            self._add(line, view, now)
        known = {view.spec.scope for view in views}
        for gone in [scope for scope in self._lines if scope not in known]:
            del self._lines[gone]
        monotonic_s = self._clock.monotonic()
        if has_moved or monotonic_s - self._saved_s >= SAVE_S:
            self._saved_s = monotonic_s
            self.save()

    def latest(self) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
        """What each scope is about, and its last point; any thread may ask."""
        lines = tuple(self._lines.values())
        return tuple((one.about, one.points[-1]) for one in lines if one.about)

    def save(self) -> None:
        """Leave every series for reports and a later process."""
        for scope, line in self._lines.items():
            stored = {
                "every_s": line.every_s, "points": line.points,
                "judged": line.judged, "about": line.about,
            }  # fmt: skip
            try:
                self._checkpoints.save(
                    series_name(scope), json.dumps(stored, separators=(",", ":"))
                )
            except StoreError as error:
                log.warning("a report's points cannot be saved",
                            extra={"fields": {"problem": str(error)}})  # fmt: skip
                return

    def _line(self, scope: str) -> _Line:
        line = self._lines.get(scope)
        if line is None:
            line = self._lines[scope] = _Line()
            stored = read_series(self._checkpoints, scope)
            line.every_s = float(stored.get("every_s", POINT_S))
            line.points = list(stored.get("points", ()))
            line.judged = list(stored.get("judged", ()))
            line.about = dict(stored.get("about", {}))
            line.phase = line.points[-1]["phase"] if line.points else ""
        return line

    def _add(self, line: _Line, view: ScopeView, now: float) -> None:
        line.points.append(points_of(view, now))
        line.judged = [one.as_dict() for one in _shown(view)]
        line.about = about(view)
        if len(line.points) > POINTS_MAX:
            line.points = line.points[::2]
            line.every_s *= 2


def _shown(view: ScopeView) -> Iterator[Judged]:
    yield from view.judged
    spec = view.spec
    for version in spec.candidates if spec.primary else ():
        verdict = view.evidence.labels.get(f"primary|{version}")
        if verdict is not None and spec.primary is not None:
            name = f"primary: {spec.primary.metric}"
            yield Judged(name, "primary", version, verdict, "promote")


def about(view: ScopeView) -> dict[str, Any]:
    """What does not change from point to point."""
    spec = view.spec
    return {
        "scope": spec.scope, "rollout": spec.rollout, "model": spec.model,
        "strategy": spec.strategy, "stable": spec.stable,
        "candidates": list(spec.candidates), "slices": list(spec.slices),
        "alpha": spec.alpha, "alpha_each": alpha_of(spec),
        "primary": spec.primary.metric if spec.primary else "",
    }  # fmt: skip


def read_series(checkpoints: Any, scope: str) -> Mapping[str, Any]:
    """What was saved of a scope; nothing when there is none or it cannot be read."""
    try:
        text = checkpoints.load(series_name(scope))
        stored = {} if text is None else json.loads(text)
    except (ValueError, StoreError):
        return {}
    return stored if isinstance(stored, dict) else {}
