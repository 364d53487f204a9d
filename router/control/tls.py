"""The listeners' certificates: read, checked in full, put in use; and again.

Nothing half-made is ever used. The engine checks certificate, key and authorities
together before they replace what it has, so files that are replaced one after the other
are refused until they fit, and files that never fit leave the old certificate serving,
with a metric that says so. Connections keep the certificate they began with.

The control thread calls this, once a second; nothing here waits.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from router.config.server import Server, Tls
from router.control.files import SIZE_MAX, look_at
from router.engine._engine import ADMIN, DATA, tls_check
from router.errors import RouterError

log = logging.getLogger(__name__)

# Whether each file can be read, and a digest of what it holds.
Seen = tuple[tuple[bool, bytes], ...]


class TlsError(RouterError):
    """Files that a listener's TLS cannot be made of."""

    def __init__(self, listener: str, message: str) -> None:
        self.listener = listener
        super().__init__(f"server.{listener}: {message}")


class TlsUser(Protocol):
    """The engine's call this file makes."""

    def tls(
        self,
        listener: int,
        certificates: bytes,
        key: bytes,
        authorities: bytes = b"",
        *,
        requires_client: bool = False,
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class TlsStatus:
    """What a listener presents, and whether the newest files are that."""

    listener: str
    was_last_successful: bool
    expires_at_s: float


@dataclass(frozen=True, slots=True)
class Presented:
    """A listener's files as they were last tried."""

    listener: int
    tls: Tls
    seen: Seen
    status: TlsStatus


class Certificates:
    """Owner of what each listener presents."""

    def __init__(self, engine: TlsUser, server: Server) -> None:
        self._engine = engine
        given = (
            ("tls", "data", DATA, server.tls),
            ("admin_tls", "admin", ADMIN, server.admin_tls),
        )
        self._presented = {
            key: Presented(listener, tls, (), TlsStatus(name, False, 0.0))
            for key, name, listener, tls in given
            if tls is not None
        }

    def start(self) -> None:
        """Put the files in use; TlsError when they cannot be."""
        for key, presented in self._presented.items():
            self._presented[key] = self._use(key, presented, _look(presented.tls))

    def poll(self) -> None:
        """Put changed files in use; on any problem say so and change nothing."""
        for key, presented in self._presented.items():
            seen = _look(presented.tls)
            if seen == presented.seen:
                continue
            try:
                now = self._use(key, presented, seen)
                log.info("a certificate is in use", extra={"fields": {
                    "listener": now.status.listener,
                    "expires_at_s": now.status.expires_at_s}})  # fmt: skip
            except TlsError as error:
                failed = replace(presented.status, was_last_successful=False)
                now = replace(presented, seen=seen, status=failed)
                log.error("a certificate is refused; the last one stays", extra={
                    "fields": {"problem": str(error)}})  # fmt: skip
            self._presented[key] = now

    def statuses(self) -> tuple[TlsStatus, ...]:
        """Of each listener that has TLS; from any thread."""
        return tuple(one.status for one in self._presented.values())

    def _use(self, key: str, presented: Presented, seen: Seen) -> Presented:
        tls = presented.tls
        try:
            used = self._engine.tls(
                presented.listener, *_read(tls), requires_client=tls.requires_client
            )
        except RouterError as error:
            raise TlsError(key, str(error)) from None
        name = presented.status.listener
        status = TlsStatus(name, True, float(used["expires_s"]))
        return replace(presented, seen=seen, status=status)


def tls_problem(tls: Tls) -> str | None:
    """Why a listener's TLS cannot be made of these files, or None."""
    try:
        tls_check(*_read(tls), requires_client=tls.requires_client)
    except RouterError as error:
        return str(error)
    return None


def _files(tls: Tls) -> tuple[Path, ...]:
    names = (tls.cert, tls.key, tls.client_ca)
    return tuple(Path(name) for name in names if name is not None)


def _look(tls: Tls) -> Seen:
    # By content alone: what a link leads to may change without any sign of it.
    states = map(look_at, _files(tls))
    return tuple((state.signs is not None, state.digest) for state in states)


def _read(tls: Tls) -> tuple[bytes, ...]:
    texts = []
    for path in _files(tls):
        try:
            with path.open("rb") as file:
                text = file.read(SIZE_MAX + 1)
        except OSError as error:
            raise RouterError(f"{path}: {error.strerror}") from None
        # Without this, a file of authorities that is empty would let everybody in.
        if not text or len(text) > SIZE_MAX:
            raise RouterError(f"{path}: empty, or larger than {SIZE_MAX} bytes")
        texts.append(text)
    return tuple(texts)
