// A version of a model that can run: its signature, how it may be batched, what it costs.
//
// Nothing outside run/ knows the kind (ONNX Runtime, scripted, upstream). A Version is
// immutable after load apart from its running averages (relaxed atomics: nothing is inferred
// from them) and is shared by every table that routes to it; the reaper destroys it after
// the last table and the last batch that hold it, never on a request's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "wire/oip_read.h"
#include "wire/tensor.h"

namespace router {

struct TensorSpec {
  std::string name;
  DataType type = DataType::invalid;
  Shape shape;            // -1: any size
  bool has_shape = true;  // false: the model does not say, any rank and size passes
  bool is_served = true;  // false: sequence or map output, hidden and never requested
};

struct Signature {
  std::vector<TensorSpec> inputs, outputs;  // outputs: served ones only
  bool may_batch = false;                   // the version's; lets `bind` count rows
};

enum class Batching : uint8_t { off, automatic, sizes };

// Everything a load needs, as key/value text from the control plane (see load.cc):
// kind=ort|upstream|scripted, library (path of libonnxruntime.so), bytes are passed beside.
// providers=name[,name...], provider.<name>.<option>=value, intra_op_threads, batching,
// shadow=1 (a session of its own for shadows; the engine's), batch_sizes, batch_rows_max, concurrency, max_queue_delay_us, script (scripted only).
// An upstream: targets=host:port[,unix:path...], upstream_model, upstream_version, platform,
// input.<i> and output.<i>=name|DATATYPE|d0,d1, connections (for each loop and address),
// in_flight, connect_timeout_ms; tls=1 with tls_name, and PEM in tls_ca, tls_cert, tls_key.
using Options = std::vector<std::pair<std::string, std::string>>;

// How a request's tensors map onto the signature. Filled by `bind`.
struct Binding {
  std::vector<uint8_t> input_at;   // for each model input, its index in the request
  std::vector<uint8_t> outputs;    // indices of served outputs to return, in request order
  uint64_t rows = 0;               // size of dimension 0 when the version may batch it, else 0
};

// Checks names, datatypes, ranks, fixed dimensions and requested outputs; messages name the
// field and what was sent, in Triton's words. `model` is for the messages.
Status bind(const Signature& signature, std::string_view model, const InferRequest& request,
            Binding* out);

// Owns what a run produced (runtime values); one per batch, shared by its attempts and
// released on the loop that owns them. Counts like Body: plain, one loop.
class RunResult;
class ResultRef {
 public:
  ResultRef() = default;
  explicit ResultRef(RunResult* owned) : result_(owned) {}
  ResultRef(const ResultRef&) = delete;
  ResultRef(ResultRef&& other) noexcept : result_(std::exchange(other.result_, nullptr)) {}
  ResultRef& operator=(ResultRef&& other) noexcept {
    std::swap(result_, other.result_);
    return *this;
  }
  ~ResultRef();
  static ResultRef share(const ResultRef& other);
  RunResult* get() const { return result_; }

 private:
  RunResult* result_ = nullptr;
};

// One try of one version. The owner (a call, a probe) keeps it and the request's bytes
// alive until `status` is final, that is until its batch came back.
struct Attempt {
  const InferRequest* request = nullptr;
  Binding binding;
  int64_t deadline_ns = INT64_MAX;
  void* owner = nullptr;
  // Results, final when the batch is done. `outputs` point into `result` and, for their
  // names, into the version's signature.
  Status status;
  std::vector<TensorView> outputs;
  ResultRef result;
};

// Whether an answer has the shapes of another version, stable: its declared ones, and as many
// rows as the request where that version's rows are independent of each other.
bool has_promised_shapes(const Signature& promised, const Attempt& attempt);

class Version;

// Attempts of one version that run together. Made and finished on one loop.
struct Batch {
  Version* version = nullptr;      // kept alive by the holder's reference (see hold/release)
  std::vector<Attempt*> attempts;
  uint32_t lane = 0;               // variants that share a version queue apart
  uint64_t rows = 0;
  int64_t deadline_ns = INT64_MAX; // the latest of its attempts'
  int64_t submitted_ns = 0, started_ns = 0, finished_ns = 0;
  int64_t cpu_ns = 0;              // thread CPU time of the run
  std::atomic<uint32_t> waiting{0};  // attempts somebody still wants; 0: terminate the run
  std::atomic<bool> was_terminated{false};
  void* loop = nullptr;            // where the finished batch is posted
  void* sent = nullptr;            // of an upstream version: what its loop knows of it
  bool is_shadow = false;          // its runs are not counted as the version's
  Batch* next = nullptr;
};

struct VersionCounters {
  std::atomic<uint64_t> runs{0}, rows{0}, run_ns{0}, cpu_ns{0}, failures{0},
      terminated{0}, overruns{0},
      splits{0};  // batches run again attempt by attempt
};

class Version {
 public:
  virtual ~Version() = default;  // the kinds are private to run/; see version.cc

