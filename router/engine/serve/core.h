// What the loops of one engine share. Everything here is either immutable after start,
// atomic, or behind its own lock; the engine owns it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "_fasthash.h"
#include "serve/methods.h"
#include "serve/options.h"
#include "serve/shadow.h"
#include "serve/table.h"
#include "watch/cells.h"
#include "watch/firsts.h"
#include "watch/tape.h"
#include "wire/tls.h"

namespace router {

class Loop;

// Connections by peer address. Accepting and closing are rare, so one lock serves.
class Peers {
 public:
  // False when the peer, or all of them together, have as many as they may.
  bool admit(const std::string& peer, const EngineOptions& options);
  void leave(const std::string& peer);
  uint32_t connections() const { return total_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  std::map<std::string, uint32_t> counts_;
  std::atomic<uint32_t> total_{0};  // a gauge
};

// The TLS of one kind of listener, null for none. A connection takes it once, when it is
// accepted; that is rare, so a lock serves.
class TlsSlot {
 public:
  TlsContextRef get() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return context_;
  }
  void put(TlsContextRef context) {
    std::lock_guard<std::mutex> lock(mutex_);
    context_.swap(context);
  }

 private:
  mutable std::mutex mutex_;
  TlsContextRef context_;
};

struct Core {
  Core(const EngineOptions& given, const fh_kernel_api* api)
      : options(given),
        kernel(api),
        cells(given.loops),
        scopes(given.loops),
        methods(given.method_queue_max) {
    for (unsigned i = 0; i < given.loops; ++i) {
      tapes.push_back(std::make_unique<Tape>(size_t{1} << given.tape_bits));
    }
  }

  const EngineOptions options;
  const fh_kernel_api* const kernel;
  CellRegistry cells;
  ScopeRegistry scopes;
  VariantEntry* nobody = nullptr;   // requests of unknown models
  BodyBudget bodies;
  Peers peers;
  TlsSlot tls[2];                   // by listener, data first
  Methods methods;
  std::unique_ptr<Executors> executors;
  // Made before the first table with shadows is published; that publishes it too.
  std::unique_ptr<ShadowLanes> lanes;
  // The current table. Release by publish, acquire by loops: a loop that sees the pointer
  // sees the table behind it.
  std::atomic<LiveTable*> table{nullptr};
  std::atomic<bool> is_draining{false};  // read for /readyz and new local calls only
  std::vector<std::unique_ptr<Loop>> loops;
  // By loop, its only writer. Here, because what a loop wrote last is read after it is gone.
  std::vector<std::unique_ptr<Tape>> tapes;
};

int64_t monotonic_ns();
int64_t realtime_ns();

}  // namespace router
