"""Upstream versions as an operator has them: two servers, and a file that names one.

Both are real processes. What is claimed: the file is enough, the other server's word on
inputs and outputs is checked against stable's, and a server that is away or different
leaves stable serving.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Authority

from router import testing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    """The other server: version 7 of `inner`, and a model that is like no other."""
    directory = tmp_path_factory.mktemp("back")
    models = directory / "models"
    testing.write_model(models, "inner", {7: testing.tag(7)})
    testing.write_model(models, "mlp", {1: testing.mlp()})
    config = {
        "models": [
            {"name": name, "repository": str(models / name)}
            for name in ("inner", "mlp")
        ]
    }
    with testing.Server(directory, config) as server:
        yield server


def front_config(directory: Path, versions: dict[int, Any]) -> dict[str, Any]:
    models = directory / "models"
    if not models.exists():
        testing.write_model(models, "tag", {1: testing.tag(1)})
    return {
        "models": [
            {
                "name": "tag",
                "repository": str(models / "tag"),
                "stable": 1,
                "versions": versions,
            }
        ],
        "routes": [
            {"model": "tag", "split": [{"version": v, "weight": 50} for v in (1, 2)]}
        ],
    }


def upstream(target: str, **settings: Any) -> dict[str, Any]:
    return {"upstream": {"targets": target, **settings}}


def served(server: testing.Server, count: int = 60) -> dict[int, float]:
    """Which versions answered, and with what."""
    with testing.Caller(server.address) as caller:
        answers = [caller.infer("tag", {"x": np.zeros((1, 2))}) for _ in range(count)]
    return {each.version: float(each.outputs["tag"][0, 0]) for each in answers}


def test_a_file_puts_another_servers_model_behind_a_split(
    tmp_path: Path, back: testing.Server
) -> None:
    versions = {2: upstream(back.address, model="inner", version="7")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0, 2: 7.0}
        metric = "router_upstream_requests_total"
        labels = {"model": "tag", "version": "2", "target": back.address}
        assert front.metric(metric, **labels, outcome="answered") > 0
        assert front.metric("router_upstream_connections", **labels) >= 1
        assert front.metric("router_upstream_ejected", **labels) == 0


def test_a_model_may_live_in_other_servers_alone(
    tmp_path: Path, back: testing.Server
) -> None:
    config = {
        "models": [
            {
                "name": "tag",
                "versions": {7: upstream([back.address], model="inner")},
            }
        ]
    }
    with testing.Server(tmp_path, config) as front:
        assert served(front, 5) == {7: 7.0}


def test_a_model_unlike_stable_takes_no_traffic(
    tmp_path: Path, back: testing.Server
) -> None:
    versions = {2: upstream(back.address, model="mlp")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0}
        assert "differ from stable's" in front.log.read_text()


def test_a_server_that_is_away_at_start_leaves_stable_serving(tmp_path: Path) -> None:
    versions = {2: upstream(f"unix:{tmp_path}/nobody.sock")}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert served(front) == {1: 1.0}


def test_a_server_that_dies_costs_no_answer(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("dying")
    testing.write_model(directory / "models", "inner", {7: testing.tag(7)})
    inner = {"name": "inner", "repository": str(directory / "models/inner")}
    with testing.Server(directory, {"models": [inner]}) as dying:
        versions = {2: upstream(dying.address, model="inner")}
        with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
            assert set(served(front)) == {1, 2}
            dying.kill()
            assert set(served(front)) == {1}


def ready_server(directory: Path, port: int, **settings: Any) -> testing.Server:
    testing.write_model(directory / "models", "inner", {7: testing.tag(7)})
    inner = {"name": "inner", "repository": str(directory / "models/inner")}
    address = f"127.0.0.1:{port}"
    listening = {"listen": address, **settings}
    made = testing.Server(directory, {"models": [inner]}, settings=listening)
    made.address = address
    return made


def test_a_server_that_comes_later_is_found_without_anybody_asking(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (port,) = testing.free_ports(1)
    versions = {2: upstream(f"127.0.0.1:{port}", model="inner")}
    name, labels = "router_version_ready", {"model": "tag", "version": "2"}
    with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
        assert set(served(front)) == {1}
        assert front.metric(name, **labels) == 0
        with ready_server(tmp_path_factory.mktemp("late"), port):
            testing.wait_until(
                lambda: front.metric(name, **labels) == 1, "it is back", 40
            )
            assert set(served(front)) == {1, 2}
        whole = front.log.read_text()
        assert whole.count("a version cannot be loaded") == 1


def test_an_upstreams_certificates_are_replaced_without_a_reload(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both sides move to another authority; the client's files come last."""
    old, new = Authority("old"), Authority("new")
    directory = tmp_path_factory.mktemp("secure")
    cert, key = old.issue().write(directory)
    clients = directory / "clients.pem"
    clients.write_bytes(old.pem + new.pem)
    tls = {"cert": str(cert), "key": str(key), "client_ca": str(clients)}
    own_cert, own_key = old.issue("us").write(tmp_path, "us")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.pem)
    own = {"ca": str(ca), "cert": str(own_cert), "key": str(own_key)}
    reloaded = "router_upstream_tls_reload_successful"
    expiry = "router_upstream_tls_certificate_expiry_timestamp_seconds"
    (port,) = testing.free_ports(1)
    with ready_server(directory, port, tls=tls):
        versions = {2: upstream(f"127.0.0.1:{port}", model="inner", tls=own)}
        with testing.Server(tmp_path, front_config(tmp_path, versions)) as front:
            assert set(served(front)) == {1, 2}
            before = front.metric(expiry)
            ca.write_text("nonsense")
            testing.wait_until(lambda: front.metric(reloaded) == 0, "it is refused")
            assert set(served(front)) == {1, 2}
            ca.write_bytes(new.pem)
            new.issue("us", valid_days=(-1, 90)).write(tmp_path, "us")
            new.issue().write(directory)
            testing.wait_until(
                lambda: front.metric(reloaded) == 1 and front.metric(expiry) > before,
                "it is taken",
            )
            testing.wait_until(lambda: set(served(front)) == {1, 2}, "both serve", 20)
            assert front.metric("router_config_last_reload_successful") == 1
