"""HTTP/2 and gRPC as bytes to values: the native tests, and the fuzz targets' corpora.

All run under sanitizers with assertions on (`tests/native/wire/`). A new corpus comes
from a search: `pytest -m soak tests/wire/test_native_wire.py`, which leaves what it
found in `build/native/wire/`.
"""

import shutil
import subprocess

import pytest
from native_build import PLAIN_ENVIRONMENT, ROOT, Toolchain, build, run

HERE = "tests/native/wire"
CORPUS = ROOT / HERE / "corpus"
ENGINE = "router/engine"
WIRE = [
    f"{ENGINE}/base/status.cc",
    *(
        f"{ENGINE}/wire/{name}.cc"
        for name in [
            "h2",
            "flood",
            "grpc",
            "grpc_conn",
            "grpc_request",
            "grpc_answer",
            "client_conn",
        ]
    ),
]
TESTS = [
    f"{HERE}/{name}.cc"
    for name in ["main", "test_grpc", "test_conn", "test_flood", "test_client"]
]
LIBRARIES = ["nghttp2", "z"]
TARGETS = ["receive", "client", "message"]
# Both replay a corpus; one source serves every target.
REPLAY = "tests/native/oip/replay.cc"


def test_the_native_tests_pass() -> None:
    done = run(build("wire/tests", [*TESTS, *WIRE], LIBRARIES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_of_a_fuzz_target_finds_nothing(target: str) -> None:
    sources = [f"{HERE}/fuzz_{target}.cc", *WIRE, REPLAY]
    program = build(f"wire/replay_{target}", sources, LIBRARIES)
    done = run(program, CORPUS / target)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_two_minutes_of_fuzzing_find_nothing(target: str) -> None:
    compiler = shutil.which("clang++") or shutil.which("clang++-14")
    if compiler is None:
        pytest.fail("fuzzing needs clang: apt-get install clang")
    toolchain = Toolchain("fuzz", compiler, "fuzzer,address,undefined")
    sources = [f"{HERE}/fuzz_{target}.cc", *WIRE]
    program = build(f"wire/fuzz_{target}", sources, LIBRARIES, toolchain)
    found = ROOT / "build" / "native" / "wire" / f"corpus_{target}"
    found.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [program, "-max_total_time=120", "-max_len=4096", found, CORPUS / target],
        cwd=found,
        env=PLAIN_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
