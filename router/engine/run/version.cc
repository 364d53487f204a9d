// What all kinds of versions share: options, binding, averages, loading, the run bracket.
#include "run/version.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "run/slot.h"

namespace router {
namespace {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (unsigned d = 0; d < shape.rank; ++d) {
    if (d != 0) text += ',';
    text += std::to_string(shape.dims[d]);
  }
  return text + "]";
}

Status bad(std::string message) { return fail(Situation::bad_input, std::move(message)); }

// Says which inputs are missing, in Triton's words.
Status wrong_count(const Signature& signature, std::string_view model,
                   const InferRequest& request) {
  std::string got, missing;
  for (const TensorView& input : request.inputs) {
    got += (got.empty() ? "" : ",") + quoted(input.name);
  }
  for (const TensorSpec& spec : signature.inputs) {
    auto same = [&](const TensorView& input) { return input.name == spec.name; };
    if (std::none_of(request.inputs.begin(), request.inputs.end(), same)) {
      missing += (missing.empty() ? "" : ",") + quoted(spec.name);
    }
  }
  return bad("expected " + std::to_string(signature.inputs.size()) + " inputs but got " +
             std::to_string(request.inputs.size()) + " inputs for model " + quoted(model) +
             ". Got input(s) [" + got + "], but missing required input(s) [" + missing + "]");
}

bool fits(const TensorSpec& spec, const Shape& shape) {
  if (!spec.has_shape) return true;
  if (spec.shape.rank != shape.rank) return false;
  for (unsigned d = 0; d < shape.rank; ++d) {
    if (spec.shape.dims[d] >= 0 && spec.shape.dims[d] != shape.dims[d]) return false;
  }
  return true;
}

Status check_input(const TensorSpec& spec, std::string_view model, const TensorView& input) {
  if (input.type != spec.type) {
    return bad("inference input " + quoted(input.name) + " data-type is '" +
               datatype_name(input.type) + "', but model " + quoted(model) + " expects '" +
               datatype_name(spec.type) + "'");
  }
  if (!fits(spec, input.shape)) {
    return bad("unexpected shape for input " + quoted(input.name) + " for model " +
               quoted(model) + ". Expected " + shape_text(spec.shape) + ", got " +
               shape_text(input.shape));
  }
  return {};
}

// The index of `name`, looking first where it would be if the client kept our order.
template <typename Items>
size_t find_named(const Items& items, std::string_view name, size_t likely) {
  if (likely < items.size() && items[likely].name == name) return likely;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].name == name) return i;
  }
  return items.size();
}

uint64_t common_rows(const InferRequest& request) {
  uint64_t rows = 0;
  for (const TensorView& input : request.inputs) {
    if (input.shape.rank == 0 || input.shape.dims[0] < 1) return 0;
    const auto size = static_cast<uint64_t>(input.shape.dims[0]);
    if (rows != 0 && size != rows) return 0;
    rows = size;
  }
  return rows;
}

uint64_t resident_bytes() {
  unsigned long long total = 0, resident = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "re")) {
    if (std::fscanf(file, "%llu %llu", &total, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

unsigned average_slot(uint64_t rows) {
  const auto slot = static_cast<unsigned>(63 - __builtin_clzll(rows | 1));
  return slot < 24 ? slot : 23;
}

std::string read_limits(const Options& options, Version* version) {
  std::string why;
  uint32_t size = 0;
  version->concurrency = std::max(1U, std::thread::hardware_concurrency());
  const bool good =
      option_number(options, "concurrency", 1024, &version->concurrency, &why) &&
      option_number(options, "max_queue_delay_us", 10'000'000, &version->max_queue_delay_us,
                    &why) &&
      option_number(options, "batch_rows_max", 1 << 20, &version->rows_max, &why);
  if (good && version->concurrency == 0) return "concurrency must be at least 1";
  for (const std::string& text : split_list(option(options, "batch_sizes"))) {
    if (!option_number({{"batch_sizes", text}}, "batch_sizes", 1 << 20, &size, &why)) break;
    version->batch_sizes.push_back(size);
  }
  return why;
}

}  // namespace

std::string_view option(const Options& options, std::string_view key,
                        std::string_view otherwise) {
  for (const auto& [name, value] : options) {
    if (name == key) return value;
  }
  return otherwise;
}

bool option_number(const Options& options, std::string_view key, uint32_t most,
                   uint32_t* number, std::string* why) {
  const std::string_view text = option(options, key);
  if (text.empty()) return true;
  uint64_t value = 0;
  for (char digit : text) {
    value = digit < '0' || digit > '9' ? UINT64_MAX / 16 : value * 10 + uint64_t(digit - '0');
    if (value > most) {
      *why = std::string(key) + " is '" + std::string(text) +
             "'; a whole number up to " + std::to_string(most) + " is needed";
      return false;
    }
  }
  *number = static_cast<uint32_t>(value);
  return true;
}

std::vector<std::string> split_list(std::string_view text, char separator) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    std::string_view item = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (!item.empty()) items.emplace_back(item);
  }
  return items;
}

