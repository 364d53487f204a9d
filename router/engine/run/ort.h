// Inside run/: a version served by ONNX Runtime. ort_load.cc makes it, ort.cc runs it.
#pragma once

#include <array>

#include "run/slot.h"

namespace router {

// The inputs of one run: values, and the memory they lie in.
struct OrtInputs {
  explicit OrtInputs(ort::Table with) : table(with) {}
  ~OrtInputs() {
    for (size_t i = 0; i < count; ++i) ort::release_value(table, values[i]);
  }
  OrtInputs(const OrtInputs&) = delete;
  ort::Table table;
  size_t count = 0;
  std::array<ort::Value*, kTensorsMax> values;
  std::array<ByteView, kTensorsMax> bytes;
};

// What any attempt of a run asked for, each once: `place` is 1 + the position in `which`.
struct OrtOutputs {
  static constexpr size_t kMax = 255;
  size_t count = 0;
  std::array<uint8_t, kMax> which;
  std::array<uint8_t, kMax> place{};
};

class OrtVersion final : public Version {
 public:
  ~OrtVersion() override;
  void run(Batch* batch, RunSlot* slot) override;

  ort::Runtime* runtime = nullptr;
  ort::Session* session = nullptr;
  // Element types as the runtime numbers them, beside signature.inputs and .outputs.
  std::vector<int> input_types, output_types;

 private:
  // These say why not, or nothing.
  std::string run_together(Attempt* const* attempts, size_t count, uint64_t rows,
                           RunSlot::Impl* slot);
  std::string make_input(size_t input, Attempt* const* attempts, size_t count,
                         uint64_t rows, Scratch* scratch, OrtInputs* out) const;
  std::string make_strings(size_t input, Attempt* const* attempts, size_t count,
                           const Shape& shape, ort::Value** out) const;
  std::string read_output(size_t output, ort::Value* value, RunResult* result,
                          TensorView* out, std::vector<uint64_t>* offsets) const;
  std::string deliver(Attempt* const* attempts, size_t count, uint64_t rows,
                      const OrtInputs& inputs, const OrtOutputs& outputs,
                      RunSlot::Impl* slot, ResultRef owner) const;
};

// Datatypes by the runtime's number; invalid for what cannot travel.
DataType datatype_of_ort(int type);

}  // namespace router
