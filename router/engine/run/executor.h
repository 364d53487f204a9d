// The executors: a pool of threads for batches that must not run on a loop, per-version
// queues with concurrency limits, and the watchdog that ends runs nobody waits for.
//
// Loops call submit and predicted_wait_ns; finished batches go back by `done`, called on an
// executor thread, which posts them to the batch's loop. An executor that does not come back
// after termination is abandoned: counted, replaced, its version never freed, and shutdown
// does not wait for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "run/version.h"

namespace router {

struct ExecutorOptions {
  uint32_t threads = 2;
  int64_t loop_run_ns = 200'000;      // budget of a run on a loop; the watchdog allows ten
  int64_t abandon_after_ns = 2'000'000'000;  // after termination was asked
  uint32_t queued_max = 4096;         // batches, over all versions
};

struct ExecutorCounters {
  std::atomic<uint64_t> abandoned{0}, terminated_loop{0}, terminated_executor{0}, refused{0};
};

class Executors {
 public:
  using Done = void (*)(Batch* batch);
  Executors(const ExecutorOptions& options, Done done);
  // Stops taking work, terminates runs, joins every thread that comes back.
  ~Executors();

  // Queues the batch behind those of its version. False when the queue is full: the caller
  // keeps the batch. Batches whose attempts nobody waits for (waiting == 0) are returned by
  // `done` without being run, their attempts' status Situation::cancelled; one whose
  // deadline passed while queued, with Situation::deadline.
  bool submit(Batch* batch, int64_t now_ns);
  // How long a batch submitted now would wait before it starts, from the averages.
  int64_t predicted_wait_ns(const Version& version, uint32_t lane = 0) const;
  uint64_t queued(const Version& version) const;
  uint64_t running() const;

  // A loop brackets each run of its own with these, so that the watchdog sees it. The slot
  // lives as long as the loop.
  void watch_begin(RunSlot* slot, const Batch* batch, int64_t now_ns);
  void watch_end(RunSlot* slot);
  void add_loop_slot(RunSlot* slot);
  void remove_loop_slot(RunSlot* slot);

  const ExecutorCounters& counters() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with threads: an abandoned one may outlast us
};

}  // namespace router
