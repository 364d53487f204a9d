"""What MLServer serves: a model that is a few lines of Python, as many are."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Credit(MLModel):
    """`x` FP32 [-1, 2] to `tag` and `sum`, the way the router's own version does."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        total = x.sum(axis=1, keepdims=True, dtype=np.float32)
        outputs = {"tag": np.full_like(total, 2), "sum": total}
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output(name, value) for name, value in outputs.items()
            ],
        )
