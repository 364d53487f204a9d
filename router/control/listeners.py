"""Listening sockets: made from addresses, or inherited from whoever started us.

Sockets are made here and handed to the engine by descriptor, so that a successor can be
given the same ones: while one process drains, the other accepts, and no connection is
refused in between. Inheriting follows systemd (`LISTEN_FDS`, `LISTEN_PID`,
`LISTEN_FDNAMES`): a descriptor named `data`, `admin` or `ops` serves that listener,
others are matched by the address they are bound to.

A Unix socket that was left behind by a crash is replaced; one that somebody listens on
is an error. Only a socket file this process made is removed at the end.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from router.config.server import Address, parse_address
from router.errors import RouterError

FIRST_FD = 3
INHERITED_MAX = 64
# More than a loop accepts in one turn; the kernel cuts it to net.core.somaxconn.
BACKLOG = 4096
UNIX_MODE_DATA, UNIX_MODE_ADMIN = 0o660, 0o600


class ListenError(RouterError):
    """An address that cannot be listened on."""

    def __init__(self, address: str, message: str) -> None:
        self.address = address
        super().__init__(f"cannot listen on {address}: {message}")


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening descriptor that came with the process."""

    name: str
    listener: socket.socket


class Listener:
    """Owner of one bound socket and of the file it made, if any.

    Bound is not listening: until `listen`, clients are refused rather than kept
    waiting.
    """

    def __init__(self, listener: socket.socket, made_path: str = "") -> None:
        self.socket = listener
        self._made = _identity(made_path) if made_path else None
        self._path = made_path

    @property
    def address(self) -> str:
        """Where it really listens, in the words of the configuration."""
        return address_text(self.socket)

    def listen(self) -> None:
        """Let the kernel accept connections. Harmless on a socket that listens."""
        self.socket.listen(BACKLOG)

    def close(self) -> None:
        """Close, and remove the socket file unless a successor has replaced it."""
        self.socket.close()
        if self._made and _identity(self._path) == self._made:
            with suppress(OSError):
                os.unlink(self._path)


def address_text(listener: socket.socket) -> str:
    """The address a socket is bound to, in the words of the configuration."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def inherited_listeners(environment: Mapping[str, str], pid: int) -> list[Inherited]:
    """The descriptors meant for this process, in their order."""
    if environment.get("LISTEN_PID") != str(pid):
        return []
    count = environment.get("LISTEN_FDS", "")
    if not count.isdigit() or int(count) > INHERITED_MAX:
        raise RouterError("LISTEN_FDS is not a small number")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(int(count)):
        fd = FIRST_FD + index
        os.set_inheritable(fd, False)
        try:
            listener = socket.socket(fileno=fd)
        except OSError as error:
            raise RouterError(
                f"descriptor {fd} is no socket: {error.strerror}"
            ) from None
        listener.setblocking(False)
        found.append(Inherited(names[index] if index < len(names) else "", listener))
    return found


def open_listeners(
    addresses: Iterable[str], name: str, inherited: list[Inherited], unix_mode: int
) -> list[Listener]:
    """A listener for each address; what was inherited for it is taken from the list."""
    named = [given for given in inherited if given.name == name]
    for given in named:
        inherited.remove(given)
    if named:
        return [Listener(given.listener) for given in named]
    opened: list[Listener] = []
    try:
        for address in addresses:
            opened.append(_take(address, inherited) or _open(address, unix_mode))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _take(address: str, inherited: list[Inherited]) -> Listener | None:
    """The inherited socket that is bound to this address."""
    wanted = parse_address(address)
    for one in inherited:
        # systemd's default name is the unit's, so a name that is not ours says nothing.
        if _is_bound_to(one.listener, wanted):
            inherited.remove(one)
            return Listener(one.listener)
    return None


def _is_bound_to(listener: socket.socket, wanted: Address) -> bool:
    if listener.family == socket.AF_UNIX:
        return bool(wanted.path) and os.path.abspath(wanted.path) == os.path.abspath(
            listener.getsockname()
        )
    if wanted.path:
        return False
    bound = listener.getsockname()[:2]
    with suppress(OSError):
        return any(info[4][:2] == bound for info in _resolve(wanted))
    return False


def _resolve(address: Address) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    return socket.getaddrinfo(  # type: ignore[return-value]
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )


def _open(text: str, unix_mode: int) -> Listener:
    address = parse_address(text)
    try:
        return _open_unix(address, unix_mode) if address.path else _open_tcp(address)
    except OSError as error:
        raise ListenError(text, error.strerror or str(error)) from None


def _open_tcp(address: Address) -> Listener:
    family, _, _, _, place = _resolve(address)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for connections of its predecessor to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return Listener(listener)


def _open_unix(address: Address, mode: int) -> Listener:
    path = address.path
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the socket's own mode, less the umask, so nobody else can
        # connect in the moment before the chmod, which only widens.
        os.fchmod(listener.fileno(), mode)
        listener.bind(path)
        os.chmod(path, mode)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return Listener(listener, path)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; anything else there is an error."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "the path is taken by something else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            pass  # a full backlog: somebody listens, slowly
    raise OSError(
        errno.EADDRINUSE,
        "somebody listens there: stop the other server, or give one of them another"
        " path",
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
