#include "wire/grpc_conn.h"

#include <algorithm>
#include <utility>

#include "wire/grpc_state.h"

namespace router {
namespace {

// Streams reset without an answer, one after another: a client that cancels a burst of
// calls stays below its concurrent streams.
constexpr uint32_t kResetsMax = 200;
constexpr size_t kIdleStreamsMax = 128;
constexpr size_t kHeaderBytesKept = 16 * 1024;
// What may be flushed ahead of the loop's own writing to find a GOAWAY.
constexpr size_t kFlushMax = 64 * 1024;
// How long an answer may stand without a byte of it leaving.
constexpr int64_t kUnsentMaxNs = 10'000'000'000;

}  // namespace

void StreamState::recycle() {
  std::vector<HeaderField> metadata = std::move(face.metadata);
  metadata.clear();
  face = Stream();
  face.metadata = std::move(metadata);
  header_bytes.clear();
  metadata_spans.clear();
  path = authority = {};
  list_size = list_count = metadata_size = 0;
  is_post = is_grpc = false;
  is_encoding_known = true;
  refusal = Refusal::none;
  reader.stop();
  progress_ns = stalled_from_ns = 0;
  stalled_size = 0;
  withheld = 0;
  outgoing.clear();
  trailer_bytes.clear();
  trailer_fields.clear();
  trailers = nullptr;
  trailer_count = 0;
  is_announced = has_failed = is_closed = was_reset_by_peer = was_reset_by_us = false;
  has_sent_end = is_deferred = is_above_low_water = false;
}

// --- nghttp2's callbacks -----------------------------------------------------------------

int GrpcConn::Impl::on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame,
                                     void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST || impl->is_dead) return 0;
  StreamState* state = impl->open_stream(frame->hd.stream_id);
  return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, state);
}

int GrpcConn::Impl::on_header(nghttp2_session*, const nghttp2_frame* frame,
                              const uint8_t* name, size_t name_size, const uint8_t* value,
                              size_t value_size, uint8_t, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;  // request trailers mean nothing
  StreamState* state = impl->stream_at(frame->hd.stream_id);
  if (state == nullptr || state->refusal != Refusal::none) return 0;
  impl->keep_header(state, h2_text(name, name_size), h2_text(value, value_size));
  return 0;
}

int GrpcConn::Impl::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->hd.type == NGHTTP2_GOAWAY) impl->is_going_away = true;
  if (frame->hd.stream_id == 0 || frame->hd.type == NGHTTP2_WINDOW_UPDATE) return 0;
  StreamState* state = impl->stream_at(frame->hd.stream_id);
  if (state == nullptr) return 0;
  const bool is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
      if (is_end) state->face.half_closed = true;
      if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) impl->end_headers(state);
      if (is_end) impl->end_request(state);
      break;
    case NGHTTP2_DATA:
      if (is_end) impl->end_request(state);
      break;
    case NGHTTP2_RST_STREAM:
      state->was_reset_by_peer = true;
      break;
    default:
      break;
  }
  return 0;
}

int GrpcConn::Impl::on_data(nghttp2_session*, uint8_t flags, int32_t id, const uint8_t* bytes,
                            size_t count, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  StreamState* state = impl->stream_at(id);
  const bool is_last = (flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (state != nullptr) {
    state->progress_ns = impl->now_ns;
    impl->read_body(state, h2_text(bytes, count));
  }
  impl->give_back(state, count, is_last);
  return 0;
}

int GrpcConn::Impl::on_close(nghttp2_session*, int32_t id, uint32_t http2_error,
                             void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  StreamState* state = impl->stream_at(id);
  if (state == nullptr) return 0;
  impl->count_reset(state, http2_error);
  impl->close_stream(state, !state->was_reset_by_us &&
                                (state->was_reset_by_peer || !state->has_sent_end));
  return 0;
}

int GrpcConn::Impl::on_sent(nghttp2_session* session, const nghttp2_frame* frame,
                            void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
    if (!impl->is_dead) ++impl->abuses[static_cast<size_t>(Abuse::protocol)];
    impl->is_dead = impl->is_going_away = true;
  }
  if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
  impl->guard.sent_useful();
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  StreamState* state = impl->stream_at(frame->hd.stream_id);
  if (state == nullptr) return 0;
  state->has_sent_end = true;
  // Plain HTTP clients take a reset for a failure even when the answer is complete: they
  // may send to the end, or until `expire_slow`.
  if (state->face.half_closed || !state->is_announced) return 0;
  // The answer is complete and the rest of the request is of no use: gRPC servers say so.
  state->was_reset_by_us = true;
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                   NGHTTP2_NO_ERROR);
}

