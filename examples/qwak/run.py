"""Qwak's New York and California walk-through, on its own files.

    python examples/qwak/run.py

Three variations of a model are served from audiences.yaml and deployment.yaml as Qwak
takes them. Then the audience file is edited while the router runs: New Yorkers of any
age are meant, and a moment later they are answered so. The exit code is not zero if
anybody is answered by the wrong variation.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

BEFORE = ["2", "1", "3", "1"]
AFTER = ["2", "2", "3", "1"]  # seventeen, and from New York


def main() -> None:
    with Example(HERE) as example:
        models = example.directory / "models"
        tags = {version: testing.tag(version) for version in (1, 2, 3)}
        testing.write_model(models, "credit_risk", tags)
        audiences = example.write("audiences.yaml")
        example.write("deployment.yaml")
        example.router("router", 8080)
        target = example.address(8001)
        told = ask(target)
        print(*told, sep="\n")
        assert versions(told) == BEFORE, told
        audiences.write_text(audiences.read_text().replace("operand: 18", "operand: 0"))
        testing.wait_until(
            lambda: versions(ask(target)) == AFTER, "the audience is another", 30
        )
        print("the audience was edited, and seventeen is old enough")


def ask(target: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "client.py"), target],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def versions(told: list[str]) -> list[str]:
    return [line.rpartition(" ")[2] for line in told]


if __name__ == "__main__":
    main()
