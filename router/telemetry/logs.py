"""Structured logs: one JSON object a line, on standard error.

What is logged can come from a client (a method's name, a model's name), so a line is
always escaped JSON, text is cut at a length, and one message may not fill the disk:
each (logger, level, message template) has a budget, and what it swallowed is counted in
the next line it lets through. Fields are given as `extra={"fields": {...}}`; the
message is a sentence without numbers, so that lines can be grouped by it.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from router.clock import Clock

TEXT_LEN_MAX = 2_000
TRACE_LEN_MAX = 8_000
FIELDS_MAX = 32
ITEMS_MAX = 50
DEPTH_MAX = 8
# A burst of lines an operator can still read, and at most two a second for ever after.
BURST = 20
REFILL_PER_S = 2.0
# Templates are ours, so there are few; the bound is for what libraries format
# themselves.
TEMPLATES_MAX = 1_024

_SILENCED = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


def cut(text: str, length_max: int = TEXT_LEN_MAX) -> str:
    """The text, or its beginning and how much is missing."""
    if len(text) <= length_max:
        return text
    return f"{text[:length_max]}... ({len(text) - length_max} more)"


def plain(value: Any, depth: int = 0) -> Any:
    """A JSON value of bounded size that says what `value` was."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth < DEPTH_MAX:
        return {cut(str(k)): plain(v, depth + 1) for k, v in _first(value.items())}
    if isinstance(value, list | tuple) and depth < DEPTH_MAX:
        return [plain(item, depth + 1) for item in _first(value)]
    return cut(str(value))


def _first(items: Any) -> list[Any]:
    return list(items)[:ITEMS_MAX]


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(record.getMessage()),
        }
        fields = getattr(record, "fields", {})
        for key, value in list(fields.items())[:FIELDS_MAX]:
            line.setdefault(str(key), plain(value))
        suppressed = getattr(record, "suppressed", 0)
        if suppressed:
            line["suppressed"] = suppressed
        if record.exc_info:
            line["trace"] = cut(self.formatException(record.exc_info), TRACE_LEN_MAX)
        # ASCII only: no terminal or log shipper is fooled by what a client sent.
        return json.dumps(line, ensure_ascii=True, allow_nan=True)

    def formatTime(  # noqa: N802 - the name is logging's
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """UTC with milliseconds, so that lines of several routers sort together."""
        del datefmt
        at = datetime.fromtimestamp(record.created, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RateLimit(logging.Filter):
    """Lets a template through at a bounded rate and counts what it held back.

    May be called from any thread. Errors are limited like the rest: a method that fails
    on every call would otherwise write the disk full with the same trace.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets: dict[tuple[str, int, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, str(record.msg))
        now = self._clock.monotonic()
        with self._lock:
            if key not in self._budgets and len(self._budgets) >= TEMPLATES_MAX:
                self._budgets.pop(next(iter(self._budgets)))
            # [left, since, suppressed]
            budget = self._budgets.setdefault(key, [float(BURST), now, 0.0])
            refill = (now - budget[1]) * REFILL_PER_S
            budget[0] = min(float(BURST), budget[0] + refill)
            budget[1] = now
            if budget[0] < 1:
                budget[2] += 1
                return False
            budget[0] -= 1
            record.suppressed = int(budget[2])
            budget[2] = 0
        return True


def configure_logs(
    clock: Clock, stream: TextIO | None = None, level: int = logging.INFO
) -> None:
    """Send every logger of the process through one JSON handler."""
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(JsonFormatter())
    output.addFilter(RateLimit(clock))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A log that cannot be written must not take the server with it.
    logging.raiseExceptions = False
