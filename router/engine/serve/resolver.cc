#include "serve/resolver.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <thread>

namespace router {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kDoubtInterval = std::chrono::seconds(1);  // at most so often when in doubt

struct Watched {
  std::weak_ptr<Endpoint> endpoint;
  Clock::time_point looked_at;
};

}  // namespace

struct Resolver::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Watched> watched;
  bool is_stopping = false, is_looking = false;
  std::thread thread;

  std::vector<std::shared_ptr<Endpoint>> take_due();
  void run();
};

// Under the mutex.
std::vector<std::shared_ptr<Endpoint>> Resolver::State::take_due() {
  const auto is_gone = [](const Watched& each) { return each.endpoint.expired(); };
  watched.erase(std::remove_if(watched.begin(), watched.end(), is_gone), watched.end());
  std::vector<std::shared_ptr<Endpoint>> due;
  const auto now = Clock::now();
  for (Watched& each : watched) {
    std::shared_ptr<Endpoint> endpoint = each.endpoint.lock();
    if (endpoint == nullptr) continue;
    const bool is_doubtful = endpoint->is_doubtful.exchange(false, std::memory_order_relaxed);
    const auto interval = std::chrono::nanoseconds(endpoint->resolve_ns);
    if (!is_doubtful && now - each.looked_at < interval) continue;
    each.looked_at = now;
    due.push_back(std::move(endpoint));
  }
  return due;
}

void Resolver::State::run() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!is_stopping) {
    if (watched.empty()) {
      changed.wait(lock);
    } else {
      changed.wait_for(lock, kDoubtInterval);
    }
    if (is_stopping) return;
    const auto due = take_due();
    is_looking = true;
    lock.unlock();
    // A name that is not found now keeps the addresses it had.
    for (const auto& endpoint : due) endpoint->look_up();
    lock.lock();
    is_looking = false;
  }
}

Resolver::Resolver() : state_(std::make_shared<State>()) {}

Resolver::~Resolver() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  if (!state_->thread.joinable()) return;
  state_->is_stopping = true;
  state_->changed.notify_one();
  std::thread thread = std::move(state_->thread);
  const bool is_looking = state_->is_looking;
  lock.unlock();
  if (is_looking) {
    thread.detach();
  } else {
    thread.join();
  }
}

void Resolver::watch(const std::vector<std::shared_ptr<Endpoint>>& endpoints) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  for (const auto& endpoint : endpoints) {
    if (!endpoint->is_unix) state_->watched.push_back({endpoint, Clock::now()});
  }
  if (state_->watched.empty()) return;
  state_->changed.notify_one();
  if (state_->thread.joinable()) return;
  state_->thread = std::thread([state = state_] {
    pthread_setname_np(pthread_self(), "resolver");
    state->run();
  });
}

}  // namespace router
