// ModelInferResponse and ModelStreamInferResponse to bytes, as complete gRPC frames
// (five-byte prefix, uncompressed). Outputs always go as raw_output_contents; parameter
// kinds 4 and 5 are never written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "wire/tensor.h"

namespace router {

// A response parameter: text when `is_text`, else an int64 (or a bool when `is_bool`).
struct Annotation {
  std::string_view name;
  std::string_view text;
  int64_t integer = 0;
  bool is_text = false;
  bool is_bool = false;
};

struct InferResponse {
  std::string_view model_name;
  uint32_t model_version = 0;
  std::string_view id;
  ByteView encoded;  // annotations from append_annotation, written as they are
  const Annotation* annotations = nullptr;
  size_t annotation_count = 0;
  const TensorView* outputs = nullptr;
  size_t output_count = 0;
};

// Appends one annotation as it stands in a response, to be kept for `encoded`.
void append_annotation(const Annotation& annotation, std::string* out);

// Appends the frame to `out` after computing its size, so that `out` grows once.
void write_infer_frame(const InferResponse& response, Buffer* out);
// The same wrapped in a ModelStreamInferResponse.
void write_stream_infer_frame(const InferResponse& response, Buffer* out);
// ModelStreamInferResponse with error_message, and `id` in an otherwise empty response.
void write_stream_error_frame(std::string_view message, std::string_view id, Buffer* out);
// Bytes `write_infer_frame` will append.
uint64_t infer_frame_size(const InferResponse& response);

}  // namespace router
