#include "serve/plane.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "engine.h"

namespace router {
namespace {

constexpr auto kReapInterval = std::chrono::milliseconds(20);
constexpr auto kWatchInterval = std::chrono::milliseconds(100);  // of shadows' runs
constexpr int64_t kCutOffNs = 2'000'000'000;

void post_finished(Batch* batch) {
  static_cast<Loop*>(batch->loop)->post({LetterKind::batch, -1, 0, {}, batch});
}

}  // namespace

Engine::Engine(const EngineOptions& options, const fh_kernel_api* kernel)
    : core_(options, kernel) {
  core_.nobody = core_.cells.variant("", "", 0);
  core_.executors = std::make_unique<Executors>(options.executor, post_finished);
}

Engine::~Engine() { stop(); }

std::string Engine::load(const std::string& model, uint32_t number, ByteView bytes,
                         const Options& options, std::string* report) {
  std::unique_ptr<Version> loaded;
  std::string problem;
  const auto load = [&] { problem = load_version(model, number, bytes, options, &loaded); };
  const auto load_nicely = [&] {
    ShadowLanes::be_nice();
    load();
  };
  // The threads a session makes inherit the priority of the one that makes it.
  const bool is_beside = std::find(options.begin(), options.end(),
                                   Options::value_type{"shadow", "1"}) != options.end();
  is_beside ? std::thread(load_nicely).join() : load();
  if (!problem.empty()) return problem;
  *report = describe_version(*loaded);
  if (loaded->upstream != nullptr) resolver_.watch(loaded->upstream->endpoints);
  std::lock_guard<std::mutex> lock(mutex_);
  (is_beside ? beside_ : versions_)[{model, number}] = std::move(loaded);
  return {};
}

std::string Engine::unload(const std::string& model, uint32_t number) {
  // Freed after the lock, if no table holds them.
  std::shared_ptr<Version> last, beside;
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = versions_.find({model, number});
  if (found == versions_.end()) {
    return "model '" + model + "' version " + std::to_string(number) + " is not loaded";
  }
  last = std::move(found->second);
  versions_.erase(found);
  const auto other = beside_.find({model, number});
  if (other == beside_.end()) return {};
  beside = std::move(other->second);
  beside_.erase(other);
  return {};
}

std::string Engine::publish(ByteView bytes) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (is_stopped_) return "the engine has stopped";
    std::unique_ptr<LiveTable> table;
    std::string problem =
        resolve_table(bytes, *core_.kernel, {versions_, beside_}, &core_.cells,
                      &core_.scopes, &table);
    if (!problem.empty()) return problem;
    if (!table->shadows.empty() && core_.lanes == nullptr) {
      core_.lanes = std::make_unique<ShadowLanes>(core_.options);
    }
    core_.scopes.published(++generation_);
    table->generation = generation_;
    core_.table.store(table.get(), std::memory_order_release);
    tables_.push_back(std::move(table));
    for (const auto& loop : core_.loops) loop->wake();
  }
  retired_.notify_one();
  return {};
}

// Loops size their counters by the methods, so they are made once those are known.
void Engine::make_loops() {
  if (!core_.loops.empty()) return;
  for (unsigned i = 0; i < core_.options.loops; ++i) {
    core_.loops.push_back(std::make_unique<Loop>(&core_, i));
  }
}

void Engine::listen(int fd, int listener) {
  std::lock_guard<std::mutex> lock(mutex_);
  make_loops();
  core_.loops[0]->listen(fd, listener);
}

std::string Engine::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_started_) return "the engine was started before";
  make_loops();
  is_started_ = true;
  started_ns_ = monotonic_ns();
  for (size_t i = 0; i < core_.loops.size(); ++i) {
    threads_.emplace_back([this, i] {
      pthread_setname_np(pthread_self(), ("loop-" + std::to_string(i)).c_str());
      core_.loops[i]->run();
    });
  }
  reaper_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "reaper");
    reap();
  });
  return {};
}

