// Inside run/: the state of the executors. executor.cc queues and runs, watchdog.cc ends.
//
// One mutex guards queues and workers: it is taken once to queue and twice to run a batch of
// hundreds of microseconds. Loops take it only to submit and to ask how long the wait is.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <thread>

#include "run/executor.h"
#include "run/slot.h"

namespace router {

struct Queue {
  Version* version = nullptr;
  uint32_t lane = 0;
  std::deque<Batch*> waiting;
  uint64_t rows = 0;      // of the waiting ones
  uint32_t running = 0;
  uint32_t stuck = 0;     // of the running ones, abandoned: they keep their place
};

// A loop's slot, and what the watchdog has noticed about its present run.
struct LoopWatch {
  RunSlot* slot = nullptr;
  uint64_t sequence = 0;  // the run last seen
  uint64_t late = 0;      // the run last seen late, and the thread's CPU time then
  uint64_t ended = 0;     // the run last terminated
  int64_t cpu_from_ns = 0;
};

struct Worker {
  std::thread thread;
  RunSlot slot;
  std::vector<Batch*> parts;     // taken from the queue; theirs are the attempts of `run`
  Batch run;
  bool is_running = false, is_abandoned = false, has_ended = false;
  int64_t stop_asked_ns = 0;
};

// Finishes the attempts of a batch that is not run.
void finish_unrun(Batch* batch, Situation situation, const char* why);
// ... because nobody waits for it or, when `is_wanted`, because it is too late.
void finish_unrun(Batch* batch, bool is_wanted);

struct Executors::Impl : std::enable_shared_from_this<Executors::Impl> {
  Impl(const ExecutorOptions& with, Done call) : options(with), done(call) {}

  const ExecutorOptions options;
  const Done done;
  ExecutorCounters counters;

  std::mutex mutex;
  std::condition_variable work, watch;
  std::map<std::pair<const Version*, uint32_t>, Queue> queues;  // by version and lane
  std::deque<Queue*> order;  // queues with waiting batches, the longest not served first
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<LoopWatch> loops;
  // Written under the mutex, read without it by predicted_wait_ns.
  std::atomic<uint64_t> queued{0}, running{0};
  uint64_t started = 0;
  bool is_stopping = false, is_closed = false;
  std::thread watchdog;
  // A loop that begins a run stores its slot's `watched`, then looks here; the watchdog
  // stores this, then looks at the slots. Sequentially consistent on both sides, so one of
  // them sees the other and no run begins unseen.
  std::atomic<bool> is_watchdog_asleep{false};

  void start_worker();
  void work_on(Worker* self);
  Queue* next_queue(int64_t now, int64_t* until);
  void take(Queue* queue, Worker* self, std::vector<Batch*>* unrun, int64_t now);
  void forget_idle(Queue* queue);
  void give_back(Worker* self);
  void watch_runs();
  bool look_at_workers(int64_t now);
  bool look_at_loops(int64_t now);
  void take_stale(int64_t now, std::vector<Batch*>* stale);
  bool has_watched_loop() const;
  bool has_ended_all() const;
  void stop();
};

}  // namespace router
