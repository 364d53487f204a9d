#include "wire/client_conn.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace router {
namespace {

constexpr size_t kIdleCallsMax = 1024;

struct OpenCall {
  int32_t id = 0;
  size_t slot = 0;
  Outgoing outgoing;
  MessageReader reader;
  uint32_t list_size = 0;
  int http_status = 0;
  bool is_grpc = false, has_failed = false;
  bool is_cancelled = false;  // its reply was given; nghttp2 has yet to let go of it
  Reply reply;
};

// gRPC's mapping of HTTP statuses, for answers that carry no grpc-status.
Code code_of_http(int status) {
  switch (status) {
    case 400: return Code::internal;
    case 401: return Code::unauthenticated;
    case 403: return Code::permission_denied;
    case 404: return Code::unimplemented;
    case 429: case 502: case 503: case 504: return Code::unavailable;
    default: return Code::unknown;
  }
}

Code code_of_reset(uint32_t http2_error) {
  switch (http2_error) {
    case NGHTTP2_REFUSED_STREAM: return Code::unavailable;
    case NGHTTP2_CANCEL: return Code::cancelled;
    case NGHTTP2_ENHANCE_YOUR_CALM: return Code::resource_exhausted;
    case NGHTTP2_INADEQUATE_SECURITY: return Code::permission_denied;
    default: return Code::internal;
  }
}

template <typename Number>
bool parse_number(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

CallHeaders::CallHeaders(std::string authority, std::string path, bool is_tls,
                         std::string_view accepted)
    : authority_(std::move(authority)), path_(std::move(path)) {
  const auto add = [this](std::string_view name, std::string_view value) {
    fields_.push_back(h2_field(name, value, kNotCopied));
  };
  add(":method", "POST");
  add(":scheme", is_tls ? "https" : "http");
  add(":path", path_);
  add(":authority", authority_);
  add("content-type", "application/grpc");
  add("te", "trailers");
  add("grpc-accept-encoding", accepted);
}

struct ClientConn::Impl {
  explicit Impl(const ClientLimits& client_limits);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t,
                       const uint8_t*, size_t, uint8_t, void*);
  static int on_frame(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int on_close(nghttp2_session*, int32_t, uint32_t, void*);
  static int on_not_sent(nghttp2_session*, const nghttp2_frame*, int, void*);
  static ssize_t on_read(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*,
                         nghttp2_data_source*, void*);
  static int on_write_data(nghttp2_session*, nghttp2_frame*, const uint8_t*, size_t,
                           nghttp2_data_source*, void*);

  OpenCall* call_at(int32_t id) {
    return static_cast<OpenCall*>(nghttp2_session_get_stream_user_data(session, id));
  }
  OpenCall* new_call();
  void end_call(OpenCall* call);
  void read_header(OpenCall* call, std::string_view name, std::string_view value);
  void read_body(OpenCall* call, ByteView input);
  void fail_call(OpenCall* call, Code code, std::string message);

  const ClientLimits limits;
  nghttp2_session* session = nullptr;
  std::vector<OpenCall*> live, idle;  // owned
  std::vector<Reply> pending;
  std::vector<Reply>* replies = &pending;
  std::vector<nghttp2_nv> fields;     // of the call being started
  Target target;
  size_t cancelled_count = 0;         // of `live`
  unsigned pings = 0;                 // since the server last answered a call
  bool awaits_pong = false;
  bool is_accepting = true;
  bool is_dead = false;
};

ClientConn::Impl::Impl(const ClientLimits& client_limits) : limits(client_limits) {
  nghttp2_session_callbacks* callbacks = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) std::abort();
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_not_sent);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, on_write_data);
  session = open_session(
      Role::client, callbacks,
      {limits.stream_window, limits.connection_window, 0, limits.header_list_max}, this);
  nghttp2_session_callbacks_del(callbacks);
}

ClientConn::Impl::~Impl() {
  nghttp2_session_del(session);
  for (OpenCall* call : live) delete call;
  for (OpenCall* call : idle) delete call;
}

OpenCall* ClientConn::Impl::new_call() {
  OpenCall* call = nullptr;
  if (idle.empty()) {
    call = new OpenCall;
  } else {
    call = idle.back();
    idle.pop_back();
  }
  call->slot = live.size();
  live.push_back(call);
  call->reader.start(Encoding::identity, limits.message_in_max, limits.budget);
  return call;
}

void ClientConn::Impl::end_call(OpenCall* call) {
  if (!call->is_cancelled) replies->push_back(std::move(call->reply));
  cancelled_count -= call->is_cancelled;
  live[call->slot] = live.back();
  live[call->slot]->slot = call->slot;
  live.pop_back();
  if (idle.size() >= kIdleCallsMax) {
    delete call;
    return;
  }
  call->outgoing.clear();
  call->reader.stop();
  call->list_size = 0;
  call->http_status = 0;
  call->is_grpc = call->has_failed = call->is_cancelled = false;
  call->reply = Reply();
  idle.push_back(call);
}

