"""`benchmarks.compare` decides about merges: each of its comparisons is pinned here."""

import json
from pathlib import Path

import pytest

from benchmarks.compare import changes, fell, main


def result(*rows: tuple[str, str, float]) -> dict:
    return {
        "name": "throughput",
        "commit": "0123456789abcdef",
        "time": "2026-01-01T00:00:00+00:00",
        "short": True,
        "rows": [
            {
                "case": case,
                "figure": "calls/s",
                "subject": "router",
                "reference": "floor",
                "better": better,
                "compared": {"ratio": ratio},
            }
            for case, better, ratio in rows
        ],
    }


def written(folder: Path, name: str, content: dict) -> str:
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("better", "old", "new", "score"),
    [
        ("higher", 0.8, 0.4, 0.5),
        ("higher", 0.4, 0.8, 2.0),
        ("lower", 1.0, 2.0, 0.5),
        ("lower", 2.0, 1.0, 2.0),
    ],
)
def test_a_score_below_one_means_it_got_worse(
    better: str, old: float, new: float, score: float
) -> None:
    (change,) = changes(result(("a", better, old)), result(("a", better, new)))
    assert change.score == score


@pytest.mark.parametrize(("new", "fails"), [(0.89, True), (0.9, False), (1.5, False)])
def test_only_a_fall_beyond_the_limit_fails(new: float, fails: bool) -> None:
    listed = changes(result(("a", "higher", 1.0)), result(("a", "higher", new)))
    assert bool(fell(listed, 0.9)) == fails


def test_a_row_that_went_away_is_a_fall() -> None:
    listed = changes(result(("a", "higher", 1.0), ("b", "higher", 1.0)), result())
    assert [change.score for change in fell(listed, 0.9)] == [None, None]


def test_a_new_row_is_not_compared() -> None:
    assert changes(result(), result(("a", "higher", 1.0))) == []


def test_rows_are_matched_by_name_and_not_by_place() -> None:
    old = result(("a", "higher", 1.0), ("b", "higher", 4.0))
    new = result(("b", "higher", 4.0), ("a", "higher", 1.0))
    assert [change.score for change in changes(old, new)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "code"),
    [([], 0), (["--fail-below", "0.9"], 1), (["--fail-below", "0.4"], 0)],
)
def test_the_exit_code_follows_the_limit(
    tmp_path: Path, options: list[str], code: int
) -> None:
    old = written(tmp_path, "old.json", result(("a", "higher", 1.0)))
    new = written(tmp_path, "new.json", result(("a", "higher", 0.5)))
    assert main([old, new, *options]) == code


def test_both_ratios_and_the_row_that_fell_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = written(tmp_path, "old.json", result(("small 8x8", "higher", 1.0)))
    new = written(tmp_path, "new.json", result(("small 8x8", "higher", 0.5)))
    main([old, new, "--fail-below", "0.9"])
    printed = capsys.readouterr().out
    assert "1.000      0.500    0.500  small 8x8, calls/s: router / floor" in printed
    assert "fell below 0.9: small 8x8" in printed
