# distutils: language = c++
"""The door between Python and the data plane: bytes and numbers in and out of engine.h.

Nothing is decided here. Every call that may wait releases the GIL, and nothing in the
engine ever takes it: Python pulls events, it is never entered.
"""

import json

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from router._fasthash cimport fh_kernel_api, kernel_api

from router.errors import EngineError

cdef extern from "_fasthash.h" nogil:
    ctypedef struct fh_key:
        uint8_t id
        uint8_t secret[32]

cdef extern from "engine/base/crc32c.h" namespace "router" nogil:
    uint32_t engine_crc32c "router::crc32c"(const void *data, size_t count)

cdef extern from "engine/engine.h" nogil:
    ctypedef struct engine:
        pass
    ctypedef struct engine_text:
        const char *data
        uint64_t size
    ctypedef struct engine_pair:
        engine_text key
        engine_text value
    ctypedef struct engine_bytes:
        char *data
        uint64_t size
    ctypedef struct engine_event:
        uint64_t stream
        uint32_t method
        uint32_t kind
        engine_bytes message
        engine_bytes metadata
    int ENGINE_DATA
    int ENGINE_ADMIN
    int ENGINE_EVENT_MESSAGE
    int ENGINE_EVENT_END
    int ENGINE_EVENT_CANCELLED
    void engine_bytes_free(engine_bytes *bytes)
    engine *engine_new(const fh_kernel_api *kernel, const engine_pair *options,
                       uint64_t count, engine_bytes *out)
    void engine_free(engine *self)
    int engine_load(engine *self, engine_text model, uint32_t version, engine_text data,
                    const engine_pair *options, uint64_t count, engine_bytes *out)
    int engine_unload(engine *self, engine_text model, uint32_t version, engine_bytes *out)
    int engine_publish(engine *self, engine_text table, engine_bytes *out)
    int engine_method(engine *self, engine_text path, int is_streaming, int pool,
                      int listeners)
    int engine_listen(engine *self, int fd, int listener, engine_bytes *out)
    int engine_tls(engine *self, int listener, engine_text certificates, engine_text key,
                   engine_text authorities, int requires_client, engine_bytes *out)
    int engine_start(engine *self, engine_bytes *out)
    int engine_next(engine *self, int pool, int timeout_ms, engine_event *event)
    int engine_send(engine *self, uint64_t stream, engine_text message, int end, int code,
                    engine_text detail)
    int engine_call(engine *self, engine_text path, engine_text frame,
                    const engine_pair *metadata, uint64_t count, int64_t timeout_ns,
                    engine_bytes *out, engine_bytes *detail, engine_bytes *trailers)
    int engine_snapshot(engine *self, engine_bytes *out)
    int ENGINE_NO_EDGE
    ctypedef struct engine_threshold:
        engine_text scope
        uint32_t attempt
        uint32_t version
        uint32_t ordinal
        int edges[3]
    int engine_thresholds(engine *self, const engine_threshold *thresholds,
                          uint64_t count, engine_bytes *out)
    int engine_filters(engine *self, engine_text saved, engine_bytes *out)
    int engine_tape(engine *self, engine_bytes *out)
    int engine_drain(engine *self, int64_t grace_ms)
    void engine_stop(engine *self)
    int engine_prediction_read(const fh_key *keys, uint64_t count, engine_text ids,
                               engine_bytes *out)
    int engine_regex_problem(engine_text pattern, engine_bytes *out)
    int engine_regex_match(engine_text pattern, engine_text value)
    int engine_runtime(engine_text library, engine_bytes *out)
    int engine_bench(const engine_pair *options, uint64_t count, const engine_text *frames,
                     uint64_t frame_count, engine_bytes *out)

DATA = ENGINE_DATA
ADMIN = ENGINE_ADMIN
EVENT_MESSAGE = ENGINE_EVENT_MESSAGE
EVENT_END = ENGINE_EVENT_END
EVENT_CANCELLED = ENGINE_EVENT_CANCELLED


class EngineStopped(Exception):
    """The engine has stopped; a method pool should end."""


