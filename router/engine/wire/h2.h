// What both roles of HTTP/2 share: header fields without copies, session construction,
// and moving nghttp2's output into a buffer.
//
// nghttp2 does framing, HPACK and flow control. Windows are given back by us
// (no_auto_window_update), DATA payloads are copied once, from the message to the socket's
// buffer (NO_COPY), and closed streams are not kept.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace router {

constexpr uint8_t kNotCopied = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
// For values that differ from request to request: indexing them costs time and throws
// useful entries out of the peer's table.
constexpr uint8_t kNotIndexed = kNotCopied | NGHTTP2_NV_FLAG_NO_INDEX;

// nghttp2 wants mutable pointers and does not write through them; the bytes must live until
// the frame was sent (with kNotCopied).
inline nghttp2_nv h2_field(std::string_view name, std::string_view value, uint8_t flags) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(),
          value.size(), flags};
}

inline std::string_view h2_text(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

enum class Role : uint8_t { server, client };

struct SessionSettings {
  uint32_t stream_window;
  uint32_t connection_window;
  uint32_t streams_max;       // server: what the peer may open
  uint32_t header_list_max;
};

// A session with its SETTINGS and the connection's window queued. Aborts when out of
// memory, as Buffer does.
nghttp2_session* open_session(Role role, const nghttp2_session_callbacks* callbacks,
                              const SessionSettings& settings, void* user_data);

// Where output goes, and the size at which it stops.
struct Target {
  Buffer* out = nullptr;
  size_t high_water = 0;
};

// Bytes of a message on their way out, and how many are already framed.
struct Outgoing {
  Buffer bytes;
  size_t at = 0;

  size_t pending() const { return bytes.size() - at; }
  // Takes the frame whole when nothing waits (the caller gets an empty buffer with
  // capacity in exchange), else copies it behind what waits.
  void put(Buffer&& frame);
  // Appends a DATA frame: its header, then the next `count` bytes. What nghttp2's
  // send_data callback returns: NGHTTP2_ERR_WOULDBLOCK when the target is full already.
  int frame_to(const Target& target, const uint8_t* frame_header, size_t count);
  // For reuse; large memory is given up.
  void clear();
};

// Appends what the session has to send until the target is full.
void pump_session(nghttp2_session* session, const Target& target);

}  // namespace router
