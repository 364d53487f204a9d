"""Who may import whom, and how long things may get.

The table is the architecture: a package that is not in it may not exist, an import that
is not in it may not be written. Read it before adding a line to it; a line is a
decision.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "router"
ENGINE = SOURCE / "engine"

KERNEL = {"_fasthash", "_fasthash_py", "_fasthash_bytes"}
BELOW_CONTROL = {
    "errors", "clock", "engine", "config", "plan", "models", "analysis", "store",
    "telemetry", "feedback", "notify", *KERNEL,
}  # fmt: skip
MESSAGES = {"client.messages"}  # the generated messages: no network, no kernel
EVERYTHING = BELOW_CONTROL | {"control", "lab", "admin", "ops", "client", "console"}

# Package -> ours that it may import. The kernel's faces are one thing.
OURS: dict[str, set[str]] = {
    "errors": set(),
    "clock": set(),
    "_fasthash": set(),
    "_fasthash_bytes": set(),
    "_fasthash_py": {"_fasthash_bytes"},
    "engine": {"errors", *KERNEL},
    "config": {"errors"},
    "plan": {"errors", "config", *KERNEL},
    "models": {"errors", "config", "engine", *MESSAGES},
    "analysis": {"errors"},
    "store": {"errors", "clock"},
    "telemetry": {"errors", "clock", "engine"},
    "feedback": {"errors", "clock", "store", "engine"},
    "notify": {"errors", "clock", "store"},
    "control": BELOW_CONTROL,
    # It reads recordings, which are on the tape; plays tables, and keeps a log.
    "lab": {"errors", "clock", "control", "client", "models", "analysis", "engine",
            "plan", "config", "telemetry.tape", "telemetry.shadows", "store.log",
            *KERNEL},
    "admin": {"errors", "control", "telemetry", "feedback", "lab", *MESSAGES,
              "ops.methods"},  # what a method is, for every listener
    "ops": {"errors", "control", "telemetry", "feedback", "lab", *MESSAGES},
    "client": {"errors"},
    "console": {"client"},
    "app": EVERYTHING,
    "cli": {"errors", "app", "config", "plan", "client", "lab", "models"},
    "testing": {"app", "clock", "models"},
    "__init__": set(),
    "__main__": {"cli"},
}  # fmt: skip

# Package or file -> third parties that it may import.
THIRD: dict[str, set[str]] = {
    "config": {"pydantic", "pydantic_core"},
    "config/load.py": {"yaml", "pydantic"},
    "analysis": {"numpy"},
    "telemetry/prometheus.py": {"prometheus_client"},
    "models/upstream.py": {"grpc"},
    "models/pull.py": {"fsspec"},  # an extra, imported when a version is pulled
    "store/etcd.py": {"grpc"},
    "lab": {"numpy"},  # draws traffic
    "ops": {"starlette", "uvicorn", "google"},
    "client": {"grpc", "numpy", "google"},
    # It is a client of the server it tests, as any user's would be.
    "lab/selftest.py": {"grpc", "numpy"},
    "client/truths.py": {"pyarrow"},  # an extra, imported when a file needs it
    "cli": {"click", "rich"},
    "lab/attest.py": {"cryptography"},  # an extra, imported for keys in PEM
    "testing": {"onnx", "grpc", "numpy", "google", "prometheus_client"},
}

NAMES_REFUSED = {"utils", "helpers", "common", "base", "misc", "manager", "handler"}
LINES_MAX = 500
KERNEL_LINES_MAX = 700
# A ratchet: lower it with every cut (docs/decisions/0006-size-of-the-engine.md).
CXX_LINES_MAX = 16_200
ABI_FUNCTIONS_MAX = 25
FLOORS = ("base", "wire", "run", "watch", "serve")

PYTHON = sorted(SOURCE.rglob("*.py"))
CYTHON = sorted([*SOURCE.rglob("*.pyx"), *SOURCE.rglob("*.pxd")])
CXX = sorted([*ENGINE.rglob("*.cc"), *ENGINE.rglob("*.h")])


def label(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether while it is being imported."""
    tree = ast.parse(path.read_text(), str(path))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)}: relative imports hide the package"
            found = str(node.module)
            for alias in node.names:
                inner = f"{found}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).is_dir() or (
                    ROOT / (inner.replace(".", "/") + ".py")
                ).is_file()
                yield inner if is_module else found, id(node) not in late


