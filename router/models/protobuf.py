"""Protobuf's wire format, as much of it as a model or a request of ours needs.

A walk over fields and a writer of them. It knows no message, copies nothing while it
reads, and trusts no length. Models are read with it before anything else looks at them,
and child processes build their few messages with it, because the protobuf package would
cost them more memory and time than the rest of what they do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


class NotProtobufError(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, its bytes as they stand, and what it holds.

    `content` is set for length-delimited fields, `value` for the others.
    """

    number: int
    raw: memoryview
    content: memoryview | None
    value: int = 0


def fields(view: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; NotProtobufError where it makes no sense."""
    at, end = 0, len(view)
    while at < end:
        begun = at
        tag, at = _varint(view, at)
        wire, value = tag & 7, 0
        content = None
        if wire == DELIMITED:
            length, at = _varint(view, at)
            content = view[at : at + length]
            at += length
        elif wire == VARINT:
            value, at = _varint(view, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            value = int.from_bytes(view[at : at + size], "little")
            at += size
        else:
            raise NotProtobufError("groups are not served")
        if at > end:
            raise NotProtobufError("a field ends after its message")
        yield Field(tag >> 3, view[begun:at], content, value)


def varints(view: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def delimited(number: int, content: bytes | memoryview | str) -> bytes:
    """A length-delimited field: text, bytes or a message."""
    data = content.encode() if isinstance(content, str) else bytes(content)
    return varint(number << 3 | DELIMITED) + varint(len(data)) + data


def packed(number: int, values: tuple[int, ...]) -> bytes:
    """A packed field of 64-bit integers; negative ones as protobuf writes int64."""
    return delimited(number, b"".join(varint(value % 2**64) for value in values))


def varint(value: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NotProtobufError("a number does not end")
