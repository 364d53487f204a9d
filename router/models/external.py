"""Whether an ONNX file keeps weights in other files, read from its bytes.

A tensor's `external_data` names a path that the runtime opens by itself, relative to
wherever it believes the model to be: what a path in a downloaded file may reach has to
be decided before the runtime sees it. Only the messages that can lead to a tensor are
walked, nothing is copied, and no package for ONNX is needed at run time. Bytes that are
not protobuf end the walk: the runtime will refuse them by name.
"""

from collections.abc import Iterator

# Message -> field number -> message, for every way from ModelProto to a TensorProto.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}  # fmt: skip
_LENGTH_DELIMITED = 2


def external_paths(data: bytes) -> tuple[str, ...]:
    """Every path that the model's tensors name, in order, each once."""
    paths: dict[str, None] = {}
    waiting = [(memoryview(data), "model")]
    while waiting:
        view, kind = waiting.pop()
        known = _FIELDS[kind]
        for number, content in _fields(view):
            inner = known.get(number)
            if inner == "entry":
                key, value = _entry(content)
                if key == b"location":
                    paths[value.decode("utf-8", "replace")] = None
            elif inner is not None:
                waiting.append((content, inner))
    return tuple(sorted(paths))


def _entry(view: memoryview) -> tuple[bytes, bytes]:
    parts = {number: bytes(content) for number, content in _fields(view)}
    return parts.get(1, b""), parts.get(2, b"")


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message; stops where it makes no sense."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            length, at = _varint(view, at)
            if at < 0 or at + length > end:
                return
            yield tag >> 3, view[at : at + length]
            at += length
        elif wire == 0:
            _, at = _varint(view, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            return
        if at < 0:
            return


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends; -1 when it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= at < len(view):
            return 0, -1
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return 0, -1
