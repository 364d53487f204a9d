"""Listening sockets: made, replaced, inherited."""

import os
import socket
import stat
from pathlib import Path

import pytest

from router.control.listeners import (
    Inherited,
    ListenError,
    inherited_listeners,
    open_listeners,
)
from router.errors import RouterError

ANY = "127.0.0.1:0"


def opened(address: str, inherited: list[Inherited] | None = None, mode: int = 0o600):
    (one,) = open_listeners([address], "data", inherited or [], mode)
    return one


def test_an_open_listener_says_where_it_really_is():
    one = opened(ANY)
    one.listen()
    host, _, port = one.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5):
        one.close()


def test_a_bound_socket_refuses_until_it_listens():
    one = opened(ANY)
    host, _, port = one.address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
    one.close()


def test_an_address_somebody_listens_on_is_an_error_naming_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as raised:
            opened(address)
        assert raised.value.address == address


def test_a_failure_closes_what_was_opened_before_it(tmp_path: Path):
    path = tmp_path / "d.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError):
            open_listeners([f"unix:{path}", bad], "data", [], 0o600)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_socket_file_has_the_mode_it_was_given(tmp_path: Path, mode: int):
    path = tmp_path / "deep" / "d.sock"
    one = opened(f"unix:{path}", mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    one.close()
    assert not path.exists()


def test_a_socket_file_nobody_listens_on_is_replaced(tmp_path: Path):
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    one = opened(f"unix:{path}")
    one.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    one.close()


def test_a_socket_file_somebody_listens_on_is_kept(tmp_path: Path):
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(ListenError, match="somebody listens"):
            opened(f"unix:{path}")
    assert path.exists()


def test_another_file_is_never_removed(tmp_path: Path):
    path = tmp_path / "data.txt"
    path.write_text("precious")
    with pytest.raises(ListenError, match="something else"):
        opened(f"unix:{path}")
    assert path.read_text() == "precious"


def test_a_successors_socket_file_is_not_removed(tmp_path: Path):
    path = tmp_path / "d.sock"
    first = opened(f"unix:{path}")
    path.unlink()
    second = opened(f"unix:{path}")
    first.close()
    assert path.exists()
    second.close()


@pytest.mark.parametrize("name", ["data", "", "router.socket"])
def test_an_inherited_socket_is_taken_by_name_or_by_address(name: str):
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    inherited = [Inherited(name, listener)]
    one = opened(address, inherited)
    assert one.socket is listener
    assert inherited == []
    one.close()


def test_an_inherited_socket_of_another_address_is_left():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inherited = [Inherited("", listener)]
        opened(ANY, inherited).close()
        assert len(inherited) == 1


def test_an_inherited_unix_socket_keeps_its_file(tmp_path: Path):
    path = tmp_path / "d.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    opened(f"unix:{path}", [Inherited("", listener)]).close()
    assert path.exists()


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}]
)
def test_descriptors_meant_for_another_process_are_not_touched(environment):
    assert inherited_listeners(environment, os.getpid()) == []


@pytest.mark.parametrize("count", ["", "x", "-1", "65"])
def test_a_nonsensical_count_of_descriptors_is_an_error(count: str):
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(RouterError, match="LISTEN_FDS"):
        inherited_listeners(environment, os.getpid())
