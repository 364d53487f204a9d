// What went wrong, and what a client is told about it.
//
// One table (status.cc) maps each situation to its gRPC code and retry advice; nothing
// else in the engine names a code. A Status without a problem costs no allocation.
// Messages name what the client sent, never a path, an address or a host.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace router {

enum class Code : uint8_t {
  ok = 0, cancelled = 1, unknown = 2, invalid_argument = 3, deadline_exceeded = 4,
  not_found = 5, already_exists = 6, permission_denied = 7, resource_exhausted = 8,
  failed_precondition = 9, aborted = 10, out_of_range = 11, unimplemented = 12,
  internal = 13, unavailable = 14, data_loss = 15, unauthenticated = 16
};
constexpr unsigned kCodeCount = 17;

enum class Situation : uint8_t {
  ok,
  bad_input,          // shape, dtype, size, missing or unknown name, version not an integer
  undecodable,        // the message is not the protobuf it claims to be
  bad_framing,        // gRPC framing broken
  unknown_model,      // model or version
  not_ready,          // known, not ready
  draining,
  overload,           // queue full, quota, memory
  message_too_large,
  cancelled,
  deadline,
  unauthenticated,
  forbidden,
  model_failed,
  unknown_method,
  bad_encoding,       // grpc-encoding not supported
  refused_pin,        // pins: deny, or a disabled version
  refused_unit,       // unit.on_missing: reject
  count
};

// `pushback_ms` is sent as grpc-retry-pushback-ms: kNoPushback sends none, -1 says never.
constexpr int kNoPushback = -2;
struct Advice {
  Code code;
  int pushback_ms;
  const char* name;  // for metrics and the table's test
};

const Advice& advice_for(Situation situation);
const char* code_name(Code code);  // "OK", "INVALID_ARGUMENT", ...

struct [[nodiscard]] Status {
  Situation situation = Situation::ok;
  std::string message;

  bool ok() const { return situation == Situation::ok; }
  Code code() const { return advice_for(situation).code; }
};

inline Status fail(Situation situation, std::string message) {
  return Status{situation, std::move(message)};
}

// A name the client sent, as a message may carry it: bounded, and without control
// characters, which would let a client forge lines in somebody's log.
std::string quoted(std::string_view name);

}  // namespace router
