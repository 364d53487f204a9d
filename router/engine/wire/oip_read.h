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

// Scratch of read_infer: what it must remember of an input until all of it is known.
struct PendingInput {
  std::string_view datatype;
  size_t typed_start = 0;    // where in `typed` its contents are, in the width of the wire
  uint64_t typed_count = 0;  // elements in `contents`
  uint32_t typed_fields = 0; // bit n: `contents` has elements in field n
  bool has_contents = false;
};

struct InferRequest {
  std::string_view model_name, model_version, id;
  std::vector<Param> params;
  std::vector<TensorView> inputs;
  std::vector<std::string_view> outputs;  // requested names; empty: all
  Buffer typed;                           // backing of inputs given as typed contents
  std::vector<ByteView> raw;              // scratch, like pending
  std::vector<PendingInput> pending;

  void clear();
};

// Decodes and checks: known datatypes, at most kTensorsMax inputs and outputs, kRankMax
// dimensions, names of kNameMax bytes, no duplicate names, all inputs raw or none (an input
// with zero elements needs no contents), byte sizes equal to shape times element size,
// BYTES elements well formed, UTF-8 names. Undecodable protobuf is Situation::undecodable,
// all else Situation::bad_input naming the field. Unknown fields and parameters pass. An
// empty model_name passes too: that no model has it is for the routing table to say. After
// a failure `out` holds whatever had been read.
//
// `typed` may be up to eight times the message (zeros of INT64 are one byte each on the
// wire): whoever counts body bytes adds typed.size(). clear() gives back what is above
// kTypedKept, so that one large request does not hold its memory for ever.
constexpr size_t kTypedKept = 1 << 20;
constexpr unsigned kParamsMax = 64;
constexpr uint64_t kStringsMax = 1000000;  // elements of a BYTES input

Status read_infer(ByteView message, InferRequest* out);

// ModelInferResponse, with the same checks: its outputs are read as `inputs`, because the
// two messages lay tensors out alike. Failure messages speak of outputs and are for
// operators.
Status read_infer_reply(ByteView message, InferRequest* out);

}  // namespace router
