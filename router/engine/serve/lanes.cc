// The threads of shadows: they run, compare, choose which pairs are worth keeping, and give
// back. What a run produced never leaves its lane.
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "run/batch.h"
#include "serve/loop.h"
#include "serve/shadow.h"

namespace router {
namespace {

constexpr int kNice = 19;
constexpr size_t kJoinLook = 64;    // how far behind a work others are looked for
constexpr unsigned kWakeAfter = 32; // works given back, while there is more to do
constexpr int64_t kStopNs = 500'000'000, kWindowNs = 10'000'000'000;
constexpr unsigned kWorstKept = 8, kRandomKept = 2, kRandomOf = 64;  // pairs of a window

enum RunnerState : int { kIdle, kRunning, kAbandoned };

struct Runner {
  std::thread thread;
  RunSlot slot;
  Batch batch;
  // Exchanged by its thread at the end of a run and by `watch` when it gives it up: one of
  // them sees the other, and who comes second leaves the lane alone.
  std::atomic<int> state{kIdle};
  std::atomic<int64_t> started_ns{0};
  int64_t stop_asked_ns = 0, asked_for_ns = 0;  // the reaper's: when, and of which run
  bool has_ended = false;                       // under the lanes' mutex
};

// Keeps the pairs that set a record for their distance within a window, and a few others.
struct Chooser {
  int64_t window_ns = 0;
  double worst = 0;
  unsigned worst_kept = 0, random_kept = 0;
  uint64_t seen = 0;

  bool choose(const Comparison& pair, int64_t now, bool* is_random) {
    if (now - window_ns > kWindowNs) *this = Chooser{now, 0, 0, 0, seen};
    // Half a window's worst pairs may be ones that could not be compared at all.
    const bool is_kept = pair.mismatch != 0 ? worst_kept < kWorstKept / 2
                                            : pair.distance > worst && worst_kept < kWorstKept;
    if (is_kept) {
      ++worst_kept;
      worst = std::max(worst, pair.distance);
      return true;
    }
    const uint64_t mixed = (++seen * 0x9E3779B97F4A7C15) >> 32;
    *is_random = true;
    return mixed % kRandomOf == 0 && random_kept++ < kRandomKept;
  }
};

struct Lane {
  // Release by loops, acquire by the lane: a work is seen with all of its request.
  std::atomic<ShadowWork*> inbox{nullptr};
  std::atomic<bool> is_asleep{false};
  int fd = eventfd(0, EFD_CLOEXEC);
  // The present runner's.
  std::deque<ShadowWork*> pending;
  std::unordered_map<const ShadowEntry*, Chooser> choosers;
  unsigned given_back = 0;
  std::vector<Loop*> woken;  // scratch: loops that got something back
  std::vector<std::unique_ptr<Runner>> runners;  // the present one last
  ~Lane() { close(fd); }
  void ring() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof one);
  }
};

int64_t cpu_ns() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

struct ShadowLanes::Impl : std::enable_shared_from_this<ShadowLanes::Impl> {
  explicit Impl(const EngineOptions& with) : options(with), lanes(with.shadow_threads) {}

  const EngineOptions options;
  std::vector<Lane> lanes;
  std::atomic<bool> is_stopping{false}, is_closed{false};
  std::mutex mutex;  // runners; never taken by a loop
  std::condition_variable ended;

  void start_runner(Lane* lane);
  void serve(Lane* lane, Runner* self);
  void take_inbox(Lane* lane);
  bool run_some(Lane* lane, Runner* self, std::vector<Attempt*>* same);
  void finish(Lane* lane, ShadowWork* work);
  void drop(Lane* lane, ShadowWork* work, ShadowDrop why);
  void give_back(Lane* lane, ShadowWork* work);
  static void wake_loops(Lane* lane);
};

void ShadowLanes::Impl::start_runner(Lane* lane) {
  Runner* runner = lane->runners.emplace_back(std::make_unique<Runner>()).get();
  runner->batch.is_shadow = true;
  runner->thread = std::thread([self = shared_from_this(), lane, runner] {
    pthread_setname_np(pthread_self(), "shadow");
    be_nice();
    self->serve(lane, runner);
    std::lock_guard<std::mutex> lock(self->mutex);
    runner->has_ended = true;
    self->ended.notify_all();
  });
}

