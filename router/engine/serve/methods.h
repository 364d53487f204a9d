// Methods served by Python: what the engine knows of them, and the queues their pools pull.
//
// Nothing here enters Python. A loop pushes events and never waits: a full queue refuses the
// event and the caller answers RESOURCE_EXHAUSTED.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "serve/call.h"

namespace router {

struct MethodInfo {
  std::string path;
  bool is_streaming = false;
  int pool = 0;
  int listeners = 0;
};

struct MethodEvent {
  uint64_t stream = 0;
  uint32_t method = 0;
  uint32_t kind = 0;  // engine_event_kind
  std::string message, metadata;
};

// Data, admin, feedback, and what operators may wait minutes for: none waits for another.
constexpr unsigned kPoolsMax = 4;
constexpr unsigned kListenerKinds = 2;

class Methods {
 public:
  explicit Methods(uint32_t queue_max) : queue_max_(queue_max) {}

  // Before start only.
  uint32_t add(MethodInfo method);
  // Index of a method served at one of these listeners (bits), or -1.
  int find(std::string_view path, int listener) const;
  const MethodInfo& info(uint32_t method) const { return methods_[method]; }
  size_t size() const { return methods_.size(); }

  // False when the pool's queue is full; END and CANCELLED always fit, so that no stream
  // is left open in Python.
  bool push(MethodEvent event);
  // 1 with an event, 0 after the timeout, -1 once stopped.
  int next(int pool, int timeout_ms, MethodEvent* event);
  void stop();

 private:
  struct Queue {
    std::mutex mutex;
    std::condition_variable ready;
    std::deque<MethodEvent> events;
    bool is_stopped = false;
  };

  uint32_t queue_max_;
  std::vector<MethodInfo> methods_;
  // A path may be served by one method to clients and another to operators.
  std::map<std::string, uint32_t, std::less<>> by_path_[kListenerKinds];
  Queue queues_[kPoolsMax];
};

}  // namespace router