cdef engine_text text_of(bytes data):
    # Points into `data`, which the caller keeps alive.
    cdef engine_text text
    text.data = PyBytes_AsString(data)
    text.size = len(data)
    return text


cdef bytes take(engine_bytes *out):
    if out.data == NULL:
        return b""
    data = PyBytes_FromStringAndSize(out.data, out.size)
    engine_bytes_free(out)
    return data


cdef object check(int result, engine_bytes *out):
    """The answer, or EngineError with the engine's sentence."""
    data = take(out)
    if result != 0:
        raise EngineError(data.decode("utf-8", "replace"))
    return data


cdef tuple split_fields(bytes data):
    parts = data.split(b"\0")
    return tuple(
        (parts[i].decode("utf-8", "replace"), parts[i + 1])
        for i in range(0, len(parts) - 1, 2)
    )


cdef class Pairs:
    """Key/value bytes as the engine reads them; keeps them alive."""

    cdef list kept
    cdef engine_pair *pairs
    cdef uint64_t count

    def __cinit__(self, items):
        self.kept = [(_bytes(key), _bytes(value)) for key, value in items]
        self.count = len(self.kept)
        self.pairs = <engine_pair *>malloc((self.count + 1) * sizeof(engine_pair))
        if self.pairs == NULL:
            raise MemoryError
        for i, (key, value) in enumerate(self.kept):
            self.pairs[i].key = text_of(key)
            self.pairs[i].value = text_of(value)

    def __dealloc__(self):
        free(self.pairs)


def _bytes(value):
    return value if isinstance(value, bytes) else str(value).encode()


cdef object use_tls(engine *self, int listener, bytes certificates, bytes key,
                    bytes authorities, bint requires_client):
    cdef engine_text chain = text_of(certificates), secret = text_of(key)
    cdef engine_text signers = text_of(authorities)
    cdef engine_bytes out = engine_bytes(NULL, 0)
    cdef int result
    with nogil:
        result = engine_tls(self, listener, chain, secret, signers, requires_client, &out)
    return json.loads(check(result, &out))


cdef class MethodEvent:
    """What a client did on a stream of a method that Python serves."""

    cdef readonly object stream, message, metadata
    cdef readonly int method, kind


cdef class CallResult:
    """The answer of `Engine.call`: gRPC code, status message, message, trailers."""

    cdef readonly int code
    cdef readonly object detail, message, trailers


