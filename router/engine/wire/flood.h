// Counts the cheap frames a peer sends between useful ones, before nghttp2 sees them.
//
// nghttp2 accepts any number of acknowledged PINGs and SETTINGS, empty DATA, PRIORITY,
// WINDOW_UPDATE and frames of unknown type (for those no callback fires), so the headers
// of raw frames are read here. Useful is a HEADERS frame or DATA with content, in either
// direction.
#pragma once

#include <cstddef>
#include <cstdint>

namespace router {

// Why the peer was punished or refused, for metrics: one counter per kind of abuse.
enum class Abuse : uint8_t {
  ping_flood, settings_flood, empty_data, priority_flood, window_flood, reset_flood,
  header_size, header_count, unknown_frames, protocol, slow_message, count
};
const char* abuse_name(Abuse kind);

class FloodGuard {
 public:
  FloodGuard(uint32_t control_frames_max, uint32_t ping_strikes_max)
      : control_frames_max_(control_frames_max), ping_strikes_max_(ping_strikes_max) {}

  // Reads the next bytes from the peer; Abuse::count when there is nothing to punish.
  Abuse observe(const uint8_t* bytes, size_t count, int64_t now_ns);
  // A DATA or HEADERS frame was sent: what the peer does about it is not idle chatter.
  void sent_useful();

 private:
  Abuse judge_frame(int64_t now_ns);
  Abuse judge_ping(int64_t now_ns);

  uint32_t control_frames_max_;
  uint32_t ping_strikes_max_;
  uint32_t control_frames_ = 0;
  uint32_t ping_strikes_ = 0;
  int64_t last_ping_ns_ = -1;
  bool sent_since_ping_ = false;
  uint32_t skip_ = 24;         // bytes until the next frame header: first the preface
  uint8_t header_size_ = 0;
  uint8_t header_[9] = {};
};

}  // namespace router
