"""A stream of requests answers in their order, whatever each of them takes."""

import queue
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from entries import model

from router import testing


def test_answers_keep_the_order_of_the_requests(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "bare", {1: testing.faulty(1)})
    options = {"batching": "off", "concurrency": 2}
    config = {"models": [model(tmp_path / "models", "bare", stable=1, runtime=options)]}
    answers: queue.Queue[Any] = queue.Queue()
    with (
        testing.Server(tmp_path, config) as server,
        triton.InferenceServerClient(server.address) as client,
    ):
        client.start_stream(lambda result, error: answers.put(error or result))
        for i, fault in enumerate([testing.FAULT_SLOW, 0, 0, testing.FAULT_FAIL, 0]):
            x = triton.InferInput("x", [1, 2], "FP32")
            x.set_data_from_numpy(np.array([[i, fault]], np.float32))
            client.async_stream_infer("bare", [x], request_id=str(i))
        got = [answers.get(timeout=10) for _ in range(5)]
        client.stop_stream()
    assert "failed" in str(got[3])
    assert [a.get_response().id for a in got if a is not got[3]] == list("0124")