bool has_promised_shapes(const Signature& promised, const Attempt& attempt) {
  const uint64_t rows = promised.may_batch ? common_rows(*attempt.request) : 0;
  for (const TensorView& output : attempt.outputs) {
    const size_t at = find_named(promised.outputs, output.name, 0);
    if (at == promised.outputs.size()) continue;
    const TensorSpec& spec = promised.outputs[at];
    if (!fits(spec, output.shape)) return false;
    const bool has_rows = rows != 0 && spec.has_shape && output.shape.rank != 0;
    if (has_rows && output.shape.dims[0] != static_cast<int64_t>(rows)) return false;
  }
  return true;
}

Status bind(const Signature& signature, std::string_view model, const InferRequest& request,
            Binding* out) {
  out->input_at.assign(signature.inputs.size(), 0);
  out->outputs.clear();
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const TensorView& input = request.inputs[i];
    const size_t at = find_named(signature.inputs, input.name, i);
    if (at == signature.inputs.size()) {
      return bad("unexpected inference input " + quoted(input.name) + " for model " +
                 quoted(model));
    }
    Status status = check_input(signature.inputs[at], model, input);
    if (!status.ok()) return status;
    out->input_at[at] = static_cast<uint8_t>(i);
  }
  // No name comes twice (read_infer), so as many as needed means all of them.
  if (request.inputs.size() != signature.inputs.size()) {
    return wrong_count(signature, model, request);
  }
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    const size_t at = find_named(signature.outputs, request.outputs[i], i);
    if (at == signature.outputs.size()) {
      return bad("unexpected inference output " + quoted(request.outputs[i]) +
                 " for model " + quoted(model));
    }
    out->outputs.push_back(static_cast<uint8_t>(at));
  }
  if (request.outputs.empty()) {
    for (size_t i = 0; i < signature.outputs.size(); ++i) {
      out->outputs.push_back(static_cast<uint8_t>(i));
    }
  }
  out->rows = signature.may_batch ? common_rows(request) : 0;
  return {};
}

ResultRef::~ResultRef() {
  if (result_ != nullptr && --result_->references == 0) delete result_;
}

ResultRef ResultRef::share(const ResultRef& other) {
  if (other.result_ != nullptr) ++other.result_->references;
  return ResultRef(other.result_);
}

int64_t Version::predicted_ns(uint64_t rows) const {
  const unsigned wanted = average_slot(rows);
  for (unsigned below = wanted + 1; below-- > 0;) {
    const int64_t average = average_ns_[below].load(std::memory_order_relaxed);
    // Unseen sizes are taken to cost as much a row as the nearest smaller one.
    if (average != 0) return average << std::min(wanted - below, 20U);
  }
  for (unsigned above = wanted + 1; above < 24; ++above) {
    const int64_t average = average_ns_[above].load(std::memory_order_relaxed);
    if (average != 0) return average;
  }
  return 0;
}

void Version::observe(uint64_t rows, int64_t run_ns) {
  // Several threads may lose one another's sample; an average survives that.
  auto& average = average_ns_[average_slot(rows)];
  const int64_t before = average.load(std::memory_order_relaxed);
  const int64_t after = before == 0 ? run_ns : before + (run_ns - before) / 8;
  if (run_ns > 1'000'000 && run_ns / 10 > predicted_ns(rows) && before != 0) {
    // Proved anew, over twice as many runs each time: on a shared machine time that was
    // stolen from the whole processor looks like the version's own.
    constexpr uint64_t kDoublingsMax = 10;
    const uint64_t overruns = counters.overruns.fetch_add(1, std::memory_order_relaxed) + 1;
    proved_at_.store(counters.runs.load(std::memory_order_relaxed) +
                         (kProofRuns << std::min(overruns, kDoublingsMax)),
                     std::memory_order_relaxed);
  }
  average.store(std::max<int64_t>(after, 1), std::memory_order_relaxed);
}

