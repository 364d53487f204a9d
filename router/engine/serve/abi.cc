// engine.h's functions: text to values, values to text, and nothing else.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "engine.h"
#include "serve/generator.h"
#include "serve/json.h"
#include "serve/plane.h"

struct engine {
  engine(const router::EngineOptions& options, const fh_kernel_api* kernel)
      : self(options, kernel) {}
  router::Engine self;
};

namespace router {
namespace {

std::string_view view(engine_text text) { return {text.data, text.size}; }

void put(engine_bytes* out, std::string_view text) {
  if (out == nullptr) return;
  out->data = static_cast<char*>(std::malloc(text.size() + 1));
  if (out->data == nullptr) std::abort();
  if (!text.empty()) std::memcpy(out->data, text.data(), text.size());
  out->data[text.size()] = '\0';
  out->size = text.size();
}

// Empty problem: success.
int answer(engine_bytes* out, const std::string& problem) {
  put(out, problem);
  return problem.empty() ? 0 : -1;
}

Options read_options(const engine_pair* options, uint64_t count) {
  Options read;
  for (uint64_t i = 0; i < count; ++i) {
    read.emplace_back(view(options[i].key), view(options[i].value));
  }
  return read;
}

// A message with the five-byte prefix of an uncompressed gRPC frame.
Buffer make_frame(std::string_view message) {
  Buffer frame;
  const auto size = static_cast<uint32_t>(message.size());
  const uint8_t prefix[5] = {0, static_cast<uint8_t>(size >> 24),
                             static_cast<uint8_t>(size >> 16),
                             static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)};
  frame.append(prefix, sizeof prefix);
  frame.append(message);
  return frame;
}

}  // namespace
}  // namespace router

using router::answer;
using router::put;
using router::view;

void engine_bytes_free(engine_bytes* bytes) {
  std::free(bytes->data);
  bytes->data = nullptr;
  bytes->size = 0;
}

engine* engine_new(const fh_kernel_api* kernel, const engine_pair* options, uint64_t count,
                   engine_bytes* out) {
  router::EngineOptions read;
  for (const auto& [key, value] : router::read_options(options, count)) {
    const std::string problem = read.set(key, value);
    if (!problem.empty()) {
      put(out, problem);
      return nullptr;
    }
  }
  return new engine(read, kernel);
}

void engine_free(engine* self) { delete self; }

int engine_load(engine* self, engine_text model, uint32_t version, engine_text bytes,
                const engine_pair* options, uint64_t count, engine_bytes* out) {
  std::string report;
  const std::string problem =
      self->self.load(std::string(view(model)), version, view(bytes),
                      router::read_options(options, count), &report);
  put(out, problem.empty() ? report : problem);
  return problem.empty() ? 0 : -1;
}

int engine_unload(engine* self, engine_text model, uint32_t version, engine_bytes* out) {
  return answer(out, self->self.unload(std::string(view(model)), version));
}

int engine_publish(engine* self, engine_text table, engine_bytes* out) {
  return answer(out, self->self.publish(view(table)));
}

int engine_method(engine* self, engine_text path, int is_streaming, int pool, int listeners) {
  if (self->self.has_loops() || pool < 0 || pool >= static_cast<int>(router::kPoolsMax)) {
    return -1;
  }
  return static_cast<int>(self->self.core().methods.add(
      {std::string(view(path)), is_streaming != 0, pool, listeners}));
}

int engine_listen(engine* self, int fd, int listener, engine_bytes* out) {
  if (listener != ENGINE_DATA && listener != ENGINE_ADMIN) {
    return answer(out, "listener: expected ENGINE_DATA or ENGINE_ADMIN");
  }
  self->self.listen(fd, listener);
  return answer(out, {});
}

