"""What units the engine has seen, kept over a restart.

A file beside the control log, replaced as a whole: a crash leaves the one before. It is
written right after the evidence that is folded from it; what was seen since is lost, so
a unit may then count twice, once in each process. A file that is damaged is said so and
left out: evidence begins again, and nothing else depends on it.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from router.errors import EngineError

log = logging.getLogger(__name__)


class Checkpoint:
    """Owner of the file. `save` and `restore` are the engine's."""

    def __init__(
        self,
        path: Path,
        save: Callable[[], bytes],
        restore: Callable[[bytes], None],
    ) -> None:
        self._path = path
        self._save, self._restore = save, restore
        self._written = b""

    def read(self) -> None:
        """Give the engine what was kept; before its first table."""
        try:
            self._restore(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, EngineError) as error:
            fields = {"path": str(self._path), "problem": str(error)}
            log.warning("units are counted anew", extra={"fields": fields})

    def write(self) -> None:
        """Keep what the engine has seen. Never raises: counted units are no state."""
        data = self._save()
        if data == self._written:
            return
        partial = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            partial.replace(self._path)
        except OSError as error:
            fields = {"path": str(self._path), "problem": error.strerror}
            log.warning("what units did is not kept", extra={"fields": fields})
            return
        self._written = data
