"""Builds native test programs, each object only when what it includes has changed.

Programs land in `build/native/<folder>/`. They are compiled with assertions and with
the address and undefined-behaviour sanitizers, because what these tests look for is
what a sanitizer sees. The dependencies are the compiler's own (`-MMD`).
"""

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "router/engine"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler and its sanitizers; `name` keeps its objects apart from others'."""

    name: str = "asan"
    compiler: str = field(default_factory=lambda: os.environ.get("CXX", "g++"))
    sanitize: str = "address,undefined"

    def flags(self) -> list[str]:
        return [f"-fsanitize={self.sanitize}", "-fno-sanitize-recover=undefined"]


ASAN = Toolchain()

# A sanitizer loaded into pytest itself is not for the compiler nor for these programs,
# which bring their own.
PLAIN_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}


def build(
    target: str,
    sources: Sequence[str],
    libraries: Sequence[str] = (),
    toolchain: Toolchain = ASAN,
) -> Path:
    """The program `target` ("folder/name") made of `sources` (relative to the root)."""
    folder = ROOT / "build" / "native" / Path(target).parent / toolchain.name
    folder.mkdir(parents=True, exist_ok=True)
    objects = {s: folder / (s.replace("/", "_") + ".o") for s in sources}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        stale = [s for s, made in objects.items() if _is_stale(made)]
        list(pool.map(lambda s: _compile(ROOT / s, objects[s], toolchain), stale))
    program = folder / Path(target).name
    newest = max(made.stat().st_mtime for made in objects.values())
    if not program.exists() or program.stat().st_mtime < newest:
        links = [f"-l{name}" for name in libraries]
        _make(
            program, [*toolchain.flags(), *map(str, objects.values())], toolchain, links
        )
    return program


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in the project's root and keeps what it says."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=PLAIN_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def _is_stale(made: Path) -> bool:
    listed = made.with_suffix(".d")
    if not made.exists() or not listed.exists():
        return True
    _, _, names = listed.read_text().replace("\\\n", " ").partition(":")
    paths = [ROOT / name for name in names.split()]
    return any(
        not p.exists() or p.stat().st_mtime > made.stat().st_mtime for p in paths
    )


def _compile(source: Path, made: Path, toolchain: Toolchain) -> None:
    command = [
        "-std=c++17",
        "-O1",
        "-g1",
        "-D_GNU_SOURCE",
        "-DROUTER_CHECKED",
        *WARNINGS,
    ]
    command += [*toolchain.flags(), f"-I{ENGINE}", "-Irouter", "-Itests/native"]
    command += ["-MMD", "-MF", str(made.with_suffix(".d")), "-c", str(source)]
    _make(made, command, toolchain)


def _make(
    made: Path, arguments: list[str], toolchain: Toolchain, last: Sequence[str] = ()
) -> None:
    # Under another name first: an interrupted build leaves nothing that looks done.
    partial = made.with_name(f"{made.name}.{os.getpid()}.tmp")
    command = [toolchain.compiler, *arguments, "-o", str(partial), *last]
    done = run(*command)
    if done.returncode:
        raise AssertionError(f"{made.name} does not build:\n{done.stderr}")
    partial.replace(made)
