"""What the configuration allows, the engine takes."""

from typing import Any

import pytest
from annotated_types import Ge, Gt, Le

from router.config.server import Limits, Server
from router.control.options import LOOPS_MAX, engine_options
from router.engine._engine import Engine

THREADS = {
    name: Server.model_fields[name] for name in ("loops", "spin_us", "executors")
}


def bounds(field: Any) -> tuple[Any, Any]:
    """The smallest and the largest value that a field takes."""
    annotation, metadata = field.annotation, list(field.metadata)
    for argument in getattr(annotation, "__args__", ()):
        metadata += getattr(argument, "__metadata__", ())
        for each in getattr(argument, "__metadata__", ()):
            metadata += getattr(each, "metadata", ())
    least = [m.ge for m in metadata if isinstance(m, Ge)]
    above = [m.gt for m in metadata if isinstance(m, Gt)]
    most = [m.le for m in metadata if isinstance(m, Le)]
    assert most, f"{field} has no upper limit, and the engine has one"
    return (max(least) if least else (max(above, default=0) + 1)), min(most)


@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
@pytest.mark.parametrize("name", sorted(Limits.model_fields))
def test_every_limit_that_may_be_written_is_taken(name: str, end: int) -> None:
    value = bounds(Limits.model_fields[name])[end]
    server = Server.model_validate({"limits": {name: value}})
    Engine(engine_options(server, 2))


@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
@pytest.mark.parametrize("name", sorted(THREADS))
def test_every_number_of_threads_that_may_be_written_is_taken(
    name: str, end: int
) -> None:
    value = bounds(THREADS[name])[end]
    Engine(engine_options(Server.model_validate({name: value}), 2))


def test_a_machine_with_very_many_cores_gets_as_many_loops_as_there_may_be() -> None:
    assert engine_options(Server(), 1000)["loops"] == str(LOOPS_MAX)
    assert engine_options(Server(), 2 * LOOPS_MAX - 2)["loops"] == str(LOOPS_MAX - 1)
    assert engine_options(Server(), 1)["loops"] == "1"