void ClientConn::Impl::fail_call(OpenCall* call, Code code, std::string message) {
  call->has_failed = call->reply.is_malformed = true;
  call->reader.stop();
  call->reply.body = BodyRef();
  call->reply.code = code;
  call->reply.message = std::move(message);
  nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
}

void ClientConn::Impl::read_header(OpenCall* call, std::string_view name,
                                   std::string_view value) {
  call->list_size += static_cast<uint32_t>(name.size() + value.size() + 32);
  if (call->list_size > limits.header_list_max) {
    fail_call(call, Code::internal, "the answer's headers are too large");
  } else if (name == ":status") {
    parse_number(value, &call->http_status);
  } else if (name == "content-type") {
    call->is_grpc = is_grpc_content_type(value);
  } else if (name == "grpc-encoding") {
    Encoding encoding = Encoding::identity;
    if (!parse_encoding(value, &encoding)) {
      fail_call(call, Code::internal, "the answer's grpc-encoding is unknown");
    } else if (limits.is_identity_only && encoding != Encoding::identity) {
      fail_call(call, Code::internal, "the answer is compressed, which was not asked for");
    } else if (!call->reader.is_partial()) {
      call->reader.start(encoding, limits.message_in_max, limits.budget);
    }
  } else if (name == "grpc-status") {
    unsigned code = 0;
    const bool is_known = parse_number(value, &code) && code < kCodeCount;
    call->reply.code = is_known ? static_cast<Code>(code) : Code::unknown;
    call->reply.has_trailers = true;
  } else if (name == "grpc-message") {
    Buffer decoded;
    append_percent_decoded(&decoded, value);
    call->reply.message = decoded.view();
  } else if (name == "grpc-retry-pushback-ms") {
    // What is not a number means "never", as the retry design says.
    if (!parse_number(value, &call->reply.pushback_ms)) call->reply.pushback_ms = -1;
  }
}

void ClientConn::Impl::read_body(OpenCall* call, ByteView input) {
  if (limits.budget != nullptr &&
      limits.budget->load(std::memory_order_relaxed) > limits.budget_max) {
    fail_call(call, Code::resource_exhausted, "no memory is left for answers");
    call->reply.is_malformed = false;  // our fault
    return;
  }
  while (!input.empty() && !call->has_failed) {
    BodyRef message;
    Status status = call->reader.take(&input, &message);
    if (!status.ok()) {
      fail_call(call, status.code(), std::move(status.message));
    } else if (message && call->reply.body) {
      fail_call(call, Code::internal, "more than one message in a unary answer");
    } else if (message) {
      call->reply.body = std::move(message);
    }
  }
}

int ClientConn::Impl::on_header(nghttp2_session*, const nghttp2_frame* frame,
                                const uint8_t* name, size_t name_size, const uint8_t* value,
                                size_t value_size, uint8_t, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  OpenCall* call = impl->call_at(frame->hd.stream_id);
  if (call != nullptr && !call->has_failed) {
    impl->read_header(call, h2_text(name, name_size), h2_text(value, value_size));
  }
  return 0;
}

int ClientConn::Impl::on_frame(nghttp2_session*, const nghttp2_frame* frame,
                               void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) impl->pings = 0;
  if (frame->hd.type == NGHTTP2_PING) impl->awaits_pong = false;  // ours or theirs: it lives
  if (frame->hd.type == NGHTTP2_GOAWAY) impl->is_accepting = false;
  return 0;
}

int ClientConn::Impl::on_data(nghttp2_session* session, uint8_t, int32_t id,
                              const uint8_t* bytes, size_t count, void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  OpenCall* call = impl->call_at(id);
  if (call != nullptr && call->is_grpc && !call->has_failed) {
    impl->read_body(call, h2_text(bytes, count));
  }
  nghttp2_session_consume(session, id, count);
  return 0;
}

int ClientConn::Impl::on_close(nghttp2_session*, int32_t id, uint32_t http2_error,
                               void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  OpenCall* call = impl->call_at(id);
  if (call == nullptr) return 0;
  Reply& reply = call->reply;
  if (!call->has_failed && !reply.has_trailers) {
    const bool is_http = http2_error == NGHTTP2_NO_ERROR && call->http_status != 0;
    reply.code = is_http ? code_of_http(call->http_status) : code_of_reset(http2_error);
    reply.message = is_http ? "HTTP status " + std::to_string(call->http_status)
                            : nghttp2_http2_strerror(http2_error);
    reply.is_unprocessed |= http2_error == NGHTTP2_REFUSED_STREAM;
    if (reply.is_unprocessed && reply.code == Code::internal) reply.code = Code::unavailable;
  } else if (reply.code == Code::ok && (!reply.body || call->reader.is_partial())) {
    reply.code = Code::internal;
    reply.message = "the answer has no complete message";
  }
  impl->end_call(call);
  return 0;
}

// A call that waited for a free stream when the server's GOAWAY came, or was cancelled.
int ClientConn::Impl::on_not_sent(nghttp2_session*, const nghttp2_frame* frame, int,
                                  void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (OpenCall* call = impl->call_at(frame->hd.stream_id)) call->reply.is_unprocessed = true;
  return 0;
}

