// What must hold of read_infer for any bytes: it ends, reads nothing outside the message,
// and what it accepts is consistent, so that nothing behind it needs to check again.
//
// Build with a fuzzing engine (clang++ -fsanitize=fuzzer) to search, or with replay.cc to
// go through the corpus.
#include <cstdlib>

#include "wire/oip_read.h"
#include "wire/oip_write.h"
#include "wire/protobuf.h"

using namespace router;

namespace {

void must(bool claim) {
  if (!claim) std::abort();
}

bool is_inside(ByteView part, ByteView whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void check_tensor(const TensorView& input, ByteView message, const Buffer& typed) {
  must(is_inside(input.name, message) && input.name.size() <= kNameMax);
  must(is_inside(input.bytes, message) || is_inside(input.bytes, typed.view()));
  must(input.type != DataType::invalid && input.shape.rank <= kRankMax);
  uint64_t elements = 0;
  must(element_count(input.shape, &elements) && elements == input.elements);
  if (input.type == DataType::bytes)
    must(is_valid_bytes_tensor(input.bytes, elements));
  else
    must(input.bytes.size() == elements * datatype_size(input.type));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteView message(reinterpret_cast<const char*>(data), size);
  static InferRequest request;  // reused, as a loop does: nothing of the last may show
  Status status = read_infer(message, &request);
  if (!status.ok()) {
    must(status.situation == Situation::bad_input || status.situation == Situation::undecodable);
    must(protobuf::is_utf8(status.message) && status.message.size() < 1024);
    return 0;
  }
  must(request.params.size() <= kParamsMax && request.inputs.size() <= kTensorsMax &&
       request.outputs.size() <= kTensorsMax);
  for (const TensorView& input : request.inputs) check_tensor(input, message, request.typed);
  InferResponse response;
  response.model_name = request.model_name;
  response.id = request.id;
  response.outputs = request.inputs.data();
  response.output_count = request.inputs.size();
  static Buffer out;
  out.clear();
  write_infer_frame(response, &out);
  must(out.size() == infer_frame_size(response));
  return 0;
}
