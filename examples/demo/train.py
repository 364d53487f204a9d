"""Versions of a model of real data, as ONNX files beside what they should answer.

The data is the Wisconsin breast cancer set that comes inside scikit-learn: 569 tumours,
30 measurements each, benign or malignant. Half of it trains; the other half is what the
demo sends. `expected` is scikit-learn's own `predict_proba` for those rows, so that the
demo can check every answer it gets. One more version is broken on purpose, and lies
apart until its time has come. Everything is kept, because training again would only
take time.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "tumour"
SEED = 20
BROKEN = 4


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the versions are, the rows to send, and what each version says of them."""

    repository: Path
    broken: Path
    rows: NDArray[np.float32]
    expected: dict[int, NDArray[np.float32]]
    kinds: dict[int, str]
    accuracy: dict[int, float]
    was_cached: bool


def estimators() -> dict[int, Any]:
    """What each version is, untrained."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((32, 16), max_iter=400, random_state=SEED)
    return {
        1: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        2: RandomForestClassifier(30, max_depth=6, random_state=SEED),
        3: make_pipeline(StandardScaler(), network),
    }


KINDS = {1: "logistic regression", 2: "random forest", 3: "neural network"}


def break_it(estimator: Any) -> None:
    """A mistake that loads, has the right shape, and answers NaN to everybody: the
    means were taken over a column that had a missing value."""
    estimator[0].mean_[0] = np.nan


def fingerprint() -> str:
    """Changes when this file or a library does; then the cache is no use."""
    import skl2onnx
    import sklearn

    versions = f"{sklearn.__version__} {skl2onnx.__version__}".encode()
    return hashlib.sha256(Path(__file__).read_bytes() + versions).hexdigest()[:16]


def trained(directory: Path) -> Trained:
    """The versions, from the cache when they are there."""
    record = directory / "trained.json"
    mark = fingerprint()
    known = json.loads(record.read_text()) if record.exists() else {}
    was_cached = known.get("fingerprint") == mark
    if not was_cached:
        accuracy = _train(directory)
        known = {"fingerprint": mark, "accuracy": accuracy}
        record.write_text(json.dumps(known))
    with np.load(directory / "rows.npz") as arrays:
        expected = {version: arrays[f"v{version}"] for version in KINDS}
        rows = arrays["rows"]
    return Trained(
        directory / "models",
        directory / "broken.onnx",
        rows,
        expected,
        KINDS,
        {int(version): share for version, share in known["accuracy"].items()},
        was_cached,
    )


def _train(directory: Path) -> dict[int, float]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    # float32 first: the server computes in it, so the comparison should start from it.
    x = data.data.astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, data.target, test_size=0.5, random_state=SEED, stratify=data.target
    )
    arrays, accuracy = {"rows": x_test}, {}
    for version, estimator in estimators().items():
        estimator.fit(x_train, y_train)
        path = directory / "models" / MODEL / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_onnx(estimator, x.shape[1]))
        arrays[f"v{version}"] = estimator.predict_proba(x_test).astype(np.float32)
        accuracy[version] = float(estimator.score(x_test, y_test))
        if version == 1:
            break_it(estimator)
            (directory / "broken.onnx").write_bytes(_onnx(estimator, x.shape[1]))
    np.savez(directory / "rows.npz", **arrays)
    return accuracy


def _onnx(estimator: Any, width: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    made = to_onnx(
        estimator,
        initial_types=[("X", FloatTensorType([None, width]))],
        options={"zipmap": False},
        target_opset=17,
    )
    return bytes(made.SerializeToString())