void ShadowLanes::Impl::serve(Lane* lane, Runner* self) {
  std::vector<Attempt*> same;
  while (!is_stopping.load(std::memory_order_relaxed)) {
    take_inbox(lane);
    if (!lane->pending.empty()) {
      if (!run_some(lane, self, &same)) return;
      continue;
    }
    wake_loops(lane);
    // Sequentially consistent on both sides: either a loop sees that the lane sleeps, or
    // the lane sees what the loop has put into its inbox.
    lane->is_asleep.store(true);
    if (lane->inbox.load() == nullptr && !is_stopping.load()) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = read(lane->fd, &count, sizeof count);
    }
    lane->is_asleep.store(false);
  }
}

void ShadowLanes::Impl::take_inbox(Lane* lane) {
  ShadowWork* work = lane->inbox.exchange(nullptr);
  const auto end = static_cast<std::ptrdiff_t>(lane->pending.size());
  for (; work != nullptr; work = work->next) lane->pending.push_back(work);
  std::reverse(lane->pending.begin() + end, lane->pending.end());
  for (auto at = lane->pending.begin() + end; at != lane->pending.end(); ++at) {
    Attempt& attempt = (*at)->attempt;
    Version* version = (*at)->version;
    if ((*at)->has_run) continue;
    attempt.status = router::bind(version->signature, attempt.request->model_name, *attempt.request,
                          &attempt.binding);
    if (!attempt.status.ok()) version->note_failure(attempt.status.message);
    if (!version->may_batch) attempt.binding.rows = 0;
  }
}

// Runs the first work and those that may join it. False when the run was given up
// meanwhile: another runner has the lane.
bool ShadowLanes::Impl::run_some(Lane* lane, Runner* self, std::vector<Attempt*>* same) {
  ShadowWork* first = lane->pending.front();
  const int64_t now = monotonic_ns();
  const auto may_run = [&](const ShadowWork* work) {
    return !work->has_run && work->attempt.status.ok() && work->deadline_ns > now &&
           !work->shadow->entry->is_stuck.load(std::memory_order_relaxed);
  };
  if (!may_run(first)) {
    lane->pending.pop_front();
    if (first->has_run || !first->attempt.status.ok()) {
      finish(lane, first);
    } else {
      drop(lane, first, first->deadline_ns > now ? ShadowDrop::stuck : ShadowDrop::late);
    }
    return true;
  }
  same->clear();
  const size_t look = std::min(lane->pending.size(), kJoinLook);
  for (size_t i = 0; i < look; ++i) {
    ShadowWork* work = lane->pending[i];
    if (work->version == first->version && may_run(work)) same->push_back(&work->attempt);
  }
  Batch* batch = &self->batch;
  batch->version = first->version;
  batch->rows = form_batch(*first->version, same, &batch->attempts);
  batch->deadline_ns = first->deadline_ns;
  batch->waiting.store(static_cast<uint32_t>(batch->attempts.size()));
  batch->was_terminated.store(false);
  for (Attempt* attempt : batch->attempts) {
    static_cast<ShadowWork*>(attempt->owner)->is_chosen = true;
  }
  lane->pending.erase(std::remove_if(lane->pending.begin(), lane->pending.end(),
                                     [](const ShadowWork* work) { return work->is_chosen; }),
                      lane->pending.end());
  self->started_ns.store(now, std::memory_order_relaxed);
  self->state.store(kRunning);
  const int64_t cpu_from = cpu_ns();
  batch->version->run(batch, &self->slot);
  const int64_t cpu = cpu_ns() - cpu_from;
  const bool was_abandoned = self->state.exchange(kIdle) == kAbandoned;
  if (is_closed.load()) return false;  // the loops are gone
  if (was_abandoned) std::lock_guard<std::mutex> wait(mutex);
  for (Attempt* attempt : batch->attempts) {
    auto* work = static_cast<ShadowWork*>(attempt->owner);
    work->run_ns = batch->finished_ns - batch->started_ns;
    work->cpu_ns = cpu / static_cast<int64_t>(batch->attempts.size());
    if (!was_abandoned) {
      finish(lane, work);
      continue;
    }
    work->shadow->entry->is_stuck.store(false, std::memory_order_relaxed);
    work->outcome = ShadowOutcome::failed;
    attempt->outputs.clear();
    attempt->result = ResultRef();
    work->loop->give_back(work);
    work->loop->wake();
  }
  return !was_abandoned;
}

