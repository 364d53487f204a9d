"""What does a version in another server cost, against calling that server directly?

The server is, first, a router with the small model: the fastest there is, so that the
hop is all one sees. Then a grpcio server with the same model, which is nearer to what
teams have. "routed" is a router before it whose only version is that server's; "envoy"
is Envoy in the same place. Figures: median microseconds at 1x1, calls a second at 8x8.
All of them share the machine's cores, the load generator too.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import envoy_server, models, probe, servers
from benchmarks.contest import contest
from benchmarks.h2load import Load
from benchmarks.models import SMALL
from benchmarks.report import Budget, Options, Row, main
from benchmarks.servers import Server

ONLY = (SMALL,)


@contextmanager
def routed(folder: Path, direct: Server) -> Iterator[Server]:
    """A router whose only version is the direct server's."""
    home = folder / f"before-{direct.name}"
    home.mkdir()
    port, ops_port = servers.free_port(), servers.free_port()
    config = servers.router_config(port, ops_port, home, folder, ONLY, {})
    versions = {1: {"upstream": {"targets": [f"127.0.0.1:{direct.port}"]}}}
    config["models"] = [{"name": SMALL.name, "stable": 1, "versions": versions}]
    path = home / "router.yaml"
    servers.write_config(path, config)
    command = [sys.executable, "-m", "router", "serve", str(path)]
    environment = {"PYTHONPATH": str(servers.RELEASE)}
    with servers.started(command, home, "routed", **environment) as process:
        server = Server("routed", port, process, probe.probe_model, ops_port, path)
        yield servers.when_ready(server, ONLY)


def rows(chosen: Options) -> list[Row]:
    """Both servers: latency and throughput of both ways against direct calls."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = models.write_models(folder / "models", ONLY, versions=(1,))
        body = models.write_body(SMALL, folder / "body")
        with servers.router(folder, repository, ONLY, name="router") as direct:
            made = _measured(folder, direct, body, chosen)
        with servers.python_server(folder, repository, ONLY) as direct:
            return made + _measured(folder, direct, body, chosen)


def _measured(folder: Path, direct: Server, body: Path, chosen: Options) -> list[Row]:
    with (
        routed(folder, direct) as through,
        envoy_server.envoy(folder, direct, ONLY) as envoy,
    ):
        ways = (direct, through, envoy)
        latency = contest(ways, SMALL, Load(1, 1, body, logged=True), chosen)
        speed = contest(ways, SMALL, Load(8, 8, body), chosen)
        return [
            latency.speed("routed", direct.name, Budget("ratio", 1.6)),
            latency.speed("envoy", direct.name),
            latency.speed("routed", "envoy", Budget("ratio", 1.0)),
            speed.speed("routed", direct.name),
            speed.speed("routed", "envoy", Budget("ratio", 1.5)),
            speed.cost("routed", "envoy"),
        ]


if __name__ == "__main__":
    main("upstream", __doc__, rows)
