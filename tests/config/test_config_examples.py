"""Every example and every block of the documentation is a file that works."""

import re
from pathlib import Path

import pytest

from router.config.audience import OPERATORS
from router.config.check import Checks
from router.config.load import load_config, read_config, read_mapping
from router.config.manifest import Manifest
from router.config.model import Model, Output, Runtime, Unit
from router.config.server import Server

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
CHECKS = Checks(list_versions=lambda _: (1, 2, 3))


@pytest.mark.parametrize("name", ["split", "audiences", "everything"])
def test_an_example_is_valid(name: str) -> None:
    assert load_config(ROOT / "examples" / f"{name}.yaml", CHECKS).models


def test_the_documented_files_are_valid() -> None:
    blocks = re.findall(r"```yaml( manifest)?\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for kind, text in blocks:
        if kind:
            assert read_mapping(text, "f", Manifest).files
        else:
            assert read_config(text, "f", CHECKS).routes


def test_every_key_of_a_section_is_documented() -> None:
    keys = {
        key
        for section in (Server, Model, Unit, Output, Runtime)
        for key in section.model_fields
    }
    missing = [key for key in sorted(keys | set(OPERATORS)) if f"`{key}" not in PAGE]
    assert missing == []
