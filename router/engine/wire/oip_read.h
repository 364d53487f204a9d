// ModelInferRequest from bytes, checked in full before anything is allocated from a size
// it declares. Views point into the message; only typed contents are copied, into
// `typed`, in the raw layout. A request is reused: after warm-up reading allocates nothing.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "wire/tensor.h"

namespace router {

enum class ParamKind : uint8_t { none, boolean, integer, text, number, unsigned_integer };

struct Param {
  std::string_view name;
  ParamKind kind = ParamKind::none;
  std::string_view text;
  int64_t integer = 0;  // also booleans, and unsigned values as their bits
  double number = 0;
};

struct InferRequest {
  std::string_view model_name, model_version, id;
  std::vector<Param> params;
  std::vector<TensorView> inputs;
  std::vector<std::string_view> outputs;  // requested names; empty: all
  Buffer typed;                           // backing of inputs given as typed contents

  void clear();
};

// Decodes and checks: known datatypes, at most kTensorsMax inputs and outputs, kRankMax
// dimensions, names of kNameMax bytes, no duplicate names, all inputs raw or none (an input
// with zero elements needs no contents), byte sizes equal to shape times element size,
// BYTES elements well formed, UTF-8 names. Undecodable protobuf is Situation::undecodable,
// all else Situation::bad_input naming the field. Unknown fields and parameters pass.
Status read_infer(ByteView message, InferRequest* out);

}  // namespace router
