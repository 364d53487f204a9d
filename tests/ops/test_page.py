"""The overview page: what is shown of a value, and that nothing in it can run."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from router.ops.overview import rates_of, read_counts
from router.ops.page import HEADERS, body_of, page_of, percent, words_of

EVIL = "<script>alert('x')</script>\"'&"
VERSION = {
    "version": 1, "names": ["1"], "is_stable": True, "is_loaded": True,
    "is_ready": True, "is_disabled": False, "reason": "", "requests": 1234,
    "requests_per_s": 2.5, "share": 0.25,
}  # fmt: skip
SCOPE = {
    "scope": "r/web", "rollout": "r", "model": "m", "strategy": "canary",
    "audience": "", "phase": "ramping", "is_paused": False, "is_off": False,
    "attempt": 1, "step": 1, "steps": ["10 %", "50 %", "100 %"], "wave": 0,
    "waves": [], "waits_for": "", "elapsed_s": 60.0, "next_step_in_s": None,
    "shares": [{"version": 2, "is_stable": False, "asked_bp": 5000, "claimed_bp": 4999,
                "requests_per_s": 1.0}],
    "verdicts": [{"name": "error_rate", "role": "guardrail", "version": 2, "slice": "",
                  "verdict": "fail", "reason": "too many", "action": "rollback",
                  "is_dry_run": False}],
}  # fmt: skip
SEEN = {
    "version": "1.0", "is_ready": True, "unready_reasons": [], "config_revision": "c",
    "table_revision": "t", "was_last_reload_successful": True, "is_frozen": False,
    "is_stalled": False, "waiting": 0,
    "models": [{"name": "m", "stable": 1, "versions": [VERSION]}],
    "rollouts": [SCOPE], "flags": {"rollout/r": True},
}  # fmt: skip


def seen(**changes: Any) -> dict[str, Any]:
    return {**SEEN, **changes}


def scoped(**changes: Any) -> str:
    return body_of(seen(rollouts=[{**SCOPE, **changes}]))


def versioned(**changes: Any) -> str:
    versions = [{**VERSION, **changes}]
    return body_of(seen(models=[{"name": "m", "stable": 1, "versions": versions}]))


def poisoned(value: Any) -> Any:
    """The value with every text in it replaced."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, dict):
        return {
            EVIL if key.startswith("rollout/") else key: poisoned(member)
            for key, member in value.items()
        }
    return [poisoned(one) for one in value] if isinstance(value, list) else value


class Tags(HTMLParser):
    """Which elements there are, and whether each that begins ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        self.all.append(tag)
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_no_text_of_a_name_or_a_reason_becomes_an_element() -> None:
    clean, dirty = Tags(), Tags()
    clean.feed(page_of(SEEN))
    # Reasons not to be ready add a paragraph; what they hold adds none.
    dirty.feed(page_of(poisoned({**SEEN, "unready_reasons": ["x"]})))
    assert clean.open == dirty.open == []
    assert dirty.all.count("script") == clean.all.count("script") == 1
    assert set(dirty.all) <= set(clean.all)


def test_the_policy_admits_the_pages_own_style_and_script() -> None:
    page = page_of(SEEN)
    policy = HEADERS["content-security-policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unready_reasons": ["no table"], "is_ready": False}, "not ready: no table"),
        ({"is_frozen": True}, "frozen: no rollout grows"),
        ({"is_stalled": True}, "stalled: no rollout grows"),
        ({"waiting": 3}, "3 changes wait to be stored"),
        ({"was_last_reload_successful": False}, "configuration was refused"),
        ({"rollouts": []}, "There is none."),
        ({"flags": {"shadow/r": False}}, ">off<"),
    ],
)
def test_what_is_wrong_is_said_at_the_top(changes: dict[str, Any], words: str) -> None:
    assert words in body_of(seen(**changes))
    assert words not in body_of(SEEN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_paused": True, "is_off": True}, "(paused, off)"),
        ({"audience": "new-york"}, "for new-york"),
        ({"waves": ["a", "b"], "wave": 1}, "wave 2 of 2: b"),
        ({"waves": ["a", "b"], "wave": 2}, "wave 2 of 2: b"),
        ({"waits_for": "a person"}, "waits: a person"),
        ({"next_step_in_s": 90.0}, "needs at least 1 min 30 s more"),
        ({"phase": "rolled_back"}, '<span class="bad">rolled back</span>'),
    ],
)
def test_a_rollout_says_where_it_is(changes: dict[str, Any], words: str) -> None:
    assert words in scoped(**changes)
    assert words not in scoped()


def test_steps_are_marked_as_far_as_the_rollout_has_come() -> None:
    body = scoped()
    assert '<li class="done">10 % ✓</li><li class="now">50 %</li><li>100 %</li>' in body
    assert scoped(phase="promoted").count('<li class="done">') == 3
    assert '"now"' not in scoped(phase="rolled_back", next_step_in_s=90.0)
    assert "needs at least" not in scoped(phase="rolled_back", next_step_in_s=90.0)
    assert '<span class="bad">fail</span>' in body
    assert "guardrail error_rate of 2: </span>too many" in body
    assert "49.99 %" in body


def test_a_version_says_what_keeps_it_from_serving() -> None:
    assert "1,234" in versioned()
    assert "25.0 %" in versioned()
    assert "(stable)" in versioned()
    assert "not ready: does not load" in versioned(
        is_ready=False, reason="does not load"
    )
    assert ">disabled<" in versioned(is_disabled=True)
    assert ">–<" in versioned(share=None)
    assert "1 new" in versioned(names=["new"])


def test_rates_are_between_two_looks() -> None:
    snapshot = {"variants": [
        {"model": "m", "version": 1, "codes": {"OK": 7, "INTERNAL": 1}},
        {"model": "m", "version": 1, "codes": {"OK": 2}},
    ]}  # fmt: skip
    counts = read_counts(snapshot)
    assert counts == {("m", 1): 10}
    assert rates_of((0.0, {}), (5.0, counts)) == {("m", 1): 2.0}
    assert rates_of((3.0, {("m", 1): 6}), (5.0, counts)) == {("m", 1): 2.0}
    assert rates_of((3.0, {("m", 1): 60}), (5.0, counts)) == {("m", 1): 0.0}


def test_times_and_shares_are_in_words() -> None:
    found = [words_of(s) for s in (0, 59, 60, 3_725, 90_000)]
    assert found == ["0 s", "59 s", "1 min", "1 h 2 min", "1 d 1 h"]
    assert (percent(1), percent(2_500)) == ("0.01 %", "25 %")
