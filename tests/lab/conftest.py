"""One engine for the tests of a load; it only counts, so they can share it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.append(HERE)

from bench_target import Target, loopback  # noqa: E402


@pytest.fixture(scope="package")
def target() -> Iterator[Target]:
    with loopback() as made:
        yield made
