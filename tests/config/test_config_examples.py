"""Every example and every block of the documentation is a file that works."""

import re
from pathlib import Path

import pytest

from router.config.audience import OPERATORS
from router.config.check import Checks
from router.config.load import load_config, read_config, read_mapping
from router.config.manifest import Manifest
from router.config.model import Model, Output, Runtime, Unit
from router.config.rollout import Channel, Holdout, PolicyBody, Rollout, Window
from router.config.server import Server
from router.config.steps import BUILT_IN, KINDS, Criterion

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
CHECKS = Checks(list_versions=lambda _: (1, 2, 3))


@pytest.mark.parametrize("name", ["split", "audiences", "rollouts", "everything"])
def test_an_example_is_valid(name: str) -> None:
    assert load_config(ROOT / "examples" / f"{name}.yaml", CHECKS).models


def test_the_documented_files_are_valid() -> None:
    blocks = re.findall(r"```yaml( manifest)?\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    for kind, text in blocks:
        if kind:
            assert read_mapping(text, "f", Manifest).files
        else:
            config = read_config(text, "f", CHECKS)
            assert config.routes or config.rollouts


SECTIONS = (
    Server, Model, Unit, Output, Runtime, Rollout, PolicyBody, Criterion, Window,
    Holdout, Channel, *KINDS.values(),
)  # fmt: skip


def test_every_key_of_a_section_is_documented() -> None:
    keys = {
        field.alias or key
        for section in SECTIONS
        for key, field in section.model_fields.items()
    }
    missing = [
        key
        for key in sorted(keys | set(OPERATORS) | set(BUILT_IN))
        if f"`{key}" not in PAGE
    ]
    assert missing == []
