"""From ready to gone: signals in, an exit code out.

The main thread only waits for signals, so that it always can: a reload may take minutes
and a drain half of one, and each has a thread of its own. SIGHUP asks for a reload;
SIGTERM and SIGINT ask to drain and leave; the second of them leaves at once, for the
operator who will not wait.
"""

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from router.clock import Clock

log = logging.getLogger(__name__)

TICK_S = 1.0
POLL_S = 0.1
# `timeout` and supervisors signal a process and then its group: that is one wish.
REPEAT_S = 0.5
# A version that is being loaded cannot be interrupted; leaving does not wait for it.
JOIN_TIMEOUT_S = 5.0
LEAVE = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Actions:
    """What the process does when it is told to."""

    reload: Callable[[], None]
    """Read the configuration again, whatever the file looks like."""
    tick: Callable[[], None]
    """Once a second."""
    drain: Callable[[], int]
    """Finish what is in flight; how many calls were cut off."""
    stop: Callable[[], None]
    """Close and join everything."""


class Lifecycle:
    """Owner of the signal handlers and the control thread; on the main thread."""

    def __init__(self, actions: Actions, clock: Clock) -> None:
        self._actions, self._clock = actions, clock
        # Its put may be called from a handler that interrupts another put.
        self._inbox: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}
        self._wake = threading.Event()
        self._is_reload_asked = threading.Event()
        self._is_leaving = threading.Event()
        self._control = threading.Thread(
            target=self._control_loop, name="control", daemon=True
        )

    def catch_signals(self) -> None:
        """Keep signals for `run`; before anybody can know that the process is up."""
        for number in (signal.SIGHUP, *LEAVE):
            self._before[number] = signal.signal(number, self._receive)

    def run(self) -> int:
        """Work until told to leave; the exit code."""
        try:
            self._control.start()
            while self._next_signal() == signal.SIGHUP:
                self._is_reload_asked.set()
                self._wake.set()
            self._leave()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        return 0

    def _next_signal(self) -> int:
        # Of signals that come together the kernel may give one to another thread, which
        # notes it but does not wake this one: so look again.
        while True:
            try:
                return self._inbox.get(timeout=POLL_S)
            except queue.Empty:
                continue

    def _receive(self, number: int, _: FrameType | None) -> None:
        # Runs between two bytecodes of the main thread: no locks, no logging.
        self._inbox.put(number)

    def _leave(self) -> None:
        self._is_leaving.set()
        self._wake.set()
        drain = threading.Thread(target=self._drain, name="drain", daemon=True)
        drain.start()
        told_at = self._clock.monotonic()
        while drain.is_alive():
            try:
                number = self._inbox.get(timeout=0.05)
            except queue.Empty:
                continue
            is_again = self._clock.monotonic() - told_at > REPEAT_S
            if number in LEAVE and is_again:
                log.warning("leaving at once: told so twice")
                logging.shutdown()
                os._exit(128 + number)
        self._control.join(JOIN_TIMEOUT_S)
        self._actions.stop()

    def _drain(self) -> None:
        try:
            cut_off = self._actions.drain()
        except Exception:
            log.exception("draining failed")
        else:
            log.info("drained", extra={"fields": {"calls_cut_off": cut_off}})

    def _control_loop(self) -> None:
        while not self._is_leaving.is_set():
            self._wake.wait(TICK_S)
            self._wake.clear()
            if self._is_leaving.is_set():
                return
            try:
                # Cleared first: what is asked for during a reload is another one.
                if self._is_reload_asked.is_set():
                    self._is_reload_asked.clear()
                    self._actions.reload()
                else:
                    self._actions.tick()
            except Exception:
                log.exception("a tick failed")
