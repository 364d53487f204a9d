"""A metric family as a plain value, for parts that know no metrics library.

Whoever counts something hands out these; `prometheus.py` writes them. Names follow its
rules: base units, no suffix on counters (the exposition adds `_total`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counted:
    """One family, a counter or a gauge; a row is label values and a number."""

    name: str
    text: str
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], float], ...]
    is_gauge: bool = False
