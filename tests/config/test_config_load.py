"""A file is read strictly, and everything wrong with it is said at once."""

import random
from pathlib import Path

import pytest
from pydantic import BaseModel

from router.config.check import Checks
from router.config.load import load_config, parse_document, read_config, read_mapping
from router.errors import ConfigError, RouterError

GOOD = """\
api_version: router/v1
models: [{name: credit, repository: models/credit, stable: 1}]
routes:
  - {model: credit, split: {1: 90, 2: 10}}
"""


def problems(text: str | bytes, checks: Checks | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(text, "f", checks or Checks())
    return [str(problem) for problem in caught.value.problems]


def value(text: str) -> object:
    document = parse_document(text, "f")
    assert document.findings == []
    return document.value


def wrong(text: str | bytes) -> list[tuple[str, int]]:
    return [(f.message, line) for f, line in parse_document(text, "f").findings]


def test_a_split_between_two_versions_is_five_lines() -> None:
    config = read_config(GOOD, "f")
    assert len(GOOD.splitlines()) <= 5
    assert config.routes[0].split is not None
    assert [(s.version, s.weight) for s in config.routes[0].split] == [
        (1, 9000),
        (2, 1000),
    ]


def test_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text("\ufeff" + GOOD)
    assert load_config(path).models[0].name == "credit"


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("null", None), ("~", None), ("Null", None), ("''", ""), ("true", True),
        ("FALSE", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("010", 10),
        ("0o10", 8), ("0x1F", 31), ("-12", -12), ("+3", 3), ("12:30", "12:30"),
        ("1_000", "1_000"), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0),
        ("-.inf", float("-inf")), (".INF", float("inf")), ("2020-01-01", "2020-01-01"),
        ("'7'", "7"), ('"true"', "true"), ("=", "="), ("0b11", "0b11"),
        ("1" * 301, "1" * 301), ("1.", 1.0), ("-.5e-1", -0.05),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, read: object) -> None:
    assert value(f"a: {text}") == {"a": read}


def test_not_a_number_is_read_as_one() -> None:
    assert str(value("a: .nan")) == "{'a': nan}"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\nb: &x 2", "anchors are refused", 2),
        ("a: &x [1]", "anchors are refused", 1),
        ("a: !!str 1", "tags are refused", 1),
        ("a:\n  !!map {}", "tags are refused", 2),
        ("a: 1\na: 2", "this key is given twice", 2),
        ("a: {b: 1,\n b: 2}", "this key is given twice", 2),
        ("a: 1\n---\nb: 2", "a second document", 2),
        ("? [a]\n: 1", "a key has to be a plain word", 1),
        ("", "the file is empty", 0),
        ("a: [1\nb: 2", "not YAML: while parsing a flow sequence, did not find"
         " expected ',' or ']'", 2),
        ("a: 1\nb: \x01", "not YAML: control characters are not allowed", 2),
        ("a: 'x", "not YAML: while scanning a quoted scalar, found unexpected end of"
         " stream", 1),
    ],
)  # fmt: skip
def test_what_is_not_plain_yaml_is_refused(text: str, message: str, line: int) -> None:
    assert wrong(text) == [(message, line)]


def test_an_alias_is_refused_where_it_stands() -> None:
    assert wrong("a: &x 1\nb: *x\nc: [*x]") == [
        ("anchors are refused", 1),
        ("aliases are refused", 2),
        ("aliases are refused", 3),
    ]


def test_an_alias_as_a_key_is_refused() -> None:
    found = wrong("a: &x 1\n*x : 2")
    assert ("aliases are refused", 2) in found


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    assert wrong(b"a: 1\nb: \xff") == [("not UTF-8", 2)]


def test_a_large_file_is_refused_unread() -> None:
    assert wrong(b"a" * (1024 * 1024 + 1)) == [("the file is larger than 1 MiB", 0)]