cdef class Engine:
    """Owner of the loops, executors, tables and versions."""

    cdef engine *self_

    def __cinit__(self, options):
        cdef Pairs pairs = Pairs(options.items())
        cdef engine_bytes out = engine_bytes(NULL, 0)
        self.self_ = engine_new(kernel_api(), pairs.pairs, pairs.count, &out)
        if self.self_ == NULL:
            check(-1, &out)

    def __dealloc__(self):
        if self.self_ != NULL:
            with nogil:
                engine_stop(self.self_)
                engine_free(self.self_)

    def load(self, str model, int version, bytes data, options):
        cdef Pairs pairs = Pairs(options.items())
        cdef bytes name = model.encode()
        cdef engine_text name_text = text_of(name), data_text = text_of(data)
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        with nogil:
            result = engine_load(self.self_, name_text, version, data_text, pairs.pairs,
                                 pairs.count, &out)
        return json.loads(check(result, &out))

    def unload(self, str model, int version):
        cdef bytes name = model.encode()
        cdef engine_text name_text = text_of(name)
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        with nogil:
            result = engine_unload(self.self_, name_text, version, &out)
        check(result, &out)

    def publish(self, bytes table):
        cdef engine_text text = text_of(table)
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        with nogil:
            result = engine_publish(self.self_, text, &out)
        check(result, &out)

    def method(self, str path, *, bint streaming, int pool, int listeners):
        cdef bytes name = path.encode()
        number = engine_method(self.self_, text_of(name), streaming, pool, listeners)
        if number < 0:
            raise EngineError(f"method {path}: the engine already listens or the pool is unknown")
        return number

    def listen(self, int fd, int listener):
        cdef engine_bytes out = engine_bytes(NULL, 0)
        check(engine_listen(self.self_, fd, listener, &out), &out)

    def tls(self, int listener, bytes certificates, bytes key, bytes authorities=b"",
            *, bint requires_client=False):
        return use_tls(self.self_, listener, certificates, key, authorities,
                       requires_client)

    def start(self):
        cdef engine_bytes out = engine_bytes(NULL, 0)
        check(engine_start(self.self_, &out), &out)

    def next(self, int pool, int timeout_ms):
        cdef engine_event event
        cdef int result
        event.message = engine_bytes(NULL, 0)
        event.metadata = engine_bytes(NULL, 0)
        with nogil:
            result = engine_next(self.self_, pool, timeout_ms, &event)
        if result < 0:
            raise EngineStopped
        if result == 0:
            return None
        cdef MethodEvent got = MethodEvent()
        got.stream = event.stream
        got.method = event.method
        got.kind = event.kind
        got.message = take(&event.message)
        got.metadata = split_fields(take(&event.metadata))
        return got

    def send(self, uint64_t stream, message, *, bint end, int code=0, str detail=""):
        cdef bytes kept_message = b"" if message is None else bytes(message)
        cdef bytes kept_detail = detail.encode()
        cdef engine_text message_text = text_of(kept_message)
        if message is None:
            message_text.data = NULL
        return engine_send(self.self_, stream, message_text, end, code,
                           text_of(kept_detail)) == 1

    def call(self, str path, bytes message, metadata=(), double timeout_s=30.0):
        cdef Pairs pairs = Pairs(metadata)
        cdef bytes name = path.encode()
        cdef engine_text name_text = text_of(name), message_text = text_of(message)
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef engine_bytes detail = engine_bytes(NULL, 0)
        cdef engine_bytes trailers = engine_bytes(NULL, 0)
        cdef int64_t timeout_ns = <int64_t>(timeout_s * 1e9)
        cdef int code
        with nogil:
            code = engine_call(self.self_, name_text, message_text, pairs.pairs, pairs.count,
                               timeout_ns, &out, &detail, &trailers)
        if code < 0:
            raise EngineStopped
        cdef CallResult result = CallResult()
        result.code = code
        result.message = take(&out)
        result.detail = take(&detail).decode("utf-8", "replace")
        result.trailers = split_fields(take(&trailers))
        return result

    def snapshot(self):
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        with nogil:
            result = engine_snapshot(self.self_, &out)
        return json.loads(check(result, &out))

    def thresholds(self, thresholds):
        cdef list kept = [(scope.encode(), *rest) for scope, *rest in thresholds]
        cdef uint64_t count = len(kept), i
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        cdef engine_threshold *made = <engine_threshold *>malloc(
            (count + 1) * sizeof(engine_threshold))
        if made == NULL:
            raise MemoryError
        try:
            for i in range(count):
                name, made[i].attempt, made[i].version, made[i].ordinal, edges = kept[i]
                made[i].scope = text_of(name)
                for k in range(3):
                    made[i].edges[k] = ENGINE_NO_EDGE if edges[k] is None else edges[k]
            result = engine_thresholds(self.self_, made, count, &out)
        finally:
            free(made)
        check(result, &out)

    def filters_save(self):
        cdef engine_text nothing
        cdef engine_bytes out = engine_bytes(NULL, 0)
        nothing.data = NULL
        nothing.size = 0
        with nogil:
            engine_filters(self.self_, nothing, &out)
        return take(&out)

    def filters_restore(self, bytes saved):
        cdef engine_text text = text_of(saved)
        cdef engine_bytes out = engine_bytes(NULL, 0)
        cdef int result
        with nogil:
            result = engine_filters(self.self_, text, &out)
        check(result, &out)

    def tape(self):
        cdef engine_bytes out = engine_bytes(NULL, 0)
        with nogil:
            engine_tape(self.self_, &out)
        return take(&out)

    def drain(self, double grace_s):
        cdef int64_t grace_ms = <int64_t>(grace_s * 1000)
        cdef int cut
        with nogil:
            cut = engine_drain(self.self_, grace_ms)
        return cut

    def stop(self):
        with nogil:
            engine_stop(self.self_)


