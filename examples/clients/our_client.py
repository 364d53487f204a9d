"""A prediction and the decision behind it, with the router's own client.

python examples/clients/our_client.py 127.0.0.1:8001
"""

import sys

import numpy as np

from router.client import CallError, Client


def main(target: str) -> None:
    x = np.ones((1, 2), np.float32)
    with Client(target) as client:
        for user in ("user-1", "user-2", "user-3"):
            got = client.predict("credit", {"x": x}, unit=user, deadline=1)
            print(user, got.version, got.reason, got.bucket, got.outputs["tag"][0, 0])
        there = client.predict(
            "credit", {"x": x}, unit="user-1", metadata={"location": "new-york"}
        )
        print("new-york", there.version, there.reason)
        try:
            client.predict("credit", {"y": x})
        except CallError as error:
            print("refused", error.code, error.detail)


if __name__ == "__main__":
    main(sys.argv[1])
