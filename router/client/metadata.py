"""What a server says a model takes and gives."""

import grpc

from router.client.messages import message
from router.client.stub import call
from router.client.values import PredictError


def read_inputs(
    target: str, model: str, timeout_s: float
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Datatype and shape of each input, by name; -1 is a size the model leaves open.

    PredictError when the server cannot be reached or refuses.
    """
    asked = message("inference.ModelMetadataRequest")(name=model)
    with grpc.insecure_channel(target) as channel:
        try:
            reply = call(channel, "ModelMetadata", asked, timeout_s)
        except grpc.RpcError as error:
            code, detail = error.code().name, error.details() or "no message"
            raise PredictError(f"{target}: {code}: {detail}") from None
    return {each.name: (each.datatype, tuple(each.shape)) for each in reply.inputs}