  // Runs the batch on the calling thread and fills every attempt's status, outputs and
  // result. Never throws. `slot` is the calling thread's, for termination. Also fills the
  // batch's times, counts, and calls `observe`: callers do none of that. All times are
  // CLOCK_MONOTONIC nanoseconds.
  virtual void run(Batch* batch, class RunSlot* slot) = 0;

  std::string model;
  uint32_t number = 0;
  Signature signature;
  std::string platform;          // "onnxruntime_onnx"
  // Set when the version lives in another server: its attempts are sent there by the loop
  // that owns them, one a batch, and are never given to `run`.
  std::shared_ptr<const struct Upstream> upstream;
  std::vector<std::string> providers;  // in use, in order
  std::vector<std::string> warnings;   // hidden outputs, provider fallback, failed probe
  uint64_t memory_bytes = 0;     // measured growth at load: model and arena
  uint32_t concurrency = 1;
  uint32_t intra_op_threads = 1;
  uint32_t max_queue_delay_us = 0;
  bool may_batch = false;        // rows proved independent, or sizes were given
  std::vector<uint32_t> batch_sizes;   // empty: any number of rows
  uint32_t rows_max = 0;         // rows a batch may have; 0: no limit given
  bool is_loaded = false;        // the probe is over
  bool may_run_on_loop = false;  // CPU, probe succeeded, no queue delay
  VersionCounters counters;

  // Predicted run time by rows, from running averages kept per power of two of rows.
  int64_t predicted_ns(uint64_t rows) const;
  // Feeds the averages; after a run of ten times its prediction (and over 1 ms)
  // the version has to be proved anew, by twice as many runs each time.
  void observe(uint64_t rows, int64_t run_ns);
  void forget_averages();
  // Probe succeeded, and at least kProofRuns runs since the load or the last overrun.
  bool is_proved() const;

  // A batch of more rows than one attempt's came back with the wrong number of rows: no
  // attempts are joined any more. Read relaxed: late news costs only another re-run.
  std::atomic<bool> has_mixed_rows{false};

  // The last failure in the runtime's words, for operators; kept at most once a second.
  void note_failure(const std::string& detail);
  std::string last_error() const;

  // How many coming runs are measured in CPU time too. A run that looks like an overrun may
  // only have waited for a core, so the first one arms this and the next one decides.
  std::atomic<uint32_t> measured_runs_left{0};

  static constexpr uint64_t kProofRuns = 1000;

 private:
  std::atomic<int64_t> average_ns_[24]{};
  std::atomic<uint64_t> proved_at_{kProofRuns};  // runs after which it is proved
  mutable std::mutex error_mutex_;
  std::string last_error_;
  int64_t error_ns_ = 0;
};

// A thread that runs batches has one slot; the watchdog and loops terminate through it.
class RunSlot {
 public:
  RunSlot();
  ~RunSlot();
  struct Impl;
  Impl* impl() { return impl_.get(); }
  // Ends the run this slot is in if it is still the run of `batch`. Any thread.
  void terminate(const Batch* batch);

 private:
  std::unique_ptr<Impl> impl_;
};

// Loads, warms and probes a version. Slow; never called on a loop. `bytes` may be freed
// after it returns. Failure text is for operators (it may name files), not for clients.
std::string load_version(const std::string& model, uint32_t number, ByteView bytes,
                         const Options& options, std::unique_ptr<Version>* out);

// The providers the runtime library reports, and its version; empty with `why` set when
// the library is missing or too old.
std::vector<std::string> runtime_providers(const std::string& library, std::string* version,
                                           std::string* why);

}  // namespace router
