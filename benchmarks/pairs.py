"""Compares servers by alternating short runs, so that a noisy machine is noisy to all.

A round gives each server one run of the same load; the order rotates, so that nobody
always follows the same neighbour. What is reported is the median over rounds of the
paired ratio (and difference), with the quartiles as its spread; never the best run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np

from benchmarks import h2load
from benchmarks.h2load import Load, Measured
from benchmarks.models import Model
from benchmarks.servers import Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Subject against reference, paired by round."""

    ratio: float
    ratio_low: float
    ratio_high: float
    difference: float
    subject: float
    reference: float
    pairs: int


def compare(subject: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Compare two equally long series of figures, pair by pair."""
    pairs = list(zip(subject, reference, strict=True))
    ratios = [a / b for a, b in pairs]
    low, high = np.quantile(ratios, (0.25, 0.75))
    return Comparison(
        ratio=median(ratios),
        ratio_low=float(low),
        ratio_high=float(high),
        difference=median(a - b for a, b in pairs),
        subject=median(subject),
        reference=median(reference),
        pairs=len(pairs),
    )


def alternate(runs: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call each of `runs` once a round in rotating order; results by name and round."""
    results: dict[str, list[T]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(runs[name]())
    return results


def measure(
    servers: Sequence[Server], model: Model, load: Load, rounds: int, seconds: float
) -> dict[str, list[Measured]]:
    """Put one load on each server in turn; each is probed before and after."""
    for server in servers:
        server.check(model)
    calls = {s.name: h2load.calls_for(s, load, seconds) for s in servers}
    runs = {s.name: partial(h2load.run, s, load, calls[s.name]) for s in servers}
    results = alternate(runs, rounds)
    for server in servers:
        server.check(model)
    return results
