// Inside run/: what a running thread keeps, what a run leaves behind, and the bracket every
// kind puts around its work.
#pragma once

#include <time.h>

#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "run/ort_abi.h"
#include "run/version.h"

namespace router {

inline int64_t clock_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// Runtime values and buffers that outputs point into. `parent` is shared by the parts of
// one run whose batches live on different loops; the rest is one loop's.
class RunResult {
 public:
  RunResult() = default;
  RunResult(const RunResult&) = delete;
  ~RunResult() {
    for (ort::Value* value : values) ort::release_value(table, value);
  }
  uint32_t references = 1;
  ort::Table table = nullptr;
  std::vector<ort::Value*> values;
  std::vector<Buffer> buffers;
  BodyRef body;  // the answer of another server
  std::shared_ptr<ResultRef> parent;
};

// Memory for one input, aligned for any kernel, kept from run to run up to kKeepBytes.
class Scratch {
 public:
  static constexpr size_t kAlign = 64, kKeepBytes = 8 << 20;
  uint8_t* take(size_t size) {
    if (size <= size_ && size_ != 0) return bytes_.get();
    size_ = (size + kAlign) & ~(kAlign - 1);
    bytes_.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlign, size_)));
    if (bytes_ == nullptr) std::abort();  // the process is out of memory: nothing is safe
    return bytes_.get();
  }
  void trim() {
    if (size_ <= kKeepBytes) return;
    bytes_.reset();
    size_ = 0;
  }

 private:
  struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<uint8_t, Free> bytes_;
  size_t size_ = 0;
};

struct RunSlot::Impl {
  // Guarded by `mutex`, as anyone may terminate.
  std::mutex mutex;
  std::condition_variable stopped;  // scripted runs wait on it
  Batch* batch = nullptr;
  bool is_stopped = false;
  const ort::Runtime* runtime = nullptr;
  ort::RunOptions* options = nullptr;

  // Read by the watchdog without the mutex: when the run began (0: none), and which of the
  // slot's runs it is. Nothing else is inferred from them; the mutex decides.
  std::atomic<int64_t> started_ns{0};
  std::atomic<uint64_t> sequence{0};
  std::atomic<clockid_t> cpu_clock{CLOCK_MONOTONIC};  // the thread's, once it has run
  std::atomic<bool> is_watched{false};  // see Executors::Impl::is_watchdog_asleep

  // The thread's own.
  bool measures_cpu = false;
  std::vector<Scratch> scratch;                // one an input
  std::vector<TensorView> wholes;              // outputs before they are cut by attempt
  std::vector<std::vector<uint64_t>> offsets;  // of their elements, for texts

  void stop_locked();
  // Ends run number `which` if it is still going on; true when it was.
  bool terminate_run(uint64_t which);
  // Makes `options` belong to the library about to run.
  std::string prepare(const ort::Runtime* runtime);
};

// The bracket of a run: registers it for termination, times it, feeds the averages.
class RunScope {
 public:
  RunScope(Version* version, Batch* batch, RunSlot::Impl* slot);
  ~RunScope();
  RunScope(const RunScope&) = delete;

 private:
  Version* version_;
  Batch* batch_;
  RunSlot::Impl* slot_;
  int64_t cpu_from_ = -1;  // -1: not measured
};

// Finishes the attempts of a run that brought no answer; `detail` is for operators.
void fail_attempts(Version* version, Batch* batch, Attempt* const* attempts, size_t count,
                   const std::string& detail);

std::string load_ort(const ByteView& bytes, const Options& options,
                     std::unique_ptr<Version>* out);
std::string load_upstream(const Options& options, std::unique_ptr<Version>* out);
std::string load_scripted(const Options& options, std::unique_ptr<Version>* out);
// Warms the version and finds out whether its rows are independent; adds to `warnings`.
void probe_version(Version* version, bool wants_batching);

std::string_view option(const Options& options, std::string_view key,
                        std::string_view otherwise = {});
// False, with `why`, when the option is there and not a number up to `most`.
bool option_number(const Options& options, std::string_view key, uint32_t most,
                   uint32_t* number, std::string* why);
std::vector<std::string> split_list(std::string_view text, char separator = ',');

}  // namespace router
