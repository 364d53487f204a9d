// Warms a version and proves, or fails to prove, that its rows are independent.
//
// Synthetic rows, the same for every load. A stack of them must give what each gives alone;
// anything else turns batching off. Real models refuse synthetic values often enough (an
// index out of range, a shape that must agree with another), so a probe that fails only
// turns batching and runs on loops off, with a warning.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "run/slot.h"

namespace router {
namespace {

constexpr auto kTimeLimit = std::chrono::seconds(5);
constexpr unsigned kRows = 8;       // the largest stack
constexpr unsigned kWarmRuns = 5;   // after the first, which allocates

uint16_t half_of(double value, bool is_brain) {
  const auto single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  if (is_brain) return static_cast<uint16_t>(bits >> 16);
  // Probe values lie in [2^-14, 2^15), where only the exponent's bias differs.
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  return static_cast<uint16_t>(magnitude < 0x38800000
                                   ? sign
                                   : sign | ((magnitude - 0x38000000) >> 13));
}

// How far sums taken in another order may drift, relative to the largest value of the
// output; 0: exact.
double tolerance_of(DataType type) {
  switch (type) {
    case DataType::fp64: return 1e-9;
    case DataType::fp32: return 1e-4;
    case DataType::fp16: return 1e-2;
    case DataType::bf16: return 5e-2;
    default: return 0;
  }
}

bool same(const TensorView& a, const TensorView& b, double scale) {
  if (!(a.shape == b.shape)) return false;
  const double tolerance = tolerance_of(a.type) * scale;
  if (tolerance_of(a.type) == 0) return a.bytes == b.bytes;
  for (uint64_t i = 0; i < a.elements; ++i) {
    const double left = number_at(a, i), right = number_at(b, i);
    if (std::isnan(left) || std::isnan(right) ? std::isnan(left) != std::isnan(right)
                                              : left != right) {
      if (!(std::fabs(left - right) <= tolerance)) return false;
    }
  }
  return true;
}

// One request of made-up values, with everything it points to.
struct ProbeRow {
  InferRequest request;
  std::vector<Buffer> bytes;
  Attempt attempt;
};

void fill(const TensorView& tensor, std::mt19937* random, Buffer* out) {
  for (uint64_t i = 0; i < tensor.elements; ++i) {
    const double real = static_cast<double>((*random)() % 4001) / 1000.0 - 2.0;
    const uint64_t whole = (*random)() % 3;
    const auto single = static_cast<float>(real);
    const uint32_t one = 1;
    switch (tensor.type) {
      case DataType::fp32: out->append(&single, 4); break;
      case DataType::fp64: out->append(&real, 8); break;
      case DataType::boolean: out->push(static_cast<uint8_t>(whole % 2)); break;
      case DataType::bytes: out->append(&one, 4), out->push('a'); break;
      case DataType::fp16:
      case DataType::bf16: {
        const uint16_t half = half_of(real, tensor.type == DataType::bf16);
        out->append(&half, 2);
        break;
      }
      default: out->append(&whole, datatype_size(tensor.type));  // little-endian
    }
  }
}

// `dynamic`: the size given to every dimension the model leaves open, other than the first.
// False when the made-up tensors would be unreasonably large.
bool make_row(const Version& version, int64_t dynamic, uint32_t seed, ProbeRow* out) {
  std::mt19937 random(seed);
  out->bytes.resize(version.signature.inputs.size());
  for (size_t i = 0; i < version.signature.inputs.size(); ++i) {
    const TensorSpec& spec = version.signature.inputs[i];
    TensorView view;
    view.name = spec.name;
    view.type = spec.type;
    view.shape = spec.shape;
    for (unsigned d = 0; d < view.shape.rank; ++d) {
      if (view.shape.dims[d] < 0) view.shape.dims[d] = d == 0 ? 1 : dynamic;
    }
    if (!element_count(view.shape, &view.elements) || view.elements > 1 << 24) return false;
    fill(view, &random, &out->bytes[i]);
    view.bytes = out->bytes[i].view();
    out->request.inputs.push_back(view);
  }
  out->attempt.request = &out->request;
  return router::bind(version.signature, version.model, out->request, &out->attempt.binding).ok();
}

// Ends whatever the slot runs once time is up.
class Guard {
 public:
  explicit Guard(RunSlot::Impl* slot) : thread_([this, slot] { watch(slot); }) {}
  ~Guard() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      is_done_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  bool has_expired() const { return std::chrono::steady_clock::now() >= until_; }

 private:
  void watch(RunSlot::Impl* slot) {
    std::unique_lock<std::mutex> lock(mutex_);
    auto next = until_;
    while (!wake_.wait_until(lock, next, [this] { return is_done_; })) {
      slot->terminate_run(slot->sequence.load(std::memory_order_relaxed));
      next = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    }
  }

  const std::chrono::steady_clock::time_point until_ =
      std::chrono::steady_clock::now() + kTimeLimit;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_done_ = false;
  std::thread thread_;  // last: it uses all of the above
};

struct Probe {
  Version* version;
  RunSlot slot;
  Guard guard{slot.impl()};

