"""The self-test's model and its outcomes; the whole of it is slow."""

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from router.cli.main import router
from router.errors import RouterError
from router.lab.selftest import TRIALS, Outcome, run_trials, said_of
from router.lab.tiny import WIDTH, tiny_model


def test_the_model_written_by_hand_is_onnx_and_fails_below_its_threshold():
    data = tiny_model(3, 0.25)
    onnx.checker.check_model(onnx.load_model_from_string(data))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.stack([np.full(WIDTH, v, np.float32) for v in (0.2, 0.5)])
    (y,) = session.run(["y"], {"x": x})
    assert np.isnan(y[0, 0])
    assert y[1, 0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("trial", "requests", "failed", "phase", "is_right"),
    [
        (0, 1000, 50, "ramping", True), (0, 1000, 51, "ramping", False),
        (0, 1000, 0, "rolled_back", False), (0, 0, 0, "ramping", False),
        (1, 60_000, 0, "rolled_back", True), (1, 60_001, 0, "rolled_back", False),
        (1, 1000, 0, "ramping", False),
    ],
)  # fmt: skip
def test_an_outcome_is_right_when_it_is_what_was_stated(
    trial, requests, failed, phase, is_right
):
    outcome = Outcome(TRIALS[trial], requests, failed, phase, "why", 1.0)
    assert outcome.is_right is is_right
    assert said_of(outcome).startswith("ok" if is_right else "FAILED")


def test_without_a_gpu_the_message_says_so():
    with pytest.raises(RouterError, match=r"nothing was compared"):
        CliRunner().invoke(
            router, ["selftest", "--gpu"], standalone_mode=False, catch_exceptions=False
        )


@pytest.mark.slow
def test_every_trial_ends_as_it_should():
    found = run_trials(2.0, lambda _: None)
    assert [said_of(one) for one in found if not one.is_right] == []
