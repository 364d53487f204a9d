"""Problems of guardrails and gates: amounts that cannot be meant, sources that cannot
be asked, names given twice."""

import difflib
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from router.config.problems import Finding, Path
from router.config.steps import BUILT_IN, Amount, Criteria, Criterion

Finder = Iterator[Finding]

_TIMES = ("ms", "us", "s")
_RATES = frozenset(
    {
        "error_rate", "invalid_rate", "fallback_rate", "slo_exceedance", "disagreement",
        "accuracy", "precision", "recall", "calibration_error", "conversion",
    }
)  # fmt: skip

_COUNTED = frozenset({"error_rate", "invalid_rate", "fallback_rate"})
_HARMS = _COUNTED | {"slo_exceedance", "disagreement"}


def units_of(metric: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Units that a built-in metric's `worse_by`, and its `min` and `max`, may have."""
    if metric in _RATES:
        return ("pp", "%"), ("%", "")
    if metric.startswith("latency_"):
        return ("%", *_TIMES), _TIMES
    if metric == "cpu_per_request":
        return ("%", *_TIMES), _TIMES
    if metric == "memory":
        return ("%", "MiB", "GiB"), ("MiB", "GiB")
    return ("%", ""), ("",)


def check_criteria(criteria: Criteria, path: Path) -> Finder:
    """Problems of each criterion of a list, and of their names."""
    yield from check_names(((*path, i), c) for i, c in enumerate(criteria))
    for i, criterion in enumerate(criteria):
        place = (*path, i)
        yield from _check_sources(criterion, place)
        yield from _check_metric(criterion, place)
        yield from _check_amounts(criterion, place)
        yield from _check_effect(criterion, place)


def check_names(placed: Iterable[tuple[Path, Criterion]]) -> Finder:
    """Verdicts are known by their criterion's name, so each has one of its own."""
    seen: set[str] = set()
    for path, criterion in placed:
        name = criterion.name or criterion.metric
        if name in seen:
            yield Finding(
                (*path, "name"), "another criterion here has this name", repr(name),
                "give one of them a name of its own",
            )  # fmt: skip
        seen.add(name)


def _check_sources(criterion: Criterion, path: Path) -> Finder:
    for kind, source in (
        ("prometheus", criterion.prometheus),
        ("webhook", criterion.webhook),
    ):
        if source is not None and (problem := _url_problem(source.url)):
            yield Finding(
                (*path, kind, "url"), problem, repr(source.url),
                "write it as http://host:port/path",
            )  # fmt: skip


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "not an URL"
    if parts.scheme not in ("http", "https"):
        return "an URL of http or https is expected"
    if not is_complete or any(c.isspace() for c in url):
        return "not an URL"
    return None


def _check_metric(criterion: Criterion, path: Path) -> Finder:
    metric = criterion.metric
    if criterion.threshold_ms is not None and metric != "slo_exceedance":
        yield Finding(
            (*path, "threshold_ms"), f"takes no effect: {metric} has no threshold", "",
            "use it with slo_exceedance",
        )  # fmt: skip
    if criterion.prometheus or criterion.webhook or metric in BUILT_IN:
        return
    close = difflib.get_close_matches(metric, BUILT_IN, n=1, cutoff=0.85)
    if close:
        yield Finding(
            (*path, "metric"), "no metric of this name", repr(metric),
            f"did you mean '{close[0]}'?",
        )  # fmt: skip
    elif criterion.worse_by is criterion.max is criterion.min is None:
        yield Finding(path, "say what is too bad: worse_by, max or min", repr(metric))


def _check_effect(criterion: Criterion, path: Path) -> Finder:
    """What would be read and then change nothing."""
    if criterion.prometheus or criterion.webhook:
        return
    metric, worse_by = criterion.metric, criterion.worse_by
    is_harm = metric in _HARMS or metric.startswith("latency_")
    if is_harm and criterion.min is not None:
        yield Finding(
            (*path, "min"), f"takes no effect: less of {metric} is never too bad", "",
            "use max",
        )  # fmt: skip
    is_counted = metric in _COUNTED and worse_by is not None and worse_by.unit == "%"
    if criterion.test == "non_inferior" and (
        metric in _HARMS or metric.startswith("latency_")
    ) and not is_counted:  # fmt: skip
        yield Finding(
            (*path, "test"), f"{metric} cannot be shown not to be worse this way", "",
            f"use {', '.join(sorted(_COUNTED))} with a worse_by in %",
        )  # fmt: skip


def _check_amounts(criterion: Criterion, path: Path) -> Finder:
    is_external = bool(criterion.prometheus or criterion.webhook)
    is_ours = criterion.metric in BUILT_IN and not is_external
    relative, absolute = units_of(criterion.metric)
    for key, amount, units in (
        ("worse_by", criterion.worse_by, relative),
        ("max", criterion.max, absolute),
        ("min", criterion.min, absolute),
    ):
        if amount is None:
            continue
        place, written = (*path, key), f"{amount.value:g}{amount.unit}"
        may_be_negative = key != "worse_by" and units == ("",)
        if amount.value < 0 and (is_ours or key == "worse_by") and not may_be_negative:
            yield Finding(
                place, "an amount is not below zero", written, "leave out the minus"
            )
        elif criterion.metric == "srm" and is_ours:
            yield Finding(
                place, "takes no effect: a split is tested against the plan", written,
                "leave it out",
            )  # fmt: skip
        elif is_ours and amount.unit not in units:
            yield Finding(
                place, f"this unit does not fit {criterion.metric}", written,
                _as_written(units),
            )  # fmt: skip
        elif is_ours and criterion.metric in _RATES and _is_more_than_all(amount, key):
            yield Finding(
                place,
                "a rate is at most 100%",
                written,
                "write 1% for one in a hundred",
            )
    yield from _check_order(criterion, path)


def _as_written(units: tuple[str, ...]) -> str:
    examples = [f"1{unit}" if unit else "a bare number such as 0.5" for unit in units]
    return f"write {' or '.join(examples)}"


def _is_more_than_all(amount: Amount, key: str) -> bool:
    if key == "worse_by":
        return amount.unit == "pp" and amount.value > 100
    return amount.value > (100 if amount.unit == "%" else 1)


def _check_order(criterion: Criterion, path: Path) -> Finder:
    low, high = criterion.min, criterion.max
    if low is None or high is None or low.unit != high.unit:
        return
    if low.value > high.value:
        yield Finding(
            (*path, "min"), "min is above max: nothing would pass",
            f"{low.value:g}{low.unit}", f"at most {high.value:g}{high.unit}",
        )  # fmt: skip
