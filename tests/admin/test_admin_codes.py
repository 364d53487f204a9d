"""One table says what operators are told, and the page shows that table."""

import re
from pathlib import Path

import pytest

from router.admin.codes import CODES, DETAIL_CHARS_MAX, refusal, refusing
from router.errors import ConfigError, ConflictError, Problem, RouterError
from router.ops.methods import Code, MethodError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "status-codes.md"


def test_the_page_shows_the_table() -> None:
    text = PAGE.read_text().split("## What operators are told")[1]
    shown = re.findall(r"^\| `(\w+)` \| ([A-Z_]+) \|", text, re.MULTILINE)
    assert dict(shown) == {kind.__name__: code.name for kind, code in CODES.items()}


@pytest.mark.parametrize("kind", CODES)
def test_an_error_keeps_its_sentence(kind: type[RouterError]) -> None:
    def answer() -> None:
        if kind is ConfigError:
            raise ConfigError((Problem("f", 1, "a", "is wrong"),))
        raise kind.__new__(kind, "it is so")

    with pytest.raises(MethodError) as caught:
        refusing(answer)()
    assert caught.value.code == CODES[kind]
    assert "is" in caught.value.detail


def test_a_narrower_class_has_the_code_of_its_parent() -> None:
    class OurConflictError(ConflictError):
        """Narrower."""

    found = refusal(OurConflictError("x"))
    assert found is not None
    assert found.code == Code.ABORTED


def test_a_long_sentence_fits_a_header() -> None:
    found = refusal(ConflictError("x" * 10_000))
    assert found is not None
    assert len(found.detail) == DETAIL_CHARS_MAX


def test_what_is_not_in_the_table_is_our_mistake() -> None:
    assert refusal(RouterError("secret")) is None

    def answer() -> None:
        raise RouterError("secret")

    with pytest.raises(RouterError, match="secret"):
        refusing(answer)()
