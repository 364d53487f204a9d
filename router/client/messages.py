"""Message classes of the protocols spoken, made from the compiled `proto/` files.

They live in a descriptor pool of our own. Generated modules would register package
`inference` in the process-wide pool, where tritonclient and KServe register theirs, and
whichever is imported second fails. Classes of two pools are strangers to each other:
pass bytes between them, not messages.
"""

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from router.errors import RouterError

DESCRIPTORS = "wire.desc"


@cache
def pool() -> DescriptorPool:
    """Every message and service in `proto/`, with what they import."""
    compiled = resources.files("router") / DESCRIPTORS
    if not compiled.is_file():
        raise RouterError(
            f"router/{DESCRIPTORS} is missing: python setup.py build compiles proto/"
        )
    made = DescriptorPool()
    # protoc lists a file after those it imports, as the pool wants them.
    for file in FileDescriptorSet.FromString(compiled.read_bytes()).file:
        made.AddSerializedFile(file.SerializeToString())
    return made


@cache
def message(full_name: str) -> type[Any]:
    """The class of a message, by its full name: `inference.ModelInferRequest`.

    KeyError when no file in `proto/` has it.
    """
    made: type[Any] = GetMessageClass(pool().FindMessageTypeByName(full_name))
    return made


@cache
def method(service: str, name: str) -> MethodDescriptor:
    """What a method takes and gives back: `method("grpc.health.v1.Health", "Check")`.

    KeyError when no file in `proto/` has it.
    """
    return pool().FindServiceByName(service).methods_by_name[name]