// A table dies when it is not the current one and no loop may still read it.
void Engine::reap() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!is_stopped_) {
    if (core_.lanes != nullptr) core_.lanes->watch(monotonic_ns());
    if (tables_.size() > 1) {
      retired_.wait_for(lock, kReapInterval);
    } else if (core_.lanes != nullptr) {
      retired_.wait_for(lock, kWatchInterval);
    } else {
      retired_.wait(lock);
    }
    const uint64_t oldest = oldest_held();
    std::vector<std::unique_ptr<LiveTable>> dying;
    while (tables_.size() > 1 && tables_.front()->generation < oldest) {
      dying.push_back(std::move(tables_.front()));
      tables_.erase(tables_.begin());
    }
    lock.unlock();
    dying.clear();  // sessions may take long to free: not under the lock
    lock.lock();
  }
}

uint64_t Engine::oldest_held() const {
  uint64_t oldest = UINT64_MAX;
  for (const auto& loop : core_.loops) oldest = std::min(oldest, loop->held_generation());
  return oldest;
}

bool Engine::call(LocalCall* call) {
  const uint32_t turn = next_loop_.fetch_add(1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_started_ || is_stopped_) return false;
    core_.loops[turn % core_.loops.size()]->post(
        {LetterKind::local_call, -1, 0, {}, call});
  }
  std::unique_lock<std::mutex> lock(call->mutex);
  call->ready.wait(lock, [&] { return call->is_done; });
  return true;
}

bool Engine::send(uint64_t stream, MethodReply* reply) {
  const uint64_t loop = stream >> 48;
  std::lock_guard<std::mutex> lock(sending_);
  if (is_closed_ || loop >= core_.loops.size()) {
    delete reply;
    return false;
  }
  core_.loops[loop]->post({LetterKind::reply, -1, 0, {}, reply});
  return true;
}

void Engine::drain_tapes(Buffer* out) {
  std::lock_guard<std::mutex> lock(taping_);
  for (const auto& tape : core_.tapes) tape->drain(out);
}

int Engine::drain(int64_t grace_ms) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_started_ || is_stopped_) return 0;
  }
  core_.is_draining.store(true, std::memory_order_relaxed);
  for (const auto& loop : core_.loops) loop->post({LetterKind::drain, -1, 0, {}, nullptr});
  const auto all_drained = [&] {
    return std::all_of(core_.loops.begin(), core_.loops.end(),
                       [](const auto& loop) { return loop->is_drained(); });
  };
  const auto wait_until = [&](int64_t end_ns) {
    while (!all_drained() && monotonic_ns() < end_ns) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  wait_until(monotonic_ns() + grace_ms * 1'000'000);
  if (all_drained()) return 0;
  int cut = 0;
  for (const auto& loop : core_.loops) {
    cut += static_cast<int>(loop->counters().calls.load(std::memory_order_relaxed));
    loop->post({LetterKind::cut_off, -1, 0, {}, nullptr});
  }
  wait_until(monotonic_ns() + kCutOffNs);
  return cut;
}

void Engine::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (is_stopped_) return;
    is_stopped_ = true;
  }
  {
    std::lock_guard<std::mutex> lock(sending_);
    is_closed_ = true;
  }
  retired_.notify_one();
  core_.methods.stop();
  for (const auto& loop : core_.loops) loop->post({LetterKind::stop, -1, 0, {}, nullptr});
  for (std::thread& thread : threads_) thread.join();
  if (reaper_.joinable()) reaper_.join();
  // Executors first: they post to loops, whose mailboxes must still be there. What a hung
  // executor holds is left to the process's end, with its version.
  bool has_hung = core_.executors->running() != 0;
  if (core_.lanes != nullptr && !core_.lanes->stop()) has_hung = true;
  core_.executors.reset();
  if (has_hung && core_.table.load() != nullptr) {
    for (auto& table : tables_) [[maybe_unused]] LiveTable* left = table.release();
    for (auto& loop : core_.loops) [[maybe_unused]] Loop* left_loop = loop.release();
    return;
  }
  core_.loops.clear();
}

}  // namespace router
