"""The run floor on the runtime's own library, under sanitizers.

The claims are the native tests' names (`tests/native/run/`); here they get models, a
library that is too old, and a compiler. The address and the thread sanitizer see every
test: runs end on other threads than they began on, and results are shared by loops.
"""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))
from native_build import PLAIN_ENVIRONMENT, ROOT, Toolchain, build
from native_models import write_models

pytestmark = pytest.mark.slow

HERE = "tests/native/run"
RUN = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "router/engine/run").glob("*.cc")
)
LIBRARIES = ["ssl", "crypto", "dl", "pthread"]
TESTS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / HERE).glob("test_*.cc"))
BELOW = [
    "router/engine/base/status.cc",
    "router/engine/wire/oip_read.cc",
    "router/engine/wire/tensor.cc",
    "router/engine/wire/tls.cc",
]


@dataclass(frozen=True, slots=True)
class Scripted(Toolchain):
    """A test build: scripted versions are in it."""

    def flags(self) -> list[str]:
        return [*super(Scripted, self).flags(), "-fPIC", "-DROUTER_SCRIPTED"]


def runtime_library() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "capi"
    return next(folder.glob("libonnxruntime.so*"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    old = folder / "libonnxruntime-old.so"
    compiler = Toolchain().compiler
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"{HERE}/old_runtime.cc", "-o", str(old)],
        cwd=ROOT,
        check=True,
    )
    return {
        **PLAIN_ENVIRONMENT,
        "ROUTER_TEST_MODELS": str(folder),
        "ROUTER_TEST_RUNTIME": str(runtime_library()),
        "ROUTER_TEST_OLD_RUNTIME": str(old),
    }


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_run_floor_keeps_its_promises(
    sanitizer: str, environment: dict[str, str]
) -> None:
    name = "asan-scripted" if sanitizer.startswith("address") else "tsan-scripted"
    toolchain = Scripted(name=name, sanitize=sanitizer)
    program = build("run/tests", [*TESTS, *RUN, *BELOW], LIBRARIES, toolchain)
    done = subprocess.run(
        [program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
