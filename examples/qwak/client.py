"""Ask for predictions as a user of Qwak does: features, and `metadata` beside them.

python examples/qwak/client.py 127.0.0.1:8001
"""

import sys
from collections.abc import Mapping

import numpy as np
import tritonclient.grpc as triton

PEOPLE = (
    {"location": "new-york", "age": "31"},
    {"location": "new-york", "age": "17"},
    {"location": "california", "age": "17"},
    {"location": "texas", "age": "31"},
)


class RealTimeClient:
    """The shape of Qwak's client: a model, and `predict(features, metadata)`."""

    def __init__(self, model_id: str, address: str) -> None:
        self._model = model_id
        self._client = triton.InferenceServerClient(address)

    def predict(self, features: list[float], metadata: Mapping[str, str]) -> str:
        """The version that answered; audiences are found by the metadata."""
        tensor = triton.InferInput("x", [1, len(features)], "FP32")
        tensor.set_data_from_numpy(np.array([features], np.float32))
        result = self._client.infer(self._model, [tensor], headers=dict(metadata))
        return str(result.get_response().model_version)

    def close(self) -> None:
        self._client.close()


def main() -> None:
    client = RealTimeClient("credit_risk", sys.argv[1])
    for metadata in PEOPLE:
        version = client.predict([1.0, 2.0], metadata=metadata)
        print(f"{metadata['location']}, {metadata['age']}: version {version}")
    client.close()


if __name__ == "__main__":
    main()
