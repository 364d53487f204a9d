#include "wire/oip_write.h"

#include <charconv>

#include "wire/protobuf.h"

namespace router {
namespace {

using protobuf::field_size;
using protobuf::kVarint;
using protobuf::put_bytes;
using protobuf::put_head;
using protobuf::put_varint;
using protobuf::tag_of;
using protobuf::varint_size;

constexpr size_t kPrefixSize = 5;  // gRPC: compressed flag, length in network order

// An empty string is the default and is not written.
uint64_t text_size(std::string_view text) {
  return text.empty() ? 0 : field_size(text.size());
}
uint8_t* put_text(uint8_t* at, uint32_t field, std::string_view text) {
  return text.empty() ? at : put_bytes(at, field, text);
}

// A version as it is written: decimal.
struct VersionText {
  char digits[10];
  size_t size;

  explicit VersionText(uint32_t version)
      : size(static_cast<size_t>(
            std::to_chars(digits, digits + sizeof digits, version).ptr - digits)) {}
  std::string_view view() const { return {digits, size}; }
};

uint64_t integer_bits(const Annotation& annotation) {
  if (annotation.is_bool) return annotation.integer != 0;
  return static_cast<uint64_t>(annotation.integer);
}

// InferParameter; a oneof, so the default is written too.
uint64_t value_size(const Annotation& annotation) {
  return annotation.is_text ? field_size(annotation.text.size())
                            : 1 + varint_size(integer_bits(annotation));
}
// One entry of the parameters map.
uint64_t entry_size(const Annotation& annotation) {
  return field_size(annotation.name.size()) + field_size(value_size(annotation));
}
uint8_t* put_entry(uint8_t* at, const Annotation& annotation) {
  at = put_head(at, 4, entry_size(annotation));
  at = put_bytes(at, 1, annotation.name);
  at = put_head(at, 2, value_size(annotation));
  if (annotation.is_text) return put_bytes(at, 3, annotation.text);
  *at++ = static_cast<uint8_t>(tag_of(annotation.is_bool ? 1 : 2, kVarint));
  return put_varint(at, integer_bits(annotation));
}

uint64_t dimensions_size(const Shape& shape) {
  uint64_t size = 0;
  for (unsigned i = 0; i < shape.rank; ++i)
    size += varint_size(static_cast<uint64_t>(shape.dims[i]));
  return size;
}
// InferOutputTensor, whose data goes elsewhere.
uint64_t output_size(const TensorView& output) {
  uint64_t dimensions = dimensions_size(output.shape);
  return text_size(output.name) + text_size(datatype_name(output.type)) +
         (output.shape.rank == 0 ? 0 : field_size(dimensions));
}
uint8_t* put_output(uint8_t* at, const TensorView& output) {
  at = put_head(at, 5, output_size(output));
  at = put_text(at, 1, output.name);
  at = put_text(at, 2, datatype_name(output.type));
  if (output.shape.rank == 0) return at;
  at = put_head(at, 3, dimensions_size(output.shape));
  for (unsigned i = 0; i < output.shape.rank; ++i)
    at = put_varint(at, static_cast<uint64_t>(output.shape.dims[i]));
  return at;
}

uint64_t response_size(const InferResponse& response) {
  uint64_t size = text_size(response.model_name) + text_size(response.id) +
                  field_size(VersionText(response.model_version).view().size()) +
                  response.encoded.size();
  for (size_t i = 0; i < response.annotation_count; ++i)
    size += field_size(entry_size(response.annotations[i]));
  for (size_t i = 0; i < response.output_count; ++i) {
    size += field_size(output_size(response.outputs[i]));
    size += field_size(response.outputs[i].bytes.size());
  }
  return size;
}

uint8_t* put_response(uint8_t* at, const InferResponse& response) {
  at = put_text(at, 1, response.model_name);
  at = put_bytes(at, 2, VersionText(response.model_version).view());
  at = put_text(at, 3, response.id);
  if (!response.encoded.empty()) {
    std::memcpy(at, response.encoded.data(), response.encoded.size());
    at += response.encoded.size();
  }
  for (size_t i = 0; i < response.annotation_count; ++i)
    at = put_entry(at, response.annotations[i]);
  for (size_t i = 0; i < response.output_count; ++i)
    at = put_output(at, response.outputs[i]);
  for (size_t i = 0; i < response.output_count; ++i)
    at = put_bytes(at, 6, response.outputs[i].bytes);
  return at;
}

// Makes room for a frame, writes its prefix and returns where the message starts.
uint8_t* start_frame(uint64_t message_size, Buffer* out) {
  ROUTER_ASSERT(message_size <= UINT32_MAX);
  uint8_t* at = out->extend(kPrefixSize + message_size);
  *at++ = 0;
  uint32_t length = __builtin_bswap32(static_cast<uint32_t>(message_size));
  std::memcpy(at, &length, 4);
  return at + 4;
}

void check_end(const uint8_t* at, const Buffer& out) {
  ROUTER_ASSERT(at == out.data() + out.size());
  (void)at;
  (void)out;
}

}  // namespace

void append_annotation(const Annotation& annotation, std::string* out) {
  const size_t from = out->size();
  out->resize(from + field_size(entry_size(annotation)));
  put_entry(reinterpret_cast<uint8_t*>(out->data()) + from, annotation);
}

uint64_t infer_frame_size(const InferResponse& response) {
  return kPrefixSize + response_size(response);
}

void write_infer_frame(const InferResponse& response, Buffer* out) {
  uint8_t* at = start_frame(response_size(response), out);
  check_end(put_response(at, response), *out);
}

void write_stream_infer_frame(const InferResponse& response, Buffer* out) {
  uint64_t size = response_size(response);
  uint8_t* at = start_frame(field_size(size), out);
  check_end(put_response(put_head(at, 2, size), response), *out);
}

void write_stream_error_frame(std::string_view message, std::string_view id, Buffer* out) {
  ROUTER_ASSERT(!message.empty());  // or the client would take it for an answer
  uint64_t size = text_size(id);
  uint8_t* at = start_frame(field_size(message.size()) + field_size(size), out);
  at = put_bytes(at, 1, message);
  check_end(put_text(put_head(at, 2, size), 3, id), *out);
}

}  // namespace router
