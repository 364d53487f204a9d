// What streams do: opening an exchange, its messages, its end, and the replies of methods
// that Python serves. Inference continues in turn.cc.
#include <algorithm>

#include "engine.h"
#include "serve/loop.h"

namespace router {
namespace {

constexpr std::string_view kInferPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr uint64_t kUnreadMax = 16 * 1024 * 1024;  // bytes of answers a stream may leave
constexpr std::string_view kStreamInferPath = "/inference.GRPCInferenceService/ModelStreamInfer";

// Who the peer is, according to its certificate: only we may say so.
void put_identity(const Connection& connection, std::vector<HeaderField>* metadata) {
  metadata->erase(std::remove_if(metadata->begin(), metadata->end(),
                                 [](const HeaderField& field) {
                                   return field.name == kIdentityName;
                                 }),
                  metadata->end());
  if (connection.tls == nullptr || connection.tls->identity().empty()) return;
  metadata->push_back({kIdentityName, connection.tls->identity()});
}

}  // namespace

void Loop::on_event(Connection* connection, Event* event) {
  auto* exchange = static_cast<Exchange*>(event->stream->call);
  switch (event->kind) {
    case EventKind::opened: return open_exchange(connection, event->stream);
    case EventKind::message:
      if (exchange != nullptr) on_message(exchange, std::move(event->body));
      return;
    case EventKind::half_closed:
      if (exchange != nullptr) on_half_closed(exchange);
      return;
    case EventKind::failed:
      if (exchange != nullptr) finish_exchange(exchange, event->status);
      return;
    case EventKind::closed:
      if (exchange != nullptr) on_closed(exchange, event->by_peer);
      connection->grpc.forget(event->stream);
      return;
    case EventKind::drained: return;
  }
}

void Loop::open_exchange(Connection* connection, Stream* stream) {
  Exchange* exchange = make_exchange();
  exchange->connection = connection;
  exchange->stream = stream;
  exchange->timeout_ns = stream->timeout_ns;
  stream->call = exchange;
  put_identity(*connection, &stream->metadata);
  const bool is_data = connection->listener == ENGINE_DATA;
  if (is_data && stream->path == kInferPath) {
    exchange->kind = ExchangeKind::infer;
    return;
  }
  if (is_data && stream->path == kStreamInferPath) {
    exchange->kind = ExchangeKind::stream_infer;
    for (const HeaderField& field : stream->metadata) {
      if (field.name == "triton_grpc_error" && field.value == "true") {
        exchange->wants_status = true;
      }
    }
    return;
  }
  const int method = core_->methods.find(stream->path, connection->listener);
  if (method < 0) {
    finish_exchange(exchange, fail(Situation::unknown_method,
                                   "unknown method " + quoted(stream->path)));
    return;
  }
  exchange->kind = ExchangeKind::method;
  exchange->method = static_cast<uint32_t>(method);
  exchange->id = (uint64_t{index_} << 48) | next_exchange_++;
  method_exchanges_[exchange->id] = exchange;
}

void Loop::on_message(Exchange* exchange, BodyRef body) {
  if (exchange->is_finished) return;
  if (exchange->kind == ExchangeKind::stream_infer) {
    // Answers nobody reads must not pile up: a stream that asks on without reading ends.
    if (exchange->stream->sent_pending > kUnreadMax) {
      return finish_exchange(exchange, fail(Situation::overload,
                                            "the answers of this stream are not read"));
    }
    return begin_call(exchange, std::move(body));
  }
  if (exchange->kind == ExchangeKind::method &&
      core_->methods.info(exchange->method).is_streaming) {
    return on_method_message(exchange, std::move(body));
  }
  if (exchange->body) {
    return finish_exchange(exchange, fail(Situation::bad_framing,
                                          "a unary call carried more than one message"));
  }
  exchange->body = std::move(body);
}

void Loop::on_half_closed(Exchange* exchange) {
  exchange->is_half_closed = true;
  if (exchange->is_finished) return;
  switch (exchange->kind) {
    case ExchangeKind::refused: return;
    case ExchangeKind::stream_infer:
      if (exchange->calls.empty()) finish_exchange(exchange, Status{});
      return;
    case ExchangeKind::method:
      if (core_->methods.info(exchange->method).is_streaming) {
        core_->methods.push({exchange->id, exchange->method, ENGINE_EVENT_END, {}, {}});
        return;
      }
      break;
    case ExchangeKind::infer: break;
  }
  if (!exchange->body) {
    return finish_exchange(exchange, fail(Situation::bad_framing,
                                          "a unary call ended without a message"));
  }
  BodyRef body = std::move(exchange->body);
  if (exchange->kind == ExchangeKind::infer) return begin_call(exchange, std::move(body));
  on_method_message(exchange, std::move(body));
}

void Loop::on_closed(Exchange* exchange, bool by_peer) {
  exchange->stream = nullptr;
  if (exchange->kind == ExchangeKind::method) {
    method_exchanges_.erase(exchange->id);
    if (!exchange->is_finished && by_peer) {
      core_->methods.push({exchange->id, exchange->method, ENGINE_EVENT_CANCELLED, {}, {}});
      method_codes_[exchange->method][static_cast<unsigned>(Code::cancelled)].add(1);
    }
  }
  exchange->is_finished = true;
  exchange->body = BodyRef();
  if (exchange->calls.empty()) return release_exchange(exchange);
  // The last call to be released releases the exchange.
  const std::vector<Call*> calls = exchange->calls;
  for (Call* call : calls) cancel_call(call);
}

void Loop::on_method_message(Exchange* exchange, BodyRef body) {
  MethodEvent event{exchange->id, exchange->method, ENGINE_EVENT_MESSAGE, {}, {}};
  event.message = std::string(body.view());
  size_t count = 0;
  const HeaderField* fields = exchange->metadata(&count);
  for (size_t i = 0; i < count; ++i) {
    event.metadata.append(fields[i].name).push_back('\0');
    event.metadata.append(fields[i].value).push_back('\0');
  }
  if (!core_->methods.push(std::move(event))) {
    finish_exchange(exchange, fail(Situation::overload, "too many calls of this method wait"));
  }
}

void Loop::on_reply(MethodReply* reply) {
  const auto found = method_exchanges_.find(reply->exchange);
  if (found == method_exchanges_.end() || found->second->is_finished) return;
  Exchange* exchange = found->second;
  const Trailers trailers{reply->code, reply->detail, kNoPushback, nullptr, 0};
  if (exchange->local != nullptr) {
    if (reply->has_message) exchange->local->message.assign(reply->frame.view().substr(5));
    if (!reply->is_end) return;
    exchange->is_finished = true;
    method_codes_[exchange->method][static_cast<unsigned>(reply->code)].add(1);
    method_exchanges_.erase(found);
    finish_local(exchange, trailers, exchange->local->message);
    release_exchange(exchange);
    return;
  }
  GrpcConn& grpc = exchange->connection->grpc;
  mark_dirty(exchange->connection);
  const bool is_whole =
      reply->has_message && reply->is_end && !core_->methods.info(exchange->method).is_streaming;
  if (is_whole && reply->code == Code::ok) {
    grpc.respond(exchange->stream, std::move(reply->frame), trailers);
  } else {
    if (reply->has_message) grpc.send_message(exchange->stream, std::move(reply->frame));
    if (reply->is_end) grpc.finish(exchange->stream, trailers);
  }
  if (reply->is_end) {
    exchange->is_finished = true;
    method_codes_[exchange->method][static_cast<unsigned>(reply->code)].add(1);
  }
}

void Loop::begin_local(LocalCall* local) {
  Exchange* exchange = make_exchange();
  exchange->local = local;
  exchange->timeout_ns = local->timeout_ns;
  const int method = core_->methods.find(local->path, ENGINE_DATA | ENGINE_ADMIN);
  if (local->path == kInferPath) {
    exchange->kind = ExchangeKind::infer;
  } else if (method >= 0) {
    exchange->kind = ExchangeKind::method;
    exchange->method = static_cast<uint32_t>(method);
    exchange->id = (uint64_t{index_} << 48) | next_exchange_++;
    method_exchanges_[exchange->id] = exchange;
  } else {
    finish_exchange(exchange, fail(Situation::unknown_method,
                                   "unknown method " + quoted(local->path)));
    return release_exchange(exchange);
  }
  // Moved: bodies are counted plainly, and the caller's thread drops the LocalCall.
  exchange->body = std::move(local->body);
  on_half_closed(exchange);
  if (exchange->is_finished && exchange->calls.empty()) release_exchange(exchange);
}

}  // namespace router
