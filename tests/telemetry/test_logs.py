"""Log lines: whole, escaped, bounded."""

import io
import json
import logging
from dataclasses import dataclass

import pytest

from router.telemetry.logs import BURST, TEXT_LEN_MAX, JsonFormatter, RateLimit


@dataclass
class ManualClock:
    time: float = 0.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def written(clock):
    """A logger and a function to its lines so far."""
    stream = io.StringIO()
    output = logging.StreamHandler(stream)
    output.setFormatter(JsonFormatter())
    output.addFilter(RateLimit(clock))
    logger = logging.Logger("test")
    logger.addHandler(output)
    return logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_fields(written):
    logger, lines = written
    logger.info("published", extra={"fields": {"revision": "ab", "moves": {"1->2": 5}}})
    (line,) = lines()
    assert line["message"] == "published"
    assert line["level"] == "info"
    assert line["moves"] == {"1->2": 5}
    assert line["time"].endswith("Z")


def test_what_a_client_sent_cannot_break_a_line(written):
    logger, lines = written
    logger.info("asked for %s", 'x\n{"level": "error"}\x1b[2J‮')
    (line,) = lines()
    assert line["level"] == "info"
    assert line["message"].startswith("asked for x\n{")


def test_fields_cannot_replace_what_a_line_says_of_itself(written):
    logger, lines = written
    logger.info("m", extra={"fields": {"level": "fatal", "message": "other"}})
    assert (lines()[0]["level"], lines()[0]["message"]) == ("info", "m")


def test_long_text_is_cut_and_says_so(written):
    logger, lines = written
    logger.info("m %s", "x" * 5_000, extra={"fields": {"deep": ["y" * 5_000]}})
    (line,) = lines()
    assert len(line["message"]) < TEXT_LEN_MAX + 40
    assert line["message"].endswith("more)")
    assert line["deep"][0].endswith("(3000 more)")


def test_an_exception_leaves_its_trace(written):
    logger, lines = written
    try:
        raise KeyError("x")
    except KeyError:
        logger.exception("failed")
    assert "KeyError" in lines()[0]["trace"]


def test_one_template_has_a_budget_and_what_it_swallowed_is_counted(written, clock):
    logger, lines = written
    for number in range(BURST + 30):
        logger.warning("bad thing %d", number)
    logger.warning("another thing")
    assert len(lines()) == BURST + 1
    clock.time += 10
    logger.warning("bad thing %d", -1)
    assert lines()[-1]["suppressed"] == 30


def test_levels_have_budgets_of_their_own(written):
    logger, lines = written
    for _ in range(BURST + 1):
        logger.warning("m")
    logger.error("m")
    assert lines()[-1]["level"] == "error"