int engine_tls(engine* self, int listener, engine_text certificates, engine_text key,
               engine_text authorities, int requires_client, engine_bytes* out) {
  if (listener != ENGINE_DATA && listener != ENGINE_ADMIN) {
    return answer(out, "listener: expected ENGINE_DATA or ENGINE_ADMIN");
  }
  router::TlsContextRef made;
  const std::string problem = router::TlsContext::make_server(
      {view(certificates), view(key), view(authorities)}, requires_client != 0,
      router::realtime_ns() / 1'000'000'000, &made);
  if (!problem.empty()) return answer(out, problem);
  put(out, "{\"expires_s\":" + std::to_string(made->expires_s()) + "}");
  if (self != nullptr) self->self.core().tls[listener - 1].put(std::move(made));
  return 0;
}

int engine_start(engine* self, engine_bytes* out) { return answer(out, self->self.start()); }

int engine_next(engine* self, int pool, int timeout_ms, engine_event* event) {
  router::MethodEvent got;
  const int result = self->self.core().methods.next(pool, timeout_ms, &got);
  if (result != 1) return result;
  event->stream = got.stream;
  event->method = got.method;
  event->kind = got.kind;
  put(&event->message, got.message);
  put(&event->metadata, got.metadata);
  return 1;
}

int engine_send(engine* self, uint64_t stream, engine_text message, int end, int code,
                engine_text detail) {
  auto* reply = new router::MethodReply();
  reply->exchange = stream;
  reply->is_end = end != 0;
  const bool is_known = code >= 0 && code < static_cast<int>(router::kCodeCount);
  reply->code = is_known ? static_cast<router::Code>(code) : router::Code::internal;
  reply->detail = std::string(view(detail));
  if (message.data != nullptr) {
    reply->has_message = true;
    reply->frame = router::make_frame(view(message));
  }
  return self->self.send(stream, reply) ? 1 : 0;
}

int engine_call(engine* self, engine_text path, engine_text frame, const engine_pair* metadata,
                uint64_t count, int64_t timeout_ns, engine_bytes* out, engine_bytes* detail,
                engine_bytes* trailers) {
  router::LocalCall call;
  call.path = std::string(view(path));
  auto* body = new router::Body();
  body->bytes.append(view(frame));
  call.body = router::BodyRef(body);
  call.metadata = router::read_options(metadata, count);
  for (const auto& [key, value] : call.metadata) call.fields.push_back({key, value});
  call.timeout_ns = timeout_ns;
  if (!self->self.call(&call)) return -1;
  put(out, call.message);
  put(detail, call.detail);
  put(trailers, call.trailers);
  return static_cast<int>(call.code);
}

int engine_snapshot(engine* self, engine_bytes* out) {
  put(out, self->self.snapshot());
  return 0;
}

int engine_thresholds(engine* self, const engine_threshold* thresholds, uint64_t count,
                      engine_bytes* out) {
  std::string problem;
  for (uint64_t i = 0; i < count; ++i) {
    const engine_threshold& given = thresholds[i];
    const std::string name(view(given.scope));
    const auto scope = self->self.core().scopes.find(name, given.attempt);
    if (scope == nullptr) {
      problem = "scope '" + name + "' attempt " + std::to_string(given.attempt) +
                " is not in a table";
      continue;  // the others still count
    }
    int positions[router::kEdges];
    for (unsigned which = 0; which < router::kEdges; ++which) {
      const int32_t edge = given.edges[which];
      positions[which] = edge == ENGINE_NO_EDGE
                             ? -1
                             : std::clamp(edge, router::Histogram::kFirst,
                                          router::Histogram::kLast) -
                                   router::Histogram::kFirst;
    }
    scope->edges(given.version, given.ordinal)
        ->store(router::pack_edges(positions), std::memory_order_relaxed);
  }
  return answer(out, problem);
}

int engine_filters(engine* self, engine_text saved, engine_bytes* out) {
  auto& scopes = self->self.core().scopes;
  if (saved.data != nullptr) return answer(out, scopes.restore(view(saved)));
  router::Buffer made;
  scopes.save(&made);
  put(out, made.view());
  return 0;
}

int engine_tape(engine* self, engine_bytes* out) {
  router::Buffer drained;
  self->self.drain_tapes(&drained);
  put(out, drained.view());
  return 0;
}

int engine_drain(engine* self, int64_t grace_ms) { return self->self.drain(grace_ms); }

void engine_stop(engine* self) { self->self.stop(); }

int engine_prediction_read(const fh_key* keys, uint64_t count, engine_text ids,
                           engine_bytes* out) {
  std::vector<router::MintKey> made;  // once for all ids: absorbing a key costs as much as one
  made.reserve(count);
  for (uint64_t i = 0; i < count; ++i) made.emplace_back(keys[i].id, keys[i].secret);
  const std::string_view all = view(ids);
  std::string json = "[";
  for (size_t at = 0; at + router::kPredictionIdLength <= all.size();
       at += router::kPredictionIdLength) {
    const std::string_view id = all.substr(at, router::kPredictionIdLength);
    const int claimed = router::claimed_key(id);
    const auto key = std::find_if(made.begin(), made.end(),
                                  [&](const auto& one) { return one.id() == claimed; });
    router::Prediction read;
    if (at != 0) json += ',';
    if (key == made.end() || !key->read(id, &read)) {
      json += "null";
      continue;
    }
    char score[32] = "null";  // JSON has no NaN
    if (std::isfinite(read.score))
      std::snprintf(score, sizeof score, "%.9g", static_cast<double>(read.score));
    char text[256];
    std::snprintf(text, sizeof text, "[%u,%u,%u,%u,%u,%u,%u,%s,%s,%u,%s,%llu,%u]", read.time_s,
                  read.model_hash, read.version, read.rule_hash, read.rollout_revision,
                  read.variant, read.bucket, read.is_fallback ? "true" : "false",
                  read.is_sticky ? "true" : "false", read.propensity_bp, score,
                  static_cast<unsigned long long>(read.unit_tag), read.sequence);
    json += text;
  }
  put(out, json + "]");
  return 0;
}

int engine_regex_problem(engine_text pattern, engine_bytes* out) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  const re2::RE2 compiled(re2::StringPiece(pattern.data, pattern.size), options);
  return answer(out, compiled.ok() ? std::string() : compiled.error());
}

