#include "serve/methods.h"

#include <chrono>

#include "engine.h"

namespace router {

uint32_t Methods::add(MethodInfo method) {
  const auto index = static_cast<uint32_t>(methods_.size());
  for (unsigned i = 0; i < kListenerKinds; ++i) {
    if ((method.listeners & (1 << i)) != 0) by_path_[i][method.path] = index;
  }
  methods_.push_back(std::move(method));
  return index;
}

int Methods::find(std::string_view path, int listener) const {
  for (unsigned i = 0; i < kListenerKinds; ++i) {
    if ((listener & (1 << i)) == 0) continue;
    const auto found = by_path_[i].find(path);
    if (found != by_path_[i].end()) return static_cast<int>(found->second);
  }
  return -1;
}

bool Methods::push(MethodEvent event) {
  Queue& queue = queues_[methods_[event.method].pool];
  {
    std::lock_guard<std::mutex> lock(queue.mutex);
    const bool may_be_refused = event.kind == ENGINE_EVENT_MESSAGE;
    if (queue.is_stopped || (may_be_refused && queue.events.size() >= queue_max_)) return false;
    queue.events.push_back(std::move(event));
  }
  queue.ready.notify_one();
  return true;
}

int Methods::next(int pool, int timeout_ms, MethodEvent* event) {
  Queue& queue = queues_[pool];
  std::unique_lock<std::mutex> lock(queue.mutex);
  queue.ready.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                       [&] { return queue.is_stopped || !queue.events.empty(); });
  if (queue.is_stopped) return -1;
  if (queue.events.empty()) return 0;
  *event = std::move(queue.events.front());
  queue.events.pop_front();
  return 1;
}

void Methods::stop() {
  for (Queue& queue : queues_) {
    {
      std::lock_guard<std::mutex> lock(queue.mutex);
      queue.is_stopped = true;
    }
    queue.ready.notify_all();
  }
}

}  // namespace router
