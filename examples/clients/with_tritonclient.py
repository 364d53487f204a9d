"""The same with NVIDIA's client: headers carry the user and its attributes.

python examples/clients/with_tritonclient.py 127.0.0.1:8001
"""

import sys

import numpy as np
import tritonclient.grpc as triton


def main(target: str) -> None:
    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.ones((1, 2), np.float32))
    with triton.InferenceServerClient(target) as client:
        for user in ("user-1", "user-2", "user-3"):
            result = client.infer("credit", [x], headers={"x-user-id": user})
            answer = result.get_response()
            print(
                user,
                answer.model_version,
                answer.parameters["route_reason"].string_param,
                answer.parameters["route_bucket"].int64_param,
                result.as_numpy("tag")[0, 0],
            )
        headers = {"x-user-id": "user-1", "location": "new-york"}
        answer = client.infer("credit", [x], headers=headers).get_response()
        reason = answer.parameters["route_reason"].string_param
        print("new-york", answer.model_version, reason)


if __name__ == "__main__":
    main(sys.argv[1])
