"""Has a file changed? Asked once a second, answered by its content.

A poll sees what notifications miss: network file systems, and a directory that is
swapped by a symbolic link, the way Kubernetes updates a ConfigMap. The content is read
only when the cheap signs (inode, size, times, seen through links) differ, and a rewrite
of the same bytes is no change.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

SIZE_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file looked like: cheap signs, and a digest of its content."""

    signs: tuple[int, int, int, int, int] | None
    digest: bytes


def look_at(path: Path, before: FileState | None = None) -> FileState:
    """The state of a file now; a file that is away has no signs."""
    signs = _signs(path)
    if before is not None and signs == before.signs:
        return before
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(SIZE_MAX + 1)).digest()
    except OSError:
        return FileState(None, b"")
    return FileState(signs, digest)


def has_changed(before: FileState, after: FileState) -> bool:
    """Whether there is something new to read: a file that is away is not."""
    return after.signs is not None and before.digest != after.digest


def _signs(path: Path) -> tuple[int, int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
    )  # fmt: skip
