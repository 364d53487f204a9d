"""Whatever clients and operators do at once, every call ends once and rightly.

The seeds of the default run were chosen for nothing. A failure names its seed, which
asks for the same things again; threads may interleave otherwise, so repeat it.
"""

import pytest
from schedules import Schedule


def run(seed: int, steps: int, *, is_proved: bool = False) -> None:
    schedule = Schedule(seed, steps, is_proved=is_proved)
    try:
        schedule.run()
        schedule.judge()
    finally:
        schedule.close()


@pytest.mark.parametrize("seed", range(8))
def test_every_call_ends_once_and_rightly(seed):
    run(seed, steps=120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_every_call_ends_once_and_rightly_in_long_schedules(seed):
    run(seed, steps=500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2030))
def test_every_call_ends_once_and_rightly_where_loops_run(seed):
    run(seed, steps=300, is_proved=True)
