"""Three clients ask one router, and are told the same.

    python examples/clients/run.py

Plain stubs, NVIDIA's tritonclient and the router's own client, each in a process of its
own. The exit code is not zero if they disagree.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

PROTO = HERE.parent.parent / "proto"


def main() -> None:
    with Example(HERE) as example:
        models = example.directory / "models"
        tags = {version: testing.tag(version) for version in (1, 2)}
        testing.write_model(models, "credit", tags)
        example.router("router", 8080)
        stubs = example.directory / "stubs"
        stubs.mkdir()
        command = [sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{PROTO}"]
        outs = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
        subprocess.run([*command, *outs, "inference.proto"], check=True)
        told = {
            name: ask(name, example.address(8001), stubs)
            for name in ("plain_stubs", "with_tritonclient", "our_client")
        }
        for name, lines in told.items():
            print(f"{name}:", *lines, sep="\n  ")
        # Our client goes on to show a refusal.
        assert len({tuple(lines[:4]) for lines in told.values()}) == 1
        assert told["our_client"][4].startswith("refused INVALID_ARGUMENT")
        print("all three are told the same")


def ask(name: str, target: str, stubs: Path) -> list[str]:
    path = os.pathsep.join([str(stubs), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / f"{name}.py"), target],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


if __name__ == "__main__":
    main()
