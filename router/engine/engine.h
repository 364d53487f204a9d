/* The engine's door: a C ABI, included by `_engine.pyx` and the native tests.
 *
 * Every function may be called from any thread that does not hold the GIL for long, unless
 * it says otherwise; none calls back into Python. Functions that can fail return 0 or -1
 * and put a sentence (failure) or their answer (success) into `out`, which the caller frees
 * with engine_bytes_free. Text is UTF-8 and need not end in NUL.
 */
#ifndef ROUTER_ENGINE_H
#define ROUTER_ENGINE_H

#include <stdint.h>

#include "_fasthash.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct engine engine;

typedef struct engine_text { const char *data; uint64_t size; } engine_text;
typedef struct engine_pair { engine_text key, value; } engine_pair;
typedef struct engine_bytes { char *data; uint64_t size; } engine_bytes;

enum engine_listener { ENGINE_DATA = 1, ENGINE_ADMIN = 2 }; /* bits, for engine_method */

enum engine_event_kind {
  ENGINE_EVENT_MESSAGE = 0,  /* a message; the first one of a stream opens it */
  ENGINE_EVENT_END = 1,      /* the client will send no more (streaming methods only) */
  ENGINE_EVENT_CANCELLED = 2 /* the stream is gone; nothing sent to it arrives */
};

typedef struct engine_event {
  uint64_t stream;           /* names the stream in engine_send; never reused */
  uint32_t method;           /* what engine_method returned */
  uint32_t kind;
  engine_bytes message;      /* freed by the caller */
  engine_bytes metadata;     /* key NUL value NUL ..., values raw; freed by the caller */
} engine_event;

void engine_bytes_free(engine_bytes *bytes);

/* Options are listed in serve/options.h. The kernel table must outlive the engine. */
engine *engine_new(const fh_kernel_api *kernel, const engine_pair *options, uint64_t count,
                   engine_bytes *out);
/* After engine_stop. */
void engine_free(engine *self);

/* Loads, warms and probes a version; slow. `out`: a JSON report (signature, providers,
 * warnings, batching, memory). Loading a loaded version replaces it for later tables. */
int engine_load(engine *self, engine_text model, uint32_t version, engine_text bytes,
                const engine_pair *options, uint64_t count, engine_bytes *out);
/* Forgets a version for later tables; it dies with the last table that routes to it. */
int engine_unload(engine *self, engine_text model, uint32_t version, engine_bytes *out);
/* Checks the table, resolves its versions, compiles its expressions, and swaps it in. */
int engine_publish(engine *self, engine_text table, engine_bytes *out);

/* Names a method Python serves. `listeners`: where. Returns its number. Before start. */
int engine_method(engine *self, engine_text path, int is_streaming, int pool,
                  int listeners);
/* Gives the engine a bound, listening, non-blocking socket; the engine does not close it. */
int engine_listen(engine *self, int fd, int listener, engine_bytes *out);
/* TLS for a kind of listener: from the next connection on; those that exist keep what they
 * began with. PEM texts: the certificate and its chain, its key, and the authorities of
 * client certificates (empty: none are asked for). Checks everything first and changes
 * nothing if anything is wrong. `out`: JSON {"expires_s": Unix time}. `self` may be NULL:
 * check only. */
int engine_tls(engine *self, int listener, engine_text certificates, engine_text key,
               engine_text authorities, int requires_client, engine_bytes *out);
int engine_start(engine *self, engine_bytes *out);

/* Pulls the next event for a pool's methods; 1 with an event, 0 after timeout_ms, -1 when
 * the engine has stopped. */
int engine_next(engine *self, int pool, int timeout_ms, engine_event *event);
/* Sends a message (when `message.data` is not NULL) and, when `end`, the status. Unary
 * methods send both at once. A stream that is gone is ignored: returns 0 then, else 1. */
int engine_send(engine *self, uint64_t stream, engine_text message, int end, int code,
                engine_text detail);

/* One call through the whole path without a socket: `frame` is the message without its
 * prefix. Returns the gRPC code; `out` the response message, `detail` the status message,
 * `trailers` key NUL value NUL .... -1: the engine has stopped. */
int engine_call(engine *self, engine_text path, engine_text frame,
                const engine_pair *metadata, uint64_t count, int64_t timeout_ns,
                engine_bytes *out, engine_bytes *detail, engine_bytes *trailers);

/* All counters at about one instant, as JSON (docs/architecture.md lists the keys). */
int engine_snapshot(engine *self, engine_bytes *out);

/* Edges of the latencies that are judged, of one variant of a scope: indices of histogram
 * buckets as in the snapshot, whose upper edge may not be passed; ENGINE_NO_EDGE for none.
 * Takes effect with the next call that is judged; the table stays. */
#define ENGINE_NO_EDGE INT32_MIN
typedef struct engine_threshold {
  engine_text scope;
  uint32_t attempt, version, ordinal;
  int32_t edges[3];          /* for p90, p99 and p99.9 */
} engine_threshold;
int engine_thresholds(engine *self, const engine_threshold *thresholds, uint64_t count,
                      engine_bytes *out);
/* The scopes' filters and counts. `saved` without data: saves them, into `out`; else takes
 * up what was saved, but for scopes that exist. Before the first publish. */
int engine_filters(engine *self, engine_text saved, engine_bytes *out);
/* Takes what the loops have recorded since the last time: frames as they stand on disk
 * (watch/tape.h). One reader gets each record. Also after engine_stop. */
int engine_tape(engine *self, engine_bytes *out);

/* Stops accepting (listening sockets stay open for a successor), announces GOAWAY, lets
 * calls finish for up to grace_ms. Returns the number of calls cut off. */
int engine_drain(engine *self, int64_t grace_ms);
void engine_stop(engine *self);

/* Prediction ids, 64 characters each and nothing between, by the given keys (fh_key array).
 * `out`: a JSON array with a list of values for each id (_engine.pyx names them), or null
 * for one that is not of these keys. */
int engine_prediction_read(const fh_key *keys, uint64_t count, engine_text ids,
                           engine_bytes *out);
/* RE2: empty `out` when the pattern is fine, else why not (returns -1). */
int engine_regex_problem(engine_text pattern, engine_bytes *out);
/* 1 when the whole value matches. */
int engine_regex_match(engine_text pattern, engine_text value);
/* `out`: JSON {"version": ..., "providers": [...]} of the runtime library at a path. */
int engine_runtime(engine_text library, engine_bytes *out);

/* Loads a server with calls and measures it, on this thread, for the duration it is told
 * and at most the calls' timeout longer (serve/generator.h lists the options). `frames`:
 * the messages, without prefix, sent in turn. Takes the sockets and closes them, whatever
 * it returns. `out`: JSON. */
int engine_bench(const engine_pair *options, uint64_t count, const engine_text *frames,
                 uint64_t frame_count, engine_bytes *out);

#ifdef __cplusplus
}
#endif
#endif
