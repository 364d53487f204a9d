// The way into a GrpcConn: request headers and messages.
#include <utility>

#include "wire/grpc_state.h"

namespace router {
namespace {

constexpr uint32_t kFieldOverhead = 32;  // RFC 9113, section 6.5.2

bool starts_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

HeaderSpan store(StreamState* state, std::string_view name, std::string_view value) {
  const HeaderSpan span = {static_cast<uint32_t>(state->header_bytes.size()),
                           static_cast<uint32_t>(name.size()),
                           static_cast<uint32_t>(value.size())};
  state->header_bytes.append(name);
  state->header_bytes.append(value);
  return span;
}

}  // namespace

// Takes what HTTP/2 and gRPC say about a call; false for custom metadata. Of a duplicate
// the first counts, as nghttp2 lets no pseudo header come twice.
bool GrpcConn::Impl::read_reserved(StreamState* state, std::string_view name,
                                   std::string_view value) {
  switch (name.size()) {
    case 2: return name == "te";
    case 4:
      if (name != "host") return false;
      if (state->authority.value_size == 0) state->authority = store(state, {}, value);
      return true;
    case 5:
      if (name == ":path") state->path = store(state, {}, value);
      break;
    case 7:
      if (name == ":method") state->is_post = value == "POST";
      break;
    case 10:
      if (name == "user-agent") return true;
      if (name == ":authority") state->authority = store(state, {}, value);
      break;
    case 12:
      if (name == "content-type") {
        state->is_grpc = state->is_grpc || is_grpc_content_type(value);
        return true;
      }
      if (name == "grpc-timeout" && state->face.timeout_ns < 0) {
        state->face.timeout_ns = parse_grpc_timeout(value);
      }
      break;
    case 13:
      if (name == "grpc-encoding") {
        state->is_encoding_known = parse_encoding(value, &state->face.encoding);
      }
      break;
    case 14: return name == "content-length";
    default: break;
  }
  return name[0] == ':' || starts_with(name, "grpc-");
}

void GrpcConn::Impl::keep_header(StreamState* state, std::string_view name,
                                 std::string_view value) {
  const auto size = static_cast<uint32_t>(name.size() + value.size() + kFieldOverhead);
  state->list_size += size;
  if (state->list_size > limits.metadata_bytes_max + kReservedBytesMax) {
    state->refusal = Refusal::header_size;
  } else if (++state->list_count > limits.metadata_fields_max + kReservedFieldsMax) {
    state->refusal = Refusal::header_count;
  } else if (!read_reserved(state, name, value)) {
    state->metadata_size += size;
    if (state->metadata_size > limits.metadata_bytes_max) {
      state->refusal = Refusal::header_size;
    } else if (state->metadata_spans.size() >= limits.metadata_fields_max) {
      state->refusal = Refusal::header_count;
    } else {
      state->metadata_spans.push_back(store(state, name, value));
    }
  }
}

void GrpcConn::Impl::end_headers(StreamState* state) {
  state->progress_ns = now_ns;
  if (state->refusal == Refusal::none && !state->is_post) state->refusal = Refusal::method;
  if (state->refusal == Refusal::none && !state->is_grpc) {
    state->refusal = Refusal::content_type;
  }
  if (state->refusal != Refusal::none) {
    refuse(state);
    return;
  }
  Stream& face = state->face;
  const std::string_view bytes = state->header_bytes.view();
  face.path = bytes.substr(state->path.at, state->path.value_size);
  face.authority = bytes.substr(state->authority.at, state->authority.value_size);
  for (const HeaderSpan& span : state->metadata_spans) {
    face.metadata.push_back({bytes.substr(span.at, span.name_size),
                             bytes.substr(span.at + span.name_size, span.value_size)});
  }
  state->is_announced = true;
  add_event(EventKind::opened, state);
  if (!state->is_encoding_known) {
    fail_stream(state, fail(Situation::bad_encoding,
                            "grpc-encoding is not one of identity, gzip, deflate"));
    return;
  }
  state->reader.start(face.encoding, limits.message_in_max,
                      budget == nullptr ? nullptr : &budget->used);
}

void GrpcConn::Impl::read_body(StreamState* state, ByteView input) {
  if (!state->is_announced || state->has_failed) return;  // discarded
  // The window that is out already may bring an eighth more than the budget; beyond that
  // the request is given up.
  if (budget != nullptr && budget->used.load(std::memory_order_relaxed) >
                               limits.body_bytes_max + limits.body_bytes_max / 8) {
    fail_stream(state, fail(Situation::overload, "too many request bytes in flight"));
    return;
  }
  while (!input.empty()) {
    BodyRef message;
    Status status = state->reader.take(&input, &message);
    if (!status.ok()) {
      fail_stream(state, std::move(status));
      return;
    }
    if (message) add_event(EventKind::message, state).body = std::move(message);
  }
}

void GrpcConn::Impl::end_request(StreamState* state) {
  state->face.half_closed = true;
  if (!state->is_announced || state->has_failed) return;
  if (state->reader.is_partial()) {
    fail_stream(state, fail(Situation::bad_framing, "request ended inside a message"));
    return;
  }
  add_event(EventKind::half_closed, state);
}

}  // namespace router
