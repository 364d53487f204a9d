// The way out of a GrpcConn: response headers, messages, trailers.
#include <utility>

#include "wire/grpc_state.h"

namespace router {
namespace {

// A stream whose unframed bytes fall below this may send on.
constexpr size_t kLowWater = 64 * 1024;
// Longer messages are cut: clients limit a header list to 8 KiB and more.
constexpr size_t kMessageMax = 1024;

nghttp2_nv fixed(std::string_view name, std::string_view value) {
  return h2_field(name, value, kNotCopied);
}

std::string_view code_digits(Code code) {
  constexpr std::string_view kDigits[kCodeCount] = {"0", "1", "2",  "3",  "4",  "5",
                                                    "6", "7", "8",  "9",  "10", "11",
                                                    "12", "13", "14", "15", "16"};
  return kDigits[static_cast<unsigned>(code)];
}

const nghttp2_nv kHeaders[] = {fixed(":status", "200"),
                               fixed("content-type", "application/grpc")};
const nghttp2_nv kTrailersOk[] = {fixed("grpc-status", "0")};
const nghttp2_nv kWrongMethod[] = {fixed(":status", "405"), fixed("allow", "POST")};
const nghttp2_nv kWrongContentType[] = {fixed(":status", "415")};

// Cut before a UTF-8 sequence, not inside one.
std::string_view cut_message(std::string_view message) {
  if (message.size() <= kMessageMax) return message;
  size_t size = kMessageMax;
  while (size > 0 && (static_cast<uint8_t>(message[size]) & 0xc0) == 0x80) --size;
  return message.substr(0, size);
}

}  // namespace

ssize_t GrpcConn::Impl::on_read(nghttp2_session* session, int32_t id, uint8_t*,
                                size_t size_max, uint32_t* flags, nghttp2_data_source* source,
                                void*) {
  auto* state = static_cast<StreamState*>(source->ptr);
  const size_t pending = state->outgoing.pending();
  if (pending == 0 && !state->face.ended) {
    state->is_deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  const size_t count = pending < size_max ? pending : size_max;
  if (count != 0) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (count == pending && state->face.ended) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, id, state->trailers, state->trailer_count);
  }
  return static_cast<ssize_t>(count);
}

int GrpcConn::Impl::on_write_data(nghttp2_session*, nghttp2_frame*, const uint8_t* header,
                                  size_t count, nghttp2_data_source* source, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  auto* state = static_cast<StreamState*>(source->ptr);
  const int result = state->outgoing.frame_to(impl->target, header, count);
  if (result != 0) return result;
  state->face.sent_pending = state->outgoing.pending();
  if (state->is_above_low_water && state->face.sent_pending < kLowWater) {
    state->is_above_low_water = false;
    if (!state->face.ended) impl->add_event(EventKind::drained, state);
  }
  return 0;
}

void GrpcConn::Impl::submit_headers(StreamState* state) {
  nghttp2_data_provider provider = {};
  provider.source.ptr = state;
  provider.read_callback = on_read;
  state->face.answered = true;
  nghttp2_submit_response(session, state->face.id, kHeaders, 2, &provider);
}

void GrpcConn::Impl::resume(StreamState* state) {
  if (!state->is_deferred) return;
  state->is_deferred = false;
  nghttp2_session_resume_data(session, state->face.id);
}

