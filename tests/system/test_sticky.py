"""A user keeps the version they were given: over requests, edits, restarts and crashes.

What a server does with thousands of units is compared with what it did before; nothing
here knows the hash. tests/plan and tests/kernel prove the arithmetic.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import AUDIENCES, model

from router import testing

UNITS = [f"user-{i}" for i in range(1500)]
X = {"x": np.zeros((1, 2), np.float32)}


def config(directory: Path, *split: int, **settings: Any) -> dict[str, Any]:
    """A split between versions 1, 2, ...; audiences before it."""
    shares = [{"version": i + 1, "weight": w} for i, w in enumerate(split)]
    return {
        "models": [model(directory / "models", "tag", stable=1, **settings)],
        "audiences": AUDIENCES,
        "routes": [
            {"model": "tag", "audience": "new-york", "version": 3},
            {"model": "tag", "split": shares},
        ],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("sticky")
    versions = {v: testing.tag(v) for v in (1, 2, 3)}
    testing.write_model(directory / "models", "tag", versions)
    first = config(directory, 90, 10)
    with testing.Server(directory, first, settings={"drain_s": 2}) as made:
        yield made


def dealt(server: testing.Server, units: list[str] = UNITS) -> dict[str, int]:
    """The version each unit gets, every one asked once."""
    with testing.Caller(server.address) as caller:
        return caller.versions("tag", X, units)


def test_a_unit_gets_one_version_however_often_it_asks(server: testing.Server) -> None:
    server.reload(config(server.directory, 50, 50))
    units = UNITS[:300]
    first = dealt(server, units)
    for _ in range(3):
        assert dealt(server, units) == first
    assert set(first.values()) == {1, 2}


def test_a_share_is_what_was_asked_for(server: testing.Server) -> None:
    server.reload(config(server.directory, 80, 20))
    share = sum(v == 2 for v in dealt(server).values()) / len(UNITS)
    # Buckets are exact, units are a sample: four standard errors of a binomial share.
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / len(UNITS)) ** 0.5


def test_an_audience_beats_the_split_for_every_unit(server: testing.Server) -> None:
    server.reload(config(server.directory, 50, 50))
    with testing.Caller(server.address) as caller:
        for unit in UNITS[:100]:
            met = {"x-user-id": unit, "location": "new-york"}
            assert caller.infer("tag", X, met).version == 3
            met["location"] = "nowhere"
            assert caller.infer("tag", X, met).version in (1, 2)


def test_growth_moves_nobody_back_and_nobody_between_candidates(
    server: testing.Server,
) -> None:
    server.reload(config(server.directory, 90, 5, 5))
    before = dealt(server)
    for split in ((60, 20, 20), (30, 30, 40), (0, 50, 50)):
        server.reload(config(server.directory, *split))
        after = dealt(server)
        moved = {u for u in UNITS if before[u] != after[u]}
        assert all(before[u] == 1 for u in moved), split
        before = after
    assert set(before.values()) == {2, 3}


def test_shrinking_moves_only_those_who_lose_their_version(
    server: testing.Server,
) -> None:
    # From nothing: what was claimed beside another candidate is no prefix of the order.
    server.reload(config(server.directory, 100))
    server.reload(config(server.directory, 20, 80))
    before = dealt(server)
    server.reload(config(server.directory, 60, 40))
    after = dealt(server)
    assert all(before[u] == 2 and after[u] == 1 for u in UNITS if before[u] != after[u])
    server.reload(config(server.directory, 20, 80))
    assert dealt(server) == before


def test_a_restart_moves_nobody(server: testing.Server) -> None:
    server.reload(config(server.directory, 70, 30))
    before = dealt(server)
    assert server.stop() == 0
    server.start()
    assert dealt(server) == before


def test_a_crash_moves_nobody(server: testing.Server) -> None:
    # The map after 40, 80, 30 is history, not arithmetic: only the log can know it.
    for split in ((60, 40), (20, 80), (70, 30)):
        server.reload(config(server.directory, *split))
    before = dealt(server)
    server.kill()
    server.start()
    assert dealt(server) == before


def test_an_edit_made_while_the_server_was_down_moves_only_who_must(
    server: testing.Server,
) -> None:
    server.reload(config(server.directory, 80, 20))
    before = dealt(server)
    server.stop()
    server.write(config(server.directory, 60, 40))
    server.start()
    after = dealt(server)
    assert all(before[u] == 1 and after[u] == 2 for u in UNITS if before[u] != after[u])
    assert before != after


def test_a_broken_file_changes_nothing_and_is_reported(server: testing.Server) -> None:
    server.reload(config(server.directory, 60, 40))
    before = dealt(server, UNITS[:200])
    bad = config(server.directory, 60, 60)
    server.write(bad)
    server.hang_up()
    testing.wait_until(
        lambda: server.metric("router_config_last_reload_successful") == 0,
        "the failed reload is counted",
    )
    assert dealt(server, UNITS[:200]) == before
    assert "weight" in server.tail() or "120" in server.tail()
    server.reload(config(server.directory, 60, 40))
    assert server.metric("router_config_last_reload_successful") == 1


def test_a_pin_beats_everything(server: testing.Server) -> None:
    with testing.Caller(server.address) as caller:
        for version in ("1", "2", "3"):
            met = {"x-user-id": "u", "location": "new-york"}
            assert caller.infer("tag", X, met, version).version == int(version)


@pytest.mark.slow
def test_ten_thousand_units_survive_three_edits_and_a_restart(
    server: testing.Server,
) -> None:
    units = [f"golden-{i}" for i in range(10_000)]
    server.reload(config(server.directory, 100, 0, 0))
    before = dealt(server, units)
    for split in ((80, 10, 10), (50, 30, 20), (10, 40, 50)):
        server.reload(config(server.directory, *split))
        after = dealt(server, units)
        assert all(before[u] == 1 for u in units if before[u] != after[u]), split
        before = after
    server.stop()
    server.start()
    assert dealt(server, units) == before
