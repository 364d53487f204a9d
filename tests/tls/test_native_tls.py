"""TLS as bytes to values, under sanitizers: `tests/native/wire/test_tls.cc`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))
from native_build import build, run

SOURCES = [
    "tests/native/wire/main.cc",
    "tests/native/wire/test_tls.cc",
    "router/engine/wire/tls.cc",
]


@pytest.mark.slow
def test_the_native_tests_pass() -> None:
    done = run(build("tls/tests", SOURCES, ["ssl", "crypto"]))
    assert done.returncode == 0, done.stdout + done.stderr
