"""Compiles the floor into build/floor/, when its source is newer than the program.

Built with the router's release optimisation and nothing more: `-march=native` here and
not there would make the ratio a statement about compilers.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("floor.cc")
PROGRAM = ROOT / "build" / "floor" / "floor"
FLAGS = ["-std=c++17", "-O2", "-DNDEBUG", "-Wall", "-Wextra", "-Wconversion"]


def build() -> Path:
    """The path of an up-to-date floor."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return PROGRAM
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    partial = PROGRAM.with_suffix(".tmp")
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, *FLAGS, str(SOURCE), "-o", str(partial)]
    command += ["-lnghttp2", "-pthread"]
    if subprocess.run(command, check=False).returncode:
        sys.exit("the floor does not compile: apt-get install g++ libnghttp2-dev")
    partial.replace(PROGRAM)
    return PROGRAM


if __name__ == "__main__":
    print(build())
