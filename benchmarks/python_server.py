"""The server most teams would write: grpc.aio around `session.run`.

    python -m benchmarks.python_server REPOSITORY [--port N] [--version V]

Serves one version of every model in the repository through generated messages. It is
meant to be a fair opponent: one intra-op thread as the router uses, no thread switch
per call (the small models finish sooner than a switch takes), inputs viewed rather than
copied, raw contents both ways.
"""

import argparse
import asyncio
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2, service_pb2_grpc

MESSAGE_BYTES_MAX = 16 << 20


class Inference(service_pb2_grpc.GRPCInferenceServiceServicer):
    """ModelInfer, ModelMetadata and ServerReady over sessions loaded at start."""

    def __init__(self, repository: Path, version: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._version = str(version)
        self._sessions = {
            path.parent.parent.name: onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            for path in sorted(repository.glob(f"*/{version}/model.onnx"))
        }

    async def ServerReady(  # noqa: N802
        self, request: service_pb2.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ServerReadyResponse:
        del request, context
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelMetadata(  # noqa: N802
        self,
        request: service_pb2.ModelMetadataRequest,
        context: grpc.aio.ServicerContext,
    ) -> service_pb2.ModelMetadataResponse:
        session = self._sessions.get(request.name)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
        answer = service_pb2.ModelMetadataResponse(name=request.name, platform="onnx")
        for given, listed in (
            (session.get_inputs(), answer.inputs),
            (session.get_outputs(), answer.outputs),
        ):
            for one in given:
                shape = [size if isinstance(size, int) else -1 for size in one.shape]
                listed.add(name=one.name, datatype="FP32", shape=shape)
        return answer

    async def ModelInfer(  # noqa: N802
        self, request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        session = self._sessions.get(request.model_name)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
        given = zip(request.inputs, request.raw_input_contents, strict=True)
        feeds = {
            tensor.name: np.frombuffer(raw, np.float32).reshape(tensor.shape)
            for tensor, raw in given
        }
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=self._version, id=request.id
        )
        for output, value in zip(
            session.get_outputs(), session.run(None, feeds), strict=True
        ):
            response.outputs.add(name=output.name, datatype="FP32", shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


async def serve(repository: Path, version: int, port: int) -> None:
    """Serve until terminated; prints the port once it is bound."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ]
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        Inference(repository, version), server
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("listening", bound, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(serve(given.repository, given.version, given.port))
