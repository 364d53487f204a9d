"""Prints two results side by side; fails if a ratio fell.

    python -m benchmarks.compare OLD.json NEW.json [--fail-below 0.9]

Only ratios are compared, since each was taken beside its reference on one machine, at
once. A row's score is new ratio / old ratio where higher is better and the inverse
where lower is better: below 1 it got worse. With `--fail-below` the exit code is 1 if
any score is below the limit or a row of OLD is missing from NEW: a benchmark that went
away must not pass for one that held.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one row; `new` and `score` are None if it is gone."""

    name: str
    old: float
    new: float | None
    score: float | None


def changes(old: dict, new: dict) -> list[Change]:
    """Every row of the old result, with the new one's ratio beside it."""
    found = {_name(row): row["compared"]["ratio"] for row in new["rows"]}
    listed = []
    for row in old["rows"]:
        before = row["compared"]["ratio"]
        after = found.get(_name(row))
        score = None
        if after is not None:
            score = after / before if row["better"] == "higher" else before / after
        listed.append(Change(_name(row), before, after, score))
    return listed


def fell(listed: Sequence[Change], fail_below: float) -> list[Change]:
    """The changes that are worse than allowed."""
    return [c for c in listed if c.score is None or c.score < fail_below]


def _name(row: dict) -> str:
    return f"{row['case']}, {row['figure']}: {row['subject']} / {row['reference']}"


def _line(change: Change) -> str:
    if change.new is None or change.score is None:
        return f"{change.old:9.3f}    missing            {change.name}"
    return f"{change.old:9.3f}  {change.new:9.3f}  {change.score:7.3f}  {change.name}"


def _about(result: dict) -> str:
    length = "short" if result["short"] else "full"
    return f"{result['name']} {result['commit'][:10]} {result['time']} ({length})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--fail-below", type=float)
    given = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (given.old, given.new))
    print(f"old: {_about(old)}\nnew: {_about(new)}")
    print("      old        new    score  ratio")
    listed = changes(old, new)
    print("\n".join(map(_line, listed)))
    if given.fail_below is None:
        return 0
    worse = fell(listed, given.fail_below)
    for change in worse:
        print(f"fell below {given.fail_below}: {change.name}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
