#include "wire/h2.h"

#include <cstdlib>
#include <utility>

namespace router {
namespace {

constexpr size_t kFrameHeader = 9;
constexpr size_t kKeptCapacity = 64 * 1024;  // a recycled stream keeps no more than this
// SETTINGS entries accepted in one frame; clients send six.
constexpr size_t kSettingsEntriesMax = 32;

void require(int result) {
  if (result != 0) std::abort();  // only NGHTTP2_ERR_NOMEM is possible here
}

void submit_settings(nghttp2_session* session, Role role, const SessionSettings& settings) {
  const nghttp2_settings_entry entries[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, settings.stream_window},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, settings.header_list_max},
      role == Role::server
          ? nghttp2_settings_entry{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                   settings.streams_max}
          : nghttp2_settings_entry{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
  };
  require(nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries,
                                  sizeof entries / sizeof entries[0]));
  require(nghttp2_session_set_local_window_size(
      session, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(settings.connection_window)));
}

}  // namespace

nghttp2_session* open_session(Role role, const nghttp2_session_callbacks* callbacks,
                              const SessionSettings& settings, void* user_data) {
  nghttp2_option* option = nullptr;
  require(nghttp2_option_new(&option));
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_reserved_remote_streams(option, 0);
  nghttp2_option_set_max_settings(option, kSettingsEntriesMax);
  // Metadata with a space at its edge is untidy, not an attack: older clients send it.
  nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1);
  nghttp2_session* session = nullptr;
  require(role == Role::server
              ? nghttp2_session_server_new2(&session, callbacks, user_data, option)
              : nghttp2_session_client_new2(&session, callbacks, user_data, option));
  nghttp2_option_del(option);
  submit_settings(session, role, settings);
  return session;
}

void Outgoing::put(Buffer&& frame) {
  if (pending() == 0) {
    clear();
    bytes.swap(frame);
    return;
  }
  if (at > bytes.size() / 2) {  // half of it is sent: moving the rest keeps this linear
    std::memmove(bytes.data(), bytes.data() + at, pending());
    bytes.truncate(pending());
    at = 0;
  }
  bytes.append(frame.view());
  frame.clear();
}

int Outgoing::frame_to(const Target& target, const uint8_t* frame_header, size_t count) {
  ROUTER_ASSERT(count <= pending());
  if (target.out->size() >= target.high_water) return NGHTTP2_ERR_WOULDBLOCK;
  uint8_t* to = target.out->extend(kFrameHeader + count);
  std::memcpy(to, frame_header, kFrameHeader);
  std::memcpy(to + kFrameHeader, bytes.data() + at, count);
  at += count;
  return 0;
}

void Outgoing::clear() {
  if (bytes.capacity() > kKeptCapacity) {
    Buffer released;
    bytes.swap(released);
  }
  bytes.clear();
  at = 0;
}

void pump_session(nghttp2_session* session, const Target& target) {
  while (target.out->size() < target.high_water) {
    const uint8_t* bytes = nullptr;
    const ssize_t count = nghttp2_session_mem_send(session, &bytes);
    if (count < 0) std::abort();  // only NGHTTP2_ERR_NOMEM: our callbacks never fail
    // DATA goes straight to the target (send_data callback), any number of frames a call.
    if (count == 0) return;
    target.out->append(bytes, static_cast<size_t>(count));
  }
}

}  // namespace router
