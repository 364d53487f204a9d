// A version that does what a script says: test builds only.
//
// `script`: items parted by ';'. echo (the default work: y = x), tag=7 (y = 7 everywhere),
// delay_us=500, nan, wrong_shape, fail=always, fail=every:10, fail_after=100 (runs),
// hang (until terminated), hang_forever (termination is ignored), loop=0 (never on a loop),
// width=4 (columns of x and y, -1: any).
// Input x FP32 [-1,width], output y of the same shape. The probe sees none of the faults.
#ifdef ROUTER_SCRIPTED

#include <cmath>
#include <cstring>

#include "run/slot.h"

namespace router {
namespace {

struct Script {
  bool is_nan = false, is_misshapen = false, hangs = false, hangs_forever = false;
  bool has_tag = false, runs_on_loop = true;
  double tag = 0;
  int64_t delay_us = 0, width = 4;
  uint64_t fail_every = 0, fail_after = UINT64_MAX;
};

std::string read_item(const std::string& item, Script* script) {
  const size_t equals = item.find('=');
  const std::string key = item.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
  const bool counts_from = value.rfind("every:", 0) == 0;
  const double number = std::strtod(value.c_str() + (counts_from ? 6 : 0), nullptr);
  if (key == "nan") script->is_nan = true;
  else if (key == "wrong_shape") script->is_misshapen = true;
  else if (key == "hang") script->hangs = true;
  else if (key == "hang_forever") script->hangs = script->hangs_forever = true;
  else if (key == "tag") script->has_tag = true, script->tag = number;
  else if (key == "loop") script->runs_on_loop = number != 0;
  else if (key == "width") script->width = static_cast<int64_t>(number);
  else if (key == "delay_us") script->delay_us = static_cast<int64_t>(number);
  else if (key == "fail") script->fail_every = counts_from ? static_cast<uint64_t>(number) : 1;
  else if (key == "fail_after") script->fail_after = static_cast<uint64_t>(number);
  else if (key != "echo") return "script item '" + item + "' is unknown";
  return {};
}

class ScriptedVersion final : public Version {
 public:
  explicit ScriptedVersion(const Script& script) : script_(script) {
    TensorSpec spec;
    spec.name = "x";
    spec.type = DataType::fp32;
    spec.shape.rank = 2;
    spec.shape.dims = {-1, script.width};
    signature.inputs.push_back(spec);
    spec.name = "y";
    signature.outputs.push_back(spec);
    platform = "scripted";
    providers = {script.runs_on_loop ? "cpu" : "scripted"};
  }

  void run(Batch* batch, RunSlot* slot) override {
    RunScope scope(this, batch, slot->impl());
    std::string why;
    if (is_loaded) why = misbehave(slot->impl(), batch);
    if (!why.empty()) {
      return fail_attempts(this, batch, batch->attempts.data(), batch->attempts.size(), why);
    }
    for (Attempt* attempt : batch->attempts) answer(attempt);
  }

 private:
  // Delays and failures; waits where a termination is seen at once.
  std::string misbehave(RunSlot::Impl* slot, Batch* batch) {
    const uint64_t ordinal = runs_.fetch_add(1, std::memory_order_relaxed) + 1;
    std::unique_lock<std::mutex> lock(slot->mutex);
    auto is_over = [&] { return slot->is_stopped && !script_.hangs_forever; };
    if (script_.hangs) slot->stopped.wait(lock, is_over);
    if (script_.delay_us != 0) {
      slot->stopped.wait_for(lock, std::chrono::microseconds(script_.delay_us), is_over);
    }
    if (batch->was_terminated.load(std::memory_order_relaxed)) return "stopped";
    const bool is_due = script_.fail_every != 0 && ordinal % script_.fail_every == 0;
    return is_due || ordinal > script_.fail_after ? "told to fail" : "";
  }

  void answer(Attempt* attempt) const {
    const TensorView& x = attempt->request->inputs[attempt->binding.input_at[0]];
    auto* result = new RunResult;
    ResultRef owner(result);
    Buffer& bytes = result->buffers.emplace_back();
    bytes.append(x.bytes);
    TensorView y = x;
    y.name = signature.outputs[0].name;
    if (is_loaded && (script_.is_nan || script_.has_tag)) {
      const float value = script_.is_nan ? NAN : static_cast<float>(script_.tag);
      for (uint64_t i = 0; i < x.elements; ++i) std::memcpy(bytes.data() + 4 * i, &value, 4);
    }
    if (is_loaded && script_.is_misshapen) {
      const float value = 0;
      bytes.append(&value, 4);
      y.shape.rank = 1;
      y.shape.dims[0] = static_cast<int64_t>(++y.elements);
    }
    y.bytes = bytes.view();
    attempt->status = Status();
    attempt->outputs.assign(1, y);
    attempt->result = std::move(owner);
  }

  const Script script_;
  std::atomic<uint64_t> runs_{0};  // a count; nothing is inferred from its order
};

}  // namespace

std::string load_scripted(const Options& options, std::unique_ptr<Version>* out) {
  Script script;
  for (const std::string& item : split_list(option(options, "script", "echo"), ';')) {
    std::string why = read_item(item, &script);
    if (!why.empty()) return why;
  }
  *out = std::make_unique<ScriptedVersion>(script);
  return {};
}

}  // namespace router
#endif
