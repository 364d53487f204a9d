"""Truths in a file: CSV, JSON lines, or Parquet (which needs pyarrow).

A row is a mapping of columns; what it may hold is the same for the three formats. Bad
rows are errors with file and line (or row), because a wrong label that goes in quietly
is worse than an import that stops.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.errors import RouterError

GROUP = "group:"
COLUMNS = (
    "prediction_id", "label", "reward", "metric", "value", "row", "time",
    "idempotency_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about a prediction. `kind` is label, reward, or a metric's name."""

    prediction_id: str
    kind: str
    value: float
    row: int = 0
    groups: tuple[tuple[str, str], ...] = ()
    idempotency_id: str = ""
    time_ms: int = 0


def read_truths(path: str) -> Iterator[Truth]:
    """Every row of a file, read as it is asked for."""
    suffix = Path(path).suffix.lower()
    readers = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    if suffix not in readers:
        raise RouterError(f"{path}: expected a .csv, .jsonl or .parquet file")
    for line, columns in readers[suffix](path):
        try:
            yield _truth(columns)
        except ValueError as error:
            raise RouterError(f"{path}:{line}: {error}") from None


def _csv(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened, restkey="(more)")
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, encoding="utf-8") as opened:
        for line, text in enumerate(opened, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError:
                raise RouterError(f"{path}:{line}: not JSON") from None
            if not isinstance(row, dict):
                raise RouterError(f"{path}:{line}: expected an object")
            groups = row.pop("groups", None) or {}
            if not isinstance(groups, dict):
                raise RouterError(f"{path}:{line}: groups: expected an object")
            yield line, {**row, **{GROUP + str(k): v for k, v in groups.items()}}


def _parquet(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise RouterError(
            f"{path}: Parquet needs pyarrow: pip install 'inference-router[parquet]'"
        ) from None
    line = 0
    with parquet.ParquetFile(path) as opened:
        for batch in opened.iter_batches(4_096):
            for row in batch.to_pylist():
                line += 1
                yield line, row


def _truth(columns: Mapping[str, Any]) -> Truth:
    given = {k: v for k, v in columns.items() if v is not None and v != ""}
    for name in given:
        if name not in COLUMNS and not name.startswith(GROUP):
            raise ValueError(f"unknown column '{name}'; known: {', '.join(COLUMNS)}")
    if "prediction_id" not in given:
        raise ValueError("no prediction_id")
    kinds = [kind for kind in ("label", "reward", "metric") if kind in given]
    if len(kinds) != 1:
        raise ValueError("give one of label, reward and metric")
    kind = kinds[0]
    text = given.get("value") if kind == "metric" else given[kind]
    return Truth(
        str(given["prediction_id"]),
        str(given[kind]) if kind == "metric" else kind,
        _number(text, "value" if kind == "metric" else kind),
        int(_number(given.get("row", 0), "row")),
        tuple(
            (name.removeprefix(GROUP), str(value))
            for name, value in sorted(given.items())
            if name.startswith(GROUP)
        ),
        str(given.get("idempotency_id", "")),
        _time_ms(given["time"]) if "time" in given else 0,
    )


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: '{value}' is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}: '{value}' is not a finite number")
    return number


def _time_ms(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"time: '{value}' is no time") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return int(_number(value, "time") * 1000)
