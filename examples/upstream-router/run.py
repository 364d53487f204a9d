"""A version that lives in another server, and what happens when that server goes away.

    python examples/upstream-router/run.py

A fifth of the users is on version 2, which another router serves under another name.
That router leaves and comes back: its users are answered by stable meanwhile, and get
version 2 again. The exit code is not zero if a single call failed.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from example import Example  # noqa: E402

from router import testing  # noqa: E402

USERS = [f"user-{i}" for i in range(200)]


def answers(caller: testing.Caller) -> dict[str, testing.Answer]:
    """What each user is answered now; an error ends the example."""
    x = {"x": np.ones((1, 2), np.float32)}
    return {user: caller.infer("credit", x, {"x-user-id": user}) for user in USERS}


def versions(caller: testing.Caller) -> dict[str, int]:
    return {user: answer.version for user, answer in answers(caller).items()}


def main() -> None:
    with Example(HERE) as example:
        models = example.directory / "models"
        testing.write_model(models, "credit", {1: testing.tag(1)})
        testing.write_model(models, "credit-next", {7: testing.tag(7)})
        back = example.router("back", 8082)
        example.router("front", 8081)
        with testing.Caller(example.address(8001)) as caller:
            before = answers(caller)
            for answer in before.values():
                # The model's own output says which file really answered.
                made_by = answer.outputs["tag"][0, 0]
                assert made_by == {1: 1, 2: 7}[answer.version]
            there = sum(answer.version == 2 for answer in before.values())
            print(f"{there} of {len(USERS)} users are answered by the other server")
            assert 0 < there < len(USERS)
            back.terminate()
            back.wait(30)
            assert set(versions(caller).values()) == {1}
            print("it has left: version 1 answers everybody, and no call failed")
            example.router("back", 8082)
            assigned = {user: answer.version for user, answer in before.items()}
            testing.wait_until(lambda: versions(caller) == assigned, "as before", 60)
            print("it is back, and so are its users")


if __name__ == "__main__":
    main()
