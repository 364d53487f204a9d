"""The strongest test of an e-process: its mean over everything that can happen.

Under the null the mean is one (or at most one, for a null that allows less). Walking
the tree of all outcomes gives that mean exactly, without a random number.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any


def mean_of(
    state: Any,
    branches: Sequence[Sequence[tuple[float, Any]]],
    step: Callable[[Any, Any], Any],
    log_e: Callable[[Any], float],
) -> float:
    """The mean of exp(log_e) over all paths; each branch is (probability, tick)."""
    if not branches:
        return math.exp(log_e(state))
    return math.fsum(
        chance * mean_of(step(state, tick), branches[1:], step, log_e)
        for chance, tick in branches[0]
    )
