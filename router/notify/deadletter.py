"""What could not be sent, one JSON object a line, in a file that is bounded.

When the file is full it becomes `<name>.1`, and the one before that is gone: two files
of at most BYTES_MAX. The letters hold what a webhook would have got, never a URL or a
secret.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from router.notify.event import Event

BYTES_MAX = 1024 * 1024


class DeadLetters:
    """Owner of the file. One thread writes."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path, self._bytes_max = path, bytes_max

    def write(self, channel: str, event: Event, problem: str) -> bool:
        """Keep an event that a channel did not get; whether that worked."""
        letter = {"channel": channel, "problem": problem, **asdict(event)}
        letter["severity"] = event.severity.name.lower()
        line = json.dumps(letter, ensure_ascii=False).encode() + b"\n"
        try:
            self._rotate(len(line))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            with open(os.open(self._path, flags, 0o600), "wb") as opened:
                opened.write(line)
        except OSError:
            return False
        return True

    def _rotate(self, more: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size and size + more > self._bytes_max:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
