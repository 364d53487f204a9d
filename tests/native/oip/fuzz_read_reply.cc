// What must hold of read_infer_reply for any bytes another server sends: it ends, reads
// nothing outside the message, and the outputs it accepts can be written as an answer that
// reads back the same.
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteView message(reinterpret_cast<const char*>(data), size);
  static InferRequest reply, again;  // reused, as a loop does: nothing of the last may show
  Status status = read_infer_reply(message, &reply);
  if (!status.ok()) {
    must(status.situation == Situation::bad_input || status.situation == Situation::undecodable);
    must(protobuf::is_utf8(status.message) && status.message.size() < 1024);
    return 0;
  }
  must(reply.inputs.size() <= kTensorsMax && reply.outputs.empty());
  for (const TensorView& output : reply.inputs) {
    must(is_inside(output.name, message));
    must(is_inside(output.bytes, message) || is_inside(output.bytes, reply.typed.view()));
  }
  InferResponse response;
  response.model_name = reply.model_name;
  response.id = reply.id;
  response.outputs = reply.inputs.data();
  response.output_count = reply.inputs.size();
  static Buffer out;
  out.clear();
  write_infer_frame(response, &out);
  must(read_infer_reply(out.view().substr(5), &again).ok());
  must(again.id == reply.id && again.inputs.size() == reply.inputs.size());
  for (size_t i = 0; i < again.inputs.size(); ++i) {
    const TensorView &one = again.inputs[i], &other = reply.inputs[i];
    must(one.name == other.name && one.type == other.type && one.shape == other.shape);
    must(one.bytes == other.bytes);
  }
  return 0;
}
