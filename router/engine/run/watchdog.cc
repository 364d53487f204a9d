// The watchdog: ends runs nobody waits for, or that hold a loop, and sleeps otherwise.
#include <algorithm>
#include <chrono>

#include "run/executor_impl.h"

namespace router {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
// On a busy machine a thread may well be without a core for a tenth of this.
constexpr int64_t kHeldMaxNs = 1'000 * kMillisecond;
constexpr int kIdleRounds = 50;  // quiet looks after which the watchdog sleeps

}  // namespace

// Ends runs nobody waits for, and gives up on those that do not end. True while any runs.
bool Executors::Impl::look_at_workers(int64_t now) {
  bool is_active = false;
  const size_t count = workers.size();  // replacements are started below
  for (size_t i = 0; i < count; ++i) {
    Worker* worker = workers[i].get();
    if (!worker->is_running || worker->is_abandoned) continue;
    is_active = true;
    if (worker->stop_asked_ns != 0) {
      if (now - worker->stop_asked_ns < options.abandon_after_ns) continue;
      worker->is_abandoned = true;
      ++queues[{worker->run.version, worker->run.lane}].stuck;
      counters.abandoned.fetch_add(1, std::memory_order_relaxed);
      start_worker();
      continue;
    }
    const auto& parts = worker->parts;
    const bool is_wanted = std::any_of(parts.begin(), parts.end(), [](const Batch* part) {
      return part->waiting.load(std::memory_order_relaxed) != 0;
    });
    if (is_wanted && worker->run.deadline_ns > now) continue;
    if (!is_wanted) worker->run.waiting.store(0);
    RunSlot::Impl* slot = worker->slot.impl();
    // Not begun yet when this fails: the next look will find it.
    if (!slot->terminate_run(slot->sequence.load(std::memory_order_relaxed))) continue;
    worker->stop_asked_ns = now;
    counters.terminated_executor.fetch_add(1, std::memory_order_relaxed);
  }
  return is_active;
}

// Ends a run that has held its loop for ten times its budget. A thread that lost its core
// is not to blame, so it is CPU time that counts, seen from the first late look on; a run
// that holds the loop for a second is ended whatever it does.
bool Executors::Impl::look_at_loops(int64_t now) {
  const int64_t limit = options.loop_run_ns * 10;
  bool is_active = false;
  for (LoopWatch& loop : loops) {
    RunSlot::Impl* slot = loop.slot->impl();
    const uint64_t sequence = slot->sequence.load(std::memory_order_relaxed);
    const int64_t started = slot->started_ns.load(std::memory_order_relaxed);
    if (sequence != loop.sequence || started != 0) is_active = true;
    loop.sequence = sequence;
    if (started == 0 || now - started < limit || sequence == loop.ended) continue;
    const int64_t cpu = clock_ns(slot->cpu_clock.load(std::memory_order_relaxed));
    if (loop.late != sequence) {
      loop.late = sequence;
      loop.cpu_from_ns = cpu;
      continue;
    }
    if (cpu - loop.cpu_from_ns < limit / 2 && now - started < kHeldMaxNs) continue;
    if (!slot->terminate_run(sequence)) continue;
    loop.ended = sequence;
    counters.terminated_loop.fetch_add(1, std::memory_order_relaxed);
  }
  return is_active;
}

// Takes from the queues what need not run any more. Workers do so too when they come to it,
// but the queue of a version whose runs are stuck is never come to.
void Executors::Impl::take_stale(int64_t now, std::vector<Batch*>* stale) {
  for (auto& [place, queue] : queues) {
    auto& waiting = queue.waiting;
    if (queue.stuck == 0 || waiting.empty()) continue;
    for (size_t i = 0; i < waiting.size();) {
      Batch* batch = waiting[i];
      const bool is_wanted = batch->waiting.load(std::memory_order_relaxed) != 0;
      if (is_wanted && batch->deadline_ns > now) {
        ++i;
        continue;
      }
      waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
      queue.rows -= batch->rows;
      --queued;
      finish_unrun(batch, is_wanted);
      stale->push_back(batch);
    }
    if (waiting.empty()) order.erase(std::find(order.begin(), order.end(), &queue));
  }
}

bool Executors::Impl::has_watched_loop() const {
  return std::any_of(loops.begin(), loops.end(), [](const LoopWatch& loop) {
    return loop.slot->impl()->is_watched.load();
  });
}

void Executors::Impl::watch_runs() {
  const auto tick = std::chrono::nanoseconds(
      std::clamp(options.loop_run_ns * 10, kMillisecond, 5 * kMillisecond));
  std::vector<Batch*> stale;
  int quiet = 0;
  std::unique_lock<std::mutex> lock(mutex);
  while (!is_stopping) {
    const int64_t now = clock_ns();
    const bool workers_run = look_at_workers(now), loops_run = look_at_loops(now);
    take_stale(now, &stale);
    if (!stale.empty()) {
      lock.unlock();
      for (Batch* batch : stale) done(batch);
      stale.clear();
      lock.lock();
      continue;
    }
    quiet = workers_run || loops_run || queued != 0 ? 0 : quiet + 1;
    if (quiet < kIdleRounds) {
      watch.wait_for(lock, tick);
      continue;
    }
    is_watchdog_asleep.store(true);
    if (!has_watched_loop()) watch.wait(lock);
    is_watchdog_asleep.store(false);
    quiet = 0;
  }
}

}  // namespace router
