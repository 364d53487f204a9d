"""What each key takes, and that what was read can be stored and read again."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from router.config.audience import AllOf, Audience, AudienceRef, NotOf
from router.config.audience import Test as KeyTest
from router.config.config import (
    Config,
    config_revision,
    config_schema,
    dump_config,
    restore_config,
)
from router.config.load import read_config
from router.config.manifest import ModelManifest
from router.config.model import Model, Runtime, runtime_of, settings_of
from router.config.problems import brief, did_you_mean
from router.config.server import Address, Server, parse_address
from router.errors import ConfigError

FULL = """\
api_version: router/v1
server: {listen: ["127.0.0.1:8001", "unix:run/router.sock"], ops: null, loops: 2}
models:
  - name: credit
    repository: models/credit
    stable: 1
    versions: {2: {name: fast, runtime: {intra_op_threads: 1, batching: [1, 8]}}}
    unit: {metadata: x-account, tensor: id, on_missing: stable}
    output: {tensor: p, index: 1, kind: probability, threshold: 0.5, range: [0, 1]}
    runtime: {providers: [{cuda: {device_id: 0, flag: true, share: 0.5}}, cpu],
              intra_op_threads: 4, batching: "off", timeout_ms: 50}
    pins: deny
  - {name: fraud, repository: r, versions: [1], runtime: {providers: {cpu: null}}}
audiences:
  - name: ny
    when: {all: [{key: location, exact: new-york}, {key: age, range: [18, 65]},
                 {not: {audience: old}}]}
  - {name: old, when: {any: [{key: since, before: 2020-01-01}, {key: v, in: [1, a]}]}}
layers: [{name: checkout, salt: autumn}]
routes:
  - {model: credit, audience: ny, split: {1: 33.33, 2: 66.67}}
  - {model: credit, layer: checkout, version: 1}
