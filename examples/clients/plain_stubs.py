"""The same with stubs of your own, generated from proto/inference.proto.

    python -m grpc_tools.protoc -Iproto --python_out=stubs --grpc_python_out=stubs \\
        inference.proto
    PYTHONPATH=stubs python examples/clients/plain_stubs.py 127.0.0.1:8001
"""

import struct
import sys

import grpc
from inference_pb2 import ModelInferRequest
from inference_pb2_grpc import GRPCInferenceServiceStub


def main(target: str) -> None:
    request = ModelInferRequest(model_name="credit")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(struct.pack("<2f", 1, 1))
    with grpc.insecure_channel(target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for user in ("user-1", "user-2", "user-3"):
            metadata = [("x-user-id", user)]
            answer = stub.ModelInfer(request, timeout=1, metadata=metadata)
            # The outputs' bytes come in the order of the outputs.
            names = [output.name for output in answer.outputs]
            raw = answer.raw_output_contents[names.index("tag")]
            print(
                user,
                answer.model_version,
                answer.parameters["route_reason"].string_param,
                answer.parameters["route_bucket"].int64_param,
                struct.unpack("<f", raw)[0],
            )
        metadata = [("x-user-id", "user-1"), ("location", "new-york")]
        answer = stub.ModelInfer(request, timeout=1, metadata=metadata)
        reason = answer.parameters["route_reason"].string_param
        print("new-york", answer.model_version, reason)


if __name__ == "__main__":
    main(sys.argv[1])