int engine_regex_match(engine_text pattern, engine_text value) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  const re2::RE2 compiled(re2::StringPiece(pattern.data, pattern.size), options);
  if (!compiled.ok()) return 0;
  return re2::RE2::FullMatch(re2::StringPiece(value.data, value.size), compiled) ? 1 : 0;
}

int engine_runtime(engine_text library, engine_bytes* out) {
  std::string version, why;
  const std::vector<std::string> providers =
      router::runtime_providers(std::string(view(library)), &version, &why);
  if (providers.empty()) return answer(out, why.empty() ? "no providers" : why);
  std::string json = "{\"version\":";
  router::append_json_text(&json, version);
  json += ",\"providers\":[";
  for (const std::string& provider : providers) {
    if (json.back() != '[') json.push_back(',');
    router::append_json_text(&json, provider);
  }
  put(out, json + "]}");
  return 0;
}

int engine_bench(const engine_pair* options, uint64_t count, const engine_text* frames,
                 uint64_t frame_count, engine_bytes* out) {
  router::BenchOptions read;
  std::string problem;
  for (const auto& [key, value] : router::read_options(options, count)) {
    const std::string why = read.set(key, value);
    if (problem.empty()) problem = why;
  }
  std::vector<router::Buffer> made;
  for (uint64_t i = 0; i < frame_count; ++i) made.push_back(router::make_frame(view(frames[i])));
  if (read.sockets.empty() || made.empty()) problem = "needs a socket and a frame";
  if (problem.empty()) {
    put(out, router::run_bench(read, made));
    return 0;
  }
  for (const int fd : read.sockets) close(fd);
  return answer(out, problem);
}
