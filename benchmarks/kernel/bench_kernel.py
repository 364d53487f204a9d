"""How much faster than plain Python, and than `xxhash`, is the kernel from Python?

Microseconds of one call, Python's call included; `loop.py` measures without it. Run
with `pytest benchmarks/kernel/bench_kernel.py --benchmark-json=FILE`.
"""

import pytest
import xxhash
from kernel_cases import AUDIENCE_CALLS, SPLIT_CALLS, table_bytes

from router import _fasthash, _fasthash_py

DIGESTS = {
    "kernel": _fasthash.xxh64,
    "plain Python": _fasthash_py.xxh64,
    "xxhash": xxhash.xxh64_intdigest,
}
TABLES = {"kernel": _fasthash.Table, "plain Python": _fasthash_py.read_table}
CALLS = {"split": SPLIT_CALLS, "audiences": AUDIENCE_CALLS}


@pytest.mark.parametrize("length", [16, 64, 4096])
@pytest.mark.parametrize("side", DIGESTS)
def test_digest(benchmark, side, length):
    benchmark.group = f"digest of {length} bytes"
    benchmark(DIGESTS[side], b"u" * length, 7)


@pytest.mark.parametrize("model", CALLS)
@pytest.mark.parametrize("side", TABLES)
def test_route(benchmark, side, model):
    benchmark.group = f"route, {model}"
    table = TABLES[side](table_bytes())
    attributes, unit = CALLS[model][0]
    benchmark(table.route, model, attributes, unit, 0)


@pytest.mark.parametrize("side", ["kernel", "plain Python"])
def test_claim_order(benchmark, side):
    benchmark.group = "claim order"
    benchmark(
        {"kernel": _fasthash, "plain Python": _fasthash_py}[side].claim_order, "s"
    )
