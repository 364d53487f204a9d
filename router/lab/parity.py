"""Two fingerprints side by side: where do they differ, and does it matter?

Every point that either has is looked at. *Blocking*: answers may be other ones (another
runtime, model, signature or golden output, or a version that is missing).
*Differing*: answers are the same, but speed or load may not be, so figures from one
environment do not hold in the other. *Informational*: expected to differ.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from router.analysis.drift import Bins, judge_drift
from router.lab.fingerprint import Fingerprint

Severity = Literal["blocking", "differing", "informational"]
SEVERITIES: tuple[Severity, ...] = ("blocking", "differing", "informational")
LATENCY_FACTOR = 1.5  # probes of an idle machine vary by less

# The first that matches a whole name decides; nothing else is in a fingerprint.
_RULES: tuple[tuple[str, Severity], ...] = (
    (r"runtime/onnxruntime", "blocking"),
    (r"runtime/providers", "differing"),
    (r"machine/architecture", "blocking"),
    (r"machine/kernel", "informational"),
    (r"machine/.*", "differing"),
    (r"router/.*", "informational"),
    (r"server/.*", "differing"),
    (r"models/.*/stable", "informational"),
    (r"models/.*/(sha256|inputs|outputs|providers|loaded|platform)", "blocking"),
    (r"models/.*/golden", "blocking"),
    (r"models/.*/(threads|batching|isolated|probe_us)", "differing"),
)
_VERSION = re.compile(r"(models/.*/[0-9]+)/[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Near:
    """Golden outputs agree within `absolute + relative * |the first's|`."""

    absolute: float = 1e-6
    relative: float = 1e-5


@dataclass(frozen=True, slots=True)
class Point:
    """One point in which two environments differ."""

    name: str
    severity: Severity
    first: str
    second: str


def compare(
    first: Fingerprint,
    second: Fingerprint,
    near: Near = Near(),
) -> tuple[Point, ...]:
    """Where they differ, the most severe first."""
    found = [*_points(first.points, second.points, near), *_inputs(first, second)]
    rank = {severity: i for i, severity in enumerate(SEVERITIES)}
    return tuple(sorted(found, key=lambda point: (rank[point.severity], point.name)))


def severity_of(name: str) -> Severity:
    for pattern, severity in _RULES:
        if re.fullmatch(pattern, name):
            return severity
    return "informational"  # a newer router's point


def _points(
    first: Mapping[str, Any], second: Mapping[str, Any], near: Near
) -> Iterator[Point]:
    whole = set()
    for side in (first, second):
        whole |= {found[1] for name in side if (found := _VERSION.fullmatch(name))}
    held = [
        {v for v in whole if any(n.startswith(f"{v}/") for n in side)}
        for side in (first, second)
    ]
    missing = (held[0] | held[1]) - (held[0] & held[1])
    for version in missing:
        there = ("there", "missing") if version in held[0] else ("missing", "there")
        yield Point(version, "blocking", *there)
    for name in sorted(first.keys() | second.keys()):
        of = _VERSION.fullmatch(name)
        if of and of[1] in missing:
            continue
        a, b = first.get(name), second.get(name)
        if name.endswith("/golden"):
            yield from _golden(name, a, b, near)
        elif name.endswith("/probe_us"):
            yield from _latency(name, a, b)
        elif a != b:
            yield Point(name, severity_of(name), _said(a), _said(b))


def _latency(name: str, a: Any, b: Any) -> Iterator[Point]:
    if a is None or b is None:
        return  # the golden point says why there was nothing to time
    if max(a, b) > LATENCY_FACTOR * min(a, b):
        yield Point(name, severity_of(name), f"{a} us", f"{b} us")


def _golden(name: str, a: Any, b: Any, near: Near) -> Iterator[Point]:
    """One point at most: the first difference of the first request that has one."""
    if a is None or b is None:
        if a != b:
            yield Point(name, "blocking", _said(a), _said(b))
        return
    for number, (one, other) in enumerate(zip(a, b, strict=False)):
        place = f"{name}[{number}]"
        if one.get("request") != other.get("request"):
            yield Point(place, "blocking", "other inputs", "other inputs")
            return
        if "failed" in one or "failed" in other:
            a_said, b_said = (_said(x.get("failed", "answers")) for x in (one, other))
            if a_said != b_said:
                yield Point(place, "blocking", a_said, b_said)
                return
            continue
        for point in _outputs(place, one["outputs"], other["outputs"], near):
            yield point
            return


def _outputs(
    place: str, a: Mapping[str, Any], b: Mapping[str, Any], near: Near
) -> Iterator[Point]:
    for output in sorted(a.keys() | b.keys()):
        one, other = a.get(output), b.get(output)
        name = f"{place}/{output}"
        if one is None or other is None:
            yield Point(name, "blocking", _said(one), _said(other))
            continue
        form = [(x["datatype"], x["shape"], len(x["values"])) for x in (one, other)]
        if form[0] != form[1]:
            yield Point(name, "blocking", _said(form[0]), _said(form[1]))
            continue
        for at, (x, y) in enumerate(zip(one["values"], other["values"], strict=True)):
            if not _is_near(x, y, near):
                yield Point(f"{name}[{at}]", "blocking", _said(x), _said(y))
                break


def _is_near(a: Any, b: Any, near: Near) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= near.absolute + near.relative * abs(a)
    return bool(a == b)


def _inputs(first: Fingerprint, second: Fingerprint) -> Iterator[Point]:
    """Inputs whose distribution is another one; those that both have seen."""
    both = {
        name: Bins(counts, second.histograms[name])
        for name, counts in first.histograms.items()
        if len(second.histograms.get(name, ())) == len(counts)
    }
    for name, verdict in judge_drift(both).items():
        if verdict.verdict == "fail":
            counts = sum(both[name].reference), sum(both[name].current)
            said = verdict.reason.removeprefix(f"{name}: ")
            yield Point(
                f"inputs/{name}", "differing", f"{counts[0]} values",
                f"{counts[1]} values: {said}",
            )  # fmt: skip


def _said(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float) and not math.isnan(value):
        return f"{value:.9g}"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
