// What a GrpcConn keeps of each stream and of itself. Private to grpc_conn.cc (the
// connection), grpc_request.cc (bytes in) and grpc_answer.cc (bytes out).
#pragma once

#include <nghttp2/nghttp2.h>

#include <type_traits>
#include <vector>

#include "wire/flood.h"
#include "wire/grpc_conn.h"
#include "wire/h2.h"

namespace router {

// Path, authority and gRPC's own headers come on top of the limits for metadata.
constexpr uint32_t kReservedBytesMax = 8 * 1024;
constexpr uint32_t kReservedFieldsMax = 32;

// Where a header lies in a stream's header bytes, which move while they grow.
struct HeaderSpan {
  uint32_t at, name_size, value_size;
};

// What is wrong with a request before anybody above needs to hear of it.
enum class Refusal : uint8_t { none, header_size, header_count, method, content_type };

struct StreamState {
  Stream face;  // first, so that a Stream* is a StreamState*
  size_t slot = 0;           // in Impl::live

  Buffer header_bytes;       // custom metadata, path and authority
  std::vector<HeaderSpan> metadata_spans;
  HeaderSpan path = {}, authority = {};
  uint32_t list_size = 0, list_count = 0;  // all headers, counted as HTTP/2 does
  uint32_t metadata_size = 0;              // custom metadata only, counted the same way
  bool is_post = false, is_grpc = false, is_encoding_known = true;
  Refusal refusal = Refusal::none;

  MessageReader reader;
  int64_t progress_ns = 0;   // when a byte of the body last came
  size_t stalled_size = 0;   // of the answer, unsent, when expire_slow last saw it move
  int64_t stalled_from_ns = 0;
  uint32_t withheld = 0;     // bytes of window not given back, for want of budget

  Outgoing outgoing;
  Buffer trailer_bytes;
  std::vector<nghttp2_nv> trailer_fields;  // views into trailer_bytes and literals
  const nghttp2_nv* trailers = nullptr;
  size_t trailer_count = 0;

  bool is_announced = false;      // the `opened` event was given
  bool has_failed = false;        // the `failed` event was given: bytes are discarded
  bool is_closed = false;         // nghttp2 has forgotten it; `closed` was given
  bool was_reset_by_peer = false;
  bool was_reset_by_us = false;   // GrpcConn::reset, or after our END_STREAM
  bool has_sent_end = false;
  bool is_deferred = false;       // nghttp2 waits for resume_data
  bool is_above_low_water = false;

  void recycle();
};
static_assert(std::is_standard_layout_v<StreamState>, "a Stream* must be a StreamState*");

inline StreamState* state_of(Stream* stream) {
  return reinterpret_cast<StreamState*>(stream);
}

struct GrpcConn::Impl {
  Impl(GrpcConn* owner, const WireLimits& limits, BodyBudget* budget);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // nghttp2's callbacks; each gets the Impl as user data.
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t,
                       const uint8_t*, size_t, uint8_t, void*);
  static int on_frame(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int on_close(nghttp2_session*, int32_t, uint32_t, void*);
  static int on_sent(nghttp2_session*, const nghttp2_frame*, void*);
  static ssize_t on_read(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*,
                         nghttp2_data_source*, void*);
  static int on_write_data(nghttp2_session*, nghttp2_frame*, const uint8_t*, size_t,
                           nghttp2_data_source*, void*);
  static const nghttp2_session_callbacks* new_callbacks();

  StreamState* stream_at(int32_t id);
  StreamState* open_stream(int32_t id);
  void release(StreamState* state);

  bool read_reserved(StreamState* state, std::string_view name, std::string_view value);
  void keep_header(StreamState* state, std::string_view name, std::string_view value);
  void end_headers(StreamState* state);
  void refuse(StreamState* state);
  void read_body(StreamState* state, ByteView input);
  void end_request(StreamState* state);
  void close_stream(StreamState* state, bool by_peer);
  void fail_stream(StreamState* state, Status&& status);
  void count_reset(StreamState* state, uint32_t http2_error);
  void give_back(StreamState* state, size_t count, bool is_last);
  void give_back_withheld();
  void expire_unsent(StreamState* state, int64_t now_ns);

  void punish(Abuse kind, std::string_view reason);
  void flush_control();
  Event& add_event(EventKind kind, StreamState* state);

  void submit_headers(StreamState* state);
  void submit_trailers_only(StreamState* state);
  void build_trailers(StreamState* state, const Trailers& trailers);
  void resume(StreamState* state);

  GrpcConn* owner;
  const WireLimits limits;
  BodyBudget* budget;
  FloodGuard guard;
  nghttp2_session* session = nullptr;
  StreamState* current = nullptr;      // the stream last looked up
  std::vector<StreamState*> live;      // owned; every stream not yet forgotten
  std::vector<StreamState*> idle;      // owned; for reuse
  std::vector<Event> pending;          // arose outside of `receive`
  std::vector<Event>* events = &pending;
  Buffer early;                        // written before what nghttp2 has to send
  Target target;                       // where on_write_data writes
  uint64_t withheld = 0;               // connection window not given back
  uint32_t resets = 0;                 // since the last stream that ended well
  int64_t now_ns = 0;
  bool is_dead = false;                // GOAWAY for an error is queued: read nothing more
  bool is_abandoned = false;           // the socket is gone: write nothing more
  bool is_going_away = false;          // final GOAWAY queued or received
  uint64_t abuses[static_cast<size_t>(Abuse::count)] = {};
};

}  // namespace router
