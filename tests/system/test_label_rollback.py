"""Labels end a rollout of a real server; the report tells of it without the server."""

import json
import random
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from entries import model
from test_feedback import Feedback

from router import testing
from router.cli.main import router
from router.clock import SystemClock
from router.control.reports import read_reports

ROLLOUT = {
    "name": "better", "model": "credit", "candidate": 2,
    "steps": [
        {"weight": {"to": 50, "for": "1h"}}, {"weight": {"to": 100, "for": "1h"}},
    ],
    "guardrails": [
        {"metric": "accuracy", "worse_by": "2pp", "min_samples": 20},
        {"metric": "error_rate", "worse_by": "1pp"},
    ],
}  # fmt: skip


def config(directory: Path) -> dict[str, Any]:
    versions = {1: testing.mlp(seed=1), 2: testing.mlp(seed=2)}
    testing.write_model(directory / "models", "credit", versions)
    output = {"tensor": "probabilities", "index": 1, "kind": "probability"}
    entry = model(
        directory / "models", "credit", stable=1, prediction_id=True, output=output
    )
    return {"models": [entry], "rollouts": [ROLLOUT], "feedback": {"maturity": "1h"}}


@pytest.mark.slow
def test_worse_accuracy_rolls_back_and_the_report_says_why(tmp_path: Path) -> None:
    draw = random.Random(3)
    x = {"x": np.zeros((1, 16), np.float32)}
    with testing.Server(tmp_path, config(tmp_path)) as server:
        state = tmp_path / "run" / "state.db"
        state = state if state.exists() else next(tmp_path.rglob("state.db"))

        def phase() -> str:
            (report,) = read_reports(state, "better", SystemClock())
            return report.moves[-1].after

        testing.wait_until(lambda: phase() == "ramping", "it begins")
        with (
            testing.Caller(server.address) as caller,
            grpc.insecure_channel(server.address) as channel,
        ):
            feedback = Feedback(channel)
            for at in range(400):
                answer = caller.infer("credit", x, {"x-user-id": f"u{at}"})
                said = float(np.ravel(answer.outputs["probabilities"])[1] >= 0.5)
                is_candidate = answer.version == 2
                is_wrong = draw.random() < (0.6 if is_candidate else 0.1)
                request = feedback.request(
                    answer.params["prediction_id"], label=abs(said - is_wrong)
                )
                feedback.report(request, timeout=10)
            testing.wait_until(lambda: phase() == "rolled_back", "labels roll it back")
            after = caller.infer("credit", x, {"x-user-id": "u1"})
            assert after.version == 1
    (report,) = read_reports(state, "better", SystemClock())
    last = report.moves[-1]
    assert last.reason.startswith("accuracy (version 2): accuracy: ")
    assert last.evidence[0]["numbers"]["log_e_peak"] > 3
    assert {point["phase"] for point in report.points} >= {"ramping", "rolled_back"}
    assert any(one["criterion"] == "accuracy" for one in report.judged)
    asked = ["report", "better", "--state", str(state)]
    text = CliRunner().invoke(router, asked, standalone_mode=False).output
    assert text.startswith("better: rolled_back")
    assert "accuracy" in text
    assert "version 2:" in text
    page = tmp_path / "report.html"
    CliRunner().invoke(
        router, [*asked, "-o", "html", "--to", str(page)], standalone_mode=False
    )
    assert "<svg" in page.read_text()
    told = CliRunner().invoke(router, [*asked, "-o", "json"], standalone_mode=False)
    assert json.loads(told.output)[0]["scope"] == "better"
