"""How long until two small models answer, and how much memory is resident then?

From the start of the process to the first right answer of both models, in seconds, and
VmRSS in megabytes after a thousand calls to each; beside the grpcio server with the
same models, started in turn on the same machine.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from benchmarks import h2load, models, servers
from benchmarks.h2load import Load
from benchmarks.models import SMALL
from benchmarks.pairs import alternate, compare
from benchmarks.report import Budget, Options, Row, main
from benchmarks.servers import Server

TWO = (SMALL, replace(SMALL, name="small-too"))
CALLS = 1000
BUDGETS = (Budget("subject", 1.5), Budget("subject", 150.0))


def rows(chosen: Options) -> list[Row]:
    """Seconds until ready and megabytes resident."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", TWO, versions=(1,))
        for model in TWO:
            models.write_body(model, folder / model.name)
        homes = (folder / str(number) for number in range(1_000_000))

        def router() -> tuple[float, float]:
            home = next(homes)
            home.mkdir()
            return _start(lambda: servers.router(home, repository, TWO), folder)

        def grpcio() -> tuple[float, float]:
            return _start(
                lambda: servers.python_server(folder, repository, TWO), folder
            )

        runs = alternate({"router": router, "grpcio": grpcio}, chosen.rounds)
    return [
        Row(
            case="two small models",
            figure=figure,
            subject="router",
            reference="grpcio",
            better="lower",
            compared=compare(
                [run[i] for run in runs["router"]], [run[i] for run in runs["grpcio"]]
            ),
            budget=BUDGETS[i],
        )
        for i, figure in enumerate(("ready s", "resident MB"))
    ]


def _start(
    server: Callable[[], AbstractContextManager[Server]], bodies: Path
) -> tuple[float, float]:
    begun = time.monotonic()
    with server() as running:
        ready_s = time.monotonic() - begun
        for model in TWO:
            h2load.run(running, Load(8, 1, bodies / model.name), CALLS)
        return ready_s, running.resident_mb()


if __name__ == "__main__":
    main("startup", __doc__, rows)
