// A gRPC server connection over HTTP/2, without I/O: bytes in, events out, bytes out.
//
// One loop owns a connection and calls everything here from its thread. Nothing reads a
// clock: `now_ns` (CLOCK_MONOTONIC) is an argument. Events of one `receive` are appended to
// the loop's list in the order they happened; a Stream* stays valid until the loop has been
// given its `closed` event and has returned from handling it, after which the connection
// frees it (`forget`). nghttp2_session_del calls no on_stream_close, so the connection owns
// the list of streams itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "wire/flood.h"
#include "wire/grpc.h"

namespace router {

struct WireLimits {
  uint32_t streams_max = 100;
  uint32_t stream_window = 256 * 1024;
  uint32_t connection_window = 4 * 1024 * 1024;
  uint32_t message_in_max = 16 * 1024 * 1024;
  uint32_t metadata_bytes_max = 8 * 1024;   // counted as HTTP/2 does: name + value + 32
  uint32_t metadata_fields_max = 64;
  uint32_t control_frames_max = 1000;       // unsolicited cheap frames between DATA/HEADERS
  uint32_t ping_strikes_max = 2;
  uint64_t body_bytes_max = 512ull * 1024 * 1024;  // of all connections together
};

// Shared by all connections of an engine; a gauge, so relaxed adds are enough.
struct BodyBudget {
  std::atomic<uint64_t> used{0};
};

struct HeaderField {
  std::string_view name, value;  // into the stream's header bytes
};

class GrpcConn;

// One call as the wire sees it.
struct Stream {
  int32_t id = 0;
  GrpcConn* connection = nullptr;
  std::string_view path;             // "/package.Service/Method"
  std::string_view authority;
  std::vector<HeaderField> metadata;  // custom metadata, lower-case names; -bin undecoded
  int64_t timeout_ns = -1;           // grpc-timeout, or -1
  Encoding encoding = Encoding::identity;
  bool half_closed = false;          // the peer will send no more
  bool answered = false;             // headers or trailers were submitted
  bool ended = false;                // trailers were submitted
  void* call = nullptr;              // serve/ attaches its call here
  uint64_t sent_pending = 0;         // message bytes accepted by send_message, not yet framed
};

// A stream's events: `opened` first, `closed` last; after `failed` neither `message` nor
// `half_closed` comes. Requests that are not gRPC, or have too much metadata, are answered
// by the connection and make no event.
enum class EventKind : uint8_t {
  opened,       // headers complete; path and metadata are readable
  message,      // one complete, decompressed message: `body`
  half_closed,  // end of the request stream
  failed,       // the request stream broke a gRPC rule: `status`; answer with it
  closed,       // the stream is gone; `by_peer` tells a cancel from our own ending
  drained       // send_message's bytes fell below the low-water mark: stream may send on
};

struct Event {
  EventKind kind;
  bool by_peer = false;
  Stream* stream = nullptr;
  BodyRef body;
  Status status;
};

// What an answer looks like besides its message. Views must live through the call only.
// Names in `extra` are lower case; values are printable ASCII, or base64 for -bin names.
// Message and pushback are sent with an error only.
struct Trailers {
  Code code = Code::ok;
  std::string_view message;          // percent-encoded on the wire by the connection
  int pushback_ms = kNoPushback;
  const HeaderField* extra = nullptr;
  size_t extra_count = 0;
};

class GrpcConn {
 public:
  GrpcConn(const WireLimits& limits, BodyBudget* budget);
  ~GrpcConn();
  GrpcConn(const GrpcConn&) = delete;
  GrpcConn& operator=(const GrpcConn&) = delete;

  // Takes bytes from the peer. False when the connection must be closed once `output` is
  // written (a GOAWAY with the reason is queued).
  bool receive(const uint8_t* bytes, size_t count, int64_t now_ns, std::vector<Event>* events);

  // The peer's socket is gone: a `closed` event (by_peer) for every open stream.
  void abandon(std::vector<Event>* events);

  // Moves the events that arose while writing (`closed`, `drained`) into `events`: call it
  // after `output`. `receive`, `expire_slow` and `abandon` bring them too.
  bool has_events() const;
  void take_events(std::vector<Event>* events);

  // Frees a stream whose `closed` event has been handled.
  void forget(Stream* stream);

  // Whole unary answer: headers, one message, trailers. `frame` starts with the five-byte
  // gRPC prefix, already filled, and is copied or moved from before this returns.
  void respond(Stream* stream, Buffer&& frame, const Trailers& trailers);
  // Trailers-only answer, or the end of a stream that already sent messages. Answers to a
  // stream whose `closed` event is under way go nowhere.
  void finish(Stream* stream, const Trailers& trailers);
  // One message of a streaming answer; sends headers first when none were sent.
  void send_message(Stream* stream, Buffer&& frame);
  // RST_STREAM; the closed event follows.
  void reset(Stream* stream, uint32_t http2_error);

  // Appends what is ready to be written, stopping once `out` holds `high_water` bytes.
  void output(Buffer* out, size_t high_water);
  bool wants_write() const;

  // Two-step GOAWAY: announce (last stream id 2^31-1), then close (the last id seen).
  void announce_shutdown();
  void close_to_new_streams();

  // Streams with a partly received message and no progress since `before_ns` fail with a
  // `failed` event: deadline (and slow_message is counted), or overload when it was we who
  // gave no window. Call it regularly: it also gives windows back once the budget allows.
  void expire_slow(int64_t before_ns, std::vector<Event>* events);

  size_t stream_count() const;        // streams not yet forgotten
  // The last GOAWAY was sent or received, and every stream is forgotten.
  bool is_closing() const;
  uint64_t abuse_count(Abuse kind) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace router