void ShadowLanes::Impl::finish(Lane* lane, ShadowWork* work) {
  Attempt& attempt = work->attempt;
  work->outcome = ShadowOutcome::failed;
  if (attempt.status.ok()) {
    work->outcome = ShadowOutcome::paired;
    work->compared =
        compare_answers(work->shadow->spec, work->of->answered, attempt.outputs);
    bool is_random = false;
    Chooser& chooser = lane->choosers[work->shadow->entry];
    if (!work->is_noise && chooser.choose(work->compared, monotonic_ns(), &is_random)) {
      work->sample.clear();
      record_pair(*work, is_random, &work->sample);
      work->is_sampled = true;
    }
  }
  if (!work->has_run) {
    attempt.outputs.clear();
    attempt.result = ResultRef();
  }
  give_back(lane, work);
}

void ShadowLanes::Impl::drop(Lane* lane, ShadowWork* work, ShadowDrop why) {
  work->outcome = ShadowOutcome::dropped;
  work->why = why;
  give_back(lane, work);
}

void ShadowLanes::Impl::give_back(Lane* lane, ShadowWork* work) {
  Loop* loop = work->loop;
  loop->give_back(work);
  if (std::find(lane->woken.begin(), lane->woken.end(), loop) == lane->woken.end()) {
    lane->woken.push_back(loop);
  }
  if (++lane->given_back >= kWakeAfter) wake_loops(lane);
}

void ShadowLanes::Impl::wake_loops(Lane* lane) {
  for (Loop* loop : lane->woken) {
    if (loop->has_returned()) loop->wake();
  }
  lane->woken.clear();
  lane->given_back = 0;
}

ShadowLanes::ShadowLanes(const EngineOptions& options)
    : impl_(std::make_shared<Impl>(options)) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  for (Lane& lane : impl_->lanes) impl_->start_runner(&lane);
}

void ShadowLanes::be_nice() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
}

ShadowLanes::~ShadowLanes() { stop(); }

void ShadowLanes::push(ShadowWork* work) {
  auto& inbox = impl_->lanes[work->shadow->entry->ordinal % impl_->lanes.size()].inbox;
  work->next = inbox.load(std::memory_order_relaxed);
  while (!inbox.compare_exchange_weak(work->next, work)) {
  }
}

void ShadowLanes::wake() {
  for (Lane& lane : impl_->lanes) {
    if (lane.inbox.load() != nullptr && lane.is_asleep.exchange(false)) lane.ring();
  }
}

void ShadowLanes::watch(int64_t now) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  for (Lane& lane : impl_->lanes) {
    Runner* runner = lane.runners.back().get();
    const int64_t started = runner->started_ns.load(std::memory_order_relaxed);
    const bool is_late = now - started > impl_->options.shadow_wait_ns;
    if (!is_late || runner->state.load() != kRunning) continue;
    if (runner->asked_for_ns != started) {
      runner->asked_for_ns = started;
      runner->stop_asked_ns = now;
      runner->slot.terminate(&runner->batch);
      continue;
    }
    if (now - runner->stop_asked_ns < impl_->options.executor.abandon_after_ns) continue;
    int running = kRunning;
    if (!runner->state.compare_exchange_strong(running, kAbandoned)) continue;
    // The runner that follows must not run the same version again. The old one, if it
    // comes back, waits for the mutex before it says otherwise.
    for (const Attempt* attempt : runner->batch.attempts) {
      static_cast<ShadowWork*>(attempt->owner)->shadow->entry->is_stuck.store(true);
    }
    impl_->start_runner(&lane);
  }
}

bool ShadowLanes::stop() {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  if (impl_->is_closed) return true;
  impl_->is_stopping.store(true);
  const int64_t until = monotonic_ns() + kStopNs;
  const auto count_hung = [&] {
    size_t hung = 0;
    for (const Lane& lane : impl_->lanes) {
      for (const auto& runner : lane.runners) hung += !runner->has_ended;
    }
    return hung;
  };
  while (count_hung() != 0 && monotonic_ns() < until) {
    for (Lane& lane : impl_->lanes) {
      lane.ring();
      for (const auto& runner : lane.runners) runner->slot.terminate(&runner->batch);
    }
    impl_->ended.wait_for(lock, std::chrono::milliseconds(2));
  }
  impl_->is_closed.store(true);
  std::vector<std::thread> done;
  const bool has_ended = count_hung() == 0;
  for (Lane& lane : impl_->lanes) {
    for (const auto& runner : lane.runners) {
      if (runner->has_ended) done.push_back(std::move(runner->thread));
      else runner->thread.detach();
    }
  }
  lock.unlock();
  for (std::thread& thread : done) thread.join();
  return has_ended;
}

}  // namespace router