"""


def test_what_was_read_can_be_stored_and_read_again() -> None:
    config = read_config(FULL, "f")
    stored = json.loads(json.dumps(dump_config(config)))
    assert Config.model_validate(stored) == config
    assert dump_config(Config.model_validate(stored)) == dump_config(config)


def test_equal_meaning_is_one_revision() -> None:
    plain = "{api_version: router/v1, models: [{name: a, repository: r}]}"
    spelt = (
        "models: [{repository: r, name: a, pins: allow}]\n"
        "server: {spin_us: 0}\napi_version: router/v1"
    )
    other = plain.replace("name: a", "name: b")
    assert config_revision(read_config(plain, "f")) == config_revision(
        read_config(spelt, "g")
    )
    assert config_revision(read_config(plain, "f")) != config_revision(
        read_config(other, "f")
    )


def test_the_schema_names_every_section() -> None:
    schema = config_schema()
    assert set(schema["properties"]) == {*Config.model_fields, "environments"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8001", Address("127.0.0.1", 8001)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:1", Address("localhost", 1)),
        ("unix:run/a.sock", Address(path="run/a.sock")),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert address.is_local


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "router.example:1"])
def test_addresses_that_others_can_reach_are_not_local(text: str) -> None:
    assert not parse_address(text).is_local


@pytest.mark.parametrize(
    "text",
    ["unix:", "unix:" + "a" * 108, "8001", "host", "host:", "host:70000", "::1:80",
     ":80", "a b:80", "[zz]:80", "host:-1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Server.model_validate({"listen": text})


def model(**settings: Any) -> Model:
    return Model.model_validate({"name": "m", "repository": "r", **settings})


def test_a_version_replaces_the_models_runtime_key_by_key() -> None:
    made = model(
        runtime={"intra_op_threads": 4, "timeout_ms": 50},
        versions={2: {"runtime": {"intra_op_threads": 1}}},
    )
    assert runtime_of(made, 1) == Runtime(intra_op_threads=4, timeout_ms=50)
    assert runtime_of(made, 2) == Runtime(intra_op_threads=1, timeout_ms=50)
    assert not settings_of(made, 7).disabled


def test_provider_options_are_text() -> None:
    options = {"device_id": 0, "share": 0.5, "on": True, "off": False, "mode": "x"}
    (cuda,) = model(runtime={"providers": [{"cuda": options}]}).runtime.providers
    assert cuda.options == {
        "device_id": "0", "share": "0.5", "on": "1", "off": "0", "mode": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": " a"}, "no blanks"),
        ({"name": "a\x00"}, "no control characters"),
        ({"name": "ä" * 129}, "at most 256 bytes"),
        ({"name": ""}, "at least 1 character"),
        ({"versions": 3}, "all"),
        ({"versions": []}, "at least 1"),
        ({"versions": {"one": {}}}, "valid integer"),
        ({"stable": 0}, "greater than or equal to 1"),
        ({"runtime": {"batching": [0]}}, "greater than or equal to 1"),
        ({"runtime": {"providers": []}}, "at least 1"),
        ({"runtime": {"providers": [3]}}, "Provider"),
        ({"runtime": {"providers": [{"cuda": 3}]}}, "Extra inputs"),
        (
            {"runtime": {"providers": [{"cuda": {"a": [1]}}]}},
            "text, a number or a flag",
        ),
        ({"output": {"tensor": "t", "range": [2, 1]}}, "comes first"),
        ({"fallback": "yes"}, "boolean"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**settings)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"exact": 1.5}, "write `eq`"),
        ({"exact": [1]}, "write text, a whole number"),
        ({"in": []}, "at least 1"),
        ({"present": False}, "True"),
        ({"range": [1]}, "Field required"),
        ({"gt": float("inf")}, "finite"),
        ({"semver_gt": "1.2"}, "semantic version"),
        ({"before": "tomorrow"}, "write a time"),
        ({"before": True}, "write a time"),
        ({"after": "2020-01-01T10:00:00"}, "needs its offset"),
        ({}, "exactly one operator, this one has none"),
        ({"gt": 1, "lt": 2}, "has 2"),
    ],
)
def test_a_wrong_test_is_refused(test: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Audience.model_validate({"name": "a", "when": {"key": "k", **test}})


@pytest.mark.parametrize("when", [3, {}, {"kee": 1}, [], None])
def test_what_is_no_condition_is_refused(when: Any) -> None:
    with pytest.raises(ValidationError, match="a condition is all, any, not"):
        Audience.model_validate({"name": "a", "when": when})


def test_an_operator_without_a_key_is_told_so() -> None:
    with pytest.raises(ValidationError, match="key"):
        Audience.model_validate({"name": "a", "when": {"exact": "x"}})


def test_conditions_can_be_built_from_values() -> None:
    leaf = KeyTest(key="k", present=True)
    when = AllOf(all=(leaf, NotOf.model_validate({"not": AudienceRef(audience="b")})))
    assert Audience(name="a", when=when).when == when


@pytest.mark.parametrize("weight", ["5", True, -1, 100.01, 0.001, None])
def test_a_share_is_whole_basis_points_between_0_and_100(weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"percent|basis points"):
        read_config(
            json.dumps(
                {
                    "api_version": "router/v1",
                    "models": [{"name": "m", "repository": "r"}],
                    "routes": [
                        {"model": "m", "split": [{"version": 1, "weight": weight}]}
                    ],
                }
            ),
            "f",
        )


def test_a_found_value_fits_on_its_line() -> None:
    assert brief("x" * 80) == "'" + "x" * 56 + "..."
    assert (brief(None), brief(True), brief(False)) == ("null", "true", "false")
    assert (brief(3), brief([1]), brief({})) == ("3", "", "")


def test_suggestions_are_close_or_few() -> None:
    assert did_you_mean("stabel", ["stable", "name"]) == "did you mean 'stable'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", [f"name{i}" for i in range(9)]) == ""
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("server: {limits: {streams_mxa: 3}}", "did you mean 'streams_max'?"),
        ("models: [{name: a, repository: r, versions: {1: {disable: true}}}]",
         "did you mean 'disabled'?"),
        ("models: [{name: a, repository: r, versions: {1: {runtime: {batchin: off}}}}]",
         "did you mean 'batching'?"),
        ("models: [{name: a, repository: r, runtime: {providers: [{name: a, x: 1}]}}]",
         "f:2: models[0].runtime.providers[0].x: unknown key"),
        ("models: [{name: a, repository: r, pins: alow}]", "did you mean 'allow'?"),
        ("models: [{name: a, repository: r, pins: zzz}]",
         "expected allow or ignore or deny (found 'zzz')"),
        ("models: [{name: a, repository: r, fallback: yes}]",
         "expected true or false (found 'yes'); write true or false"),
        ("models: [{name: 7, repository: r}]",
         "expected text (found 7); put quotes around it"),
        ("models: [{name: a, repository: r, versions: {1: {runtime: {batching: of}}}}]",
         "expected auto or off (found 'of'); did you mean 'off'?"),
        ("server: {listen: nowhere}", "write host:port, [v6]:port or unix:path"),
    ],
)  # fmt: skip
def test_a_problem_says_what_to_write(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(f"api_version: router/v1\n{text}\n", "f")
    assert any(line in str(problem) for problem in caught.value.problems)


def test_a_stored_configuration_is_restored_if_it_fits_this_release() -> None:
    config = read_config(FULL, "f")
    assert restore_config(dump_config(config)) == config
    assert restore_config({**dump_config(config), "later": 1}) is None


def test_a_manifest_has_features_checksums_and_tags() -> None:
    made = ModelManifest.model_validate(
        {
            "inputs": {"X": {"features": ["amount", "age"]}},
            "files": {"model.onnx": "0" * 64},
            "versions": {"2": {"tags": {"team": "risk"}}},
        }
    )
    assert made.inputs["X"].features == ("amount", "age")
    assert made.versions[2].tags == {"team": "risk"}