const nghttp2_session_callbacks* GrpcConn::Impl::new_callbacks() {
  nghttp2_session_callbacks* made = nullptr;
  if (nghttp2_session_callbacks_new(&made) != 0) std::abort();
  nghttp2_session_callbacks_set_on_begin_headers_callback(made, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(made, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(made, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(made, on_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(made, on_sent);
  nghttp2_session_callbacks_set_send_data_callback(made, on_write_data);
  return made;
}

// --- streams -----------------------------------------------------------------------------

GrpcConn::Impl::Impl(GrpcConn* conn, const WireLimits& wire_limits, BodyBudget* body_budget)
    : owner(conn),
      limits(wire_limits),
      budget(body_budget),
      guard(wire_limits.control_frames_max, wire_limits.ping_strikes_max) {
  const nghttp2_session_callbacks* callbacks = new_callbacks();
  const SessionSettings settings = {limits.stream_window, limits.connection_window,
                                    limits.streams_max,
                                    limits.metadata_bytes_max + kReservedBytesMax};
  session = open_session(Role::server, callbacks, settings, this);
  nghttp2_session_callbacks_del(const_cast<nghttp2_session_callbacks*>(callbacks));
}

GrpcConn::Impl::~Impl() {
  nghttp2_session_del(session);
  for (StreamState* state : live) delete state;
  for (StreamState* state : idle) delete state;
}

StreamState* GrpcConn::Impl::stream_at(int32_t id) {
  if (current == nullptr || current->face.id != id || current->is_closed) {
    current = static_cast<StreamState*>(nghttp2_session_get_stream_user_data(session, id));
  }
  return current;
}

StreamState* GrpcConn::Impl::open_stream(int32_t id) {
  StreamState* state = nullptr;
  if (idle.empty()) {
    state = new StreamState;
  } else {
    state = idle.back();
    idle.pop_back();
  }
  state->face.id = id;
  state->face.connection = owner;
  state->slot = live.size();
  live.push_back(state);
  return current = state;
}

void GrpcConn::Impl::release(StreamState* state) {
  ROUTER_ASSERT(live[state->slot] == state);
  if (current == state) current = nullptr;
  live[state->slot] = live.back();
  live[state->slot]->slot = state->slot;
  live.pop_back();
  if (idle.size() >= kIdleStreamsMax || state->header_bytes.capacity() > kHeaderBytesKept) {
    delete state;
    return;
  }
  state->recycle();
  idle.push_back(state);
}

Event& GrpcConn::Impl::add_event(EventKind kind, StreamState* state) {
  Event& event = events->emplace_back();
  event.kind = kind;
  event.stream = &state->face;
  return event;
}

void GrpcConn::Impl::close_stream(StreamState* state, bool by_peer) {
  state->is_closed = true;
  state->reader.stop();
  state->withheld = 0;  // the connection's share is kept in Impl::withheld
  if (current == state) current = nullptr;
  if (state->is_announced) {
    add_event(EventKind::closed, state).by_peer = by_peer;
  } else {
    release(state);
  }
}

void GrpcConn::Impl::count_reset(StreamState* state, uint32_t http2_error) {
  if (state->was_reset_by_us || (state->has_sent_end && !state->was_reset_by_peer)) {
    resets = 0;
    return;
  }
  // Work that was begun and is thrown away. A peer gets there by RST_STREAM, or by making
  // us reset the stream: with a window that overflows, or a frame out of place.
  Abuse kind = Abuse::reset_flood;
  if (!state->was_reset_by_peer) {
    kind = http2_error == NGHTTP2_FLOW_CONTROL_ERROR ? Abuse::window_flood : Abuse::protocol;
    ++abuses[static_cast<size_t>(kind)];
  }
  if (!state->face.ended && ++resets > kResetsMax) punish(kind, "too_many_resets");
}

void GrpcConn::Impl::fail_stream(StreamState* state, Status&& status) {
  state->has_failed = true;
  state->reader.stop();
  add_event(EventKind::failed, state).status = std::move(status);
}

// --- windows, abuse ----------------------------------------------------------------------

void GrpcConn::Impl::give_back(StreamState* state, size_t count, bool is_last) {
  const bool keeps = state != nullptr && state->reader.is_partial() && budget != nullptr &&
                     budget->used.load(std::memory_order_relaxed) > limits.body_bytes_max;
  if (keeps && !is_last) {
    state->withheld += static_cast<uint32_t>(count);
    withheld += count;
    return;
  }
  // nghttp2 sends a WINDOW_UPDATE once half a window has been given back.
  if (!is_last && state != nullptr) {
    nghttp2_session_consume(session, state->face.id, count);
  } else {
    nghttp2_session_consume_connection(session, count);
  }
}

void GrpcConn::Impl::give_back_withheld() {
  if (withheld == 0 || budget->used.load(std::memory_order_relaxed) > limits.body_bytes_max) {
    return;
  }
  nghttp2_session_consume_connection(session, withheld);
  withheld = 0;
  for (StreamState* state : live) {
    if (state->withheld == 0) continue;
    nghttp2_session_consume_stream(session, state->face.id, state->withheld);
    state->withheld = 0;
  }
}

void GrpcConn::Impl::punish(Abuse kind, std::string_view reason) {
  ++abuses[static_cast<size_t>(kind)];
  if (is_dead) return;
  is_dead = is_going_away = true;
  nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session),
                        NGHTTP2_ENHANCE_YOUR_CALM,
                        reinterpret_cast<const uint8_t*>(reason.data()), reason.size());
}

void GrpcConn::Impl::flush_control() {
  target = {&early, kFlushMax};
  pump_session(session, target);
}

// --- the interface -----------------------------------------------------------------------

GrpcConn::GrpcConn(const WireLimits& limits, BodyBudget* budget)
    : impl_(std::make_unique<Impl>(this, limits, budget)) {}
GrpcConn::~GrpcConn() = default;

bool GrpcConn::receive(const uint8_t* bytes, size_t count, int64_t now_ns,
                       std::vector<Event>* events) {
  Impl& impl = *impl_;
  take_events(events);
  if (impl.is_dead) return false;
  impl.now_ns = now_ns;
  impl.events = events;
  const Abuse abuse = impl.guard.observe(bytes, count, now_ns);
  if (abuse != Abuse::count) {
    impl.punish(abuse, abuse == Abuse::ping_flood ? "too_many_pings" : abuse_name(abuse));
  } else if (nghttp2_session_mem_recv(impl.session, bytes, count) < 0 && !impl.is_dead) {
    impl.punish(Abuse::protocol, "protocol_error");
  }
  impl.give_back_withheld();
  // nghttp2 does not tell when it has given up the connection, only what it wants to send:
  // acknowledgements, windows, and a GOAWAY before any DATA.
  if (nghttp2_session_want_write(impl.session) != 0) impl.flush_control();
  impl.events = &impl.pending;
  return !impl.is_dead;
}

void GrpcConn::abandon(std::vector<Event>* events) {
  Impl& impl = *impl_;
  take_events(events);
  impl.is_dead = impl.is_going_away = impl.is_abandoned = true;
  impl.early.clear();
  impl.events = events;
  const std::vector<StreamState*> all = impl.live;  // closing may release
  for (StreamState* state : all) {
    if (!state->is_closed) impl.close_stream(state, true);
  }
  impl.events = &impl.pending;
}

bool GrpcConn::has_events() const { return !impl_->pending.empty(); }

void GrpcConn::take_events(std::vector<Event>* events) {
  std::vector<Event>& pending = impl_->pending;
  if (pending.empty()) return;
  events->insert(events->end(), std::make_move_iterator(pending.begin()),
                 std::make_move_iterator(pending.end()));
  pending.clear();
}

void GrpcConn::forget(Stream* stream) {
  ROUTER_ASSERT(state_of(stream)->is_closed);
  impl_->release(state_of(stream));
}

void GrpcConn::output(Buffer* out, size_t high_water) {
  Impl& impl = *impl_;
  if (impl.is_abandoned) return;  // nghttp2 still knows streams that are forgotten here
  if (!impl.early.empty()) {
    out->append(impl.early.view());
    impl.early.clear();
  }
  impl.give_back_withheld();
  impl.target = {out, high_water};
  pump_session(impl.session, impl.target);
}

bool GrpcConn::wants_write() const {
  return !impl_->is_abandoned &&
         (!impl_->early.empty() || nghttp2_session_want_write(impl_->session) != 0);
}

void GrpcConn::announce_shutdown() {
  if (!impl_->is_dead) nghttp2_submit_shutdown_notice(impl_->session);
}

void GrpcConn::close_to_new_streams() {
  Impl& impl = *impl_;
  if (impl.is_dead) return;
  impl.is_going_away = true;
  nghttp2_submit_goaway(impl.session, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(impl.session),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  // At once: a stream accepted after this would be above the id the client is told.
  impl.flush_control();
}

// An answer the peer gives no window for would be held for as long as it likes.
void GrpcConn::Impl::expire_unsent(StreamState* state, int64_t now_ns) {
  const size_t unsent = state->outgoing.pending();
  if (unsent != state->stalled_size) {
    state->stalled_size = unsent;
    state->stalled_from_ns = now_ns;
  } else if (unsent != 0 && now_ns - state->stalled_from_ns > kUnsentMaxNs) {
    state->stalled_size = 0;
    ++abuses[static_cast<size_t>(Abuse::slow_message)];
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, state->face.id, NGHTTP2_CANCEL);
  }
}

void GrpcConn::expire_slow(int64_t before_ns, std::vector<Event>* events) {
  Impl& impl = *impl_;
  take_events(events);
  impl.events = events;
  impl.give_back_withheld();
  for (StreamState* state : impl.live) {
    if (state->is_closed) continue;
    impl.expire_unsent(state, before_ns);
    if (state->progress_ns >= before_ns) continue;
    if (!state->is_announced && state->has_sent_end) impl.owner->reset(&state->face, 0);
    if (!state->reader.is_partial()) continue;
    if (state->withheld != 0) {  // the silence is our doing
      impl.fail_stream(state, fail(Situation::overload, "too many request bytes in flight"));
      continue;
    }
    ++impl.abuses[static_cast<size_t>(Abuse::slow_message)];
    impl.fail_stream(state, fail(Situation::deadline, "the message stopped arriving"));
  }
  impl.events = &impl.pending;
}

size_t GrpcConn::stream_count() const { return impl_->live.size(); }

bool GrpcConn::is_closing() const { return impl_->is_going_away && impl_->live.empty(); }

uint64_t GrpcConn::abuse_count(Abuse kind) const {
  return impl_->abuses[static_cast<size_t>(kind)];
}

}  // namespace router
