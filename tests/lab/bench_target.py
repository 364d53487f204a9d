"""An engine in this process, on a real socket, for a load to be put on."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.control.options import find_runtime_library
from router.engine._engine import DATA, Engine
from router.plan.encode import encode
from router.plan.plan import Model, Output, OutputKind, Plan, Reason, Rule, Variant
from router.testing import tag

BUCKETS = 10_000
CANDIDATE_SHARE = 1_000
# Version 2 of `tag` has the first buckets.
SPLIT = bytes(1 if b < CANDIDATE_SHARE else 0 for b in range(BUCKETS))


def counted(engine: Engine, model: str) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for variant in engine.snapshot()["variants"]:
        if variant["model"] == model:
            for code, count in variant["codes"].items():
                key = variant["version"], code
                found[key] = found.get(key, 0) + count
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """What listens, and what it counted itself."""

    address: str
    engine: Engine
    listener: socket.socket

    def counted(self, model: str) -> dict[tuple[int, str], int]:
        """Answers by version and code, as the server saw them."""
        return counted(self.engine, model)


def load_models(engine: Engine) -> None:
    """`tag` with two real versions, split 10/90; `slow` takes 10 ms, one at a time;
    `hanging` never answers."""
    library = find_runtime_library()
    for version in (1, 2):
        engine.load("tag", version, tag(version), {"kind": "ort", "library": library})
    scripts = {"slow": "delay_us=10000;loop=0", "hanging": "hang;loop=0"}
    for name, script in scripts.items():
        scripted = {"kind": "scripted", "script": script, "concurrency": "1"}
        engine.load(name, 1, b"", scripted | {"batching": "off"})
    rule = Rule("split", None, "salt", SPLIT, 0, Reason.SPLIT)
    both = (Variant("stable", 1), Variant("candidate", 2))
    tagged = Model("tag", both, 0, (rule,), output=Output("tag", 0, OutputKind.VALUE))
    others = tuple(
        Model(
            name,
            (Variant("stable", 1),),
            0,
            (),
            output=Output("y", 0, OutputKind.VALUE),
        )
        for name in scripts
    )
    engine.publish(encode(Plan("r1", (tagged, *others))))


@contextmanager
def loaded() -> Iterator[Engine]:
    """An engine with the models that does not listen yet."""
    engine = Engine(
        {"loops": "1", "executors": "2", "connections_per_peer_max": "1000"}
    )
    load_models(engine)
    try:
        yield engine
    finally:
        engine.stop()


@contextmanager
def serving(listener: socket.socket, address: str) -> Iterator[Target]:
    """The models, served on a listening socket until the block ends."""
    listener.setblocking(False)
    with loaded() as engine:
        engine.listen(listener.fileno(), DATA)
        engine.start()
        yield Target(address, engine, listener)


@contextmanager
def loopback() -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with serving(listener, address) as target:
            yield target


@contextmanager
def unix(directory: Path) -> Iterator[Target]:
    path = os.path.join(directory, "data.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        with serving(listener, f"unix:{path}") as target:
            yield target


def codes_of(result: Any) -> int:
    """How many answers the result tells of."""
    return sum(result.codes.values())
