#include "check.h"
#include "message.h"
#include "wire/oip_write.h"
#include "wire/protobuf.h"

namespace router {
namespace {

using namespace message;

// A frame around a message.
std::string framed(const std::string& bytes) {
  std::string prefix(5, '\0');
  for (unsigned i = 0; i < 4; ++i) prefix[4 - i] = static_cast<char>(bytes.size() >> (8 * i));
  return prefix + bytes;
}

std::string written(const InferResponse& response) {
  Buffer out;
  write_infer_frame(response, &out);
  CHECK_EQ(out.size(), infer_frame_size(response));
  return std::string(out.view());
}

TEST(the_least_answer_is_a_version) {
  CHECK_EQ(written({}), framed(text(2, "0")));
}

TEST(a_version_is_decimal) {
  for (uint32_t version : {0u, 1u, 9u, 10u, 123456u, UINT32_MAX}) {
    InferResponse response;
    response.model_version = version;
    CHECK_EQ(written(response), framed(text(2, std::to_string(version))));
  }
}

TEST(an_answer_is_written_field_by_field) {
  Annotation annotations[3];
  annotations[0].name = "route_variant";
  annotations[0].text = "";
  annotations[0].is_text = true;
  annotations[1].name = "route_bucket";
  annotations[1].integer = -1;
  annotations[2].name = "route_fallback";
  annotations[2].integer = 7;
  annotations[2].is_bool = true;
  TensorView outputs[2];
  outputs[0].name = "y";
  outputs[0].type = DataType::int16;
  outputs[0].shape.rank = 2;
  outputs[0].shape.dims = {1, 300};
  outputs[0].bytes = "data";
  outputs[1].name = "scalar";
  outputs[1].type = DataType::bytes;
  InferResponse response;
  response.model_name = "m";
  response.model_version = 3;
  response.id = "an id";
  response.annotations = annotations;
  response.annotation_count = 3;
  response.outputs = outputs;
  response.output_count = 2;
  std::string expected =
      text(1, "m") + text(2, "3") + text(3, "an id") + param("route_variant", text(3, "")) +
      param("route_bucket", varint(2, UINT64_MAX)) + param("route_fallback", varint(1, 1)) +
      text(5, text(1, "y") + text(2, "INT16") + packed(3, {1, 300})) +
      text(5, text(1, "scalar") + text(2, "BYTES")) + text(6, "data") + text(6, "");
  CHECK_EQ(written(response), framed(expected));
  Buffer out;
  out.append("before");
  write_stream_infer_frame(response, &out);
  CHECK_EQ(out.view(), "before" + framed(text(2, expected)));
}

TEST(a_stream_error_names_its_request) {
  Buffer out;
  write_stream_error_frame("no such model", "7", &out);
  CHECK_EQ(out.view(), framed(text(1, "no such model") + text(2, text(3, "7"))));
  out.clear();
  write_stream_error_frame("no such model", "", &out);
  CHECK_EQ(out.view(), framed(text(1, "no such model") + text(2, "")));
}

TEST(a_varint_is_as_long_as_its_size_says) {
  for (unsigned bit = 0; bit < 64; ++bit) {
    for (uint64_t value : {uint64_t{1} << bit, (uint64_t{1} << bit) - 1}) {
      uint8_t bytes[10];
      CHECK_EQ(protobuf::put_varint(bytes, value) - bytes, protobuf::varint_size(value));
    }
  }
  CHECK_EQ(protobuf::varint_size(UINT64_MAX), 10u);
}

}  // namespace
}  // namespace router
