"""Events as the bytes that receivers understand. Pure.

A webhook gets a CloudEvents 1.0 event in structured mode. Alertmanager gets its v2
API's list of alerts: labels name the trouble (they must not change while it lasts),
annotations describe it. Slack, and what is compatible with it, gets a text with an
attachment.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from router.notify.event import Event, Severity

ALERTS_PATH = "/api/v2/alerts"
# Alertmanager forgets an alert at `endsAt`. An event is told once, not every minute, so
# it stands until it is resolved, or for a day.
STANDS_S = 86_400.0
_COLOURS = {
    Severity.INFO: "#439fe0",
    Severity.TICKET: "warning",
    Severity.PAGE: "danger",
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A place to send to. With a secret, what is sent is signed."""

    name: str
    type: Literal["webhook", "alertmanager", "slack"]
    url: str
    secret: bytes = b""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One HTTP POST."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def compile_message(channel: Channel, event: Event, source: str, now: float) -> Message:
    """What to post for an event; `now` goes into the signature."""
    url, content_type = channel.url, "application/json"
    value: Any
    match channel.type:
        case "webhook":
            content_type, value = "application/cloudevents+json", _cloud(event, source)
        case "alertmanager":
            url, value = url.rstrip("/") + ALERTS_PATH, [_alert(event, source)]
        case _:
            value = _slack(event)
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    headers = [("Content-Type", f"{content_type}; charset=utf-8")]
    if channel.secret:
        headers += sign(channel.secret, body, int(now))
    return Message(url, tuple(headers), body)


def sign(secret: bytes, body: bytes, timestamp: int) -> list[tuple[str, str]]:
    """HMAC-SHA256 over `timestamp.body`; the receiver refuses an old timestamp."""
    mac = hmac.digest(secret, b"%d." % timestamp + body, hashlib.sha256).hex()
    return [
        ("X-Router-Timestamp", str(timestamp)),
        ("X-Router-Signature", f"sha256={mac}"),
    ]


def _cloud(event: Event, source: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": f"inference-router.{event.kind}",
        "subject": event.subject,
        "time": _instant(event.time),
        "datacontenttype": "application/json",
        "data": {
            "severity": event.severity.name.lower(),
            "summary": event.summary,
            "is_resolved": event.is_resolved,
            "dedupe_key": event.dedupe_key,
            "fields": dict(event.fields),
        },
    }


def _alert(event: Event, source: str) -> dict[str, Any]:
    ends_at = event.time if event.is_resolved else event.time + STANDS_S
    alert = {
        "labels": {
            "alertname": "Router" + event.kind.title().replace("_", ""),
            "severity": event.severity.name.lower(),
            "subject": event.subject,
            "key": event.dedupe_key,
            "router": source,
        },
        "annotations": {"summary": event.summary, **dict(event.fields)},
        "endsAt": _instant(ends_at),
    }
    if not event.is_resolved:
        alert["startsAt"] = _instant(event.time)
    return alert


def _slack(event: Event) -> dict[str, Any]:
    word = "RESOLVED" if event.is_resolved else event.severity.name
    return {
        "text": _escaped(f"[{word}] {event.subject}: {event.summary}"),
        "attachments": [
            {
                "color": "good" if event.is_resolved else _COLOURS[event.severity],
                "fields": [
                    {"title": _escaped(name), "value": _escaped(text), "short": True}
                    for name, text in event.fields
                ],
                "ts": int(event.time),
            }
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _instant(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
