"""Probe before trust: a version is loaded and run in a child before anybody routes to
it.

A model is a program. Sixty bytes of it can allocate gigabytes or never end, and a
kernel that crashes takes its process along; so the first process that runs it is one
that nobody needs, with limits on memory, processor time, time and descriptors. A
version that fails is not served and says why. One that passes is remembered by
everything the verdict depended on, so that a restart does not ask again; a failure is
never remembered, because the machine may just have been busy.

Synthetic input that a model refuses is no failure: real models do that.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.errors import ModelError
from router.models.child import MIB, Limits, Task, limits_words, pack, spawn

MODULE = "router.models.probe_child"
REMEMBERED_MAX = 1_000
REPORT_BYTES_MAX = 1 << 20
ERRORS_SHOWN = 300
# The bytes as they came, parsed, laid out for the processor, and once more in passing.
SIZE_FACTOR = 4
GRPC_DEADLINE_EXCEEDED = 4
# How an allocation that failed speaks: ONNX Runtime's arena, C++, Python, and threads
# for whose stacks there was no room.
MEMORY_WORDS = (
    "Failed to allocate memory", "bad_alloc", "bad allocation", "MemoryError",
    "Cannot allocate memory", "Resource temporarily unavailable",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """What a probe may use; see `Limits`. `wall_s` counts from its start.

    `memory_mb` comes on top of what the model's own bytes need (`SIZE_FACTOR`).
    """

    memory_mb: int
    cpu_s: int
    wall_s: float
    files_max: int = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """What is probed: a version, its bytes, the options it loads with, its table."""

    model: str
    version: int
    data: bytes
    options: Mapping[str, str]
    table: bytes


class Prober:
    """Owner of the folder where passed probes are remembered; any thread may ask."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def probe(self, subject: Subject, limits: ProbeLimits) -> dict[str, Any]:
        """The report of a version that passed. ModelError says why one did not."""
        path = self._folder / f"{_key(subject, limits)}.json"
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(path.read_text())
            return found | {"is_remembered": True}
        report = run_probe(subject, limits)
        self._remember(path, report)
        return report | {"is_remembered": False}

    def _remember(self, path: Path, report: Mapping[str, Any]) -> None:
        # Only a second probe is lost when this fails, on a full or read-only disk.
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self._folder, delete=False, suffix=".new"
            ) as partial:
                json.dump(dict(report), partial)
            os.replace(partial.name, path)
            known = sorted(self._folder.glob("*"), key=lambda p: p.stat().st_mtime_ns)
            for oldest in known[:-REMEMBERED_MAX]:
                oldest.unlink(missing_ok=True)


def run_probe(subject: Subject, limits: ProbeLimits) -> dict[str, Any]:
    """Probe in a child, now. ModelError says why the version failed."""
    told, errors, code = _run_child(subject, limits)
    report: dict[str, Any] | None = told.get("report")
    if report is None:
        why = told.get("refused") or judge_death(code, errors, limits)
    else:
        why = judge_report(report, limits)
    if why:
        raise ModelError(subject.model, subject.version, _worded(why, limits))
    assert report is not None
    return report


def judge_report(report: Mapping[str, Any], limits: ProbeLimits) -> str:
    """Why a version that was loaded and run is not to be trusted; empty if it is."""
    for warning in report["warnings"]:
        if has_memory_words(warning):
            return f"killed by its memory limit of {limits.memory_mb} MB: {warning}"
    if report.get("code") == GRPC_DEADLINE_EXCEEDED:
        return f"one run took more than {limits.wall_s:g} s"
    return ""


def judge_death(code: int | None, errors: str, limits: ProbeLimits) -> str:
    """What a child died of; `code` is None when its time was up."""
    if code is None:
        return f"killed: it took more than {limits.wall_s:g} s"
    if code == -signal.SIGXCPU:
        return f"killed: it used more than {limits.cpu_s} s of processor time"
    if has_memory_words(errors):
        return f"killed by its memory limit of {limits.memory_mb} MB"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with {code} before it said anything: {errors[-ERRORS_SHOWN:]}"


def has_memory_words(text: str) -> bool:
    """Whether a sentence tells of an allocation that failed."""
    return any(words in text for words in MEMORY_WORDS)


def _worded(why: str, limits: ProbeLimits) -> str:
    if has_memory_words(why) and not why.startswith("killed"):
        why = f"killed by its memory limit of {limits.memory_mb} MB: {why}"
    return f"failed its probe: {why}"


def _run_child(
    subject: Subject, limits: ProbeLimits
) -> tuple[dict[str, Any], str, int | None]:
    """What the child told, what it wrote to standard error, and how it ended."""
    memory_mb = limits.memory_mb + SIZE_FACTOR * len(subject.data) // MIB
    words = {
        "model": subject.model,
        "version": subject.version,
        "options": dict(subject.options),
        "wall_s": limits.wall_s,
        "limits": limits_words(Limits(memory_mb, limits.cpu_s, limits.files_max)),
    }
    with (
        pack(Task(words, subject.table, subject.data)) as parcel,
        tempfile.TemporaryFile() as told,
        tempfile.TemporaryFile() as errors,
    ):
        child = spawn(MODULE, parcel, told.fileno(), errors)
        assert child.stdin is not None
        try:
            code: int | None = child.wait(limits.wall_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
        errors.seek(0)
        told.seek(0)
        return _told(told.read(REPORT_BYTES_MAX)), _text(errors.read(1 << 16)), code


def _told(data: bytes) -> dict[str, Any]:
    """The child's one line; nothing if it died over it."""
    if not data.endswith(b"\n"):
        return {}
    found: dict[str, Any] = json.loads(data)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()


def _key(subject: Subject, limits: ProbeLimits) -> str:
    """Names everything that the verdict depends on, the runtime's library included."""
    library = subject.options.get("library", "")
    with contextlib.suppress(OSError):
        found = os.stat(library)
        library += f"@{found.st_size}.{found.st_mtime_ns}"
    parts = (
        hashlib.sha256(subject.data).hexdigest(),
        sorted({**subject.options, "library": library}.items()),
        (limits.memory_mb, limits.cpu_s, limits.wall_s, limits.files_max),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
