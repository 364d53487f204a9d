"""Recordings: requests as they came, in one file, to be asked again.

A replay file is 32 bytes of header (magic, format, CRC-32C of what follows it, number
of records, bytes of records), then frames as on the tape: u32 length, u32 CRC-32C, one
`router.v1.Record` with a request. Numbers are little-endian. It is written aside and
renamed, so a file is whole or not there; one that was damaged later is refused with the
place of the damage, because a comparison over half a recording would look like one over
all of it. Readers hold one record at a time.

A file that begins with `{` is JSON lines, written by hand: `client/lines.py`.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from router.client.lines import read_line, read_request
from router.client.messages import message
from router.engine._engine import crc32c
from router.errors import RouterError
from router.telemetry.tape import FRAME, Kind, read_tape

MAGIC, FORMAT = b"ROUTRPLY", 1
_COUNTS = struct.Struct("<QQ")
_HEADER = struct.Struct("<8sII16s")
RECORD_MAX = 64 * 1024 * 1024
LINE_MAX = 64 * 1024 * 1024
PREFLIGHT_ID = "router-preflight"
"""The id of a request that this router asks itself; it is recorded by nobody."""


class RecordingError(RouterError):
    """A recording that cannot be read or made."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request: `body` is a ModelInferRequest, empty when it was too large to keep."""

    model: str
    body: bytes
    metadata: tuple[tuple[str, bytes], ...] = ()
    version: str = ""
    time_ms: int = 0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a tape's requests."""

    kept: int
    without_body: int
    others: int  # of other models, or beyond the limit
    own: int  # asked by a preflight
    damaged: int  # places of the tape that could not be read


def record(
    folder: str, target: str, model: str | None = None, limit: int | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Made:  # fmt: skip
    """Turn the requests on a tape into a replay file, the oldest first."""
    if not Path(folder).is_dir():
        raise RecordingError(
            f"{folder}: no such folder; it is server.tape.path of the router's file"
        )
    damaged = 0

    def note(what: str) -> None:
        nonlocal damaged
        damaged += 1
        told(what)

    without_body = others = own = 0
    with ReplayWriter(target) as writer:
        for each in read_tape(folder, note):
            if each.kind != Kind.REQUEST:
                continue
            found = _parse(each.payload)
            if (model is not None and found.model != model) or writer.count == limit:
                others += 1
            elif not found.body:
                without_body += 1
            elif _is_own(found.body):
                own += 1
            else:
                writer.add(found)
    return Made(writer.count, without_body, others, own, damaged)


class ReplayWriter:
    """Owner of a replay file while it is written; leaving the block makes it real."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        self.count, self._bytes = 0, 0

    def __enter__(self) -> "ReplayWriter":
        try:
            self._file: IO[bytes] = self._aside.open("wb")
            os.chmod(self._aside, 0o600)  # requests may be anybody's business
            self._file.write(bytes(_HEADER.size))
        except OSError as error:
            raise _unwritable(self._path, error) from None
        return self

    def add(self, request: Recorded) -> None:
        made = message("router.v1.Record")()
        inner = made.request
        inner.model, inner.version, inner.body = (
            request.model, request.version, request.body,
        )  # fmt: skip
        inner.time_ms, inner.body_bytes = request.time_ms, len(request.body)
        for key, value in request.metadata:
            inner.metadata.add(key=key, value=value)
        data = made.SerializeToString()
        try:
            self._file.write(FRAME.pack(len(data), crc32c(data)) + data)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self.count += 1
        self._bytes += FRAME.size + len(data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                counts = _COUNTS.pack(self.count, self._bytes)
                self._file.seek(0)
                self._file.write(_HEADER.pack(MAGIC, FORMAT, crc32c(counts), counts))
            self._file.close()
            if kind is None:
                self._aside.replace(self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        finally:
            self._aside.unlink(missing_ok=True)


def read_replay(path: str | Path) -> Iterator[Recorded]:
    """The requests of a file, in order; RecordingError says where it is damaged."""
    try:
        with open(path, "rb") as file:
            start = file.read(1)
            file.seek(0)
            yield from _lines(file, path) if start == b"{" else _frames(file, path)
    except OSError as error:
        raise RecordingError(f"{path}: {(error.strerror or 'error').lower()}") from None


def _frames(file: IO[bytes], path: str | Path) -> Iterator[Recorded]:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        raise RecordingError(
            f"{path}: not a replay file; `router record` makes one, or write JSON lines"
        )
    _, written, checksum, counts = _HEADER.unpack(header)
    if written != FORMAT:
        raise RecordingError(f"{path}: format {written}, this router reads {FORMAT}")
    if crc32c(counts) != checksum:
        raise RecordingError(f"{path}: damaged at byte 0 (header)")
    count, size = _COUNTS.unpack(counts)
    at = _HEADER.size
    for _ in range(count):
        frame = file.read(FRAME.size)
        if len(frame) < FRAME.size:
            raise RecordingError(f"{path}: cut off at byte {at}")
        length, checksum = FRAME.unpack(frame)
        # A damaged length must not become an attempt to read gigabytes.
        data = file.read(length) if length <= RECORD_MAX else b""
        if length > RECORD_MAX or (len(data) == length and crc32c(data) != checksum):
            raise RecordingError(f"{path}: damaged at byte {at}")
        if len(data) < length:
            raise RecordingError(f"{path}: cut off at byte {at}")
        yield _parse(message("router.v1.Record").FromString(data).request)
        at += FRAME.size + length
    if at != _HEADER.size + size or file.read(1):
        raise RecordingError(f"{path}: damaged at byte {at}: more than the header says")


def _lines(file: IO[bytes], path: str | Path) -> Iterator[Recorded]:
    number = 0
    while line := file.readline(LINE_MAX + 1):
        number += 1
        if len(line) > LINE_MAX:
            raise RecordingError(f"{path}:{number}: longer than {LINE_MAX} bytes")
        if not line.strip():
            continue
        try:
            request, metadata = read_line(line)
        except ValueError as error:
            raise RecordingError(f"{path}:{number}: {error}") from None
        pairs = tuple((key.lower(), text.encode()) for key, text in metadata.items())
        body = request.SerializeToString()
        yield Recorded(
            request.model_name, body, pairs, request.model_version, 0, len(body)
        )


def _parse(given: Any) -> Recorded:
    """A recorded request, or the bytes of one."""
    if isinstance(given, bytes):
        given = message("router.v1.RecordedRequest").FromString(given)
    pairs = tuple((each.key, each.value) for each in given.metadata)
    return Recorded(
        given.model, given.body, pairs, given.version, given.time_ms, given.body_bytes
    )


def _is_own(body: bytes) -> bool:
    try:
        return bool(read_request(body).id == PREFLIGHT_ID)
    except ValueError:
        return False


def _unwritable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(f"{path}: cannot be written: {error.strerror}")
