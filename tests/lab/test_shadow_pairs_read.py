"""Pairs of a tape: whose they are, which are the worst."""

import math
import struct
from pathlib import Path

import pytest

from router.clock import SystemClock
from router.engine._engine import crc32c
from router.errors import NotFoundError
from router.lab.examples import Pair, export_pairs, pairs_of, worst_pairs
from router.telemetry.tape import FRAME, TapeFiles
from router.testing import messages

Record = messages("router.v1")("Record")


def put(folder: Path, *pairs: tuple[str, float, int]) -> str:
    """Write pairs of (shadow, distance, mismatch bits)."""
    files = TapeFiles(folder, 1 << 20, 3600.0, SystemClock())
    for shadow, distance, mismatch in pairs:
        made = Record()
        pair = made.shadow_pair
        pair.model, pair.shadow, pair.version, pair.shadow_version = "m", shadow, 1, 2
        pair.distance, pair.mismatch = distance, mismatch
        pair.answered.add(name="y", datatype="FP32", shape=[1], data=b"\0\0\x80\x3f")
        nan = struct.pack("<f", math.nan)
        pair.shadowed.add(name="y", datatype="FP32", shape=[1], data=nan)
        pair.shadowed.add(name="large", datatype="FP32", shape=[9])
        data = made.SerializeToString()
        files.append(FRAME.pack(len(data), crc32c(data)) + data)
    files.close()
    return str(folder)


def distances(pairs: tuple[Pair, ...]) -> list[float | str]:
    return [pair.distance for pair in pairs]


def test_the_worst_come_first_and_mismatches_before_all(tmp_path: Path) -> None:
    tape = put(tmp_path / "t", ("r", 1, 0), ("r", 3, 0), ("r", 0, 8), ("r", 2, 0))
    found = worst_pairs(tape, "r", 3, print)
    assert distances(found) == [0, 3, 2]
    assert found[0].mismatch == ("nan",)
    assert found[0].stable == {"y": [1.0]}
    assert found[0].candidate == {"y": ["nan"], "large": None}
    assert found[0].inputs is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("r", [1, 2, 3]), ("r/web", [2]), ("r/ios", []), ("r2", [4]), ("web", [])],
)
def test_a_rollout_has_the_shadows_of_its_channels_and_candidates(
    tmp_path: Path, asked: str, expected: list[int]
) -> None:
    tape = put(
        tmp_path / "t", ("r", 1, 0), ("r/web", 2, 0), ("r#3", 3, 0), ("r2", 4, 0)
    )
    assert [pair.distance for pair in pairs_of(tape, asked, print)] == expected
    if not expected:
        with pytest.raises(NotFoundError, match="it has pairs of r"):
            worst_pairs(tape, asked, 9, print)


def test_an_export_has_every_pair(tmp_path: Path) -> None:
    tape = put(tmp_path / "t", *[("r", i, 0) for i in range(20)])
    target = tmp_path / "pairs.jsonl"
    assert export_pairs(tape, "r", str(target), print) == 20
    assert len(target.read_text().splitlines()) == 20


def test_a_tape_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        worst_pairs(str(tmp_path / "none"), "r", 1, print)
