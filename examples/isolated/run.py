"""Kill a candidate while people use it, and see that nobody notices.

    python examples/isolated/run.py

Half of the users are on version 2, which runs in a worker. The worker is killed with
SIGKILL under traffic: stable answers for it, it is started again, and its users get
version 2 back. The exit code is not zero if a single call failed.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

USERS = [f"user-{i}" for i in range(100)]


def versions(caller: testing.Caller) -> dict[str, int]:
    """Which version answers each user now; an error ends the example."""
    x = {"x": np.ones((1, 2), np.float32)}
    return {
        user: caller.infer("credit", x, {"x-user-id": user}).version for user in USERS
    }


def worker_pid(log: str) -> int:
    """The process of the worker, from the router's log."""
    lines = [json.loads(line) for line in log.splitlines() if "a worker is" in line]
    return int(lines[-1]["pid"])


def main() -> None:
    with Example(HERE) as example:
        models = {1: testing.tag(1), 2: testing.tag(2)}
        testing.write_model(example.directory / "models", "credit", models)
        example.router("router", 8080)
        with testing.Caller(example.address(8001)) as caller:
            before = versions(caller)
            on_candidate = sum(version == 2 for version in before.values())
            print(f"{on_candidate} of {len(USERS)} users are on version 2")
            pid = worker_pid(example.log("router"))
            os.kill(pid, signal.SIGKILL)
            print(f"killed its worker, process {pid}")
            during = versions(caller)
            rescued = sum(before[u] == 2 and during[u] == 1 for u in USERS)
            print(f"every user was answered, {rescued} of them by version 1 instead")
            testing.wait_until(lambda: versions(caller) == before, "as before", 60)
            restarts = example.metric(8080, "router_worker_restarts_total")
            print(
                f"the worker is back after {restarts:g} restart, and so are its users"
            )
            assert 0 < on_candidate < len(USERS)
            assert restarts == 1


if __name__ == "__main__":
    main()