void Version::forget_averages() {
  for (auto& average : average_ns_) average.store(0, std::memory_order_relaxed);
  proved_at_.store(kProofRuns, std::memory_order_relaxed);
}

bool Version::is_proved() const {
  return may_run_on_loop && counters.runs.load(std::memory_order_relaxed) >=
                                proved_at_.load(std::memory_order_relaxed);
}

void Version::note_failure(const std::string& detail) {
  const int64_t now = clock_ns();
  std::lock_guard<std::mutex> lock(error_mutex_);
  if (error_ns_ != 0 && now - error_ns_ < 1'000'000'000) return;
  error_ns_ = now;
  last_error_ = detail;
}

std::string Version::last_error() const {
  std::lock_guard<std::mutex> lock(error_mutex_);
  return last_error_;
}

RunScope::RunScope(Version* version, Batch* batch, RunSlot::Impl* slot)
    : version_(version), batch_(batch), slot_(slot) {
  auto& armed = version->measured_runs_left;
  const uint32_t left = armed.load(std::memory_order_relaxed);
  if (left != 0) armed.store(left - 1, std::memory_order_relaxed);
  if (slot->measures_cpu || left != 0) cpu_from_ = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  if (slot->cpu_clock.load(std::memory_order_relaxed) == CLOCK_MONOTONIC) {
    clockid_t own;
    if (pthread_getcpuclockid(pthread_self(), &own) == 0) slot->cpu_clock.store(own);
  }
  batch->started_ns = clock_ns();
  std::lock_guard<std::mutex> lock(slot->mutex);
  slot->batch = batch;
  slot->is_stopped = false;
  slot->sequence.fetch_add(1, std::memory_order_relaxed);
  slot->started_ns.store(batch->started_ns, std::memory_order_relaxed);
}

RunScope::~RunScope() {
  bool was_stopped;
  {
    std::lock_guard<std::mutex> lock(slot_->mutex);
    was_stopped = slot_->is_stopped;
    slot_->batch = nullptr;
    slot_->started_ns.store(0, std::memory_order_relaxed);
    if (was_stopped && slot_->options != nullptr) {
      slot_->runtime->take_error(
          ort::unset_terminate(slot_->runtime->table, slot_->options));
    }
  }
  batch_->finished_ns = clock_ns();
  const int64_t run_ns = batch_->finished_ns - batch_->started_ns;
  if (cpu_from_ >= 0) batch_->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_from_;
  // How long a run takes that waits for everybody else says nothing about one that serves.
  if (batch_->is_shadow) return;
  auto add = [](std::atomic<uint64_t>& counter, int64_t amount) {
    counter.fetch_add(static_cast<uint64_t>(amount), std::memory_order_relaxed);
  };
  add(version_->counters.runs, 1);
  // A version whose rows are not known to be rows answers one inference a request.
  add(version_->counters.rows,
      static_cast<int64_t>(std::max<uint64_t>(batch_->rows, batch_->attempts.size())));
  add(version_->counters.run_ns, run_ns);
  add(version_->counters.cpu_ns, cpu_from_ >= 0 ? batch_->cpu_ns : run_ns);
  if (was_stopped) {
    add(version_->counters.terminated, 1);
    return;  // how long it would have taken nobody knows
  }
  // A thread that lost its core looks like a slow run. Over a second it is believed; below,
  // CPU time decides, from the next suspect on if this run's was not measured.
  constexpr int64_t kSuspect = 1'000'000, kBelieved = 1'000'000'000;
  constexpr uint32_t kMeasured = 32;  // few: reading CPU time is a system call
  const int64_t predicted = version_->predicted_ns(batch_->rows);
  if (run_ns <= kSuspect || run_ns > kBelieved || predicted == 0 ||
      run_ns / 10 <= predicted) {
    version_->observe(batch_->rows, run_ns);
  } else if (cpu_from_ >= 0) {
    version_->observe(batch_->rows, std::max<int64_t>(batch_->cpu_ns, 1));
  } else {
    version_->measured_runs_left.store(kMeasured, std::memory_order_relaxed);
  }
}

RunSlot::RunSlot() : impl_(std::make_unique<Impl>()) {}

RunSlot::~RunSlot() {
  if (impl_->options != nullptr) {
    ort::release_run_options(impl_->runtime->table, impl_->options);
  }
}

void RunSlot::terminate(const Batch* batch) {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->batch == batch && batch != nullptr) impl_->stop_locked();
}

