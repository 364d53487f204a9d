"""What this machine is, as far as a model's answers and speed may depend on it.

Read from /proc, /sys and the environment of the process; nothing is run. What cannot be
read is an empty text: two environments that both do not know it do not differ in it.
"""

import os
import platform
from pathlib import Path

GIB = 1024**3
# Of the processor's flags, those that choose other kernels in ONNX Runtime.
FLAGS = {
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8", "amx_tile",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
}  # fmt: skip


def machine_points(root: Path = Path("/")) -> dict[str, object]:
    """The machine's points of a fingerprint; `root` is where /proc and /sys are."""
    info = _text(root / "proc/cpuinfo")
    return {
        "machine/architecture": platform.machine(),
        "machine/cpu": _field(info, "model name"),
        "machine/cpu_flags": sorted(
            FLAGS & {*_field(info, "flags").split(), *_field(info, "Features").split()}
        ),
        "machine/cores": len(os.sched_getaffinity(0)),
        "machine/cpu_quota": _text(root / "sys/fs/cgroup/cpu.max"),
        "machine/memory_gib": round(_memory(root) / GIB, 1),
        "machine/kernel": platform.release(),
        "machine/gpu": _gpus(root),
        "machine/driver": _text(root / "proc/driver/nvidia/version").partition("\n")[0],
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""


def _memory(root: Path) -> int:
    """What the process may use: the machine's, or its control group's if less."""
    total = _field(_text(root / "proc/meminfo"), "MemTotal").removesuffix("kB").strip()
    limit = _text(root / "sys/fs/cgroup/memory.max")
    known = [int(total) * 1024] if total.isdecimal() else []
    known += [int(limit)] if limit.isdecimal() else []
    return min(known, default=0)


def _gpus(root: Path) -> list[str]:
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return [_field(_text(card), "Model") for card in cards]
