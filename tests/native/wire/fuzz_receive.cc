// Any bytes from a peer, in pieces of any size, answered in every way a loop can: no step
// outside memory, every stream closed once, every body's bytes given back.
//
// The first byte chooses: whether the preface is sent for the input, the size of the
// pieces, the high-water mark, and how calls are answered.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "wire/grpc_conn.h"

namespace router {
namespace {

constexpr char kStart[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
constexpr size_t kSteps[] = {1, 7, 100, 1 << 20};

void answer(GrpcConn* conn, Event* event, unsigned style) {
  Stream* stream = event->stream;
  if (event->kind == EventKind::closed) return conn->forget(stream);
  if (stream->ended || event->kind == EventKind::opened) return;
  Buffer frame;
  frame.append("\0\0\0\0\0", 5);
  frame.append(event->body.view());
  const HeaderField extra[] = {{"route-variant", "1"}};
  if (event->kind == EventKind::failed) {
    return conn->finish(stream, {event->status.code(), event->status.message, -1, nullptr, 0});
  }
  if (event->kind == EventKind::half_closed) return conn->finish(stream, {});
  if (event->kind != EventKind::message) return;
  switch (style) {
    case 0: return conn->respond(stream, std::move(frame), {Code::ok, {}, 0, extra, 1});
    case 1: return conn->send_message(stream, std::move(frame));
    case 2: return conn->reset(stream, 8);
    default: return;  // keeps the call waiting
  }
}

void run(const uint8_t* data, size_t size) {
  const uint8_t choice = *data++;
  --size;
  WireLimits limits;
  limits.streams_max = 8;
  limits.stream_window = 70'000;
  limits.message_in_max = 4096;
  limits.metadata_fields_max = 8;
  limits.metadata_bytes_max = 512;
  limits.control_frames_max = 20;
  limits.body_bytes_max = 8192;
  BodyBudget budget;
  {
    GrpcConn conn(limits, &budget);
    std::vector<Event> events;
    Buffer out;
    int64_t now_ns = 1;
    const size_t step = kSteps[choice >> 1 & 3];
    const size_t high_water = (choice & 8) != 0 ? 64 : 1 << 16;
    const auto handle = [&] {
      for (Event& event : events) answer(&conn, &event, choice >> 4 & 3);
      events.clear();
    };
    if ((choice & 1) != 0) {
      conn.receive(reinterpret_cast<const uint8_t*>(kStart), sizeof kStart - 1, now_ns, &events);
    }
    for (size_t at = 0; at < size; at += step) {
      const std::vector<uint8_t> piece(data + at, data + std::min(size, at + step));
      const bool is_alive = conn.receive(piece.data(), piece.size(), now_ns += 1000, &events);
      handle();
      out.clear();
      conn.output(&out, high_water);
      conn.take_events(&events);
      handle();
      if (!is_alive) break;
    }
    if ((choice & 64) != 0) conn.close_to_new_streams();
    conn.expire_slow(now_ns, &events);
    handle();
    out.clear();
    conn.output(&out, high_water);
    conn.abandon(&events);
    handle();
    if (conn.stream_count() != 0 || conn.wants_write()) std::abort();
  }
  if (budget.used.load() != 0) std::abort();
}

}  // namespace
}  // namespace router

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size != 0) router::run(data, size);
  return 0;
}