def crc32c(bytes data):
    """The CRC-32C of `data`."""
    return engine_crc32c(PyBytes_AsString(data), len(data))


def tls_check(bytes certificates, bytes key, bytes authorities=b"", *,
              bint requires_client=False):
    """What `Engine.tls` would return or raise; changes nothing."""
    return use_tls(NULL, ENGINE_DATA, certificates, key, authorities, requires_client)


# What an id says, in the order in which the engine lists it.
PREDICTION_FIELDS = (
    "time_s", "model_hash", "version", "rule_hash", "rollout_revision", "variant", "bucket",
    "is_fallback", "is_sticky", "propensity_bp", "score", "unit_tag", "sequence",
)
cdef int PREDICTION_ID_LENGTH = 64


def prediction_read(keys, str prediction_id):
    """What a prediction id of one of `keys` (id, 32 secret bytes) says, or None."""
    (values,) = predictions_read(keys, [prediction_id])
    return None if values is None else dict(zip(PREDICTION_FIELDS, values, strict=True))


def predictions_read(keys, prediction_ids):
    """For each prediction id the values of PREDICTION_FIELDS, or None."""
    cdef uint64_t count = len(keys)
    cdef bytes none = b"." * PREDICTION_ID_LENGTH  # of no id's alphabet
    cdef list texts = [
        text if len(text) == PREDICTION_ID_LENGTH else none
        for text in [given.encode() for given in prediction_ids]
    ]
    cdef bytes joined = b"".join(texts)
    cdef engine_text ids = text_of(joined)
    cdef engine_bytes out = engine_bytes(NULL, 0)
    cdef fh_key *made = <fh_key *>malloc((count + 1) * sizeof(fh_key))
    cdef int result
    if made == NULL:
        raise MemoryError
    try:
        for i, (number, secret) in enumerate(keys):
            if len(secret) != 32:
                raise ValueError(f"key {number}: expected 32 secret bytes, got {len(secret)}")
            made[i].id = number
            memcpy(made[i].secret, PyBytes_AsString(secret), 32)
        with nogil:
            result = engine_prediction_read(made, count, ids, &out)
    finally:
        free(made)
    return json.loads(check(result, &out))


def regex_problem(str pattern):
    """Why RE2 does not take `pattern`, or None."""
    cdef bytes text = pattern.encode()
    cdef engine_bytes out = engine_bytes(NULL, 0)
    result = engine_regex_problem(text_of(text), &out)
    problem = take(&out).decode("utf-8", "replace")
    return None if result == 0 else problem


def regex_match(bytes pattern, bytes value):
    """Whether the whole value matches, by RE2."""
    return engine_regex_match(text_of(pattern), text_of(value)) == 1


def runtime(str library):
    """Version and providers of the runtime library at a path."""
    cdef bytes text = library.encode()
    cdef engine_text path = text_of(text)
    cdef engine_bytes out = engine_bytes(NULL, 0)
    cdef int result
    with nogil:
        result = engine_runtime(path, &out)
    return json.loads(check(result, &out))


def bench(options, frames, sockets, metadata=()):
    """What a load of `frames` over `sockets` measured; without the GIL until it ends."""
    named = [(f"metadata:{name}", value) for name, value in metadata]
    given = [("socket", number) for number in sockets]
    cdef Pairs pairs = Pairs([*options.items(), *named, *given])
    cdef list kept = [bytes(frame) for frame in frames]
    cdef uint64_t count = len(kept), i
    cdef engine_bytes out = engine_bytes(NULL, 0)
    cdef int result
    cdef engine_text *texts = <engine_text *>malloc((count + 1) * sizeof(engine_text))
    if texts == NULL:
        raise MemoryError
    try:
        for i in range(count):
            texts[i] = text_of(kept[i])
        with nogil:
            result = engine_bench(pairs.pairs, pairs.count, texts, count, &out)
    finally:
        free(texts)
    return json.loads(check(result, &out))
