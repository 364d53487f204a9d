// What a loop keeps for a client: an exchange per stream, a call per inference.
//
// A call is done when it was answered and none of its attempts is out; only then may it and
// the request bytes it holds be reused, because an executor may still be reading them. All
// of it belongs to one loop and is touched there only, LocalCall apart.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "_fasthash.h"
#include "run/version.h"
#include "serve/table.h"
#include "wire/grpc_conn.h"

namespace router {

struct Connection;
struct Exchange;

// A call made inside the process. The caller waits on `ready`.
struct LocalCall {
  std::string path;
  BodyRef body;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<HeaderField> fields;  // into metadata
  int64_t timeout_ns = -1;
  // The answer.
  Code code = Code::ok;
  std::string detail, message, trailers;
  std::mutex mutex;
  std::condition_variable ready;
  bool is_done = false;
};

enum class ExchangeKind : uint8_t { refused, infer, stream_infer, method };

struct Exchange {
  ExchangeKind kind = ExchangeKind::refused;
  Connection* connection = nullptr;
  Stream* stream = nullptr;        // null once closed, and for local calls
  LocalCall* local = nullptr;
  BodyRef body;                    // unary: the message, until the stream is half-closed
  bool is_finished = false;        // the final status was sent
  bool is_half_closed = false;
  bool wants_status = false;       // ModelStreamInfer: errors end the stream
  uint32_t method = 0;             // kind method: index of the method
  uint64_t id = 0;                 // kind method: its name for engine_send
  int64_t opened_ns = 0;
  int64_t timeout_ns = -1;
  std::vector<struct Call*> calls; // in flight
  // ModelStreamInfer answers in the order of the requests: those that are ready wait behind
  // an empty frame for each that is not. The first is the answer of request `answers_from`.
  std::vector<Buffer> answers;
  uint64_t answers_from = 0;

  const HeaderField* metadata(size_t* count) const {
    if (local != nullptr) {
      *count = local->fields.size();
      return local->fields.data();
    }
    *count = stream == nullptr ? 0 : stream->metadata.size();
    return stream == nullptr ? nullptr : stream->metadata.data();
  }
};

struct Shadowed;

constexpr unsigned kAttemptsMax = 2;  // the routed one, and stable as its fallback
constexpr uint32_t kNoTimer = UINT32_MAX;

struct Call {
  Exchange* exchange = nullptr;
  LoopTable* table = nullptr;
  uint32_t model = 0;
  BodyRef body;
  InferRequest request;
  fh_decision decision{};
  Attempt attempts[kAttemptsMax];
  uint32_t variants[kAttemptsMax] = {};   // global indices
  Batch* batches[kAttemptsMax] = {};      // where the attempt is now
  bool is_out[kAttemptsMax] = {};         // pending or in a batch
  bool is_answered = false;
  bool has_fallback = false;              // the second attempt was started
  bool was_late = false;                  // the candidate was charged with a timeout
  bool is_candidate_charged = false;
  int64_t received_ns = 0, decoded_ns = 0, deadline_ns = 0;
  int64_t fallback_ns = INT64_MAX;        // when stable is tried as well
  uint64_t unit_tag = 0;                  // keyed, for the prediction id
  uint64_t place = 0;                     // in its stream's order of requests
  Shadowed* shadowed = nullptr;           // shadows that are to run it too
  uint32_t assigned = 0;                  // global index of the variant that was drawn
  const LoopFirst* first = nullptr;       // where its first events count; null: nowhere
  bool is_sticky = false;                 // it has a unit of its own
  uint16_t charged = 0;                   // kinds (bits) that were; the last: its latency
  // Timer heap (see timers.h).
  int64_t due_ns = 0;
  uint32_t timer = kNoTimer;

  bool is_out_at_all() const { return is_out[0] || is_out[1]; }
};

// What other threads tell a loop.
enum class LetterKind : uint8_t {
  batch, connection, local_call, reply, table, drain, cut_off, stop
};

struct MethodReply {
  uint64_t exchange = 0;
  bool has_message = false, is_end = false;
  Buffer frame;                    // with its prefix
  Code code = Code::ok;
  std::string detail;
};

struct Letter {
  LetterKind kind;
  int fd = -1;
  int listener = 0;
  std::string peer;
  void* pointer = nullptr;
};

}  // namespace router
