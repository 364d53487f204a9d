"""The watch floor by itself: the tape, under both sanitizers.

Its claims are the native tests' names (`tests/native/watch/`). A record goes from one
thread to another, so the thread sanitizer sees it too.
"""

import pytest
from native_build import ASAN, Toolchain, build, run

SOURCES = ["tests/native/watch/test_tape.cc", "router/engine/watch/tape.cc"]


@pytest.mark.parametrize(
    "toolchain",
    [ASAN, pytest.param(Toolchain("tsan", sanitize="thread"), marks=pytest.mark.slow)],
    ids=lambda toolchain: toolchain.name,
)
def test_the_native_tests_pass(toolchain: Toolchain) -> None:
    program = build("watch/tests", SOURCES, ["pthread"], toolchain)
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
