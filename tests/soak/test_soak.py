"""The soak itself, for as long as it takes to see that it still works."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parent / "soak.py"


@pytest.mark.slow
def test_ten_seconds_of_everything_at_once_leave_no_trace():
    done = subprocess.run(
        [sys.executable, str(SOAK), "--minutes", "0.17", "--clients", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good OK" in done.stdout
    assert "raw resets" in done.stdout


@pytest.mark.slow
def test_ten_seconds_of_faulty_upstreams_leave_nothing_behind():
    script = SOAK.with_name("upstream_faults.py")
    done = subprocess.run(
        [sys.executable, str(script), "--minutes", "0.2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "faults" in done.stdout
