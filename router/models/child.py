"""Processes that run what is not trusted: how they start, what they may use, when they
end.

The parent starts one with `spawn`; the child's first act is `confine`. What it needs
comes in a parcel, an unlinked file that both hold open: no pipe can fill up, a restart
reads it again, and nothing that lies about can be swapped. It answers on a pipe, one
JSON object a line.

A child ends with its parent, however that dies: the kernel kills it when the thread
that started it ends, so that thread has to outlive it.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1
_LENGTHS = struct.Struct("<QQQ")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use.

    Memory counts from when the engine stands: what a version and its runs take. Zero is
    no limit. CPU seconds are those of its whole life.
    """

    memory_mb: int = 0
    cpu_s: int = 0
    files_max: int = 0
    cores: int = 0
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What a child is started for: words, a routing table and a model's bytes."""

    words: Mapping[str, Any]
    table: bytes
    model: bytes

    def limits(self) -> Limits:
        return Limits(**self.words["limits"])


def limits_words(limits: Limits) -> dict[str, int]:
    """Limits as the words of a task."""
    return asdict(limits)


# -- the parent's side -----------------------------------------------------------------


def pack(task: Task) -> BinaryIO:
    """The task in a file without a name."""
    words = json.dumps(dict(task.words)).encode()
    parts = (words, task.table, task.model)
    packed: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
    packed.write(_LENGTHS.pack(*(len(part) for part in parts)))
    for part in parts:
        packed.write(part)
    packed.flush()
    return packed


def spawn(
    module: str,
    parcel: BinaryIO,
    report: int,
    errors: BinaryIO | None = None,
    listener: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child; it writes to the descriptor `report`.

    Its standard input is a pipe whose end asks it to leave. The calling thread has to
    live as long as the child.
    """
    given = [parcel.fileno(), report] + ([] if listener is None else [listener])
    # -P: the working directory belongs to the operator, not to Python's path.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(os.getpid()), *map(str, given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=given,
    )


# -- the child's side ------------------------------------------------------------------


def end_with_parent(parent: int) -> None:
    """Be killed when the parent is gone, and now if it is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        os._exit(1)


def unpack(fd: int) -> Task:
    """Read the task; the descriptor's position is shared, so it is not used."""
    lengths = _LENGTHS.unpack(os.pread(fd, _LENGTHS.size, 0))
    at, parts = _LENGTHS.size, []
    for length in lengths:
        parts.append(_pread(fd, at, length))
        at += length
    words, table, model = parts
    return Task(json.loads(words), table, model)


def confine(limits: Limits) -> None:
    """Set the limits that hold from the start; `confine_memory` comes later."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.cpu_s:
        # The soft limit's signal says what happened; the hard one makes sure.
        _limit(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1)
    if limits.files_max:
        _limit(resource.RLIMIT_NOFILE, limits.files_max, limits.files_max)
    if limits.cores:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-limits.cores :])
    if limits.nice:
        os.nice(limits.nice)


def confine_memory(limits: Limits) -> None:
    """Let the address space grow by so much and no more."""
    if limits.memory_mb:
        most = virtual_bytes() + limits.memory_mb * MIB
        _limit(resource.RLIMIT_AS, most, most)


def virtual_bytes() -> int:
    """Address space in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """The most memory that was ever resident.

    Not `ru_maxrss`, which a child inherits from the process it was forked from.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes(pid: int) -> int:
    """Memory resident now; 0 for a process that is gone."""
    with contextlib.suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return 0


def tell(fd: int, words: Mapping[str, Any]) -> None:
    """Say something to the parent."""
    left = json.dumps(dict(words)).encode() + b"\n"
    while left:
        left = left[os.write(fd, left) :]


def _limit(which: int, soft: int, hard: int) -> None:
    # An operator's own limit may already be tighter: it stays.
    highest = resource.getrlimit(which)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(which, (soft, hard))


def _pread(fd: int, at: int, length: int) -> bytes:
    # One call reads at most 2 GiB, and a signal may end it sooner.
    parts = []
    while length:
        part = os.pread(fd, min(length, 1 << 30), at)
        if not part:
            raise EOFError("the parcel is cut short")
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
