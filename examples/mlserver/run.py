"""The router before MLServer: split, pinned, and rescued when it goes away.

    examples/mlserver/setup.sh && python examples/mlserver/run.py [FOLDER]

FOLDER is the virtual environment that setup.sh made. Half of the users are on version
2, a Python model in MLServer 1.7.1, found by asking it what its inputs and outputs are.
The exit code is not zero if a single call failed.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

USERS = [f"user-{i}" for i in range(100)]


def answers(caller: testing.Caller, row: list[float]) -> dict[str, testing.Answer]:
    """What each user is answered now; an error ends the example."""
    x = {"x": np.array([row], np.float32)}
    return {user: caller.infer("credit", x, {"x-user-id": user}) for user in USERS}


def main(environment: Path) -> None:
    with Example(HERE) as example:
        models = example.directory / "models"
        testing.write_model(models, "credit", {1: testing.tag(1)})
        for name in ("settings.json", "model-settings.json"):
            example.write(name)
        shutil.copy(HERE / "credit.py", example.directory)
        clean = {"PYTHONPATH": "", "PYTHONSAFEPATH": ""}
        served = example.start(
            "mlserver", [str(environment / "bin" / "mlserver"), "start", "."], clean
        )
        example.wait_http(
            "mlserver", f"http://{example.address(8083)}/v2/models/credit/ready"
        )
        example.router("router", 8080)
        with testing.Caller(example.address(8001)) as caller:
            found = answers(caller, [1, 2])
            by_version = {
                version: sum(answer.version == version for answer in found.values())
                for version in (1, 2)
            }
            for answer in found.values():
                assert answer.outputs["tag"][0, 0] == answer.version
                assert answer.outputs["sum"][0, 0] == 3
            print(f"answered by the router and by MLServer: {by_version}")
            assert all(by_version.values())
            served.terminate()
            served.wait(30)
            after = answers(caller, [1, 2])
            assert {answer.version for answer in after.values()} == {1}
            print("MLServer has left: version 1 answers everybody, and no call failed")


if __name__ == "__main__":
    folder = HERE.parents[1] / "build" / "mlserver"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else folder)
