"""Files of Qwak's named by the configuration are part of it, or say where they fail."""

from pathlib import Path

import pytest

from router.config.check import Checks
from router.config.config import config_revision, dump_config, restore_config
from router.config.load import load_config
from router.errors import ConfigError

CHECKS = Checks(list_versions=lambda _: (1, 2, 3))
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "qwak"
HEAD = """\
api_version: router/v1
models:
  - {name: credit, repository: m, stable: 1}
audiences: [{name: mine, when: {key: a, exact: b}}]
routes: [{model: credit, audience: mine, version: 2}]
"""
AUDIENCES = """\
audiences:
  - name: ny
    conditions: {unary: [{key: location, operator: EXACT_MATCH, operand: ny}]}
    routes: [{variation_name: 2, weight: 100}]
"""


def problems(folder: Path, qwak: str, audiences: str = AUDIENCES) -> list[str]:
    (folder / "a.yaml").write_text(audiences)
    (folder / "router.yaml").write_text(f"{HEAD}qwak: {qwak}\n")
    try:
        load_config(folder / "router.yaml", CHECKS)
    except ConfigError as error:
        return [str(one).replace(f"{folder}/", "") for one in error.problems]
    return []


def test_the_example_is_audiences_and_routes() -> None:
    config = load_config(EXAMPLE / "router.yaml", CHECKS)
    names = [audience.name for audience in config.audiences]
    assert names == ["new-york-residents", "california-residents"]
    assert [(r.audience, r.version) for r in config.routes] == [
        ("new-york-residents", 2), ("california-residents", 3), (None, 1),
    ]  # fmt: skip


def test_what_is_applied_needs_the_files_no_more(tmp_path: Path) -> None:
    assert problems(tmp_path, "[a.yaml]") == []
    config = load_config(tmp_path / "router.yaml", CHECKS)
    assert restore_config(dump_config(config)) == config


def test_another_file_is_another_revision(tmp_path: Path) -> None:
    assert problems(tmp_path, "[a.yaml]") == []
    before = config_revision(load_config(tmp_path / "router.yaml", CHECKS))
    (tmp_path / "a.yaml").write_text(AUDIENCES.replace("operand: ny", "operand: la"))
    assert config_revision(load_config(tmp_path / "router.yaml", CHECKS)) != before


def test_the_files_own_routes_go_first(tmp_path: Path) -> None:
    assert problems(tmp_path, "[{file: a.yaml, model: credit}]") == []
    config = load_config(tmp_path / "router.yaml", CHECKS)
    assert [route.audience for route in config.routes] == ["mine", "ny"]


@pytest.mark.parametrize(
    ("qwak", "audiences", "said"),
    [
        ("[b.yaml]", AUDIENCES, "b.yaml: (file): No such file or directory"),
        ("[../a.yaml]", AUDIENCES, "router.yaml:6: qwak[0].file: leads out of the"),
        ("[/etc/passwd]", AUDIENCES, "router.yaml:6: qwak[0].file: leads out of the"),
        ("[{file: a.yaml, model: x}]", AUDIENCES,
         "router.yaml:6: qwak[0].model: no model of this name (found 'x')"),
        ("[a.yaml]", AUDIENCES.replace("EXACT", "EXAC"),
         "a.yaml:3: audiences[0].conditions.unary[0].operator: no operator"),
        # Found by the checks of the whole, told where it stands.
        ("[a.yaml]", AUDIENCES.replace("name: 2", "name: 9"),
         "a.yaml:4: audiences[0].routes: "),
        ("[a.yaml]", AUDIENCES.replace("name: ny", "name: mine"),
         "a.yaml:2: audiences[0]"),
        ("[a.yaml]", "x" * (1024 * 1024 + 1), "a.yaml: (file): the file is larger"),
        (f"[{', '.join(['a.yaml'] * 17)}]", AUDIENCES, "router.yaml:6: qwak: "),
    ],
)  # fmt: skip
def test_a_problem_is_told_where_it_stands(
    tmp_path: Path, qwak: str, audiences: str, said: str
) -> None:
    found = problems(tmp_path, qwak, audiences)
    assert any(one.startswith(said) for one in found), found


def test_of_several_models_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AUDIENCES)
    two = HEAD.replace("stable: 1}", "stable: 1}\n  - {name: b, repository: b}")
    (tmp_path / "router.yaml").write_text(f"{two}qwak: [a.yaml]\n")
    with pytest.raises(ConfigError, match="whose routes are these"):
        load_config(tmp_path / "router.yaml", CHECKS)
