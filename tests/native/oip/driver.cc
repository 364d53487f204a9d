// The codec behind a pipe, so that Python can compare it with the protobuf library.
//
// A record is one byte of what to do, a 4-byte little-endian length and that many bytes;
// the answer is a length and bytes. `r`: the request as text, one field a line, values in
// hex. `e`, `s`: the request's inputs sent back as outputs, as a frame or a stream frame.
// `x`: a stream error frame with the bytes as message. A refused request answers with
// "!<situation> <message>".
#include <cinttypes>
#include <cstdio>
#include <string>
#include <vector>

#include "wire/oip_read.h"
#include "wire/oip_write.h"

namespace {

using namespace router;

std::string hex(std::string_view bytes) {
  std::string text;
  for (char c : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
    text += digits;
  }
  return text;
}

std::string shown(const Param& param) {
  switch (param.kind) {
    case ParamKind::none: return "none";
    case ParamKind::boolean: return param.integer != 0 ? "bool 1" : "bool 0";
    case ParamKind::integer: return "int " + std::to_string(param.integer);
    case ParamKind::unsigned_integer:
      return "uint " + std::to_string(static_cast<uint64_t>(param.integer));
    case ParamKind::text: return "text " + hex(param.text);
    case ParamKind::number: {
      uint64_t bits;
      std::memcpy(&bits, &param.number, 8);
      return "number " + std::to_string(bits);
    }
  }
  return "?";
}

std::string shown(const InferRequest& request) {
  std::string text = "model " + hex(request.model_name) + "\nversion " +
                     hex(request.model_version) + "\nid " + hex(request.id) + "\n";
  for (const Param& param : request.params)
    text += "param " + hex(param.name) + " " + shown(param) + "\n";
  for (const TensorView& input : request.inputs) {
    text += "input " + hex(input.name) + " " + datatype_name(input.type) + " [";
    for (unsigned i = 0; i < input.shape.rank; ++i)
      text += (i == 0 ? "" : ",") + std::to_string(input.shape.dims[i]);
    text += "] " + std::to_string(input.elements) + " " + hex(input.bytes) + "\n";
  }
  for (std::string_view output : request.outputs) text += "output " + hex(output) + "\n";
  return text;
}

Annotation annotation_of(const Param& param) {
  Annotation annotation;
  annotation.name = param.name;
  annotation.text = param.text;
  annotation.integer = param.integer;
  annotation.is_text = param.kind == ParamKind::text;
  annotation.is_bool = param.kind == ParamKind::boolean;
  return annotation;
}

void answer(char what, ByteView message, InferRequest* request, Buffer* out) {
  if (what == 'x') return write_stream_error_frame(message, "an id", out);
  Status status = read_infer(message, request);
  if (!status.ok()) {
    out->append("!" + std::string(advice_for(status.situation).name) + " " + status.message);
    return;
  }
  if (what == 'r') return out->append(shown(*request));
  std::vector<Annotation> annotations;
  for (const Param& param : request->params) annotations.push_back(annotation_of(param));
  InferResponse response;
  response.model_name = request->model_name;
  response.model_version = 4294967295;
  response.id = request->id;
  response.annotations = annotations.data();
  response.annotation_count = annotations.size();
  response.outputs = request->inputs.data();
  response.output_count = request->inputs.size();
  if (what == 'e') {
    write_infer_frame(response, out);
    if (out->size() != infer_frame_size(response)) out->push(0);  // caught by the test
  } else {
    write_stream_infer_frame(response, out);
  }
}

}  // namespace

int main() {
  InferRequest request;  // one for all records, as a loop reuses it
  Buffer out;
  for (int what; (what = std::getchar()) != EOF;) {
    uint32_t size = 0;
    if (std::fread(&size, 4, 1, stdin) != 1) return 1;
    // Exactly as large as the message, so that a sanitizer sees a read past its end.
    std::vector<char> message(size);
    if (size != 0 && std::fread(message.data(), size, 1, stdin) != 1) return 1;
    out.clear();
    answer(static_cast<char>(what), ByteView(message.data(), size), &request, &out);
    uint32_t length = static_cast<uint32_t>(out.size());
    std::fwrite(&length, 4, 1, stdout);
    std::fwrite(out.data(), 1, length, stdout);
    std::fflush(stdout);
  }
  return 0;
}
