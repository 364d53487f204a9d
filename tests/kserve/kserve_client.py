"""KServe's own client against a router; prints one line per thing that worked.

    python kserve_client.py ADDRESS

Runs in an environment of its own: KServe's messages and tritonclient's have the same
names and cannot live in one process. The models are those of test_kserve.py.
"""

import asyncio
import sys
import warnings

import grpc
import numpy as np

warnings.filterwarnings("ignore")

from kserve import InferInput, InferRequest  # noqa: E402
from kserve.inference_client import InferenceGRPCClient  # noqa: E402


def request(array: np.ndarray, *, is_binary: bool, model: str = "tag") -> InferRequest:
    tensor = InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=is_binary)
    return InferRequest(model, [tensor], request_id="id-1")


async def check(address: str) -> None:
    client = InferenceGRPCClient(address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("tag")
    assert not await client.is_model_ready("nobody")
    print("readiness")
    rows = np.array([[1, 2], [3, 4]], np.float32)
    for is_binary in (True, False):
        reply = await client.infer(request(rows, is_binary=is_binary))
        outputs = {output.name: output.as_numpy() for output in reply.outputs}
        assert np.array_equal(outputs["sum"], [[3], [7]])
        assert reply.id == "id-1"
        assert reply.model_version == "1"
        print("raw contents" if is_binary else "typed contents")
    headers = [("location", "new-york")]
    reply = await client.infer(request(rows, is_binary=True), headers=headers)
    assert reply.model_version == "2"
    reason = reply.parameters["route_reason"].string_param
    assert reason == "TARGETING_MATCH"
    print("metadata routes, parameters come back")
    try:
        await client.infer(request(rows, is_binary=True, model="nobody"))
        code = grpc.StatusCode.OK
    except grpc.RpcError as error:
        code = error.code()
    assert code == grpc.StatusCode.NOT_FOUND
    print("errors keep their code")
    await client.close()


asyncio.run(check(sys.argv[1]))
