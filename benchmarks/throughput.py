"""How fast is a routed call, beside an echo that does no work and a Python server?

Calls a second (8x8 and 64x1, connections x streams) and median microseconds (1x1), for
the small and the medium model. The router routes while it is measured: an audience that
is evaluated and a sticky split that sends everything to one version. The floor echoes;
the grpcio server runs the same model by `session.run`.
"""

import tempfile
from pathlib import Path

from benchmarks import models, servers
from benchmarks.contest import contest
from benchmarks.h2load import Load
from benchmarks.models import MEDIUM, SMALL
from benchmarks.report import Budget, Options, Row, main

SHAPES = ((1, 1), (8, 8), (64, 1))
MEASURED = (SMALL, MEDIUM)
REFERENCES = ("floor", "grpcio")
# All calls go to the version that is not stable: by the split, not for want of a rule.
SPLIT = {2: 100}
BUDGETS = {
    ("small 1x1", "floor"): Budget("ratio", 1.5),
    ("small 8x8", "floor"): Budget("ratio", 0.7),
    ("small 8x8", "grpcio"): Budget("ratio", 15.0),
    ("small 64x1", "floor"): Budget("ratio", 0.7),
    ("medium 64x1", "floor"): Budget("ratio", 0.5),
}


def rows(chosen: Options) -> list[Row]:
    """One row for each model, shape and reference."""
    made = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", MEASURED)
        with (
            servers.floor(folder, MEASURED) as floor,
            servers.python_server(folder, repository, MEASURED) as grpcio,
            servers.router(folder, repository, MEASURED, SPLIT) as router,
        ):
            for model in MEASURED:
                body = models.write_body(model, folder / "body")
                for shape in SHAPES:
                    load = Load(*shape, body, logged=shape == (1, 1))
                    held = contest((router, floor, grpcio), model, load, chosen)
                    made += [
                        held.speed("router", other, BUDGETS.get((held.case, other)))
                        for other in REFERENCES
                    ]
                    made.append(held.cost("router", "floor"))
    return made


if __name__ == "__main__":
    main("throughput", __doc__, rows)
