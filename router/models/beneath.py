"""Reads a file that a downloaded model names, beneath its folder and nowhere else.

The kernel decides, not a comparison of paths: `openat2` with RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS opens the file or refuses, and what was opened is what is looked at
and read, so nothing can be swapped in between. A kernel without it (before 5.6, or
behind a filter) gets one O_NOFOLLOW step per component. Regular files with one name
only: a hard link may be the other name of something that was never meant to be read.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_RESOLVE = _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
# A pipe that nobody writes to must not hold us.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_ABSENT = (errno.ENOSYS, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def read_beneath(folder: Path, name: str, size_max: int) -> bytes:
    """The bytes of a file beneath a folder. OSError, or ValueError for a wrong kind."""
    with _opened_folder(folder) as root:
        try:
            fd = _openat2(root, name)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            fd = open_stepwise(root, name)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_nlink != 1:
            raise ValueError("it is a hard link: another name leads to the same file")
        if found.st_size > size_max:
            raise ValueError(f"it has more than {size_max} bytes")
        with open(fd, "rb", closefd=False) as opened:
            return opened.read(size_max)
    finally:
        os.close(fd)


def open_stepwise(root: int, name: str) -> int:
    """What `openat2` does, component by component."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    at = os.dup(root)
    try:
        for part in parts[:-1]:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            step = os.open(part, flags, dir_fd=at)
            os.close(at)
            at = step
        return os.open(parts[-1], _FLAGS, dir_fd=at)
    finally:
        os.close(at)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(root: int, name: str) -> int:
    if "\0" in name:
        raise ValueError("its name holds a zero byte")
    how = _OpenHow(_FLAGS, 0, _RESOLVE)
    fd: int = _libc.syscall(
        _OPENAT2, root, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd
