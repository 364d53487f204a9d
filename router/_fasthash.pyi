from array import array
from collections.abc import Mapping, Sequence
from typing import Self, final

from router._fasthash_py import Decision, Regex, Value

__pyx_capi__: dict[str, object]  # what Cython exports for `cimport`
__test__: dict[str, str]

def xxh64(data: bytes, seed: int) -> int: ...
def bucket(unit: bytes, salt: str) -> int: ...
def claim_order(salt: str) -> array[int]: ...
def read_number(text: bytes) -> float | None: ...
def read_time(text: bytes) -> float | None: ...
def order_semver(left: bytes, right: bytes) -> int | None: ...
def time_count(n: int) -> float: ...

@final
class Table:
    def __new__(cls, data: bytes) -> Self: ...
    @property
    def revision(self) -> int: ...
    def route(
        self,
        model: str,
        attributes: Mapping[str, Value],
        unit: bytes | None,
        unit_source: int,
        pin: int = -1,
        random: int = 0,
        regex: Regex | None = None,
    ) -> Decision: ...
    def shadows(
        self,
        model: str,
        attributes: Mapping[str, Value],
        unit: bytes | None,
        unit_source: int,
        pin: int = -1,
        random: int = 0,
    ) -> tuple[int, ...]: ...
    def time_route(
        self, n: int, model: str, contexts: Sequence[tuple[Mapping[str, Value], bytes]]
    ) -> float: ...
