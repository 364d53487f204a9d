"""The demo does what it says, and says so by its exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo" / "demo.py"
CLAIMS = (
    "no request failed",
    "audiences get their version",
    "shares are what was asked for",
    "growth moves nobody back",
    "audiences did not notice",
    "0 % brings everybody back",
    "answers are scikit-learn's own",
    "a rollout climbs by itself",
    "each rung is what was asked for",
    "no user flips back",
    "a broken version rolls itself back",
    "nobody was told what it said",
    "the history says why",
)


@pytest.mark.slow
def test_every_claim_of_the_demo_holds_and_the_second_run_keeps_the_models(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(DEMO), "--directory", str(tmp_path)]
    command += ["--requests", "600"]
    for words in ("trained just now", "kept from last time"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert words in done.stdout
        for claim in CLAIMS:
            assert f"{claim} " in done.stdout
        assert done.stdout.count("holds") == len(CLAIMS)
        assert "FAILS" not in done.stdout
