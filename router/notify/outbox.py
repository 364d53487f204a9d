"""Sends events, on one thread, without ever keeping the one who has something to tell.

`tell` only puts an event in a bounded queue. The thread decides whether it is news (the
same trouble within the cooldown is not), and for each channel of the rules that match
posts it, again with growing pauses when the receiver is away. What is given up, refused
for good, or left at the end goes to the dead-letter file. Everything that is not sent
is counted with its cause.
"""

import contextlib
import heapq
import http.client
import itertools
import logging
import queue
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from router.clock import Clock
from router.notify.deadletter import DeadLetters
from router.notify.event import Event, Severity
from router.notify.payload import Channel, Message, compile_message

log = logging.getLogger(__name__)

QUEUE_MAX = 1_024
PENDING_MAX = 1_024  # deliveries that wait for their next attempt
OPEN_MAX = 4_096  # troubles remembered
ATTEMPTS_MAX = 8  # with the pauses below: about ten minutes
PAUSE_S, PAUSE_MAX_S = 1.0, 300.0
IDLE_S = 0.2
LEAVE_S = 5.0  # for what is new when the router leaves
JOIN_TIMEOUT_S = 15.0
RETRIED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Rule:
    """Which events go to which channels; no kinds means all."""

    kinds: frozenset[str]
    severity_min: Severity
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Routing:
    """Where events go, and how often the same one does."""

    channels: tuple[Channel, ...]
    rules: tuple[Rule, ...]
    cooldown_s: float
    source: str


@dataclass(frozen=True, slots=True, order=True)
class _Delivery:
    """An event on its way to a channel."""

    due_s: float
    number: int
    attempt: int
    channel: Channel
    event: Event


def channels_of(routing: Routing, event: Event) -> tuple[Channel, ...]:
    """Where an event goes: each channel of each rule that matches, once."""
    names = {
        name
        for rule in routing.rules
        if (not rule.kinds or event.kind in rule.kinds)
        and event.severity >= rule.severity_min
        for name in rule.channels
    }
    has_rules = bool(routing.rules)
    return tuple(c for c in routing.channels if c.name in names or not has_rules)


def pause_s(attempt: int, jitter: float) -> float:
    """How long to wait after a failed attempt, counted from 1; `jitter` is in [0, 1).

    Half of the pause is random, so that routers that failed together do not come back
    together.
    """
    whole = min(PAUSE_S * 2 ** (attempt - 1), PAUSE_MAX_S)
    return float(whole * (0.5 + jitter / 2))


def is_worth_retrying(status: int) -> bool:
    """Whether a receiver that answered so may answer otherwise later."""
    return status >= 500 or status in RETRIED


class Outbox:
    """Owner of the thread, the queue and what is on its way. Any thread may tell."""

    def __init__(
        self,
        routing: Routing,
        dead: DeadLetters,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._routing, self._dead, self._clock = routing, dead, clock
        self._jitter = jitter
        self._queue: queue.Queue[Event] = queue.Queue(QUEUE_MAX)
        self._pending: list[_Delivery] = []
        self._open: OrderedDict[str, float] = OrderedDict()
        self._numbers = itertools.count()
        self._is_closed = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Take an event; never waits."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._count("", "queue_full")

    def close(self) -> None:
        """One more attempt for what is new; the rest goes to the dead letters."""
        self._is_closed.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT_S)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many events met which fate, by channel (empty before one is chosen)."""
        with self._lock:
            return dict(self._counts)

    def _run(self) -> None:
        while not self._is_closed.is_set():
            with contextlib.suppress(queue.Empty):
                self._accept(self._queue.get(timeout=self._wait_s()))
            self._send_due()
        while not self._queue.empty():
            self._accept(self._queue.get_nowait())
        until = self._clock.monotonic() + LEAVE_S
        for one in sorted(self._pending):
            is_new = one.attempt == 1 and self._clock.monotonic() < until
            if not is_new or not self._attempt(one, is_last=True):
                self._give_up(one, "left at the end")

    def _wait_s(self) -> float:
        if not self._pending:
            return IDLE_S
        left_s = self._pending[0].due_s - self._clock.monotonic()
        return min(max(left_s, 0.001), IDLE_S)

    def _accept(self, event: Event) -> None:
        if not self._is_news(event):
            self._count("", "deduplicated")
            return
        for channel in channels_of(self._routing, event):
            if len(self._pending) >= PENDING_MAX:
                self._count(channel.name, "pending_full")
                continue
            now = self._clock.monotonic()
            made = _Delivery(now, next(self._numbers), 1, channel, event)
            heapq.heappush(self._pending, made)

    def _is_news(self, event: Event) -> bool:
        told_at = self._open.get(event.dedupe_key)
        if event.is_resolved:
            self._open.pop(event.dedupe_key, None)
            return told_at is not None  # nobody heard of what is over
        if told_at is not None and event.time - told_at < self._routing.cooldown_s:
            return False
        self._open[event.dedupe_key] = event.time
        self._open.move_to_end(event.dedupe_key)
        if len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)
        return True

    def _send_due(self) -> None:
        while self._pending and self._pending[0].due_s <= self._clock.monotonic():
            if self._is_closed.is_set():
                return
            self._attempt(heapq.heappop(self._pending))

    def _attempt(self, one: _Delivery, is_last: bool = False) -> bool:
        """Post once; whether nothing is left to do."""
        channel = one.channel
        source = self._routing.source
        message = compile_message(channel, one.event, source, self._clock.now())
        try:
            status = post(message, channel.timeout_s)
        except (OSError, http.client.HTTPException) as error:
            problem, is_final = type(error).__name__, False
        else:
            if 200 <= status < 300:
                self._count(channel.name, "sent")
                return True
            problem, is_final = f"HTTP {status}", not is_worth_retrying(status)
        if is_final or one.attempt >= ATTEMPTS_MAX:
            self._give_up(one, problem)
            return True
        if is_last:
            return False
        self._count(channel.name, "retried")
        due_s = self._clock.monotonic() + pause_s(one.attempt, self._jitter())
        again = _Delivery(due_s, one.number, one.attempt + 1, channel, one.event)
        heapq.heappush(self._pending, again)
        return False

    def _give_up(self, one: _Delivery, problem: str) -> None:
        log.error("an alert was not delivered", extra={"fields": {
            "channel": one.channel.name, "kind": one.event.kind,
            "subject": one.event.subject, "problem": problem}})  # fmt: skip
        is_kept = self._dead.write(one.channel.name, one.event, problem)
        self._count(one.channel.name, "dead" if is_kept else "lost")

    def _count(self, channel: str, fate: str) -> None:
        with self._lock:
            key = (channel, fate)
            self._counts[key] = self._counts.get(key, 0) + 1


def post(message: Message, timeout_s: float) -> int:
    """The status that the receiver answers; OSError or HTTPException when none."""
    parts = urlsplit(message.url)
    kinds = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}
    connection = kinds[parts.scheme](
        parts.hostname or "", parts.port, timeout=timeout_s
    )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, message.body, dict(message.headers))
        status: int = connection.getresponse().status
        return status
    finally:
        connection.close()
