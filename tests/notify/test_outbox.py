"""Events reach a real HTTP receiver once, signed, or end in the dead letters."""

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from router import testing
from router.clock import SystemClock
from router.notify import outbox as sending
from router.notify.deadletter import DeadLetters
from router.notify.event import Event, Severity
from router.notify.outbox import (
    Outbox,
    Routing,
    Rule,
    channels_of,
    is_worth_retrying,
    pause_s,
)
from router.notify.payload import Channel, compile_message


def event(key="k", time=1_700_000_000.0, is_resolved=False, **said) -> Event:
    kind = said.get("kind", "rollback")
    severity = said.get("severity", Severity.PAGE)
    return Event(
        kind, severity, "credit", "errors doubled", (("e_value", "41.2"),), key, time,
        is_resolved,
    )  # fmt: skip


class Receiver:
    """A server that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((dict(self.headers), body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?team=risk"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def open_outbox(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "PAUSE_S", 0.002)
    opened = []

    def make(*channels, rules=(), cooldown_s=3600.0, bytes_max=10_000):
        routing = Routing(channels, rules, cooldown_s, "inference-router/here")
        dead = DeadLetters(tmp_path / "dead.jsonl", bytes_max)
        made = Outbox(routing, dead, SystemClock(), lambda: 0.5)
        opened.append(made)
        made.start()
        return made

    yield make
    for one in opened:
        one.close()


def until(outbox, fate, count=1):
    def reached() -> bool:
        counts = outbox.counts()
        return sum(n for (_, f), n in counts.items() if f == fate) >= count

    testing.wait_until(reached, f"{count} {fate}")


def test_a_webhook_gets_a_signed_cloud_event(receiver, open_outbox):
    outbox = open_outbox(Channel("hook", "webhook", receiver.url, b"secret"))
    outbox.tell(event())
    until(outbox, "sent")
    ((headers, body),) = receiver.got
    value = json.loads(body)
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert (value["specversion"], value["type"]) == ("1.0", "inference-router.rollback")
    assert (value["time"], value["subject"]) == ("2023-11-14T22:13:20.000Z", "credit")
    assert value["data"]["fields"] == {"e_value": "41.2"}
    stamp = headers["X-Router-Timestamp"]
    signed = hmac.new(b"secret", stamp.encode() + b"." + body, hashlib.sha256)
    assert headers["X-Router-Signature"] == "sha256=" + signed.hexdigest()


def test_a_slack_message_says_it_in_one_line():
    made = compile_message(Channel("s", "slack", "http://h/x"), event("<&>"), "r", 0)
    value = json.loads(made.body)
    assert value["text"] == "[PAGE] credit: errors doubled"
    assert value["attachments"][0]["color"] == "danger"
    over = compile_message(
        Channel("s", "slack", "http://h/x"), event(is_resolved=True), "r", 0
    )
    assert json.loads(over.body)["text"].startswith("[RESOLVED] ")


def test_labels_of_an_alert_do_not_change_while_it_lasts():
    channel = Channel("am", "alertmanager", "http://h:9093/")
    first = compile_message(channel, event(time=1_700_000_000.0), "r", 0)
    over = compile_message(
        channel, event(time=1_700_000_600.0, is_resolved=True), "r", 0
    )
    (begun,), (ended,) = json.loads(first.body), json.loads(over.body)
    assert first.url == "http://h:9093/api/v2/alerts"
    assert begun["labels"] == ended["labels"]
    assert (begun["startsAt"], ended["endsAt"]) == (
        "2023-11-14T22:13:20.000Z", "2023-11-14T22:23:20.000Z",
    )  # fmt: skip


def test_ids_are_equal_for_each_attempt_and_differ_between_events():
    assert event().id == event().id
    others = {event("b").id, event(time=1.0).id, event(is_resolved=True).id}
    assert len(others | {event().id}) == 4


def test_a_receiver_that_is_away_is_tried_again(receiver, open_outbox):
    receiver.statuses[:] = [503, 429, 500]
    outbox = open_outbox(Channel("hook", "webhook", receiver.url))
    outbox.tell(event())
    until(outbox, "sent")
    assert outbox.counts()[("hook", "retried")] == 3
    assert len({json.loads(body)["id"] for _, body in receiver.got}) == 1


def test_what_is_refused_for_good_is_a_dead_letter(receiver, open_outbox, tmp_path):
    receiver.statuses[:] = [400]
    outbox = open_outbox(Channel("hook", "webhook", receiver.url, b"secret"))
    outbox.tell(event())
    until(outbox, "dead")
    text = (tmp_path / "dead.jsonl").read_text()
    letter = json.loads(text)
    assert (letter["channel"], letter["problem"]) == ("hook", "HTTP 400")
    assert (letter["kind"], letter["severity"]) == ("rollback", "page")
    assert "secret" not in text
    assert receiver.url not in text
    assert len(receiver.got) == 1


def test_attempts_end(open_outbox, tmp_path):
    (port,) = testing.free_ports(1)
    outbox = open_outbox(Channel("hook", "webhook", f"http://127.0.0.1:{port}/"))
    outbox.tell(event())
    until(outbox, "dead")
    assert outbox.counts()[("hook", "retried")] == sending.ATTEMPTS_MAX - 1
    assert "ConnectionRefusedError" in (tmp_path / "dead.jsonl").read_text()


def test_the_dead_letters_are_two_bounded_files(tmp_path):
    letters = DeadLetters(tmp_path / "dead.jsonl", 1_000)
    for at in range(30):
        assert letters.write("hook", event(str(at)), "away")
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["dead.jsonl", "dead.jsonl.1"]
    assert all(path.stat().st_size <= 1_000 for path in files)
    last = (tmp_path / "dead.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["dedupe_key"] == "29"


def test_the_same_trouble_is_told_once_until_the_cooldown_is_over(
    receiver, open_outbox
):
    outbox = open_outbox(Channel("hook", "webhook", receiver.url), cooldown_s=60.0)
    for seconds in (0.0, 59.0, 60.0):
        outbox.tell(event(time=1_700_000_000.0 + seconds))
    until(outbox, "sent", 2)
    assert outbox.counts()[("", "deduplicated")] == 1
    times = [json.loads(body)["time"][14:19] for _, body in receiver.got]
    assert sorted(times) == ["13:20", "14:20"]


def test_an_end_is_told_once_and_only_of_what_was_told(receiver, open_outbox):
    outbox = open_outbox(Channel("hook", "webhook", receiver.url))
    outbox.tell(event("other", is_resolved=True))
    outbox.tell(event())
    outbox.tell(event(is_resolved=True))
    outbox.tell(event(is_resolved=True))
    outbox.tell(event())
    until(outbox, "sent", 3)
    until(outbox, "deduplicated", 2)
    ends = [json.loads(body)["data"]["is_resolved"] for _, body in receiver.got]
    assert sorted(ends) == [False, False, True]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"kind": "rollback", "severity": Severity.PAGE}, ["a", "b"]),
        ({"kind": "rollback", "severity": Severity.TICKET}, ["a"]),
        ({"kind": "hold", "severity": Severity.PAGE}, ["b"]),
        ({"kind": "hold", "severity": Severity.INFO}, []),
    ],
)
def test_rules_choose_by_kind_and_severity(said, expected):
    a, b = Channel("a", "slack", "http://a"), Channel("b", "slack", "http://b")
    rules = (
        Rule(frozenset({"rollback"}), Severity.TICKET, ("a",)),
        Rule(frozenset(), Severity.PAGE, ("b", "b")),
    )
    found = channels_of(Routing((a, b), rules, 0, ""), event(**said))
    assert [channel.name for channel in found] == expected


def test_without_rules_everything_goes_everywhere():
    a = Channel("a", "slack", "http://a")
    assert channels_of(Routing((a,), (), 0, ""), event()) == (a,)


def test_pauses_double_up_to_five_minutes_and_half_is_chance():
    assert [pause_s(n, 0.0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause_s(3, 1.0) == 4.0
    assert pause_s(30, 1.0) == 300.0


@pytest.mark.parametrize(
    ("status", "expected"), [(400, False), (404, False), (408, True), (429, True),
                             (499, False), (500, True), (503, True)],
)  # fmt: skip
def test_what_may_be_answered_otherwise_later_is_retried(status, expected):
    assert is_worth_retrying(status) is expected


def test_telling_never_waits_and_what_has_no_room_is_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "QUEUE_MAX", 2)
    routing = Routing((), (), 0, "")
    outbox = Outbox(routing, DeadLetters(tmp_path / "d"), SystemClock())
    for at in range(5):  # its thread was never started
        outbox.tell(event(str(at)))
    assert outbox.counts() == {("", "queue_full"): 3}


def test_what_is_new_when_the_router_leaves_is_sent_once(receiver, open_outbox):
    outbox = open_outbox(Channel("hook", "webhook", receiver.url))
    for at in range(5):
        outbox.tell(event(str(at)))
    outbox.close()
    assert len(receiver.got) == 5
