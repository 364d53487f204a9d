"""A private folder for this process's sockets, gone when it is.

Short on purpose: the path of a Unix socket has room for a hundred characters. The owner
holds a lock in it, so that what a killed predecessor left behind can be told from what
is in use, and is removed by the next one that starts.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "router-run-"
LOCK_NAME = "lock"


class RunDirectory:
    """Owner of a folder that only its user may enter."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        remove_stale(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = os.open(
            self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        )
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove it with all that is in it. Harmless the second time."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def remove_stale(parent: Path) -> None:
    """Remove folders of ours that nobody holds any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
