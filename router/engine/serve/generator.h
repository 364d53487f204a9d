// A load generator on the client's role of wire/: open loop at a rate, or closed loop with
// so many calls in flight.
//
// One thread, the caller's, does everything and owns everything; nothing outlives the run.
// In open loop the moments at which requests are due are fixed before anything is sent and
// never move: a request that could not be sent in time is sent late, and its latency counts
// from when it was due. That is what keeps a slow server from hiding its own slowness
// (coordinated omission). Every wait is bounded: by the run's duration, then by the
// timeout of the calls still open.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace router {

struct BenchOptions {
  std::vector<int> sockets;         // connected, non-blocking, to one address; at least one
  std::vector<std::pair<std::string, std::string>> metadata;  // of every request
  std::string authority = "localhost";
  std::string path = "/inference.GRPCInferenceService/ModelInfer";
  std::string unit_header;          // with `units`: where a request's unit goes
  bool is_poisson = false;          // else the gaps are all the same
  uint64_t rate_milli = 0;          // thousandths of a request a second; 0: closed loop
  uint32_t concurrency = 1;         // closed loop: calls kept in flight
  uint32_t in_flight_max = 10'000;
  int64_t duration_ns = 10'000'000'000;
  int64_t timeout_ms = 5'000;
  uint64_t units = 0;               // a request draws one of so many; 0: it names none
  uint64_t seed = 0;
  int stop_fd = -1;                 // ends the run when it is readable; -1: never

  // By the names above; "socket" is given once for each, and "metadata:NAME" adds a field.
  // Returns what is wrong, empty when the option was taken.
  std::string set(const std::string& key, const std::string& value);
};

// Sends `frames` (at least one, with their gRPC prefix) in turn until the time is over,
// waits for what is open, and closes the sockets. A connection that is lost is opened again.
// Returns JSON: counts, codes, versions, and latency in nanoseconds. Every request sent is
// counted under a code, except when the run was stopped with calls open.
std::string run_bench(const BenchOptions& options, const std::vector<Buffer>& frames);

}  // namespace router
