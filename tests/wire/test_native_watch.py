"""The watch floor by itself: the tape and first events, under both sanitizers.

Its claims are the native tests' names (`tests/native/watch/`). Records go from thread
to thread and filters are shared by loops, so the thread sanitizer sees them too.
"""

import pytest
from native_build import ASAN, Toolchain, build, run

NAMES = ["main", "test_tape", "test_firsts"]
SOURCES = [
    *(f"tests/native/watch/{name}.cc" for name in NAMES),
    *(f"router/engine/watch/{name}.cc" for name in ["tape", "firsts", "histogram"]),
]


@pytest.mark.parametrize(
    "toolchain",
    [ASAN, pytest.param(Toolchain("tsan", sanitize="thread"), marks=pytest.mark.slow)],
    ids=lambda toolchain: toolchain.name,
)
def test_the_native_tests_pass(toolchain: Toolchain) -> None:
    program = build("watch/tests", SOURCES, ["pthread"], toolchain)
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
