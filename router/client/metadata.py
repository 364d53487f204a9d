"""What a server says a model takes and gives."""

import grpc

from router.client.infer import PredictError
from router.client.messages import message
from router.client.stub import call


class UnreachableError(PredictError):
    """Nobody answered at the target."""


def read_inputs(
    target: str, model: str, timeout_s: float
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Datatype and shape of each input, by name; -1 is a size the model leaves open.

    UnreachableError when there is no server, PredictError when it refuses.
    """
    asked = message("inference.ModelMetadataRequest")(name=model)
    with grpc.insecure_channel(target) as channel:
        try:
            reply = call(channel, "ModelMetadata", asked, timeout_s)
        except grpc.RpcError as error:
            code, detail = error.code(), error.details() or "no message"
            lost = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            kind = UnreachableError if code in lost else PredictError
            raise kind(f"{target}: {code.name}: {detail}") from None
    return {each.name: (each.datatype, tuple(each.shape)) for each in reply.inputs}
