// The client's end of a gRPC connection, without I/O: calls in, bytes out; bytes in,
// replies out.
//
// One thread owns a connection. Unary calls only; many at once. Used by the load generator
// and by versions that live in another server. Each call gets exactly one Reply: when its
// stream has ended, for whatever reason. Replies are appended in the order calls ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "wire/grpc.h"
#include "wire/h2.h"

namespace router {

struct ClientLimits {
  uint32_t stream_window = 1024 * 1024;
  uint32_t connection_window = 16 * 1024 * 1024;
  uint32_t message_in_max = 64 * 1024 * 1024;
  uint32_t header_list_max = 64 * 1024;     // of an answer's headers and trailers together
  bool is_identity_only = false;            // compressed answers fail
  std::atomic<uint64_t>* budget = nullptr;  // charged with answers until they are freed,
  uint64_t budget_max = UINT64_MAX;         // and above this answers fail
};

struct CallField {
  std::string_view name, value;
};

// The headers that are the same for every call of a method. Must outlive the calls that
// use it.
class CallHeaders {
 public:
  CallHeaders(std::string authority, std::string path, bool is_tls = false,
              std::string_view accepted = "identity,gzip,deflate");
  CallHeaders(const CallHeaders&) = delete;
  CallHeaders& operator=(const CallHeaders&) = delete;

  const std::vector<nghttp2_nv>& fields() const { return fields_; }

 private:
  std::string authority_, path_;
  std::vector<nghttp2_nv> fields_;
};

// How a call ended. `code` is what the trailers say; without trailers it is made from the
// HTTP status or the reset, as gRPC's mapping tables say.
struct Reply {
  void* call = nullptr;
  Code code = Code::unknown;
  bool has_trailers = false;   // the server answered; false: HTTP error, reset, lost
  bool is_unprocessed = false;  // the server says it never looked at it: safe to send again
  bool is_malformed = false;    // what came is no answer to a unary call, or breaks a limit
  BodyRef body;                // the message, when one came
  std::string message;
  int64_t pushback_ms = kNoPushback;
};

class ClientConn {
 public:
  explicit ClientConn(const ClientLimits& limits);
  ~ClientConn();
  ClientConn(const ClientConn&) = delete;
  ClientConn& operator=(const ClientConn&) = delete;

  // Starts a call; `frame` begins with the five-byte prefix and is taken whole (the caller
  // gets an empty buffer in exchange). `extra` fields (grpc-timeout, metadata) are copied.
  // Returns the stream's id, or -1 when the connection takes no more calls.
  int32_t start(const CallHeaders& headers, const CallField* extra, size_t extra_count,
                Buffer&& frame, void* call);
  // RST_STREAM(CANCEL); `take_replies` has the call's reply, with Code::cancelled.
  void cancel(int32_t id);

  // False when the connection must be closed once `output` is written.
  bool receive(const uint8_t* bytes, size_t count, std::vector<Reply>* replies);
  // The socket is gone: a reply (unavailable) for every open call.
  void abandon(std::vector<Reply>* replies);
  // Replies that arose outside of `receive`: cancelled calls, calls that a GOAWAY kept back.
  void take_replies(std::vector<Reply>* replies);

  void output(Buffer* out, size_t high_water);
  bool wants_write() const;

  // Asks the server for a sign of life, which is awaited from then on.
  void ping();
  bool awaits_pong() const;
  unsigned pings() const;         // since it last said something of a call

  size_t open_count() const;
  uint32_t streams_max() const;   // what the server allows; more are queued
  bool is_accepting() const;      // false after GOAWAY, or when ids have run out

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace router
