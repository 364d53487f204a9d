"""Entries of a configuration that several system tests write."""

from pathlib import Path
from typing import Any

AUDIENCES = [
    {"name": "new-york", "when": {"key": "location", "exact": "new-york"}},
    {"name": "california", "when": {"key": "location", "exact": "california"}},
]


def model(repository: Path, name: str, **settings: Any) -> dict[str, Any]:
    """A model's entry in the configuration."""
    return {"name": name, "repository": str(repository / name), **settings}
