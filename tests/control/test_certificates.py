"""Certificates are put in use whole, and again when their files change."""

from pathlib import Path

import pytest
from certificates import Authority

from router.config.server import Server
from router.control.tls import Certificates, TlsError, TlsStatus, tls_problem
from router.engine._engine import Engine


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Server:
    cert, key = authority.issue().write(tmp_path)
    return Server.model_validate({"tls": {"cert": str(cert), "key": str(key)}})


@pytest.fixture
def certificates(server: Server) -> Certificates:
    made = Certificates(Engine({}), server)
    made.start()
    return made


def status_of(certificates: Certificates) -> TlsStatus:
    (status,) = certificates.statuses()
    return status


def test_files_that_have_not_changed_are_left_alone(certificates: Certificates) -> None:
    before = status_of(certificates)
    certificates.poll()
    assert status_of(certificates) is before


def test_changed_files_are_put_in_use(
    certificates: Certificates, authority: Authority, tmp_path: Path
) -> None:
    before = status_of(certificates)
    authority.issue(valid_days=(-1, 90)).write(tmp_path)
    certificates.poll()
    after = status_of(certificates)
    assert after.was_last_successful
    assert after.expires_at_s > before.expires_at_s + 59 * 86_400


@pytest.mark.parametrize("wrong", ["away", "empty", "garbage", "expired"])
def test_a_bad_file_is_told_of_until_a_good_one_comes(
    certificates: Certificates, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    before = status_of(certificates)
    path = tmp_path / "server.pem"
    if wrong == "away":
        path.unlink()
    elif wrong == "expired":
        authority.issue(valid_days=(-9, -1)).write(tmp_path)
    else:
        path.write_bytes({"empty": b"", "garbage": b"-----BEGIN"}[wrong])
    certificates.poll()
    failed = status_of(certificates)
    assert not failed.was_last_successful
    assert failed.expires_at_s == before.expires_at_s, "the old one still serves"
    authority.issue().write(tmp_path)
    certificates.poll()
    assert status_of(certificates).was_last_successful


def test_the_same_file_that_comes_back_is_good_again(
    certificates: Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "server.pem"
    path.rename(tmp_path / "elsewhere")
    certificates.poll()
    (tmp_path / "elsewhere").rename(path)
    certificates.poll()
    assert status_of(certificates).was_last_successful


def test_a_listener_without_tls_has_no_status() -> None:
    assert Certificates(Engine({}), Server()).statuses() == ()


def test_files_that_cannot_be_used_end_the_start(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "server.key").unlink()
    with pytest.raises(TlsError, match=r"server\.tls: .*server\.key: No such file"):
        Certificates(Engine({}), server).start()


def test_an_empty_file_of_authorities_does_not_let_everybody_in(
    server: Server, tmp_path: Path
) -> None:
    assert server.tls is not None
    (tmp_path / "ca.pem").write_bytes(b"")
    asked = {"client_ca": str(tmp_path / "ca.pem"), "require_client_cert": False}
    problem = tls_problem(server.tls.model_copy(update=asked))
    assert problem is not None
    assert "empty" in problem
