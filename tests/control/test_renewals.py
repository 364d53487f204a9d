"""Versions that are away are tried again, and those with new certificates at once."""

from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority

from router.config.manifest import Manifest
from router.config.upstream import Upstream
from router.control.renewals import LOCAL, REMOTE, Look, Pauses, Renewals
from router.models.repository import ModelFile
from router.models.upstream import RemoteVersion

KEY = "m", 2


class ManualClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def renewals(clock: ManualClock) -> Any:
    made = Renewals(clock)
    yield made
    made.close()


def remote(target: str, **tls: str) -> RemoteVersion:
    settings: dict[str, Any] = {"targets": target}
    if tls:
        settings["tls"] = tls
    return RemoteVersion(*KEY, Upstream.model_validate(settings))


def local(path: Path) -> ModelFile:
    return ModelFile(*KEY, path, Manifest())


def take(renewals: Renewals, source: Any, *, is_absent: bool) -> None:
    absent = frozenset({KEY}) if is_absent else frozenset()
    renewals.take({KEY: Look.at(source)}, absent)


def due_after_asking(renewals: Renewals) -> tuple[Any, ...]:
    """What is due once the thread that asks has come back."""
    assert renewals.due() == ()
    assert renewals._thread is not None
    renewals._thread.join()
    return renewals.due()


@pytest.mark.parametrize(
    ("tries", "pause"), [(0, 1), (1, 2), (4, 16), (5, 30), (6, 30), (10_000, 30)]
)
def test_a_pause_doubles_up_to_its_limit(tries: int, pause: float) -> None:
    assert Pauses(1.0, 30.0).after(tries) == pause


def test_a_file_that_could_not_be_loaded_is_tried_after_its_pause(
    renewals: Renewals, clock: ManualClock, tmp_path: Path
) -> None:
    take(renewals, local(tmp_path / "model.onnx"), is_absent=True)
    clock.at = LOCAL.first_s - 0.1
    assert renewals.due() == ()
    clock.at = LOCAL.first_s
    assert renewals.due() == (KEY,)
    renewals.tried(KEY, is_loaded=False)
    clock.at += 2 * LOCAL.first_s - 0.1
    assert renewals.due() == ()
    clock.at += 0.1
    assert renewals.due() == (KEY,)
    (status,) = renewals.statuses()
    assert (status.is_absent, status.retries) == (True, 1)


def test_what_came_back_is_left_alone(
    renewals: Renewals, clock: ManualClock, tmp_path: Path
) -> None:
    take(renewals, local(tmp_path / "model.onnx"), is_absent=True)
    renewals.tried(KEY, is_loaded=True)
    clock.at = 10 * LOCAL.max_s
    assert renewals.due() == ()
    (status,) = renewals.statuses()
    assert (status.is_absent, status.retries) == (False, 1)


def test_a_version_that_serves_is_not_watched(
    renewals: Renewals, clock: ManualClock, tmp_path: Path
) -> None:
    take(renewals, local(tmp_path / "model.onnx"), is_absent=False)
    clock.at = LOCAL.max_s
    assert renewals.due() == ()
    assert renewals.statuses() == ()


def test_a_server_is_due_when_it_answers_and_not_before(
    renewals: Renewals, clock: ManualClock, tmp_path: Path
) -> None:
    socket = tmp_path / "server.sock"
    take(renewals, remote(f"unix:{socket}"), is_absent=True)
    clock.at = REMOTE.first_s
    assert due_after_asking(renewals) == ()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda _, __: b"")
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "inference.GRPCInferenceService", {"ModelMetadata": handler}
            ),
        )
    )
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        clock.at += 2 * REMOTE.first_s
        assert due_after_asking(renewals) == (KEY,)
    finally:
        server.stop(0).wait()
    (status,) = renewals.statuses()
    assert status.retries == 1


def test_new_certificates_are_due_at_once_and_once(
    renewals: Renewals, tmp_path: Path
) -> None:
    authority = Authority()
    cert, key = authority.issue().write(tmp_path)
    source = remote("127.0.0.1:1", cert=str(cert), key=str(key))
    take(renewals, source, is_absent=False)
    (before,) = renewals.statuses()
    assert renewals.due() == ()
    authority.issue(valid_days=(-1, 90)).write(tmp_path)
    assert renewals.due() == (KEY,)
    renewals.tried(KEY, is_loaded=True)
    assert renewals.due() == ()
    (after,) = renewals.statuses()
    assert after.is_tls_current
    assert after.expires_at_s > before.expires_at_s + 59 * 86_400


def test_certificates_that_are_refused_are_told_of_until_others_come(
    renewals: Renewals, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority().pem)
    take(renewals, remote("127.0.0.1:1", ca=str(ca)), is_absent=False)
    ca.write_text("nonsense")
    assert renewals.due() == (KEY,)
    renewals.tried(KEY, is_loaded=False)
    assert [one.is_tls_current for one in renewals.statuses()] == [False]
    assert renewals.due() == ()
    ca.write_bytes(Authority().pem)
    assert renewals.due() == (KEY,)
    renewals.tried(KEY, is_loaded=True)
    assert [one.is_tls_current for one in renewals.statuses()] == [True]
