"""Which versions are loaded anew although nobody asked.

Two kinds: a version that was away when its configuration took effect, and one whose
connections use certificates that were replaced. An absent version is tried again after
a pause that doubles. Whether another server is back is found out on a thread, because
asking may take seconds; a file is simply loaded again, which is expensive, so its
pauses are long.

Nothing is loaded here: `due` names versions, whoever called it loads them and tells
what came of it with `tried`. The control thread calls both; `statuses` is for any.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from router.clock import Clock
from router.control.files import look_at
from router.engine._engine import tls_check
from router.errors import RouterError
from router.models.repository import ModelFile
from router.models.upstream import RemoteVersion
from router.telemetry.status import RenewalStatus

Key = tuple[str, int]
Source = ModelFile | RemoteVersion
JOIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Pauses:
    """From one try to the next: the first, and at most."""

    first_s: float
    max_s: float

    def after(self, tries: int) -> float:
        return min(self.first_s * 2.0 ** min(tries, 16), self.max_s)


# Asking a server costs nothing; a probe of a file takes a process and its time limit.
REMOTE = Pauses(1.0, 30.0)
LOCAL = Pauses(15.0, 900.0)


@dataclass(frozen=True, slots=True)
class Look:
    """Where a version is from, and digests of the certificates its connections use."""

    source: Source
    certificates: tuple[bytes, ...]

    @classmethod
    def at(cls, source: Source) -> Self:
        """Taken before the version is loaded: what is written later is seen later."""
        if not isinstance(source, RemoteVersion) or source.upstream.tls is None:
            return cls(source, ())
        tls = source.upstream.tls
        files = [Path(name) for name in (tls.ca, tls.cert, tls.key) if name]
        return cls(source, tuple(look_at(path).digest for path in files))

    def expires_at_s(self) -> float:
        """When our own certificate expires; 0 without one."""
        if not isinstance(self.source, RemoteVersion):
            return 0.0
        tls = self.source.upstream.tls
        if tls is None or tls.cert is None:
            return 0.0
        try:
            pem = self.source.pem(tls)
            return float(tls_check(pem["cert"], pem["key"])["expires_s"])
        except RouterError:
            return 0.0


@dataclass(frozen=True, slots=True)
class _Watched:
    """What is known of a version between two looks at it."""

    look: Look
    status: RenewalStatus
    tries: int = 0
    due_at: float = 0.0


class Renewals:
    """Owner of when versions are tried again, and of the thread that asks servers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: dict[Key, _Watched] = {}
        # One at a time, the rest wait for their turn: absent servers are few.
        self._asking: Key | None = None
        self._has_answered = False
        self._thread: threading.Thread | None = None

    def take(self, looks: Mapping[Key, Look], absent: frozenset[Key]) -> None:
        """A configuration took effect: what it serves from where, and what is away."""
        watched = {}
        for key, look in looks.items():
            before = self._watched.get(key)
            if key not in absent and not look.certificates:
                continue
            retries = before.status.retries if before else 0
            has_tls = bool(look.certificates)
            status = RenewalStatus(
                *key, key in absent, retries, has_tls, True, look.expires_at_s()
            )
            one = _Watched(look, status)
            watched[key] = replace(one, due_at=self._due(one))
        self._watched = watched

    def due(self) -> tuple[Key, ...]:
        """Versions to load again now, each to be answered with `tried`."""
        now = self._clock.monotonic()
        found = [key for key, one in self._watched.items() if self._is_new(key, one)]
        answered = self._take_answer()
        if answered is not None and answered in self._watched:
            found.append(answered)
        for key, one in self._watched.items():
            if key in found or not one.status.is_absent or one.due_at > now:
                continue
            source = one.look.source
            if isinstance(source, ModelFile):
                found.append(key)
            elif self._asking is None:
                self._ask(key, source)
        return tuple(dict.fromkeys(found))

    def tried(self, key: Key, is_loaded: bool) -> None:
        """What came of loading a version again."""
        one = self._watched[key]
        status = replace(one.status, is_tls_current=is_loaded)
        if one.status.is_absent:
            status = replace(
                status, is_absent=not is_loaded, retries=one.status.retries + 1,
                is_tls_current=True,
            )  # fmt: skip
        if is_loaded:
            status = replace(status, expires_at_s=one.look.expires_at_s())
        one = replace(one, status=status, tries=0 if is_loaded else one.tries + 1)
        self._watched[key] = replace(one, due_at=self._due(one))

    def statuses(self) -> tuple[RenewalStatus, ...]:
        return tuple(one.status for one in list(self._watched.values()))

    def close(self) -> None:
        """Wait a little for the thread; it touches nothing but us."""
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)

    def _is_new(self, key: Key, one: _Watched) -> bool:
        """Whether its certificates were replaced since they were last tried."""
        look = Look.at(one.look.source)
        if look == one.look:
            return False
        self._watched[key] = replace(one, look=look)
        return True

    def _due(self, one: _Watched) -> float:
        pauses = LOCAL if isinstance(one.look.source, ModelFile) else REMOTE
        return self._clock.monotonic() + pauses.after(one.tries)

    def _ask(self, key: Key, source: RemoteVersion) -> None:
        def ask() -> None:
            try:
                source.ask()
                self._has_answered = True
            except RouterError:
                self._has_answered = False

        self._asking = key
        self._thread = threading.Thread(target=ask, name="ask", daemon=True)
        self._thread.start()

    def _take_answer(self) -> Key | None:
        """The version whose server has come back, if that was asked and is known."""
        if self._asking is None or self._thread is None or self._thread.is_alive():
            return None
        key, self._asking, self._thread = self._asking, None, None
        if self._has_answered:
            return key
        if key in self._watched:
            self.tried(key, is_loaded=False)
        return None