// The fields stay valid until the stream is recycled: names are literals or copies, and
// the bytes they view were reserved before the first was taken.
void GrpcConn::Impl::build_trailers(StreamState* state, const Trailers& trailers) {
  if (trailers.code == Code::ok && trailers.extra_count == 0) {
    state->trailers = kTrailersOk;
    state->trailer_count = 1;
    return;
  }
  const std::string_view message = cut_message(trailers.message);
  size_t size = message.size() * 3 + 16;
  for (size_t i = 0; i < trailers.extra_count; ++i) {
    size += trailers.extra[i].name.size() + trailers.extra[i].value.size();
  }
  Buffer& bytes = state->trailer_bytes;
  bytes.clear();
  bytes.reserve_more(size);
  const auto kept_from = [&bytes](size_t at) { return bytes.view().substr(at); };
  const auto keep = [&](std::string_view text) {
    const size_t at = bytes.size();
    bytes.append(text);
    return kept_from(at);
  };
  std::vector<nghttp2_nv>& fields = state->trailer_fields;
  fields.clear();
  fields.push_back(fixed("grpc-status", code_digits(trailers.code)));
  if (trailers.code != Code::ok && !message.empty()) {
    const size_t at = bytes.size();
    append_percent_encoded(&bytes, message);
    fields.push_back(h2_field("grpc-message", kept_from(at), kNotIndexed));
  }
  if (trailers.code != Code::ok && trailers.pushback_ms != kNoPushback) {
    fields.push_back(h2_field("grpc-retry-pushback-ms",
                              keep(std::to_string(trailers.pushback_ms)), kNotIndexed));
  }
  for (size_t i = 0; i < trailers.extra_count; ++i) {
    const std::string_view name = keep(trailers.extra[i].name);
    fields.push_back(h2_field(name, keep(trailers.extra[i].value), kNotIndexed));
  }
  state->trailers = fields.data();
  state->trailer_count = fields.size();
}

void GrpcConn::Impl::submit_trailers_only(StreamState* state) {
  std::vector<nghttp2_nv> fields(std::begin(kHeaders), std::end(kHeaders));
  if (!state->is_encoding_known) {
    fields.push_back(fixed("grpc-accept-encoding", "identity,gzip,deflate"));
  }
  fields.insert(fields.end(), state->trailers, state->trailers + state->trailer_count);
  state->face.answered = true;
  nghttp2_submit_response(session, state->face.id, fields.data(), fields.size(), nullptr);
}

void GrpcConn::Impl::refuse(StreamState* state) {
  state->face.answered = state->face.ended = true;
  const int32_t id = state->face.id;
  switch (state->refusal) {
    case Refusal::method:
      nghttp2_submit_response(session, id, kWrongMethod, 2, nullptr);
      return;
    case Refusal::content_type:
      nghttp2_submit_response(session, id, kWrongContentType, 1, nullptr);
      return;
    default:
      break;
  }
  const bool is_size = state->refusal == Refusal::header_size;
  ++abuses[static_cast<size_t>(is_size ? Abuse::header_size : Abuse::header_count)];
  const std::string message =
      is_size ? "metadata is larger than " + std::to_string(limits.metadata_bytes_max) +
                    " bytes"
              : "metadata has more than " + std::to_string(limits.metadata_fields_max) +
                    " fields";
  const Advice& advice = advice_for(Situation::message_too_large);
  build_trailers(state, {advice.code, message, advice.pushback_ms, nullptr, 0});
  submit_trailers_only(state);
}

void GrpcConn::respond(Stream* stream, Buffer&& frame, const Trailers& trailers) {
  StreamState* state = state_of(stream);
  ROUTER_ASSERT(!stream->ended);
  if (state->is_closed) return;
  impl_->build_trailers(state, trailers);
  state->outgoing.put(std::move(frame));
  stream->sent_pending = state->outgoing.pending();
  stream->ended = true;
  if (stream->answered) {
    impl_->resume(state);
  } else {
    impl_->submit_headers(state);
  }
}

void GrpcConn::finish(Stream* stream, const Trailers& trailers) {
  StreamState* state = state_of(stream);
  ROUTER_ASSERT(!stream->ended);
  if (state->is_closed) return;
  impl_->build_trailers(state, trailers);
  stream->ended = true;
  if (stream->answered) {
    impl_->resume(state);
  } else {
    impl_->submit_trailers_only(state);
  }
}

void GrpcConn::send_message(Stream* stream, Buffer&& frame) {
  StreamState* state = state_of(stream);
  ROUTER_ASSERT(!stream->ended);
  if (state->is_closed) return;
  state->outgoing.put(std::move(frame));
  stream->sent_pending = state->outgoing.pending();
  if (stream->sent_pending >= kLowWater) state->is_above_low_water = true;
  if (stream->answered) {
    impl_->resume(state);
  } else {
    impl_->submit_headers(state);
  }
}

void GrpcConn::reset(Stream* stream, uint32_t http2_error) {
  StreamState* state = state_of(stream);
  if (state->is_closed) return;
  state->was_reset_by_us = true;
  nghttp2_submit_rst_stream(impl_->session, NGHTTP2_FLAG_NONE, stream->id, http2_error);
}

}  // namespace router