ssize_t ClientConn::Impl::on_read(nghttp2_session*, int32_t, uint8_t*, size_t size_max,
                                  uint32_t* flags, nghttp2_data_source* source, void*) {
  auto* call = static_cast<OpenCall*>(source->ptr);
  const size_t count = std::min(call->outgoing.pending(), size_max);
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (count == call->outgoing.pending()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}

int ClientConn::Impl::on_write_data(nghttp2_session*, nghttp2_frame*, const uint8_t* header,
                                    size_t count, nghttp2_data_source* source,
                                    void* user_data) {
  auto* impl = static_cast<Impl*>(user_data);
  return static_cast<OpenCall*>(source->ptr)->outgoing.frame_to(impl->target, header, count);
}

ClientConn::ClientConn(const ClientLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
ClientConn::~ClientConn() = default;

int32_t ClientConn::start(const CallHeaders& headers, const CallField* extra,
                          size_t extra_count, Buffer&& frame, void* call) {
  Impl& impl = *impl_;
  if (!impl.is_accepting || impl.is_dead) return -1;
  impl.fields = headers.fields();
  for (size_t i = 0; i < extra_count; ++i) {
    impl.fields.push_back(
        h2_field(extra[i].name, extra[i].value, NGHTTP2_NV_FLAG_NO_INDEX));
  }
  OpenCall* opened = impl.new_call();
  opened->outgoing.put(std::move(frame));
  opened->reply.call = call;
  nghttp2_data_provider provider = {};
  provider.source.ptr = opened;
  provider.read_callback = Impl::on_read;
  opened->id = nghttp2_submit_request(impl.session, nullptr, impl.fields.data(),
                                      impl.fields.size(), &provider, opened);
  if (opened->id > 0) return opened->id;
  // The stream ids have run out: this connection has served two thousand million calls.
  impl.is_accepting = false;
  std::vector<Reply> unsent;
  std::swap(impl.pending, unsent);
  impl.end_call(opened);
  std::swap(impl.pending, unsent);
  return -1;
}

void ClientConn::cancel(int32_t id) {
  // Looked for here, not in nghttp2, which does not know calls that wait for a free stream,
  // and which drops those only when their turn comes: the reply is given now.
  for (OpenCall* call : impl_->live) {
    if (call->id != id || call->is_cancelled) continue;
    call->reply.code = Code::cancelled;
    call->reply.body = BodyRef();
    impl_->pending.push_back(std::move(call->reply));
    call->is_cancelled = call->has_failed = true;
    ++impl_->cancelled_count;
    nghttp2_submit_rst_stream(impl_->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    return;
  }
}

bool ClientConn::receive(const uint8_t* bytes, size_t count, std::vector<Reply>* replies) {
  Impl& impl = *impl_;
  take_replies(replies);
  if (impl.is_dead) return false;
  impl.replies = replies;
  if (nghttp2_session_mem_recv(impl.session, bytes, count) < 0) {
    impl.is_dead = true;
    nghttp2_session_terminate_session(impl.session, NGHTTP2_PROTOCOL_ERROR);
  }
  impl.replies = &impl.pending;
  return !impl.is_dead && (nghttp2_session_want_read(impl.session) != 0 ||
                           nghttp2_session_want_write(impl.session) != 0);
}

void ClientConn::abandon(std::vector<Reply>* replies) {
  Impl& impl = *impl_;
  take_replies(replies);
  impl.is_dead = true;
  impl.replies = replies;
  while (!impl.live.empty()) {
    OpenCall* call = impl.live.back();
    call->reply.code = Code::unavailable;
    call->reply.message = "the connection was lost";
    call->reply.has_trailers = false;
    impl.end_call(call);
  }
  impl.replies = &impl.pending;
}

void ClientConn::take_replies(std::vector<Reply>* replies) {
  std::vector<Reply>& pending = impl_->pending;
  std::move(pending.begin(), pending.end(), std::back_inserter(*replies));
  pending.clear();
}

void ClientConn::output(Buffer* out, size_t high_water) {
  if (impl_->is_dead && impl_->live.empty()) return;
  impl_->target = {out, high_water};
  pump_session(impl_->session, impl_->target);
}

void ClientConn::ping() {
  ++impl_->pings;
  impl_->awaits_pong = true;
  nghttp2_submit_ping(impl_->session, NGHTTP2_FLAG_NONE, nullptr);
}

bool ClientConn::awaits_pong() const { return impl_->awaits_pong; }
unsigned ClientConn::pings() const { return impl_->pings; }

bool ClientConn::wants_write() const {
  return nghttp2_session_want_write(impl_->session) != 0;
}

size_t ClientConn::open_count() const {
  return impl_->live.size() - impl_->cancelled_count;
}

uint32_t ClientConn::streams_max() const {
  return nghttp2_session_get_remote_settings(impl_->session,
                                             NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool ClientConn::is_accepting() const { return impl_->is_accepting && !impl_->is_dead; }

}  // namespace router
