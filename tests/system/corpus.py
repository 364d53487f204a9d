"""The ONNX standard's own test models, and what bare ONNX Runtime makes of them.

    python corpus.py DATA OUT

Run as a program it is the reference: it loads every model under DATA with the runtime's
Python module, keeps those that load, have tensors only, and reproduce the outputs that
the standard stores beside them, and writes inputs and outputs to OUT. That happens in a
process of its own, so that the server's copy of the runtime and this one never meet.
"""

import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

PINNED = "onnx==1.21.0"
ENOUGH = 1_500  # later releases of the package ship only the generators
RTOL, ATOL = 1e-3, 1e-6
DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
} | {
    f"{sign.lower()}int{bits}": f"{sign}INT{bits}"
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, slots=True)
class Case:
    """A model, one set of inputs, and what bare ONNX Runtime answered."""

    name: str
    path: str
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def data_directory(cache: Path) -> Path:
    """The models: of the installed package, else of the pinned one, downloaded once."""
    installed = Path(onnx.__file__).parent / "backend/test/data"
    if len(list(installed.glob("*/*/model.onnx"))) >= ENOUGH:
        return installed
    unpacked = cache / "wheel"
    if not unpacked.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q"]
        subprocess.run([*command, "-d", str(cache), PINNED], check=True)
        (wheel,) = cache.glob("onnx-*.whl")
        zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked / "onnx/backend/test/data"


def cases(cache: Path) -> list[Case]:
    """Every model that bare ONNX Runtime loads and reproduces; kept in `cache`."""
    import onnxruntime

    data = data_directory(cache)
    kept = cache / f"reference-{onnxruntime.__version__}.pickle"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, str(data), str(kept)]
        subprocess.run(command, check=True)
    with kept.open("rb") as file:
        plain: list[tuple[Any, ...]] = pickle.load(file)
    return [Case(*fields) for fields in plain]


def _read(path: Path, kind: Any) -> NDArray[Any]:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    array: NDArray[Any] = numpy_helper.to_array(tensor)
    if array.dtype.kind in "US":
        array = array.astype(np.object_)
    assert kind.WhichOneof("value") == "tensor_type"
    return array


def _values(directory: Path, word: str, infos: Any) -> dict[str, NDArray[Any]]:
    files = [directory / f"{word}_{i}.pb" for i in range(len(infos))]
    return {
        info.name: _read(file, info.type)
        for info, file in zip(infos, files, strict=True)
        if file.exists()
    }


def agrees(got: Any, wanted: NDArray[Any]) -> bool:
    """Same shape and type, and the same values to the standard's tolerance."""
    if not isinstance(got, np.ndarray) or got.shape != wanted.shape:
        return False
    if wanted.dtype == np.object_:
        return _texts(got) == _texts(wanted)
    if got.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind in "biu":
        return bool(np.array_equal(got, wanted))
    left, right = (array.astype(np.float64) for array in (got, wanted))
    return bool(np.allclose(left, right, RTOL, ATOL, equal_nan=True))


def _texts(array: NDArray[Any]) -> list[bytes]:
    return [t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1)]


def _reference(directory: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Inputs and answers of one model; None when it is not for us."""
    import onnxruntime

    model = onnx.load(directory / "model.onnx")
    data = directory / "test_data_set_0"
    inputs = _values(data, "input", model.graph.input)
    wanted = _values(data, "output", model.graph.output)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    # Twice, because what is random answers differently the second time.
    for _ in range(2):
        answers = session.run(list(wanted), inputs)
        got = dict(zip(wanted, answers, strict=True))
        if not all(agrees(got[name], wanted[name]) for name in wanted):
            return None
    known = all(a.dtype.name in DATATYPES for a in [*inputs.values(), *got.values()])
    return (inputs, got) if known else None


def _all(data: Path) -> Iterator[tuple[Any, ...]]:
    for path in sorted(data.glob("*/*/model.onnx")):
        try:
            found = _reference(path.parent)
        except Exception:
            # Whatever the runtime or the reader dislikes is no reference; the count of
            # what is left is asserted by the test.
            continue
        if found is not None:
            name = f"{path.parts[-3]}.{path.parts[-2]}"
            yield name, str(path), *found


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(pickle.dumps(list(_all(Path(sys.argv[1])))))
