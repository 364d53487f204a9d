// The engine's options, read from key/value text. An unknown key or a value that is not a
// number in range is an error naming it.
#pragma once

#include <cstdint>
#include <string>

#include "run/executor.h"
#include "wire/grpc_conn.h"

namespace router {

struct EngineOptions {
  uint32_t loops = 1;
  int64_t spin_ns = 0;
  WireLimits wire;
  ExecutorOptions executor;
  uint32_t connections_max = 10'000;
  uint32_t connections_per_peer_max = 256;
  uint32_t message_out_max = 64 * 1024 * 1024;
  int64_t deadline_default_ns = 30'000'000'000;
  int64_t deadline_max_ns = 300'000'000'000;
  int64_t handshake_ns = 10'000'000'000;
  int64_t slow_message_ns = 10'000'000'000;
  int64_t idle_ns = 900'000'000'000;
  int64_t age_ns = 3'600'000'000'000;
  int64_t age_grace_ns = 30'000'000'000;
  uint32_t method_queue_max = 1024;
  uint32_t tape_bits = 20;          // a loop's ring holds 2^this bytes
  uint32_t shadow_threads = 1;
  uint32_t shadow_queue = 256;            // requests that may wait for one shadow, each loop
  uint64_t shadow_bytes_max = 64 << 20;   // of bodies and answers that wait, over all loops
  int64_t shadow_wait_ns = 2'000'000'000; // for its turn, and then for its run
  uint32_t shadow_noise_bp = 100;         // of the pairs: stable beside stable
  uint32_t stream_calls_max = 256;  // calls in flight on one ModelStreamInfer stream

  // Returns what is wrong, empty when the option was taken.
  std::string set(const std::string& key, const std::string& value);
};

}  // namespace router
