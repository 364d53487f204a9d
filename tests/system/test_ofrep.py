"""Flags by OpenFeature's remote protocol, from a real server, by the stock provider."""

import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import AUDIENCES, model
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    FlagNotFoundError,
    InvalidContextError,
    TargetingKeyMissingError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import Reason

from router import testing
from router.cli.main import main
from router.ops.ofrep import BODY_BYTES_MAX, REASONS
from router.plan.plan import Reason as Ours

X = {"x": np.ones((1, 2), np.float32)}
FLAGS = "/ofrep/v1/evaluate/flags"
ROLLOUT = {
    "name": "tag-2",
    "model": "tag",
    "candidate": 2,
    "steps": [{"weight": {"to": 30, "for": "1h"}}, {"weight": {"to": 100}}],
}


def config_of(directory: Path) -> dict[str, Any]:
    models = directory / "models"
    halves = [{"version": 1, "weight": 50}, {"version": 3, "weight": 50}]
    unit = {"metadata": ["x-user-id"]}
    return {
        "models": [
            model(models, "tag", stable=1, unit=unit),
            model(models, "plain", stable=1),
            model(models, "strict", stable=1, unit={**unit, "on_missing": "reject"}),
        ],
        "audiences": AUDIENCES,
        "routes": [
            {"model": "tag", "audience": "new-york", "version": 3},
            {"model": "tag", "audience": "california", "split": halves},
        ],
        "rollouts": [ROLLOUT],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("flags")
    tags = {version: testing.tag(version) for version in (1, 2, 3)}
    for name in ("tag", "plain", "strict"):
        testing.write_model(directory / "models", name, tags)
    settings = {"drain_s": 2}
    with testing.Server(directory, config_of(directory), settings=settings) as made:
        begun = OFREPProvider(f"http://{made.ops}")

        def has_begun() -> bool:
            drawn = (begun.resolve_integer_details("tag", 0, of(f"u{i}")).value
                     for i in range(40))  # fmt: skip
            return 2 in drawn

        testing.wait_until(has_begun, "the first step of the rollout")
        yield made


@pytest.fixture(scope="module")
def provider(server: testing.Server) -> OFREPProvider:
    return OFREPProvider(f"http://{server.ops}")


def post(
    server: testing.Server, path: str, body: bytes, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    with contextlib.closing(HTTPConnection(server.ops, timeout=10)) as ops:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        ops.request("POST", path, body, sent)
        reply = ops.getresponse()
        data = reply.read()
        return reply.status, json.loads(data) if data else None, dict(reply.headers)


def command(server: testing.Server, *arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--admin", f"unix:{server.directory}/run/admin.sock"])
    assert not ended.value.code


def of(unit: str | None, **attributes: Any) -> EvaluationContext:
    return EvaluationContext(unit, attributes)


@pytest.mark.parametrize("place", [{}, {"location": "california"}])
def test_an_application_is_told_what_the_router_does(
    server: testing.Server, provider: OFREPProvider, place: dict[str, str]
) -> None:
    units = [f"unit-{i}" for i in range(200)]
    served, told, asked_for = {}, {}, {}
    with testing.Caller(server.address) as caller:
        for unit in units:
            met = {"x-user-id": unit, **place}
            answer = caller.infer("tag", X, met)
            served[unit] = int(answer.version), answer.params["route_variant"]
    for unit in units:
        found = provider.resolve_integer_details("tag", 0, of(unit, **place))
        assert found.reason in (Reason.SPLIT, Reason.DEFAULT)
        told[unit] = found.value, found.variant
        rollout = provider.resolve_integer_details("tag-2", 0, of(unit, **place))
        asked_for[unit] = rollout.value, rollout.variant
    assert told == asked_for == served
    assert len(set(told.values())) > 1


def test_the_units_own_key_serves_as_the_targeting_key(
    provider: OFREPProvider,
) -> None:
    for i in range(20):
        by_key = provider.resolve_integer_details("tag", 0, of(f"u{i}"))
        by_name = of(None, **{"x-user-id": f"u{i}"})
        assert provider.resolve_integer_details("tag", 0, by_name).value == by_key.value


def test_reasons_are_openfeatures_and_ours_are_beside_them(
    provider: OFREPProvider,
) -> None:
    audience = provider.resolve_integer_details("tag", 0, of("u", location="new-york"))
    assert (audience.value, audience.reason) == (3, Reason.TARGETING_MATCH)
    assert audience.flag_metadata["route_rule"] == "tag/new-york"
    assert audience.flag_metadata["route_reason"] == "TARGETING_MATCH"
    # Nothing has to be known of a unit that everybody's answer goes to.
    plain = provider.resolve_integer_details("plain", 0, of(None))
    assert (plain.value, plain.flag_metadata["route_propensity_bp"]) == (1, 10_000)
    assert set(REASONS) == {reason.name for reason in Ours}
    assert set(REASONS.values()) <= set(Reason)


def test_a_version_is_a_whole_number_and_nothing_else(provider: OFREPProvider) -> None:
    with pytest.raises(TypeMismatchError):
        provider.resolve_string_details("tag", "none", of("u"))
    with pytest.raises(TypeMismatchError):
        provider.resolve_boolean_details("tag", False, of("u"))


def test_what_cannot_be_answered_has_the_protocols_words(
    server: testing.Server, provider: OFREPProvider
) -> None:
    with pytest.raises(FlagNotFoundError):
        provider.resolve_integer_details("nothing", 0, of("u"))
    for flag in ("tag", "tag-2", "strict"):
        with pytest.raises(TargetingKeyMissingError):
            provider.resolve_integer_details(flag, 0, of(None))
    with pytest.raises(InvalidContextError):
        provider.resolve_integer_details("tag", 0, of(None, targetingKey=7))
    status, body, _ = post(server, f"{FLAGS}/nothing", b"{}")
    assert (status, body["key"], body["errorCode"]) == (
        404, "nothing", "FLAG_NOT_FOUND",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "PARSE_ERROR"),
        (b"{", 400, "PARSE_ERROR"),
        (b"\xff", 400, "PARSE_ERROR"),
        (b'{"context": {"a": NaN}}', 400, "PARSE_ERROR"),
        (b"[" * 30_000, 400, "PARSE_ERROR"),
        (b"9" * 30_000, 400, "PARSE_ERROR"),
        (b"[]", 400, "INVALID_CONTEXT"),
        (b'{"context": []}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 1}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "\\ud800"}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"a": "\\ud800"}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": ""}}', 400, "TARGETING_KEY_MISSING"),
        (b" " * (BODY_BYTES_MAX + 1), 413, "PARSE_ERROR"),
        (b"{}" + b" " * (BODY_BYTES_MAX - 2), 400, "TARGETING_KEY_MISSING"),
    ],
)
def test_a_body_that_means_nothing_is_refused(
    server: testing.Server, body: bytes, status: int, code: str
) -> None:
    found, answer, _ = post(server, f"{FLAGS}/tag", body)
    assert (found, answer["errorCode"]) == (status, code)
    assert answer["errorDetails"]


def test_all_flags_come_at_once_and_only_when_they_are_others(
    server: testing.Server,
) -> None:
    nested = {"list": [1], "object": {}, "nothing": None, "age": 1.5, "beta": True}
    body = json.dumps({"context": {"targetingKey": "u1", **nested}}).encode()
    status, answer, headers = post(server, FLAGS, body)
    assert status == 200
    flags = {one["key"]: one for one in answer["flags"]}
    assert list(flags) == ["plain", "strict", "tag", "tag-2"]
    assert flags["tag-2"]["value"] == flags["tag"]["value"]
    tag = headers["etag"]
    for asked in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        assert post(server, FLAGS, body, If_None_Match=asked)[:2] == (304, None)
    assert post(server, FLAGS, body, If_None_Match='"x"')[0] == 200
    # Without a unit those flags that need none still answer.
    _, answer, other = post(server, FLAGS, b"{}")
    codes = {one["key"]: one.get("errorCode") for one in answer["flags"]}
    missing = "TARGETING_KEY_MISSING"
    assert codes == {"plain": None, "strict": missing, "tag": missing, "tag-2": missing}
    assert other["etag"] != tag
    command(server, "flag", "set", "rollout/tag-2", "off")
    status, answer, _ = post(server, FLAGS, body, If_None_Match=tag)
    flags = {one["key"]: one for one in answer["flags"]}
    assert (status, flags["tag-2"]["reason"]) == (200, "DISABLED")
    assert (flags["tag-2"]["value"], flags["tag"]["reason"]) == (1, "DEFAULT")
    command(server, "flag", "set", "rollout/tag-2", "on")


def test_flags_are_asked_by_post_and_nothing_else(server: testing.Server) -> None:
    assert server.get(f"{FLAGS}/tag")[0] == 405
