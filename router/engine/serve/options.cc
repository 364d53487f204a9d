#include "serve/options.h"

#include <cerrno>
#include <cstdlib>

namespace router {
namespace {

bool parse_integer(const std::string& text, int64_t* value) {
  if (text.empty()) return false;
  char* end = nullptr;
  errno = 0;
  *value = std::strtoll(text.c_str(), &end, 10);
  return errno == 0 && *end == '\0';
}

}  // namespace

std::string EngineOptions::set(const std::string& key, const std::string& value) {
  int64_t number = 0;
  if (!parse_integer(value, &number)) return key + "=" + value + ": not an integer";
  const auto take = [&](auto* into, int64_t low, int64_t high, int64_t scale) {
    if (number < low || number > high) {
      return key + "=" + value + ": expected " + std::to_string(low) + " to " +
             std::to_string(high);
    }
    using Target = std::remove_reference_t<decltype(*into)>;
    *into = static_cast<Target>(number * scale);
    return std::string();
  };
  constexpr int64_t kUs = 1000, kMs = 1'000'000, kGiB = 1ll << 30;
  if (key == "loops") return take(&loops, 1, 64, 1);
  if (key == "spin_us") return take(&spin_ns, 0, 10'000, kUs);
  if (key == "executors") return take(&executor.threads, 1, 1024, 1);
  if (key == "loop_run_us") return take(&executor.loop_run_ns, 0, 1'000'000, kUs);
  if (key == "abandon_after_ms") return take(&executor.abandon_after_ns, 1, 600'000, kMs);
  if (key == "batches_queued_max") return take(&executor.queued_max, 1, 1 << 20, 1);
  if (key == "streams_max") return take(&wire.streams_max, 1, 1 << 20, 1);
  if (key == "stream_window") return take(&wire.stream_window, 65'535, kGiB, 1);
  if (key == "connection_window") return take(&wire.connection_window, 65'535, kGiB, 1);
  if (key == "message_in_max") return take(&wire.message_in_max, 1, kGiB, 1);
  if (key == "message_out_max") return take(&message_out_max, 1, kGiB, 1);
  if (key == "metadata_bytes_max") return take(&wire.metadata_bytes_max, 256, 1 << 20, 1);
  if (key == "metadata_fields_max") return take(&wire.metadata_fields_max, 1, 1024, 1);
  if (key == "body_bytes_max") return take(&wire.body_bytes_max, 1 << 16, 1024 * kGiB, 1);
  if (key == "connections_max") return take(&connections_max, 1, 1'000'000, 1);
  if (key == "connections_per_peer_max") {
    return take(&connections_per_peer_max, 1, 1'000'000, 1);
  }
  if (key == "deadline_default_ms") return take(&deadline_default_ns, 1, 86'400'000, kMs);
  if (key == "deadline_max_ms") return take(&deadline_max_ns, 1, 86'400'000, kMs);
  if (key == "handshake_ms") return take(&handshake_ns, 1, 86'400'000, kMs);
  if (key == "slow_message_ms") return take(&slow_message_ns, 1, 86'400'000, kMs);
  if (key == "idle_ms") return take(&idle_ns, 1, 864'000'000, kMs);
  if (key == "age_ms") return take(&age_ns, 1, 8'640'000'000, kMs);
  if (key == "age_grace_ms") return take(&age_grace_ns, 1, 86'400'000, kMs);
  if (key == "method_queue_max") return take(&method_queue_max, 1, 1 << 20, 1);
  if (key == "tape_bits") return take(&tape_bits, 10, 30, 1);
  if (key == "shadow_threads") return take(&shadow_threads, 1, 64, 1);
  if (key == "shadow_queue") return take(&shadow_queue, 1, 1 << 20, 1);
  if (key == "shadow_bytes_max") return take(&shadow_bytes_max, 0, 1024 * kGiB, 1);
  if (key == "shadow_wait_ms") return take(&shadow_wait_ns, 1, 600'000, kMs);
  if (key == "shadow_noise_bp") return take(&shadow_noise_bp, 0, 10'000, 1);
  if (key == "stream_calls_max") return take(&stream_calls_max, 1, 1 << 20, 1);
  return key + ": unknown option";
}

}  // namespace router