void RunSlot::Impl::stop_locked() {
  is_stopped = true;
  batch->was_terminated.store(true, std::memory_order_relaxed);
  if (options != nullptr) {
    runtime->take_error(ort::set_terminate(runtime->table, options));
  }
  stopped.notify_all();
}

bool RunSlot::Impl::terminate_run(uint64_t which) {
  std::lock_guard<std::mutex> lock(mutex);
  if (batch == nullptr || sequence.load(std::memory_order_relaxed) != which) return false;
  stop_locked();
  return true;
}

std::string RunSlot::Impl::prepare(const ort::Runtime* wanted) {
  if (runtime == wanted) return {};
  std::lock_guard<std::mutex> lock(mutex);
  if (options != nullptr) ort::release_run_options(runtime->table, options);
  options = nullptr;
  runtime = wanted;
  std::string why = wanted->take_error(ort::create_run_options(wanted->table, &options));
  if (why.empty() && is_stopped) {
    why = wanted->take_error(ort::set_terminate(wanted->table, options));
  }
  if (!why.empty()) runtime = nullptr;
  return why;
}

void fail_attempts(Version* version, Batch* batch, Attempt* const* attempts, size_t count,
                   const std::string& detail) {
  const bool was_terminated = batch->was_terminated.load(std::memory_order_relaxed);
  const bool is_wanted = batch->waiting.load(std::memory_order_relaxed) != 0;
  const int64_t now = was_terminated ? clock_ns() : 0;
  for (size_t i = 0; i < count; ++i) {
    Attempt* attempt = attempts[i];
    attempt->outputs.clear();
    attempt->result = ResultRef();
    if (was_terminated && !is_wanted) {
      attempt->status = fail(Situation::cancelled, "the request was cancelled");
    } else if (was_terminated && attempt->deadline_ns <= now) {
      attempt->status = fail(Situation::deadline, "the deadline passed while the model ran");
    } else {
      attempt->status = fail(Situation::model_failed, "model " + quoted(version->model) +
                                                          " version " +
                                                          std::to_string(version->number) +
                                                          " failed");
      if (!batch->is_shadow) version->counters.failures.fetch_add(1, std::memory_order_relaxed);
    }
  }
  version->note_failure(was_terminated ? "terminated: " + detail : detail);
}

std::string load_version(const std::string& model, uint32_t number, ByteView bytes,
                         const Options& options, std::unique_ptr<Version>* out) {
  const uint64_t before = resident_bytes();
  const std::string_view kind = option(options, "kind", "ort");
  std::unique_ptr<Version> made;
  std::string why = "kind '" + std::string(kind) + "' is unknown; this build has ort and upstream";
  if (kind == "ort") why = load_ort(bytes, options, &made);
  if (kind == "upstream") why = load_upstream(options, &made);
#ifdef ROUTER_SCRIPTED
  if (kind == "scripted") why = load_scripted(options, &made);
#endif
  if (why.empty()) why = read_limits(options, made.get());
  const std::string_view batching = option(options, "batching", "auto");
  if (why.empty() && batching != "auto" && batching != "off" && batching != "sizes") {
    why = "batching is '" + std::string(batching) + "'; auto, off or sizes is needed";
  }
  if (why.empty() && batching == "sizes" && made->batch_sizes.empty()) {
    why = "batching is 'sizes' but batch_sizes is empty";
  }
  if (!why.empty()) return "model '" + model + "' version " + std::to_string(number) + ": " + why;
  made->model = model;
  made->number = number;
  if (made->upstream == nullptr) probe_version(made.get(), batching != "off");
  made->is_loaded = true;
  const uint64_t after = resident_bytes();
  made->memory_bytes = after > before ? after - before : 0;
  *out = std::move(made);
  return {};
}

}  // namespace router
