"""Every test of routing runs on the kernel and on its specification."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from router import _fasthash, _fasthash_py


@dataclass(frozen=True, slots=True)
class Side:
    """One implementation of routing: its functions and its reader of tables."""

    functions: ModuleType
    table: Callable[[bytes], Any]


SIDES = {
    "kernel": Side(_fasthash, _fasthash.Table),
    "twin": Side(_fasthash_py, _fasthash_py.read_table),
}


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return SIDES[request.param]
