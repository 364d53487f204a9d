#include "wire/flood.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>

namespace router {
namespace {

constexpr size_t kFrameHeader = 9;
// Padding takes at most 255 bytes and its length one, so more than that has content.
constexpr uint32_t kPaddingMax = 256;
constexpr int64_t kPingApart_ns = 10'000'000'000;
constexpr Abuse kNothing = Abuse::count;

constexpr const char* kNames[] = {
    "ping_flood", "settings_flood", "empty_data", "priority_flood", "window_flood",
    "reset_flood", "header_size", "header_count", "unknown_frames", "protocol",
    "slow_message"};
static_assert(sizeof kNames / sizeof kNames[0] == static_cast<size_t>(Abuse::count),
              "every kind of abuse has a name");

// What a frame is charged as; kNothing for useful ones.
Abuse kind_of_frame(uint8_t type, uint8_t flags, uint32_t length) {
  switch (type) {
    case NGHTTP2_DATA:
      return length > ((flags & NGHTTP2_FLAG_PADDED) != 0 ? kPaddingMax : 0)
                 ? kNothing : Abuse::empty_data;
    case NGHTTP2_HEADERS: return kNothing;
    case NGHTTP2_PRIORITY: return Abuse::priority_flood;
    case NGHTTP2_RST_STREAM: return Abuse::reset_flood;
    case NGHTTP2_SETTINGS: return Abuse::settings_flood;
    case NGHTTP2_PUSH_PROMISE: return Abuse::protocol;
    case NGHTTP2_PING: return Abuse::ping_flood;
    case NGHTTP2_GOAWAY: return Abuse::protocol;
    case NGHTTP2_WINDOW_UPDATE: return Abuse::window_flood;
    case NGHTTP2_CONTINUATION: return Abuse::header_size;
    default: return Abuse::unknown_frames;
  }
}

}  // namespace

const char* abuse_name(Abuse kind) {
  return kind < Abuse::count ? kNames[static_cast<size_t>(kind)] : "none";
}

Abuse FloodGuard::observe(const uint8_t* bytes, size_t count, int64_t now_ns) {
  while (count != 0) {
    if (skip_ != 0) {
      const size_t skipped = std::min<size_t>(skip_, count);
      skip_ -= static_cast<uint32_t>(skipped);
      bytes += skipped;
      count -= skipped;
      continue;
    }
    const size_t taken = std::min(count, kFrameHeader - header_size_);
    std::memcpy(header_ + header_size_, bytes, taken);
    header_size_ = static_cast<uint8_t>(header_size_ + taken);
    bytes += taken;
    count -= taken;
    if (header_size_ < kFrameHeader) break;
    header_size_ = 0;
    skip_ = static_cast<uint32_t>(header_[0]) << 16 |
            static_cast<uint32_t>(header_[1]) << 8 | header_[2];
    if (const Abuse kind = judge_frame(now_ns); kind != kNothing) return kind;
  }
  return kNothing;
}

void FloodGuard::sent_useful() {
  control_frames_ = 0;
  ping_strikes_ = 0;
  sent_since_ping_ = true;
}

Abuse FloodGuard::judge_frame(int64_t now_ns) {
  const uint8_t type = header_[3];
  const uint8_t flags = header_[4];
  const Abuse kind = kind_of_frame(type, flags, skip_);
  if (kind == kNothing) {
    control_frames_ = 0;
    return kNothing;
  }
  if (++control_frames_ > control_frames_max_) return kind;
  const bool is_ping = type == NGHTTP2_PING && (flags & NGHTTP2_FLAG_ACK) == 0;
  return is_ping ? judge_ping(now_ns) : kNothing;
}

Abuse FloodGuard::judge_ping(int64_t now_ns) {
  const bool is_early = last_ping_ns_ >= 0 && now_ns - last_ping_ns_ < kPingApart_ns;
  // A stock client probes the bandwidth with up to 15 pings 100 ms apart while it is being
  // answered; only a ping into silence is a strike.
  if (is_early && !sent_since_ping_) ++ping_strikes_;
  last_ping_ns_ = now_ns;
  sent_since_ping_ = false;
  return ping_strikes_ > ping_strikes_max_ ? Abuse::ping_flood : kNothing;
}

}  // namespace router
