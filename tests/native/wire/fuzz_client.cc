// Any bytes from a server: the client steps nowhere it should not, and every call gets
// exactly one reply. The first byte chooses the size of the pieces and whether a call is
// cancelled.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "wire/client_conn.h"

namespace router {
namespace {

constexpr size_t kSteps[] = {1, 7, 100, 1 << 20};
constexpr int kCalls = 3;

void run(const uint8_t* data, size_t size) {
  const uint8_t choice = *data++;
  --size;
  const CallHeaders headers("a", "/b/c");
  ClientLimits limits;
  limits.message_in_max = 4096;
  ClientConn conn(limits);
  std::vector<Reply> replies;
  Buffer out;
  int32_t last = 0;
  for (int i = 0; i < kCalls; ++i) {
    Buffer frame;
    frame.append("\0\0\0\0\1x", 6);
    last = conn.start(headers, nullptr, 0, std::move(frame), nullptr);
  }
  conn.output(&out, 1 << 16);
  if ((choice & 4) != 0) conn.cancel(last);
  const size_t step = kSteps[choice & 3];
  for (size_t at = 0; at < size; at += step) {
    const std::vector<uint8_t> piece(data + at, data + std::min(size, at + step));
    const bool is_alive = conn.receive(piece.data(), piece.size(), &replies);
    out.clear();
    conn.output(&out, 1 << 16);
    if (!is_alive) break;
  }
  conn.abandon(&replies);
  if (replies.size() != kCalls || conn.open_count() != 0) std::abort();
}

}  // namespace
}  // namespace router

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size != 0) router::run(data, size);
  return 0;
}
