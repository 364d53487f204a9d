"""The rule file for Prometheus that a configuration's objectives come to."""

from typing import Any

from router.control.slo import rules_of
from router.lab.preview import read_file


def rules_of_file(path: str) -> dict[str, Any]:
    """Recording and alerting rules; JSON of it is YAML."""
    return rules_of(read_file(path, has_models=False).alerts)
