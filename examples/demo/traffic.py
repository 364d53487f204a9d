"""Load from many users through a stock client, and what can be said about it after.

Each thread has a connection and users of its own, so that one user's answers come in
the order they were asked for; only then does "moved back" mean anything.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

# Double arithmetic in scikit-learn, single in ONNX Runtime.
AGREEMENT = 1e-4


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who asks again and again, from one place."""

    name: str
    location: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a user was told, by which version, under which published table."""

    user: User
    version: int
    revision: str
    latency_s: float
    difference: float
    at_s: float
    """When it came, by the machine's clock, as the router's history has it."""


class Traffic:
    """The threads, and everything they were answered. Stops when left."""

    def __init__(
        self,
        address: str,
        model: str,
        users: Sequence[User],
        rows: NDArray[np.float32],
        expected: dict[int, NDArray[np.float32]],
        threads: int = 4,
    ) -> None:
        self.answers: list[Answer] = []
        self.errors: list[str] = []
        self._address, self._model = address, model
        self._rows, self._expected = rows, expected
        self._is_over = threading.Event()
        self._news = threading.Condition()
        self._threads = [
            threading.Thread(
                target=self._run, args=(i, users[i::threads]), name=f"u{i}"
            )
            for i in range(threads)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, is_reached: Callable[[], bool], timeout_s: float = 30) -> bool:
        """Whether the answers so far came to satisfy a condition in time."""
        with self._news:
            return self._news.wait_for(is_reached, timeout_s)

    def more(self, count: int) -> None:
        """Wait for this many further answers."""
        goal = len(self.answers) + count
        self.wait_for(lambda: len(self.answers) >= goal or bool(self.errors))

    def new_revision(self, old: str) -> str:
        """The revision that takes over from `old`; "" when none does."""
        start = len(self.answers)

        def found() -> str:
            news = (a.revision for a in self.answers[start:] if a.revision != old)
            return next(news, "")

        self.wait_for(lambda: bool(found()) or bool(self.errors))
        return found()

    def _run(self, seed: int, users: Sequence[User]) -> None:
        draw = np.random.default_rng(seed)
        with triton.InferenceServerClient(self._address) as client:
            while not self._is_over.is_set():
                for user in draw.permutation(len(users)):
                    if self._is_over.is_set():
                        return
                    self._ask(client, users[int(user)], draw)

    def _ask(
        self,
        client: triton.InferenceServerClient,
        user: User,
        draw: np.random.Generator,
    ) -> None:
        chosen = draw.integers(len(self._rows), size=int(draw.integers(1, 5)))
        tensor = triton.InferInput("X", [len(chosen), self._rows.shape[1]], "FP32")
        tensor.set_data_from_numpy(self._rows[chosen])
        headers = {"x-user-id": user.name, "location": user.location}
        start = time.perf_counter()
        try:
            result = client.infer(self._model, [tensor], headers=headers)
        except triton.InferenceServerException as error:
            self.errors.append(str(error))
            return
        latency = time.perf_counter() - start
        reply = result.get_response()
        version = int(reply.model_version)
        difference = self._difference(version, chosen, result.as_numpy("probabilities"))
        revision = reply.parameters["route_revision"].string_param
        with self._news:
            self.answers.append(
                Answer(user, version, revision, latency, difference, time.time())
            )
            self._news.notify_all()

    def _difference(
        self, version: int, chosen: NDArray[np.int64], got: NDArray[np.float32]
    ) -> float:
        if version not in self._expected:
            return float("inf")  # nobody should ever be told what this one says
        return float(np.abs(got - self._expected[version][chosen]).max())


def versions_by_user(answers: Sequence[Answer]) -> dict[User, list[int]]:
    """Each user's versions in the order they were given, repeats left out."""
    found: dict[User, list[int]] = defaultdict(list)
    for answer in answers:
        seen = found[answer.user]
        if not seen or seen[-1] != answer.version:
            seen.append(answer.version)
    return found


def flips(answers: Sequence[Answer], stable: int) -> int:
    """Moves that growth must not cause: away from a candidate, back or sideways."""
    return sum(
        sum(before != stable for before in seen[:-1])
        for seen in versions_by_user(answers).values()
    )


def percentile_ms(answers: Sequence[Answer], percent: float) -> float:
    return float(np.percentile([a.latency_s for a in answers], percent)) * 1e3
