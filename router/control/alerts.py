"""What the router watches in itself, and the way its events take to others.

`Alarms` looks once a tick and tells the outbox: budgets that burn, a configuration that
was refused, labels that could not be stored. Others (rollouts) tell the outbox
directly. Settings of alerts are those of the start.
"""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from router.clock import Clock
from router.config.alerts import Alerts
from router.config.config import Config
from router.control.serving import Served
from router.control.slo import BurnWatch
from router.errors import ConfigError, Problem
from router.feedback.desk import FeedbackDesk
from router.notify.deadletter import DeadLetters
from router.notify.event import Event, Severity
from router.notify.outbox import Outbox, Routing, Rule
from router.notify.payload import Channel
from router.telemetry.counted import Counted


def routing_of(alerts: Alerts, environ: Mapping[str, str], source: str) -> Routing:
    """The channels and rules; ConfigError names variables that are not set."""
    problems: list[Problem] = []

    def read(at: int, key: str, name: str | None) -> str:
        if name is None:
            return ""
        if not environ.get(name):
            problems.append(
                Problem("environment", 0, f"alerts.channels[{at}].{key}",
                        "this variable is not set", name, f"export {name}")
            )  # fmt: skip
        return environ.get(name, "")

    channels = tuple(
        Channel(
            one.name,
            one.type,
            one.url or read(at, "url_env", one.url_env),
            read(at, "secret_env", one.secret_env).encode(),
            one.timeout,
        )
        for at, one in enumerate(alerts.channels)
    )
    if problems:
        raise ConfigError(tuple(problems))
    rules = tuple(
        Rule(frozenset(rule.on), Severity[rule.min_severity.upper()], rule.to)
        for rule in alerts.rules
    )
    return Routing(channels, rules, alerts.cooldown, source)


def open_outbox(config: Config, environ: Mapping[str, str], clock: Clock) -> Outbox:
    """The outbox of a configuration; its thread is not started."""
    beside = Path(config.server.state).with_name("alerts.dead.jsonl")
    dead = DeadLetters(Path(config.alerts.dead_letters or beside))
    source = f"inference-router/{socket.gethostname()}"
    return Outbox(routing_of(config.alerts, environ, source), dead, clock)


class Alarms:
    """Owner of what was told of the router itself. The control thread's."""

    def __init__(
        self,
        alerts: Alerts,
        tell: Callable[[Event], None],
        desk: FeedbackDesk,
        clock: Clock,
    ) -> None:
        self._tell, self._desk, self._clock = tell, desk, clock
        self._burns = BurnWatch(alerts)
        self._refused = self._commits = 0
        self._is_told: dict[str, bool] = {}

    def tick(self, snapshot: Callable[[], Mapping[str, Any]], served: Served) -> None:
        """Look once; after the tick's reload."""
        now = self._clock.now()
        if self._burns.is_due(self._clock.monotonic()):
            for event in self._burns.advance(snapshot(), now):
                self._tell(event)
        has_refused = bool(served.table_revision) and not served.was_last_successful
        self._report(
            "config_refused", has_refused, Severity.TICKET, "configuration",
            "the newest configuration was refused; the one before it serves", now,
        )  # fmt: skip
        counts = self._desk.writer.counts
        refused = counts.full + counts.failed + counts.refused
        is_losing = refused > self._refused
        if not is_losing and counts.commits == self._commits:
            # Nobody reported since: that it is over is known when something is stored.
            is_losing = self._is_told.get("feedback_refused", False)
        self._refused, self._commits = refused, counts.commits
        self._report(
            "feedback_refused", is_losing, Severity.TICKET, "feedback",
            "labels cannot be stored and are refused", now,
        )  # fmt: skip

    def _report(
        self, kind: str, is_wrong: bool, severity: Severity, subject: str,
        summary: str, now: float,
    ) -> None:  # fmt: skip
        was_wrong = self._is_told.get(kind, False)
        if is_wrong or was_wrong:
            over = not is_wrong
            text = f"over: {summary}" if over else summary
            self._tell(Event(kind, severity, subject, text, (), kind, now, over))
        self._is_told[kind] = is_wrong


def outbox_metrics(outbox: Outbox) -> tuple[Counted, ...]:
    """What became of events, by channel and fate."""
    rows = tuple((key, float(n)) for key, n in sorted(outbox.counts().items()))
    text = "Events, by what became of them; no channel before one was chosen."
    return (Counted("router_alerts", text, ("channel", "fate"), rows),)
