"""Feedback: how long truth may take, when it counts, and how much of it is kept."""

from typing import Annotated

from pydantic import BaseModel, Field

from router.config.steps import Duration
from router.config.values import FROZEN, Count, Text

MIB = 1024 * 1024


class Feedback(BaseModel):
    """Labels, rewards and measurements that arrive after the answer."""

    model_config = FROZEN
    window: Duration = 7 * 86_400.0
    """A label may come this long after its prediction; later ones are told LATE."""
    maturity: Duration = 72 * 3600.0
    """Only predictions at least this old, and the labels they had by then, promote."""
    retention: Duration = 30 * 86_400.0
    """Labels of older predictions are deleted."""
    store: Text | None = None
    """The file; `labels.db` beside `server.state` if unset."""
    mib_max: Annotated[Count, Field(le=16 * MIB)] = 4096
    """How large the file may get, in MiB; then feedback is refused."""
