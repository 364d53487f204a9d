// Runs batches with ONNX Runtime. Everything a run needs again is kept in the slot; per run
// there are one value per input and output and one result, and no text. Terminated runs
// fail like any other: our own flag tells them apart, never the runtime's words.
#include "run/ort.h"

#include <algorithm>
#include <cstring>

namespace router {
namespace {

constexpr char kMixedRows[] = "an output has not as many rows as the batch";

const TensorView& input_of(const Attempt& attempt, size_t input) {
  return attempt.request->inputs[attempt.binding.input_at[input]];
}

uint32_t read_u32(const char* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// The rows of one attempt in an output made for all. `offsets`: of the elements, for texts.
TensorView slice(const TensorView& whole, const std::vector<uint64_t>& offsets,
                 uint64_t first, uint64_t count) {
  TensorView part = whole;
  const uint64_t row_elements = whole.elements / static_cast<uint64_t>(whole.shape.dims[0]);
  part.shape.dims[0] = static_cast<int64_t>(count);
  part.elements = row_elements * count;
  if (whole.type != DataType::bytes) {
    part.bytes = row_bytes(whole, first, count);
  } else {
    const uint64_t from = offsets[first * row_elements];
    part.bytes = whole.bytes.substr(from, offsets[(first + count) * row_elements] - from);
  }
  return part;
}

}  // namespace

OrtVersion::~OrtVersion() {
  if (session != nullptr) ort::release_session(runtime->table, session);
}

void OrtVersion::run(Batch* batch, RunSlot* slot) {
  RunScope scope(this, batch, slot->impl());
  Attempt* const* attempts = batch->attempts.data();
  const size_t count = batch->attempts.size();
  std::string why = slot->impl()->prepare(runtime);
  if (why.empty()) why = run_together(attempts, count, batch->rows, slot->impl());
  if (why.empty()) return;
  if (count > 1) {
    // One bad request must not fail its neighbours, nor rows be given to the wrong one.
    counters.splits.fetch_add(1, std::memory_order_relaxed);
    if (why == kMixedRows) has_mixed_rows.store(true, std::memory_order_relaxed);
  }
  for (size_t i = 0; i < count; ++i) {
    if (count > 1 && !batch->was_terminated.load(std::memory_order_relaxed)) {
      why = run_together(&attempts[i], 1, attempts[i]->binding.rows, slot->impl());
      if (why.empty()) continue;
    }
    fail_attempts(this, batch, &attempts[i], 1, why);
  }
}

std::string OrtVersion::make_strings(size_t input, Attempt* const* attempts, size_t count,
                                     const Shape& shape, ort::Value** out) const {
  std::string why = runtime->take_error(
      ort::create_tensor(runtime->table, runtime->allocator, shape.dims.data(), shape.rank,
                         ort::kString, out));
  size_t element = 0;
  for (size_t a = 0; a < count && why.empty(); ++a) {
    const TensorView& tensor = input_of(*attempts[a], input);
    const char* at = tensor.bytes.data();
    for (uint64_t i = 0; i < tensor.elements && why.empty(); ++i) {
      // read_infer proved that the lengths stay inside the bytes.
      const uint32_t size = read_u32(at);
      char* to = nullptr;
      why = runtime->take_error(
          ort::resized_string(runtime->table, *out, element++, size, &to));
      if (why.empty() && size != 0) std::memcpy(to, at + 4, size);
      at += 4 + size;
    }
  }
  return why;
}

std::string OrtVersion::make_input(size_t input, Attempt* const* attempts, size_t count,
                                   uint64_t rows, Scratch* scratch,
                                   OrtInputs* out) const {
  const TensorView& first = input_of(*attempts[0], input);
  Shape shape = first.shape;
  if (count > 1) shape.dims[0] = static_cast<int64_t>(rows);
  ort::Value** value = &out->values[input];
  if (first.type == DataType::bytes) {
    return make_strings(input, attempts, count, shape, value);
  }
  const uint32_t width = datatype_size(first.type);
  size_t size = 0;
  for (size_t a = 0; a < count; ++a) size += input_of(*attempts[a], input).bytes.size();
  void* data;
  if (count == 1 && size != 0 &&
      reinterpret_cast<uintptr_t>(first.bytes.data()) % width == 0) {
    data = const_cast<char*>(first.bytes.data());  // the runtime does not write to inputs
  } else {
    uint8_t* to = scratch->take(size);
    data = to;
    for (size_t a = 0; a < count; ++a) {
      const ByteView from = input_of(*attempts[a], input).bytes;
      if (!from.empty()) std::memcpy(to, from.data(), from.size());
      to += from.size();
    }
  }
  out->bytes[input] = {static_cast<const char*>(data), size};
  return runtime->take_error(ort::create_tensor_with_data(
      runtime->table, runtime->memory, data, size, shape.dims.data(), shape.rank,
      input_types[input], value));
}

std::string OrtVersion::read_output(size_t output, ort::Value* value, RunResult* result,
                                    TensorView* out, std::vector<uint64_t>* offsets) const {
  const ort::Table table = runtime->table;
  const TensorSpec& spec = signature.outputs[output];
  ort::ShapeInfo* info = nullptr;
  std::string why = runtime->take_error(ort::tensor_shape(table, value, &info));
  if (!why.empty()) return why;
  size_t rank = 0;
  why = runtime->take_error(ort::dims_count(table, info, &rank));
  if (why.empty() && rank > kRankMax) why = spec.name + " has too many dimensions";
  out->shape = Shape();
  out->shape.rank = static_cast<uint8_t>(rank);
  if (why.empty()) {
    why = runtime->take_error(ort::dims(table, info, out->shape.dims.data(), rank));
  }
  ort::release_shape_info(table, info);
  if (why.empty() && !element_count(out->shape, &out->elements)) {
    why = spec.name + " has an impossible shape";
  }
  if (!why.empty()) return why;
  out->name = spec.name;
  out->type = spec.type;
  if (spec.type != DataType::bytes) {
    void* data = nullptr;
    why = runtime->take_error(ort::tensor_data(table, value, &data));
    out->bytes = {static_cast<const char*>(data), out->elements * datatype_size(spec.type)};
    return why;
  }
  size_t size = 0;
  why = runtime->take_error(ort::string_data_length(table, value, &size));
  std::vector<char> text(size + 1);
  std::vector<size_t> starts(out->elements + 1, size);
  if (why.empty() && out->elements != 0) {
    why = runtime->take_error(ort::string_content(table, value, text.data(), size,
                                                  starts.data(), out->elements));
  }
  starts[out->elements] = size;
  Buffer& buffer = result->buffers.emplace_back();
  for (uint64_t i = 0; i < out->elements && why.empty(); ++i) {
    const auto length = static_cast<uint32_t>(starts[i + 1] - starts[i]);
    offsets->push_back(buffer.size());
    buffer.append(&length, sizeof length);
    buffer.append(text.data() + starts[i], length);
  }
  offsets->push_back(buffer.size());
  out->bytes = buffer.view();
  return why;
}

std::string OrtVersion::deliver(Attempt* const* attempts, size_t count, uint64_t rows,
                                const OrtInputs& inputs, const OrtOutputs& outputs,
                                RunSlot::Impl* slot, ResultRef owner) const {
  RunResult* result = owner.get();
  auto& wholes = slot->wholes;
  wholes.resize(std::max(wholes.size(), outputs.count));
  slot->offsets.resize(wholes.size());
  for (size_t k = 0; k < outputs.count; ++k) {
    TensorView* whole = &wholes[k];
    slot->offsets[k].clear();
    std::string why =
        read_output(outputs.which[k], result->values[k], result, whole, &slot->offsets[k]);
    if (!why.empty()) return why;
    if (count > 1 &&
        (whole->shape.rank == 0 || whole->shape.dims[0] != static_cast<int64_t>(rows))) {
      return kMixedRows;
    }
    // An output that is an input of the graph comes back as the very memory of the input,
    // which is the request's or ours to use again.
    for (size_t i = 0; i < inputs.count; ++i) {
      if (whole->bytes.empty() || whole->bytes.data() < inputs.bytes[i].data() ||
          whole->bytes.data() >= inputs.bytes[i].data() + inputs.bytes[i].size()) {
        continue;
      }
      result->buffers.emplace_back().append(whole->bytes);
      whole->bytes = result->buffers.back().view();
    }
  }
  uint64_t first = 0;
  for (size_t a = 0; a < count; ++a) {
    Attempt* attempt = attempts[a];
    attempt->status = Status();
    attempt->outputs.clear();
    for (uint8_t output : attempt->binding.outputs) {
      const size_t k = outputs.place[output] - 1U;
      attempt->outputs.push_back(
          count == 1 ? wholes[k]
                     : slice(wholes[k], slot->offsets[k], first, attempt->binding.rows));
    }
    first += attempt->binding.rows;
    attempt->result = ResultRef::share(owner);
  }
  return {};
}

std::string OrtVersion::run_together(Attempt* const* attempts, size_t count, uint64_t rows,
                                     RunSlot::Impl* slot) {
  OrtInputs inputs(runtime->table);
  std::array<const char*, kTensorsMax> input_names;
  if (slot->scratch.size() < signature.inputs.size()) {
    slot->scratch.resize(signature.inputs.size());
  }
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    input_names[i] = signature.inputs[i].name.c_str();
    inputs.values[i] = nullptr;
    inputs.bytes[i] = {};
    ++inputs.count;
    std::string why = make_input(i, attempts, count, rows, &slot->scratch[i], &inputs);
    if (!why.empty()) return why;
  }
  OrtOutputs outputs;
  std::array<const char*, OrtOutputs::kMax> output_names;
  for (size_t a = 0; a < count; ++a) {
    for (uint8_t output : attempts[a]->binding.outputs) {
      if (outputs.place[output] != 0) continue;
      output_names[outputs.count] = signature.outputs[output].name.c_str();
      outputs.which[outputs.count] = output;
      outputs.place[output] = static_cast<uint8_t>(++outputs.count);
    }
  }
  auto* result = new RunResult;
  ResultRef owner(result);
  result->table = runtime->table;
  result->values.resize(outputs.count);
  result->buffers.reserve(outputs.count);  // views point into them: they must not move
  std::string why = runtime->take_error(ort::run(
      runtime->table, session, slot->options, input_names.data(), inputs.values.data(),
      inputs.count, output_names.data(), outputs.count, result->values.data()));
  if (why.empty()) {
    why = deliver(attempts, count, rows, inputs, outputs, slot, std::move(owner));
  }
  for (Scratch& scratch : slot->scratch) scratch.trim();
  return why;
}

}  // namespace router
