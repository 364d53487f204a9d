"""Alerts beside the real things: Debian's Prometheus and Alertmanager.

Both are looked for and not installed: `apt-get install prometheus
prometheus-alertmanager` makes these tests run. They are slow, so `make test` leaves
them out.
"""

import contextlib
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from entries import model

from router import testing
from router.clock import SystemClock
from router.config.alerts import Alerts, Slo
from router.control.slo import rules_of
from router.notify.deadletter import DeadLetters
from router.notify.event import Event, Severity
from router.notify.outbox import Outbox, Routing
from router.notify.payload import Channel

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def started(command: list[str], folder: Path, url: str):
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        testing.wait_until(lambda: is_up(url), f"{command[0]} answers", 60)
        yield
    finally:
        process.terminate()
        process.wait(20)


def is_up(url: str) -> bool:
    with contextlib.suppress(OSError):
        return get(url) is not None
    return False


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as page:
        return page.read()


def test_alertmanager_shows_an_event_until_it_is_resolved(tmp_path) -> None:
    (port,) = testing.free_ports(1)
    (tmp_path / "am.yml").write_text(json.dumps(
        {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
    ))  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    command = [
        "prometheus-alertmanager", "--config.file=am.yml", "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{port}", f"--storage.path={tmp_path}",
    ]  # fmt: skip
    with started(command, tmp_path, f"{url}/-/ready"):
        routing = Routing((Channel("am", "alertmanager", url),), (), 60.0, "router/a")
        outbox = Outbox(routing, DeadLetters(tmp_path / "dead"), SystemClock())
        outbox.start()
        begun = Event("rollback", Severity.PAGE, "credit", "errors doubled",
                      (("e_value", "41"),), "credit/2", time.time())  # fmt: skip
        outbox.tell(begun)
        testing.wait_until(lambda: alerts(url), "the alert is visible")
        (alert,) = alerts(url)
        assert alert["labels"]["alertname"] == "RouterRollback"
        assert alert["labels"]["severity"] == "page"
        assert alert["annotations"] == {"summary": "errors doubled", "e_value": "41"}
        outbox.tell(Event("rollback", Severity.PAGE, "credit", "over", (), "credit/2",
                          time.time(), True))  # fmt: skip
        testing.wait_until(lambda: not alerts(url), "the alert is resolved")
        outbox.close()
        assert outbox.counts() == {("am", "sent"): 2}


def alerts(url: str) -> list[dict]:
    return json.loads(get(f"{url}/api/v2/alerts?active=true"))


def test_the_rules_fire_in_prometheus_over_a_real_router(tmp_path) -> None:
    repository = tmp_path / "models"
    testing.write_model(repository, "faulty", {1: testing.faulty(1)})
    config = {"models": [model(repository, "faulty", stable=1)]}
    slo = Slo(name="up", model="faulty", objective=99.9)
    (tmp_path / "rules.yaml").write_text(json.dumps(rules_of(Alerts(slos=(slo,)))))
    (port,) = testing.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with testing.Server(tmp_path, config) as server:
        (tmp_path / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "router", "static_configs": [{"targets": [server.ops]}]}
            ],
        }))  # fmt: skip
        command = [
            "prometheus", "--config.file=prometheus.yml",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        with started(command, tmp_path, f"{url}/-/ready"):
            with testing.Caller(server.address) as caller:
                testing.wait_until(
                    lambda: fail_some(caller) and firing(url), "the alert fires", 60
                )
            assert {a["labels"]["slo"] for a in firing(url)} == {"up"}
            assert {a["labels"]["model"] for a in firing(url)} == {"faulty"}


def fail_some(caller: testing.Caller) -> bool:
    import grpc

    for code in (0.0, testing.FAULT_FAIL):
        with contextlib.suppress(grpc.RpcError):
            caller.infer("faulty", {"x": np.array([[1, code]], np.float32)})
    time.sleep(0.1)  # a load has a pace
    return True


def firing(url: str) -> list[dict]:
    found = json.loads(get(f"{url}/api/v1/alerts"))["data"]["alerts"]
    return [one for one in found if one["state"] == "firing"]
