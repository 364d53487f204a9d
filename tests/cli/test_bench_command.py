"""`router bench` says what it measured, and exits as scripts need it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import testing
from router.cli.main import main

LAB = str(Path(__file__).resolve().parents[1] / "lab")
if LAB not in sys.path:
    sys.path.append(LAB)

from bench_target import Target, loopback  # noqa: E402

MODEL = ("--model", "tag", "--input", "x:FP32=[[1, 2]]")
BRIEF = ("--rate", "500", "--duration", "0.1")


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with loopback() as made:
        yield made


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_json_has_the_figures(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(target.address, *MODEL, *BRIEF, "--units", "5", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["due"], found["sent"], found["codes"]) == (50, 50, {"OK": 50})
    assert found["rate_asked"] == 500
    assert sum(found["versions"].values()) == found["latency"]["count"] == 50
    assert not found["is_void"]


def test_text_names_codes_and_versions(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(target.address, *MODEL, *BRIEF) == 0
    out = capsys.readouterr().out
    assert "sent        50 (500.0/s of 500 asked)" in out
    assert "codes       OK 50" in out
    assert "VOID" not in out


def test_text_of_a_closed_loop_has_no_schedule(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = ("--concurrency", "4", "--connections", "2", "--duration", "0.1")
    assert run(target.address, *MODEL, *closed) == 0
    out = capsys.readouterr().out
    assert "at most 4 in flight" in out
    assert "asked" not in out
    assert "late" not in out.replace("latency", "")


def test_a_void_run_says_so(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    slow = ("--model", "slow", "--input", "x:FP32=[[1, 2, 3, 4]]")
    assert run(target.address, *slow, *BRIEF, "--in-flight-max", "1") == 0
    assert "VOID: " in capsys.readouterr().out


def test_failed_calls_are_an_error_above_the_share_allowed(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = ("--model", "nobody", "--input", "x:FP32=[[1, 2]]", *BRIEF)
    assert run(target.address, *nobody) == 1
    out = capsys.readouterr().out
    assert "codes       NOT_FOUND 50" in out
    assert "the first error was NOT_FOUND: " in out
    assert run(target.address, *nobody, "--max-errors", "1") == 0


def test_a_target_that_is_not_there_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("127.0.0.1:1", *MODEL) == 1
    assert "127.0.0.1:1: cannot connect: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--rate", "5", "--concurrency", "5"),
        ("--concurrency", "2", "--connections", "3"),
        ("--duration", "601"),
        ("--duration", "0"),
        ("--header", "x"),
        ("--input", "=1"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(wrong: tuple[str, ...]) -> None:
    assert run("127.0.0.1:1", *MODEL, *wrong) == 64


def test_a_signal_ends_the_run_and_prints_what_there_is(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        testing.wait_until(
            lambda: sum(target.counted("tag").values()) > before + 10, "some answers"
        )
        os.kill(os.getpid(), signal.SIGINT)

    before = sum(target.counted("tag").values())
    # Whoever started us in the background may have had it ignored.
    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt, name="interrupt")
    thread.start()
    assert run(target.address, *MODEL, "--rate", "500", "--duration", "60") == 0
    thread.join()
    assert "interrupted; " in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_command_line_does_not_load_the_engine_to_print_its_help() -> None:
    script = (
        "import sys, router.cli.main;"
        "print([m for m in ('grpc', 'router.engine._engine') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_inputs_are_made_from_what_the_server_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    testing.write_model(tmp_path / "models", "mlp", {1: testing.mlp()})
    model = {"name": "mlp", "repository": str(tmp_path / "models" / "mlp")}
    with testing.Server(tmp_path, {"models": [model]}) as server:
        drawn = ("--model", "mlp", "--batch", "3", *BRIEF)
        assert run(server.address, *drawn, "-o", "json") == 0
        assert run(server.address, "--model", "nobody", *BRIEF) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["versions"] == {"1": 50}
    assert "NOT_FOUND" in err