def test_twenty_levels_are_read_and_no_more() -> None:
    assert parse_document("[" * 20 + "]" * 20, "f").findings == []
    assert wrong("[" * 21 + "]" * 21) == [("deeper than 20 levels", 1)]


def test_keys_may_be_numbers_and_nothing_else() -> None:
    assert value("{1: a, true: b, null: c, 1.5: d}") == {
        1: "a", "True": "b", "None": "c", "1.5": "d",
    }  # fmt: skip


def test_every_problem_is_found_in_one_run() -> None:
    text = """\
api_version: router/v2
server: {listen: 0.0.0.0:1, spni_us: 3}
models:
  - name: credit
    repository: models/credit
    stabel: 1
  - {name: fraud, repositry: x}
  - {name: spare, repository: y, stable: "1", versions: [1, 1]}
audiences:
  - name: ny
    when: {all: [{key: a, exat: x}, {key: b, range: [6, 1]}, {key: c, gt: 1, lt: 2}]}
  - {name: a, when: {audience: b}}
  - {name: b, when: {any: [{audience: a}, {audience: zz}, {kee: 1}]}}
layers: [{name: l}, {name: l}]
routes:
  - {model: credit, audience: nyc, split: {1: 50, 2: 49.995}}
  - {model: credti, split: {1: 50, 2: 49}}
  - {model: fraud, version: 1, layer: q}
  - {model: fraud, version: 1}
  - {model: spare}
routez: []
models: []
z: *x
"""
    assert problems(text) == [
        "f:1: api_version: expected router/v1 (found 'router/v2');"
        " did you mean 'router/v1'?",
        "f:2: server.spni_us: unknown key; did you mean 'spin_us'?",
        "f:2: server.listen[0]: other machines can reach this address, and it has no"
        " TLS (found 0.0.0.0:1); listen on 127.0.0.1 or a socket, give server.tls a"
        " certificate, or set server.insecure: true",
        "f:6: models[0].stabel: unknown key; did you mean 'stable'?",
        "f:7: models[1].repositry: unknown key; did you mean 'repository'?",
        "f:8: models[2].stable: expected a whole number (found '1')",
        "f:8: models[2].versions: listed twice (found 1)",
        "f:11: audiences[0].when.all[0].exat: unknown key; did you mean 'exact'?",
        "f:11: audiences[0].when.all[1].range: the low end of a range comes first",
        "f:11: audiences[0].when.all[2]: a test has exactly one operator, this one has"
        " 2 (gt, lt)",
        "f:12: audiences[1].when: refers to itself: a -> b -> a",
        "f:13: audiences[2].when.any[2]: a condition is all, any, not, audience, or a"
        " key with an operator; unknown 'kee': did you mean 'key'?",
        "f:13: audiences[2].when.any[1].audience: no audience of this name"
        " (found 'zz'); known: a, b, ny",
        "f:14: layers[1].name: this name is taken (found 'l')",
        "f:16: routes[0].split[2]: shares are whole basis points: at most two decimals"
        " (found 49.995)",
        "f:16: routes[0].audience: no audience of this name (found 'nyc');"
        " did you mean 'ny'?",
        "f:17: routes[1].model: no model of this name (found 'credti');"
        " did you mean 'credit'?",
        "f:17: routes[1].split: weights add up to 100 percent (found 99)",
        "f:18: routes[2].layer: no layer of this name (found 'q'); known: l",
        "f:19: routes[3]: never reached: routes[2] answers before it; routes are tried"
        " in order; put this one first or remove it",
        "f:20: routes[4]: a route has either a split or a version",
        "f:21: routez: unknown key; did you mean 'routes'?",
        "f:22: models: this key is given twice; the first is on line 3",
        "f:23: z: aliases are refused (found *x); write the value out",
    ]


