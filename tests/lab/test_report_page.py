"""The report's page: whole in itself, honest about gaps, readable in a browser."""

import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from router.control.reports import Moved, Report
from router.lab.charts import Axes, Interval, Line, Mark, forest, number, plot, ticks
from router.lab.report import text_of
from router.lab.report_page import page_of

BEGUN = 1_700_000_000.0
VOID = {"meta", "col", "line", "circle", "polygon", "path"}
WHY = "error_rate (version 3): error_rate: worse than the baseline: 41 in 5210 units."


def move(at_s, event, before, after, shares, reason):
    return Moved(at_s, 7, event, before, after, 1, shares, "router", reason, ())


def point(i, draw):
    wave = 1 / math.sqrt(1 + i)
    effect = 0.02 + draw.gauss(0, 0.02) * wave
    tests = {
        "error_rate|2||": ["pass", draw.gauss(-1, 0.2), None, None, None],
        "error_rate|3||": ["inconclusive", 0.04 * i - 2, None, None, None],
        "latency_p99|2|p99|": ["pass", draw.gauss(-2, 0.3), None, None, None],
        "sample ratio|0||": ["pass", draw.gauss(-3, 0.2), None, None, None],
        "primary: reward|2||": [
            "inconclusive", None, effect, effect - wave, effect + wave
        ],
        "error rate difference|3||": [
            "inconclusive", None, 0.004, 0.004 - 0.02 * wave, 0.004 + 0.02 * wave
        ],
        "error rate difference|3||new-york": [
            "inconclusive", None, 0.01, 0.002, 0.02
        ],
        "error rate difference|3||low-risk": [
            "inconclusive", None, -0.001, -0.006, 0.004
        ],
    }  # fmt: skip
    requests = {"1": 900 * i, "2": 50 * i, "3": 50 * i}
    return {
        "at": BEGUN + 30 * i, "phase": "ramping", "step": 0, "attempt": 1,
        "shares": {"2": 500 if i < 60 else 1000, "3": 500},
        "rates": {v: n / max(1, i) / 30 for v, n in requests.items()},
        "requests": requests,
        "failures": {"1": 3 * i, "2": i // 6, "3": i // 3},
        "tests": tests,
    }  # fmt: skip


def made(points=120):
    draw = random.Random(1)
    judged = [
        {
            "criterion": name, "role": "guardrail", "version": version,
            "action": "rollback", "dry_run": False, "slice": within,
            "verdict": verdict, "reason": f"{name}: {reason}",
            "numbers": {"log_e": 2.0, "alpha": 0.0125},
        }
        for name, version, within, verdict, reason in (
            ("error_rate", 2, "", "pass", "no sign of harm and at most 0.4 %."),
            ("error_rate", 3, "", "fail", WHY),
            ("error_rate", 3, "new-york, low-risk", "inconclusive", "not shown."),
            ("latency_p99", 2, "", "error", "more <events> than units & more."),
        )
    ]  # fmt: skip
    about = {
        "scope": "better", "rollout": "better", "model": "credit", "strategy": "ab",
        "stable": 1, "candidates": [2, 3], "slices": ["new-york", "low-risk"],
        "alpha": 0.05, "alpha_each": 0.0125, "primary": "reward",
    }  # fmt: skip
    moves = (
        move(BEGUN, "begin", "pending", "ramping", {"2": 500, "3": 500}, "it may"),
        move(BEGUN + 1800, "advance", "ramping", "ramping", {"2": 1000, "3": 500}, ""),
        move(BEGUN + 3600, "roll_back", "ramping", "rolled_back", {}, WHY),
    )
    many = tuple(point(i, draw) for i in range(1, points + 1))
    return Report("better", about, moves, many, tuple(judged), BEGUN + 4000)


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:  # noqa: ARG002
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:  # noqa: ARG002
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_well_formed_and_needs_nothing_from_elsewhere():
    page = page_of([made()])
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.seen
    assert parser.seen.count("svg") == 9
    assert not re.search(r"https?://|src=|url\(|@import", page)
    assert "default-src 'none'" in page


def test_what_others_wrote_is_escaped():
    page = page_of([made()])
    assert "more &lt;events&gt; than units &amp; more." in page


def test_a_page_of_one_point_or_none_says_what_is_missing():
    assert "No point in time was recorded." in page_of([made(0)])
    assert "<svg" in page_of([made(1)])


def test_the_text_says_the_decision_first():
    text = text_of([made()]).splitlines()
    assert text[0] == "better: rolled_back"
    assert text[2] == f"  roll_back: {WHY}"
    assert "  version 3: 6000 requests, 40 failed (0.667 %), 1.66667 a second" in text


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.03, 0.04, [-0.02, 0, 0.02, 0.04]),
    ],
)  # fmt: skip
def test_ticks_are_round(low, high, found):
    assert ticks(low, high, 5) == pytest.approx(found)


def test_numbers_on_axes_are_short():
    assert [number(v) for v in (0.1 + 0.2, 1e-15, 123456.0)] == ["0.3", "0", "1.2e+05"]


def test_a_gap_is_not_drawn_over():
    line = Line("a", [0.0, 1.0, 2.0, 3.0], [1.0, None, 2.0, 3.0])
    (drawn,) = re.findall(r'<path d="([^"]*)"', plot([line], [], Axes(), "t"))
    assert drawn.count("M") == 2


def test_marks_outside_of_the_plot_are_left_out():
    line = Line("a", [0.0, 1.0], [1.0, 2.0])
    drawn = plot([line], [Mark(-1.0, "1"), Mark(0.5, "2")], Axes(), "t")
    assert drawn.count('class="mark"') == 1


def test_an_unbounded_interval_is_no_row():
    rows = [Interval("a", 1, 0, 2), Interval("b", 1, -math.inf, 2)]
    assert forest(rows, Axes(), "t").count("<circle") == 1
    assert "No interval" in forest(rows[1:], Axes(), "t")


@pytest.mark.slow
def test_chromium_draws_the_page_without_overlap(tmp_path: Path):
    chromium = shutil.which("chromium")
    assert chromium is not None, "apt-get install chromium"
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(page_of([made()]))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--window-size=900,3400", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    subprocess.run(
        [*command, f"--screenshot={picture}", page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert picture.stat().st_size > 50_000
    # The same page with a script that measures every text of every plot.
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("default-src 'none'; ", "") + _PROBE)
    found = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert re.search(r"<title>overlaps: \[\]</title>", found), found[:300]


_PROBE = """<script>
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const whole = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(t =>
    [t.textContent, t.getBoundingClientRect()]);
  for (const [i, [said, a]] of boxes.entries()) {
    if (a.left < whole.left - 1 || a.right > whole.right + 1)
      found.push('out: ' + said);
    for (const [other, b] of boxes.slice(i + 1))
      if (a.left < b.right - 1 && b.left < a.right - 1 &&
          a.top < b.bottom - 2 && b.top < a.bottom - 2)
        found.push(said + ' / ' + other);
  }
}
document.title = 'overlaps: ' + JSON.stringify(found);
</script>"""
