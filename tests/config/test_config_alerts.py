"""The alerts section."""

import pytest

from router.config.load import read_config
from router.control.alerts import routing_of
from router.errors import ConfigError

MODEL = """
api_version: router/v1
models: [{name: credit, repository: models/credit, stable: 1}]
"""
GOOD = """
alerts:
  channels:
    - {name: hook, type: webhook, url: "https://example.org/hook", secret_env: KEY}
    - {name: chat, type: slack, url_env: CHAT}
  rules: [{on: [rollback], min_severity: page, to: hook}]
  slos: [{name: up, model: credit, objective: 99.9}]
"""


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read_config(MODEL + text, "router.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_secrets_come_from_the_environment():
    alerts = read_config(MODEL + GOOD, "f").alerts
    routing = routing_of(alerts, {"KEY": "k", "CHAT": "http://chat/x"}, "r")
    hook, chat = routing.channels
    assert (hook.url, hook.secret) == ("https://example.org/hook", b"k")
    assert (chat.url, chat.secret) == ("http://chat/x", b"")
    assert routing.rules[0].channels == ("hook",)


def test_every_variable_that_is_missing_is_named():
    alerts = read_config(MODEL + GOOD, "f").alerts
    with pytest.raises(ConfigError) as caught:
        routing_of(alerts, {}, "r")
    assert [problem.value for problem in caught.value.problems] == ["KEY", "CHAT"]


def test_every_problem_comes_in_one_run():
    found = problems("""
alerts:
  channels:
    - {name: hook, type: webhook, url: "ftp://example.org"}
    - {name: none, type: slack}
    - {name: none, type: slack, url: "http://a", url_env: B}
  rules: [{on: [rolback], to: [huk]}]
  slos:
    - {name: up, model: credti, objective: 99.9}
    - {name: up, model: credit, objective: 100}
""")
    text = "\n".join(found)
    for told in (
        "alerts.channels[0].url: write a URL", "alerts.channels[1]: needs one address",
        "alerts.channels[2].name: this name is taken",
        "alerts.channels[2]: needs one address", "did you mean 'rollback'?",
        "did you mean 'credit'?", "alerts.slos[1].objective: an objective is between",
    ):  # fmt: skip
        assert told in text, told


def test_a_channel_nobody_has_is_named_with_what_is_near():
    text = GOOD.replace("to: hook", "to: hok")
    (found,) = problems(text)
    assert "no channel of this name" in found
    assert "did you mean 'hook'?" in found


def test_a_misspelt_key_of_a_channel_is_one_of_a_channels():
    (found,) = problems(GOOD.replace("secret_env", "secrte_env"))
    assert "did you mean 'secret_env'?" in found