def ours(path: Path) -> Iterator[tuple[str, bool]]:
    for name, is_early in imports(path):
        if name.startswith("router."):
            yield name.removeprefix("router."), is_early


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    mine = package(path)
    assert mine in OURS, f"{mine} is not in the table"
    allowed = OURS[mine] | {mine}
    wrong = {
        name
        for name, _ in ours(path)
        if name.split(".")[0] not in allowed
        and ".".join(name.split(".")[:2]) not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_a_third_party_is_imported_only_where_the_table_says(path: Path) -> None:
    allowed = THIRD.get(label(path), THIRD.get(package(path), set()))
    roots = {name.split(".")[0] for name, _ in imports(path)}
    third = roots - set(sys.stdlib_module_names) - {"router"}
    assert third <= allowed


def test_only_one_file_of_a_package_knows_yaml_and_the_database() -> None:
    users = {
        library: {
            label(path)
            for path in PYTHON
            if library in {name.split(".")[0] for name, _ in imports(path)}
        }
        for library in ("yaml", "sqlite3", "prometheus_client")
    }
    assert users["yaml"] == {"config/load.py"}
    # Two files on disk, each with its owner: labels must never delay the control log.
    assert users["sqlite3"] == {"store/sqlite.py", "store/labels.py"}
    assert users["prometheus_client"] <= {"telemetry/prometheus.py", "testing.py"}


def test_no_module_imports_itself_by_a_detour() -> None:
    known = {module(path) for path in PYTHON}
    graph = {
        module(path): {name for name, is_early in ours(path) if is_early} & known
        for path in PYTHON
    }
    rest = dict(graph)
    while leaves := {name for name, needs in rest.items() if not needs & rest.keys()}:
        rest = {name: needs for name, needs in rest.items() if name not in leaves}
    assert not rest


def test_no_module_is_named_for_having_no_purpose() -> None:
    # `engine/base` is the engine's lowest floor, and the floors' names are its own.
    names = {path: path.stem for path in [*PYTHON, *CYTHON, *CXX]}
    assert not [label(p) for p, name in names.items() if name in NAMES_REFUSED]
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert not folders & NAMES_REFUSED


@pytest.mark.parametrize("path", [*PYTHON, *CYTHON, *CXX], ids=label)
def test_a_module_fits_in_a_head(path: Path) -> None:
    is_kernel = path.name.startswith("_fasthash")
    limit = KERNEL_LINES_MAX if is_kernel else LINES_MAX
    lines = len(path.read_text().splitlines())
    assert lines <= limit


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_a_module_says_what_lives_there(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_the_native_engine_stays_small() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in CXX)
    assert lines < CXX_LINES_MAX


@pytest.mark.parametrize("path", CXX, ids=label)
def test_a_floor_stands_only_on_those_below_it(path: Path) -> None:
    floor = path.relative_to(ENGINE).parts[0]
    if floor not in FLOORS:
        assert floor == "engine.h"
        floor = "base"  # the C ABI knows no floor at all
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    included = re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)
    floors = [name.split("/")[0] for name in included if "/" in name]
    assert not [name for name in floors if name not in allowed]
    plain = {name for name in included if "/" not in name}
    assert plain <= {"_fasthash.h", "engine.h"}
    # The ABI is the roof's door: what stands below does not know it.
    assert "engine.h" not in plain or floor == "serve"


def test_the_door_to_the_engine_is_narrow() -> None:
    text = re.sub(
        r"/\*.*?\*/|//[^\n]*", "", (ENGINE / "engine.h").read_text(), flags=re.S
    )
    functions = re.findall(r"\b(engine_\w+)\s*\([^;{]*\)\s*;", text)
    assert 0 < len(functions) <= ABI_FUNCTIONS_MAX


def test_only_one_file_knows_both_python_and_the_engine() -> None:
    assert [label(p) for p in SOURCE.rglob("*.pyx") if "engine.h" in p.read_text()] == [
        "engine/_engine.pyx"
    ]
    assert not [label(p) for p in CXX if "Python.h" in p.read_text()]
