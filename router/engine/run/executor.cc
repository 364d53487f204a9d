// Batches of a version that wait together run together when their attempts may join. Each
// part goes back to its own loop with a result of its own; what they share dies with the
// last of them.
#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "run/batch.h"
#include "run/executor_impl.h"

namespace router {
namespace {

constexpr size_t kJoinLook = 64;  // how far behind the first batch others are looked for

// Gives each part results of its own where one run served several parts, as a result may be
// counted by one loop only.
void divide_results(const std::vector<Batch*>& parts) {
  RunResult* common = nullptr;
  for (Batch* part : parts) {
    for (Attempt* attempt : part->attempts) {
      if (attempt->result.get() == nullptr) continue;
      if (common != nullptr && common != attempt->result.get()) return;
      common = attempt->result.get();
    }
  }
  if (common == nullptr) return;
  std::shared_ptr<ResultRef> whole;
  for (Batch* part : parts) {
    ResultRef own(new RunResult);
    for (Attempt* attempt : part->attempts) {
      if (attempt->result.get() == nullptr) continue;
      if (whole == nullptr) {
        whole = std::make_shared<ResultRef>(std::move(attempt->result));
      }
      attempt->result = ResultRef::share(own);
    }
    own.get()->parent = whole;
  }
}

}  // namespace

void finish_unrun(Batch* batch, Situation situation, const char* why) {
  for (Attempt* attempt : batch->attempts) attempt->status = fail(situation, why);
}

void finish_unrun(Batch* batch, bool is_wanted) {
  finish_unrun(batch, is_wanted ? Situation::deadline : Situation::cancelled,
               is_wanted ? "the deadline passed before the model ran"
                         : "the request was cancelled");
}

void Executors::Impl::start_worker() {
  auto owned = std::make_unique<Worker>();
  Worker* worker = owned.get();
  worker->slot.impl()->measures_cpu = true;
  const std::string name = "exec-" + std::to_string(started++);
  workers.push_back(std::move(owned));
  // The thread keeps this alive: an abandoned one may outlast the Executors.
  worker->thread = std::thread([self = shared_from_this(), worker, name] {
    pthread_setname_np(pthread_self(), name.c_str());
    self->work_on(worker);
  });
}

// The queue to serve next, or null and the time at which one may have become ready.
Queue* Executors::Impl::next_queue(int64_t now, int64_t* until) {
  for (auto at = order.begin(); at != order.end(); ++at) {
    Queue* queue = *at;
    const Version& version = *queue->version;
    if (queue->running >= version.concurrency) continue;
    const int64_t ready = queue->waiting.front()->submitted_ns +
                          int64_t{version.max_queue_delay_us} * 1000;
    const bool is_full = version.rows_max != 0 && queue->rows >= version.rows_max;
    if (!version.may_batch || is_full || ready <= now || is_stopping) {
      order.erase(at);
      return queue;
    }
    *until = std::min(*until, ready);
  }
  return nullptr;
}

// Moves the first batch, and those that may join it, into the worker's run; batches nobody
// waits for and attempts past their deadline are left out.
void Executors::Impl::take(Queue* queue, Worker* self, std::vector<Batch*>* unrun,
                           int64_t now) {
  Version* version = queue->version;
  Batch* run = &self->run;
  const bool may_join = version->may_batch && !version->has_mixed_rows.load();
  self->parts.clear();
  run->version = version;
  run->lane = queue->lane;
  run->attempts.clear();
  run->rows = 0;
  run->deadline_ns = 0;
  auto& waiting = queue->waiting;
  for (size_t i = 0; i < std::min(waiting.size(), kJoinLook);) {
    Batch* batch = waiting[i];
    const bool is_wanted = batch->waiting.load(std::memory_order_relaxed) != 0;
    const bool is_due = is_wanted && batch->deadline_ns > now;
    if (is_due && !run->attempts.empty()) {
      const uint64_t rows = run->rows + batch->rows;
      const auto& sizes = version->batch_sizes;
      const bool has_room =
          sizes.empty() ? version->rows_max == 0 || rows <= version->rows_max
                        : std::find(sizes.begin(), sizes.end(), rows) != sizes.end();
      if (!may_join) break;
      if (!has_room || !can_join(*run->attempts[0], *batch->attempts[0])) {
        ++i;
        continue;
      }
    }
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
    queue->rows -= batch->rows;
    --queued;
    if (!is_due) {
      finish_unrun(batch, is_wanted);
      unrun->push_back(batch);
      continue;
    }
    self->parts.push_back(batch);
    run->rows += batch->rows;
    run->deadline_ns = std::max(run->deadline_ns, batch->deadline_ns);
    for (Attempt* attempt : batch->attempts) run->attempts.push_back(attempt);
  }
  run->waiting.store(static_cast<uint32_t>(run->attempts.size()));
  run->was_terminated.store(false);
  if (!waiting.empty()) order.push_back(queue);
}

void Executors::Impl::forget_idle(Queue* queue) {
  if (queue->waiting.empty() && queue->running == 0) queues.erase({queue->version, queue->lane});
}

void Executors::Impl::give_back(Worker* self) {
  Batch* run = &self->run;
  if (self->parts.size() > 1) divide_results(self->parts);
  const uint64_t attempts = run->attempts.size();
  for (Batch* part : self->parts) {
    part->started_ns = run->started_ns;
    part->finished_ns = run->finished_ns;
    part->cpu_ns = run->cpu_ns * static_cast<int64_t>(part->attempts.size()) /
                   static_cast<int64_t>(attempts);
    part->was_terminated.store(run->was_terminated.load());
    done(part);
  }
}

void Executors::Impl::work_on(Worker* self) {
  std::vector<Batch*> unrun;
  std::unique_lock<std::mutex> lock(mutex);
  while (!self->is_abandoned) {
    int64_t until = INT64_MAX;
    const int64_t now = clock_ns();
    Queue* queue = next_queue(now, &until);
    if (queue == nullptr) {
      if (is_stopping) break;
      if (until == INT64_MAX) {
        work.wait(lock);
      } else {
        work.wait_for(lock, std::chrono::nanoseconds(until - now));
      }
      continue;
    }
    take(queue, self, &unrun, now);
    const bool has_work = !self->parts.empty();
    if (has_work) {
      ++queue->running;
      ++running;
      self->is_running = true;
      self->stop_asked_ns = 0;
      if (is_watchdog_asleep.load()) watch.notify_all();
    }
    if (!queue->waiting.empty()) work.notify_one();
    // Before any batch goes back: the version may die as soon as it has. And only a run of
    // this worker keeps the queue while the lock is not held.
    if (!has_work) forget_idle(queue);
    lock.unlock();
    for (Batch* batch : unrun) done(batch);
    unrun.clear();
    if (has_work) self->run.version->run(&self->run, &self->slot);
    lock.lock();
    if (!has_work) continue;
    --running;
    --queue->running;
    self->is_running = false;
    if (self->is_abandoned) --queue->stuck;
    if (!queue->waiting.empty()) work.notify_one();
    forget_idle(queue);
    if (is_closed) continue;  // the loops are gone
    lock.unlock();
    give_back(self);
    lock.lock();
  }
  self->has_ended = true;
  watch.notify_all();
}

bool Executors::Impl::has_ended_all() const {
  return std::all_of(workers.begin(), workers.end(), [](const auto& worker) {
    return worker->has_ended || worker->is_abandoned;
  });
}

void Executors::Impl::stop() {
  std::unique_lock<std::mutex> lock(mutex);
  is_stopping = true;
  std::vector<Batch*> left;
  for (auto& [place, queue] : queues) {
    left.insert(left.end(), queue.waiting.begin(), queue.waiting.end());
    queue.waiting.clear();
    queue.rows = 0;
  }
  order.clear();
  queued = 0;
  work.notify_all();
  watch.notify_all();
  lock.unlock();
  watchdog.join();
  for (Batch* batch : left) {
    finish_unrun(batch, Situation::draining, "the server is stopping");
    done(batch);
  }
  lock.lock();
  const int64_t until = clock_ns() + options.abandon_after_ns;
  while (!has_ended_all() && clock_ns() < until) {
    for (const auto& worker : workers) {
      RunSlot::Impl* slot = worker->slot.impl();
      if (worker->is_running) slot->terminate_run(slot->sequence.load());
    }
    watch.wait_for(lock, std::chrono::milliseconds(5));
  }
  is_closed = true;
  std::vector<std::thread> threads;
  for (const auto& worker : workers) {
    if (worker->has_ended) {
      threads.push_back(std::move(worker->thread));
    } else {
      worker->thread.detach();
    }
  }
  lock.unlock();
  for (std::thread& thread : threads) thread.join();
}

Executors::Executors(const ExecutorOptions& options, Done done)
    : impl_(std::make_shared<Impl>(options, done)) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  for (uint32_t i = 0; i < std::max(options.threads, 1U); ++i) impl_->start_worker();
  impl_->watchdog = std::thread([impl = impl_.get()] {
    pthread_setname_np(pthread_self(), "watchdog");
    impl->watch_runs();
  });
}

