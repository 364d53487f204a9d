"""What clients do on methods that Python serves, pulled from the engine."""

from collections.abc import Iterator

from router.engine._engine import Engine, EngineStopped, MethodEvent

PULL_TIMEOUT_MS = 1_000


def events(engine: Engine, pool: int) -> Iterator[MethodEvent]:
    """What clients do on the methods of a pool, until the engine stops."""
    while True:
        try:
            event = engine.next(pool, PULL_TIMEOUT_MS)
        except EngineStopped:
            return
        if event is not None:
            yield event