  // Runs the attempts as one batch; false when any of them failed or time is up.
  bool run(Attempt* const* attempts, size_t count) {
    if (guard.has_expired()) return false;
    Batch batch;
    batch.version = version;
    batch.attempts.assign(attempts, attempts + count);
    batch.rows = version->signature.may_batch ? count : 0;
    batch.waiting = static_cast<uint32_t>(count);
    version->run(&batch, &slot);
    return std::all_of(attempts, attempts + count,
                       [](const Attempt* a) { return a->status.ok(); });
  }
};

bool is_open_along_rows(const std::vector<TensorSpec>& specs) {
  return !specs.empty() && std::all_of(specs.begin(), specs.end(), [](const auto& spec) {
    return spec.shape.rank > 0 && spec.shape.dims[0] < 0;
  });
}

double largest(const std::vector<Attempt>& attempts, size_t output) {
  double most = 0;
  for (const Attempt& attempt : attempts) {
    const TensorView& tensor = attempt.outputs[output];
    if (tolerance_of(tensor.type) == 0) return 0;
    for (uint64_t i = 0; i < tensor.elements; ++i) {
      const double size = std::fabs(number_at(tensor, i));
      if (std::isfinite(size)) most = std::max(most, size);
    }
  }
  return most;
}

// Why the rows are not proved to be independent, or nothing.
std::string doubt_rows(Probe* probe, int64_t dynamic, uint32_t seed) {
  Version* version = probe->version;
  std::vector<ProbeRow> rows(kRows);
  std::vector<Attempt> alone(kRows);
  std::vector<Attempt*> stacked;
  for (unsigned r = 0; r < kRows; ++r) {
    if (!make_row(*version, dynamic, seed + r, &rows[r])) return "no rows could be made";
    alone[r].request = &rows[r].request;
    alone[r].binding = rows[r].attempt.binding;
    Attempt* one = &alone[r];
    if (!probe->run(&one, 1)) return "a made-up row failed: " + version->last_error();
    stacked.push_back(&rows[r].attempt);
  }
  for (unsigned count : {2U, 3U, kRows}) {
    const uint64_t splits = version->counters.splits.load();
    if (!probe->run(stacked.data(), count) || version->counters.splits.load() != splits) {
      return "a stack of rows failed, or came back with another number of rows";
    }
    for (size_t output = 0; output < version->signature.outputs.size(); ++output) {
      const double scale = largest(alone, output);
      for (unsigned r = 0; r < count; ++r) {
        if (!same(alone[r].outputs[output], rows[r].attempt.outputs[output], scale)) {
          return "output '" + version->signature.outputs[output].name +
                 "' of a row depends on the rows beside it";
        }
      }
    }
  }
  return {};
}

// The size for open dimensions with which the model answers; 0: none.
int64_t warm(Probe* probe) {
  for (int64_t dynamic : {4, 1}) {
    ProbeRow row;
    Attempt* one = &row.attempt;
    if (!make_row(*probe->version, dynamic, 1, &row) || !probe->run(&one, 1)) continue;
    probe->version->forget_averages();  // the first run allocated
    for (unsigned i = 0; i < kWarmRuns; ++i) {
      if (!probe->run(&one, 1)) return 0;
    }
    return dynamic;
  }
  return 0;
}

}  // namespace

void probe_version(Version* version, bool wants_batching) {
  Probe probe{version, {}};
  Signature& signature = version->signature;
  const int64_t dynamic = warm(&probe);
  const bool on_cpu = version->providers == std::vector<std::string>{"cpu"};
  version->may_run_on_loop = dynamic != 0 && on_cpu && version->max_queue_delay_us == 0;
  if (dynamic == 0) {
    version->warnings.push_back("the warm-up failed (" + version->last_error() +
                                "): no batching, no runs on loops");
  }
  const bool is_open = is_open_along_rows(signature.inputs) &&
                       is_open_along_rows(signature.outputs);
  signature.may_batch = wants_batching && is_open;
  if (signature.may_batch && version->batch_sizes.empty()) {
    std::string doubt = dynamic == 0 ? "the warm-up failed" : "";
    for (uint32_t seed : {100U, 200U}) {
      if (doubt.empty()) doubt = doubt_rows(&probe, dynamic, seed);
    }
    signature.may_batch = doubt.empty();
    if (!doubt.empty()) version->warnings.push_back("no batching: " + doubt);
  } else if (!is_open && !version->batch_sizes.empty()) {
    version->warnings.push_back("no batching: dimension 0 is fixed");
  }
  version->may_batch = signature.may_batch;
  version->has_mixed_rows.store(false);
  auto& counted = version->counters;
  for (auto* counter : {&counted.runs, &counted.rows, &counted.run_ns, &counted.cpu_ns,
                        &counted.failures, &counted.terminated, &counted.overruns,
                        &counted.splits}) {
    counter->store(0);
  }
}

}  // namespace router