Executors::~Executors() { impl_->stop(); }

bool Executors::submit(Batch* batch, int64_t now_ns) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->is_stopping || impl_->queued >= impl_->options.queued_max) {
    impl_->counters.refused.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  batch->submitted_ns = now_ns;
  Queue& queue = impl_->queues[{batch->version, batch->lane}];
  queue.version = batch->version;
  queue.lane = batch->lane;
  if (queue.waiting.empty()) impl_->order.push_back(&queue);
  queue.waiting.push_back(batch);
  queue.rows += batch->rows;
  ++impl_->queued;
  impl_->work.notify_one();
  if (queue.stuck != 0 && impl_->is_watchdog_asleep.load()) impl_->watch.notify_all();
  return true;
}

int64_t Executors::predicted_wait_ns(const Version& version, uint32_t lane) const {
  // Asked for every request, and mostly nothing is here: then the lock is not worth taking.
  // Relaxed: a prediction may be late by a batch.
  if (impl_->queued.load(std::memory_order_relaxed) == 0 &&
      impl_->running.load(std::memory_order_relaxed) == 0) {
    return int64_t{version.max_queue_delay_us} * 1000;
  }
  std::lock_guard<std::mutex> lock(impl_->mutex);
  const int64_t threads = std::max<int64_t>(impl_->options.threads, 1);
  int64_t total = 0, own = 0;
  for (const auto& [place, queue] : impl_->queues) {
    const Version* key = place.first;
    const uint64_t most = key->may_batch ? key->rows_max : 1;
    const uint64_t runs =
        key->may_batch ? (most == 0 ? queue.rows != 0 : (queue.rows + most - 1) / most)
                       : queue.waiting.size();
    const uint64_t rows = runs == 0 ? 1 : std::max<uint64_t>(queue.rows / runs, 1);
    // A running batch is on average half way through.
    const int64_t cost = static_cast<int64_t>(runs) * key->predicted_ns(rows) +
                         (queue.running - queue.stuck) * key->predicted_ns(1) / 2;
    total += cost;
    if (key != &version || place.second != lane) continue;
    const uint32_t usable = version.concurrency - std::min(version.concurrency, queue.stuck);
    if (usable == 0) return INT64_MAX / 4;  // every run it may have is stuck
    if (queue.running >= version.concurrency || !queue.waiting.empty()) {
      own = cost / std::min<int64_t>(usable, threads);
    }
  }
  const bool is_full = impl_->running >= static_cast<uint64_t>(threads);
  return std::max(own, is_full ? total / threads : 0) +
         int64_t{version.max_queue_delay_us} * 1000;
}

uint64_t Executors::queued(const Version& version) const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  uint64_t waiting = 0;
  for (auto at = impl_->queues.lower_bound({&version, 0});
       at != impl_->queues.end() && at->first.first == &version; ++at) {
    waiting += at->second.waiting.size();
  }
  return waiting;
}

uint64_t Executors::running() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->running;
}

void Executors::watch_begin(RunSlot* slot, const Batch*, int64_t) {
  slot->impl()->is_watched.store(true);
  if (!impl_->is_watchdog_asleep.load()) return;
  std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->watch.notify_all();
}

void Executors::watch_end(RunSlot* slot) {
  slot->impl()->is_watched.store(false, std::memory_order_relaxed);
}

void Executors::add_loop_slot(RunSlot* slot) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->loops.emplace_back().slot = slot;
}

void Executors::remove_loop_slot(RunSlot* slot) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  auto& loops = impl_->loops;
  loops.erase(std::remove_if(loops.begin(), loops.end(),
                             [slot](const LoopWatch& loop) { return loop.slot == slot; }),
              loops.end());
}

const ExecutorCounters& Executors::counters() const { return impl_->counters; }

}  // namespace router
