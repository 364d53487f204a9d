"""A hundred publishes under load: nothing fails, nothing is mixed up.

Each published file names its own split in the variants' names, so that an answer whose
version, variant and revision come from two tables gives itself away.
"""

import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

X = {"x": np.ones((1, 2), np.float32)}


def config(directory: Path, number: int) -> dict[str, Any]:
    """Split `number`: weights and names change every time, versions now and then."""
    other = 2 if number % 2 else 3
    weight = 10 + number % 80
    return {
        "models": [model(directory / "models", "tag", stable=1)],
        "routes": [
            {
                "model": "tag",
                "split": [
                    {"version": 1, "weight": 100 - weight, "name": f"old-{number}"},
                    {"version": other, "weight": weight, "name": f"new-{number}"},
                ],
            }
        ],
    }


class Load:
    """Threads that ask until told to stop, and remember what they were told."""

    def __init__(self, address: str, count: int) -> None:
        self.errors: list[str] = []
        self.seen: set[tuple[str, str, int, int]] = set()
        self.answers = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(address, i), name=f"load-{i}")
            for i in range(count)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str, seed: int) -> None:
        with testing.Caller(address) as caller:
            number = 0
            while not self._stop.is_set():
                number += 1
                met = {"x-user-id": f"{seed}-{number % 50}"}
                try:
                    got = caller.infer("tag", X, met)
                except grpc.RpcError as error:
                    self.errors.append(str(error))
                    continue
                params, tag = got.params, int(got.outputs["tag"][0, 0])
                revision, variant = params["route_revision"], params["route_variant"]
                self.seen.add((revision, variant, got.version, tag))
                self.answers += 1


def publish_under_load(directory: Path, count: int) -> None:
    versions = {v: testing.tag(v) for v in (1, 2, 3)}
    testing.write_model(directory / "models", "tag", versions)
    first = config(directory, 0)
    with testing.Server(directory, first, settings={"drain_s": 2}) as server:
        before = server.metric("router_published_tables_total")
        with Load(server.address, 3) as load:
            for number in range(1, count + 1):
                server.reload(config(directory, number))
        published = server.metric("router_published_tables_total") - before
    assert published == count
    assert not load.errors
    assert load.answers > count
    by_revision: dict[str, set[str]] = {}
    for revision, variant, version, tag in load.seen:
        name, _, number = variant.partition("-")
        assert version == tag
        assert version == (1 if name == "old" else 2 if int(number) % 2 else 3)
        by_revision.setdefault(revision, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_revision.values())


def test_publishes_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    publish_under_load(tmp_path, 8)


@pytest.mark.slow
def test_a_hundred_publishes_under_load_lose_nothing_and_mix_nothing(
    tmp_path: Path,
) -> None:
    publish_under_load(tmp_path, 100)


def test_a_new_version_in_the_repository_is_loaded_by_a_reload(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    one = {"models": [model(tmp_path / "models", "tag", stable=1)]}
    with (
        testing.Server(tmp_path, one, settings={"drain_s": 2}) as server,
        testing.Caller(server.address) as caller,
    ):
        assert caller.infer("tag", X).version == 1
        testing.write_model(tmp_path / "models", "tag", {2: testing.tag(2)})
        two = {**one, "routes": [{"model": "tag", "version": 2}]}
        server.reload(two)
        assert caller.infer("tag", X).version == 2
        server.reload(one)
        assert caller.infer("tag", X).version == 1


def test_a_version_that_does_not_load_keeps_the_old_table(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "tag", {1: testing.tag(1)})
    one = {"models": [model(tmp_path / "models", "tag", stable=1)]}
    with (
        testing.Server(tmp_path, one, settings={"drain_s": 2}) as server,
        testing.Caller(server.address) as caller,
    ):
        testing.write_model(tmp_path / "models", "tag", {2: b"not a model"})
        server.write({**one, "routes": [{"model": "tag", "version": 2}]})
        server.hang_up()
        testing.wait_until(
            lambda: server.metric("router_config_last_reload_successful") == 0,
            "the failed reload is counted",
        )
        assert caller.infer("tag", X).version == 1
