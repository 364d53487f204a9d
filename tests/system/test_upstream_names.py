"""The servers behind a name change while it is used.

Real processes; only the answers of the resolver are a test's (`tests/native/names`).
The servers listen on addresses of the loopback network, on one port.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from router import testing

VARIANT = os.environ.get("ROUTER_BUILD", "checked")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        VARIANT in ("asan", "tsan"), reason="sanitizers want to be loaded first"
    ),
]

SOURCE = Path(__file__).resolve().parents[1] / "native/names/names.c"
HOST = "models.test"
ADDRESSES = ("127.0.0.2", "127.0.0.3")
X = {"x": np.zeros((1, 2), np.float32)}


class Names:
    """What the name means."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "names"
        self.library = folder / "names.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", self.library, SOURCE, "-ldl"],
            check=True,
        )
        self.point(ADDRESSES[0])

    def point(self, *addresses: str) -> None:
        partial = self.path.with_suffix(".new")
        partial.write_text("".join(f"{HOST} {address}\n" for address in addresses))
        partial.replace(self.path)

    def launcher(self) -> list[str]:
        # The gRPC library that asks for the signature has a resolver of its own.
        return ["env", f"LD_PRELOAD={self.library}", f"NAMES_FILE={self.path}",
                "GRPC_DNS_RESOLVER=native"]  # fmt: skip


@pytest.fixture(scope="module")
def port() -> int:
    (found,) = testing.free_ports(1)
    return found


@pytest.fixture(scope="module")
def backs(
    tmp_path_factory: pytest.TempPathFactory, port: int
) -> Iterator[list[testing.Server]]:
    """One server at each address; they answer with 7 and 8."""
    servers = []
    try:
        for tag, address in zip((7, 8), ADDRESSES, strict=True):
            folder = tmp_path_factory.mktemp("back")
            testing.write_model(folder / "models", "inner", {1: testing.tag(tag)})
            model = {"name": "inner", "repository": str(folder / "models/inner")}
            server = testing.Server(
                folder, {"models": [model]}, settings={"listen": f"{address}:{port}"}
            )
            server.start()
            servers.append(server)
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path)


@pytest.fixture
def front(
    tmp_path: Path, port: int, names: Names, backs: list[testing.Server]
) -> Iterator[testing.Server]:
    assert backs
    upstream = {"targets": f"{HOST}:{port}", "model": "inner", "resolve_s": 1}
    model = {"name": "tag", "versions": {1: {"upstream": upstream}}}
    made = testing.Server(tmp_path, {"models": [model]}, launcher=names.launcher())
    with made:
        yield made


def answers_until(server: testing.Server, met: Callable[[set[float]], bool]) -> None:
    """Ask in rounds until a round's answers are these. Every request is answered."""
    with testing.Caller(server.address) as caller:
        testing.wait_until(
            lambda: met({float(caller.infer("tag", X).outputs["tag"][0, 0])
                         for _ in range(40)}),
            "the answers", 20,
        )  # fmt: skip


def test_an_address_that_is_added_gets_traffic(
    front: testing.Server, names: Names
) -> None:
    answers_until(front, lambda seen: seen == {7.0})
    names.point(*ADDRESSES)
    answers_until(front, lambda seen: seen == {7.0, 8.0})


def test_an_address_that_is_removed_gets_no_more_and_its_connections_close(
    front: testing.Server, names: Names
) -> None:
    names.point(*ADDRESSES)
    answers_until(front, lambda seen: seen == {7.0, 8.0})
    names.point(ADDRESSES[1])
    answers_until(front, lambda seen: seen == {8.0})
    name = "router_upstream_connections"
    testing.wait_until(lambda: front.metric(name) == 1, "one address is connected to")


def test_a_name_that_is_not_found_keeps_its_addresses(
    front: testing.Server, names: Names
) -> None:
    answers_until(front, lambda seen: seen == {7.0})
    names.point()
    failures = "router_upstream_lookup_failures_total"
    testing.wait_until(
        lambda: front.metric(failures) >= 2, "the name was looked up in vain"
    )
    answers_until(front, lambda seen: seen == {7.0})
    # Back again, elsewhere: it moves.
    names.point(ADDRESSES[1])
    answers_until(front, lambda seen: seen == {8.0})