def test_names_of_broken_things_still_lead_somewhere() -> None:
    text = """\
api_version: router/v1
models: [{name: credit, repository: 7}]
audiences: [{name: ny, when: 3}]
layers: [{name: l, slat: x}]
routes:
  - {model: credit, audience: ny, layer: l, version: 1}
"""
    assert [line.split(": ")[1] for line in problems(text)] == [
        "models[0].repository",
        "audiences[0].when",
        "layers[0].slat",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "f:1: (file): expected a mapping of api_version, models and so on"),
        ("[1", "f:2: (file): not YAML: while parsing a flow sequence, did not find"
         " expected ',' or ']'"),
        ("words", "f:1: (file): expected a mapping of api_version, models and so on"),
        ("api_version: router/v1\nmodels: 3", "f:2: models: expected a list (found 3)"),
        ("models: 3\nmodels: 4\napi_version: router/v1",
         "f:2: models: this key is given twice; the first is on line 1"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_at_all_is_said(text: str, line: str) -> None:
    assert line in problems(text)


def test_missing_root_keys_do_not_hide_the_rest() -> None:
    assert problems("routes: [{model: a, version: 1}]") == [
        "f:1: api_version: this key is required",
        "f:1: models: this key is required",
        "f:1: routes[0].model: no model of this name (found 'a')",
    ]


class Small(BaseModel):
    """Something else to read by the same rules."""

    size: int


def test_other_files_are_read_by_the_same_rules() -> None:
    assert read_mapping("size: 3", "f", Small) == Small(size=3)
    for text in ("size: big", "size: 1\nsize: 2"):
        with pytest.raises(ConfigError, match="f:"):
            read_mapping(text, "f", Small)


def test_the_outside_world_is_asked_about_versions_and_expressions() -> None:
    def list_versions(repository: str) -> tuple[int, ...]:
        if repository == "gone":
            raise RouterError("cannot read the repository: no such file or directory")
        return {"empty": ()}.get(repository, (1, 2))

    text = """\
api_version: router/v1
models:
  - {name: credit, repository: here, stable: 3, versions: {2: {}, 4: {}}}
  - {name: fraud, repository: gone}
  - {name: spare, repository: empty}
  - {name: few, repository: here, versions: [2, 5]}
audiences: [{name: a, when: {key: k, regex: "("}}, {name: b, when: {key: k, regex: x}}]
routes:
  - {model: credit, split: {1: 50, 3: 50}}
  - {model: fraud, version: 9}
  - {model: few, version: 1}
"""
    checks = Checks(list_versions, lambda p: "missing )" if p == "(" else None)
    assert problems(text, checks) == [
        "f:3: models[0].versions[4]: no such version in the repository (found 4);"
        " it has 1, 2",
        "f:3: models[0].stable: stable is not among the versions served (found 3);"
        " it has 1, 2",
        "f:4: models[1].repository: cannot read the repository: no such file or"
        " directory (found 'gone')",
        "f:5: models[2].repository: no version in this repository (found 'empty');"
        " it needs <version>/model.onnx",
        "f:6: models[3].versions[1]: no such version in the repository (found 5);"
        " it has 1, 2",
        "f:7: audiences[0].when.regex: not an expression: missing ) (found '(');"
        " RE2 syntax: no look-around, no back-references",
        "f:9: routes[0].split[3]: model 'credit' does not serve this version (found 3);"
        " it has 1, 2",
        "f:11: routes[2].version: model 'few' does not serve this version (found 1);"
        " it has 2, 5",
    ]


def test_a_mangled_file_is_a_configuration_or_a_list_of_problems() -> None:
    whole = (Path(__file__).parents[2] / "examples" / "everything.yaml").read_text()
    draw = random.Random(7)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "-1",
        "all",
        "key",
        "\n",
        "&a ",
        "'",
    ]
    for _ in range(100):
        at = draw.randrange(len(whole))
        end = at + draw.randint(0, 12)
        try:
            read_config(whole[:at] + draw.choice(pieces) + whole[end:], "f")
        except ConfigError as error:
            assert error.problems  # noqa: PT017 - either outcome is right
