"""A name may stand where a file names a version, and means the integer."""

import pytest

from router.config.check import Checks
from router.config.config import Config, dump_config
from router.config.load import read_config
from router.errors import ConfigError

CHECKS = Checks(list_versions=lambda _: (1, 2, 3))
HEAD = """\
api_version: router/v1
models:
  - name: credit
    repository: models/credit
"""


def read(text: str) -> Config:
    return read_config(HEAD + text, "f", CHECKS)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def test_an_alias_stands_wherever_a_version_may() -> None:
    config = read("""\
    stable: blue
    aliases: {blue: 2, green: 3}
routes:
  - {model: credit, audience: ny, version: green}
  - {model: credit, split: [{version: blue, weight: 90}, {version: 1, weight: 10}]}
audiences: [{name: ny, when: {key: k, exact: x}}]
rollouts:
  - name: r
    model: credit
    candidate: green
    steps: [{weight: {to: 5, for: 2h}}, {weight: {to: 100}}]
""")
    assert config.models[0].stable == 2
    assert config.routes[0].version == 3
    assert [share.version for share in config.routes[1].split or ()] == [2, 1]
    assert config.rollouts[0].candidate == 3


def test_the_short_form_of_a_split_takes_aliases() -> None:
    config = read("""\
    aliases: {blue: 2}
routes: [{model: credit, split: {blue: 90, 1: 10}}]
""")
    assert [(s.version, s.weight) for s in config.routes[0].split or ()] == [
        (2, 9000),
        (1, 1000),
    ]


def test_the_alias_stable_is_the_stable_version() -> None:
    assert read("    aliases: {stable: 3}\n").models[0].stable == 3
    assert read("    aliases: {stable: 3}\n    stable: 3\n").models[0].stable == 3
    assert problems("    aliases: {stable: 3}\n    stable: 2\n") == [
        "f:5: models[0].aliases.stable: but stable is 2 (found 3); say it once"
    ]


def test_an_alias_belongs_to_its_model() -> None:
    found = problems("""\
    aliases: {blue: 2}
  - {name: fraud, repository: models/fraud}
routes: [{model: fraud, version: blue}]
""")
    assert found == [
        "f:7: routes[0].version: the model has no alias of this name (found 'blue')"
    ]


def test_two_names_of_one_version_have_one_share() -> None:
    assert problems("""\
    aliases: {blue: 2, azure: 2}
routes: [{model: credit, split: {blue: 50, azure: 50}}]
""") == ["f:6: routes[0].split.azure: this version has a share already (found 2)"]


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        ("{blue: 9}", "aliases.blue: an alias of a version that is not served (found 9)"
         "; it has 1, 2, 3"),
        ("{7: 1}", "aliases[7]: expected text"),
        ("{'7': 1}", "aliases.7: a number is a version and cannot name one"),
        ("{blue: two}", "aliases.blue: expected a whole number (found 'two')"),
    ],
)  # fmt: skip
def test_a_wrong_alias_is_a_problem(aliases: str, problem: str) -> None:
    (found,) = problems(f"    aliases: {aliases}\n")
    assert found.startswith("f:5: models[0]." + problem)


def test_an_alias_of_a_version_that_is_not_listed_is_a_problem() -> None:
    (found,) = problems("    versions: [1, 2]\n    aliases: {blue: 3}\n")
    assert "aliases.blue: an alias of a version that is not served" in found


def test_what_is_stored_reads_back_the_same() -> None:
    config = read("""\
    stable: blue
    aliases: {blue: 2}
routes: [{model: credit, split: {blue: 90, 1: 10}}]
""")
    assert Config.model_validate(dump_config(config)) == config
