"""How fast do 600 KB go in and out, beside an echo and a Python server?

The model adds a constant to 150,000 float32, so what is measured is how often a large
message is copied. Median microseconds on one stream, calls a second on four connections
of two streams.
"""

import tempfile
from pathlib import Path

from benchmarks import models, servers
from benchmarks.contest import contest
from benchmarks.h2load import Load
from benchmarks.models import TENSOR
from benchmarks.report import Options, Row, main

ONLY = (TENSOR,)


def rows(chosen: Options) -> list[Row]:
    """Two rows for each reference: latency and throughput."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", ONLY)
        body = models.write_body(TENSOR, folder / "body")
        with (
            servers.floor(folder, ONLY) as floor,
            servers.python_server(folder, repository, ONLY) as grpcio,
            servers.router(folder, repository, ONLY, {2: 100}) as router,
        ):
            return [
                held.speed("router", reference)
                for load in (Load(1, 1, body, logged=True), Load(4, 2, body))
                for held in [contest((router, floor, grpcio), TENSOR, load, chosen)]
                for reference in ("floor", "grpcio")
            ]


if __name__ == "__main__":
    main("large_tensor", __doc__, rows)
