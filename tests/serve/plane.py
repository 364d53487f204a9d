"""An engine in this process, with scripted versions, on a loopback socket.

`Plane` owns engine and socket. A version's answers say which loading of which version
made them: its tag is `version * 1000 + generation`, where the generation counts the
loadings. What a table revision serves is remembered when it is published, so that any
answer can be judged by the revision it names.

Importing this module also lets its importers import `rawwire`, the system tests' client
with no manners.
"""

import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from router.engine._engine import DATA, Engine
from router.plan.encode import encode
from router.plan.plan import Model, Output, OutputKind, Plan, Reason, Rule, Variant
from router.testing import messages, wait_until

sys.path.append(str(Path(__file__).resolve().parents[1] / "system"))

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
BUCKETS = 10_000
PROOF_RUNS = 1000  # Version::kProofRuns

_message = messages()
Request, Response = _message("ModelInferRequest"), _message("ModelInferResponse")
StreamResponse = _message("ModelStreamInferResponse")


def request(
    model: str = "m",
    rows: int = 1,
    width: int = 4,
    version: str = "",
    id: str = "",  # noqa: A002
) -> bytes:
    """The bytes of an inference on zeros."""
    made = Request(model_name=model, model_version=version, id=id)
    made.inputs.add(name="x", datatype="FP32").shape.extend((rows, width))
    made.raw_input_contents.append(bytes(4 * rows * width))
    data: bytes = made.SerializeToString()
    return data


def split(
    name: str, versions: Iterable[int], candidate_share: int, rule: str = "split"
) -> Model:
    """A model whose first version is stable; the others share the first buckets.

    A revision is a digest of the table: name the rule anew where revisions must differ.
    """
    variants = tuple(Variant(f"v{v}", v) for v in sorted(versions))
    others = len(variants) - 1
    buckets = bytes(
        1 + b % others if others and b < candidate_share else 0 for b in range(BUCKETS)
    )
    rules = (Rule(rule, None, "salt", buckets, 0, Reason.SPLIT),)
    return Model(name, variants, 0, rules, output=Output("y", 0, OutputKind.VALUE))


class Plane:
    """The engine under test. Leaving the `with` block stops it."""

    def __init__(self, **options: int) -> None:
        self.engine = Engine({k: str(v) for k, v in options.items()})
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(512)
        self.socket.setblocking(False)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.loadings = 0
        self.tags: dict[tuple[str, int], int] = {}
        self.served: dict[str, dict[tuple[str, int], int]] = {}

    def load(self, model: str, version: int, script: str, **options: int) -> None:
        """Load a version, or replace it: tables that hold the old one keep it."""
        self.loadings += 1
        tag = version * 1000 + self.loadings
        texts = {name: str(value) for name, value in options.items()}
        whole = {"kind": "scripted", "script": f"tag={tag};{script}", **texts}
        self.engine.load(model, version, b"", whole)
        self.tags[model, version] = tag

    def publish(self, *models: Model) -> str:
        """Publish these models as they are loaded now; the table's revision."""
        bytes_ = encode(Plan(f"r{len(self.served)}", models))
        self.engine.publish(bytes_)
        revision: str = self.engine.snapshot()["table_revision"]
        self.served[revision] = {
            (model.name, variant.version): self.tags[model.name, variant.version]
            for model in models
            for variant in model.variants
        }
        return revision

    def start(self) -> None:
        self.engine.listen(self.socket.fileno(), DATA)
        self.engine.start()

    def prove(self, model: str, version: int) -> None:
        """Run a version until loops may run it, whatever it answers."""
        wanted = request(model, version=str(version))
        for _ in range(PROOF_RUNS):
            self.engine.call(INFER, wanted)

    def judge(self, answer: Any, rows: int = 1, width: int = 4) -> None:
        """Fail unless the answer is what the version it names gives."""
        revision = answer.parameters["route_revision"].string_param
        tag = self.served[revision][answer.model_name, int(answer.model_version)]
        assert answer.parameters["route_variant"].string_param == (
            f"v{answer.model_version}"
        )
        (output,) = answer.outputs
        assert (output.name, list(output.shape)) == ("y", [rows, width])
        values = np.frombuffer(answer.raw_output_contents[0], "<f4")
        assert values.tolist() == [tag] * (rows * width), (revision, answer)

    def snapshot(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.engine.snapshot()
        return found

    def codes(self) -> dict[str, int]:
        """Answers by code, over all variants and those that had none."""
        total: dict[str, int] = {}
        for variant in self.snapshot()["variants"]:
            for code, count in variant["codes"].items():
                total[code] = total.get(code, 0) + count
        return total

    def wait_idle(self) -> None:
        """Wait until nothing of any request is left; fails naming what is."""
        want = {"calls": 0, "body_bytes": 0, "connections": 0, "tables": 1}

        def left() -> dict[str, Any]:
            found = self.snapshot()
            gauges = {name: found[name] for name in want}
            gauges["running"] = found["executors"]["running"]
            gauges["queued"] = sum(v["queued"] for v in found["versions"])
            return gauges

        try:
            wait_until(lambda: left() == {**want, "running": 0, "queued": 0}, "idle")
        except TimeoutError:
            raise AssertionError(f"not idle: {left()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.stop()
        self.socket.close()
