#include "check.h"
#include "message.h"
#include "wire/oip_read.h"

namespace router {
namespace {

using namespace message;

// What a message is refused with, as "situation: message"; "ok" when it is not.
std::string verdict(const std::string& bytes) {
  InferRequest request;
  Status status = read_infer(bytes, &request);
  if (status.ok()) return "ok";
  return std::string(advice_for(status.situation).name) + ": " + status.message;
}

constexpr const char* kUndecodable =
    "undecodable: the message is not a valid ModelInferRequest";

// What the only input's bytes are once read.
std::string data_of(const std::string& bytes) {
  static InferRequest request;
  Status status = read_infer(bytes, &request);
  if (!status.ok()) return "refused: " + status.message;
  return std::string(request.inputs.at(0).bytes);
}

TEST(a_raw_request_is_read_without_copying) {
  std::string tensor = little_endian<float>({1, 2, 3, 4});
  std::string bytes = text(1, "credit") + text(2, "3") + text(3, "an id") +
                      input("x", "FP32", {2, 2}) + output("y") + raw(tensor);
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  CHECK_EQ(request.model_name, "credit");
  CHECK_EQ(request.model_version, "3");
  CHECK_EQ(request.id, "an id");
  REQUIRE(request.inputs.size() == 1 && request.outputs.size() == 1);
  CHECK_EQ(request.outputs[0], "y");
  const TensorView& x = request.inputs[0];
  CHECK_EQ(x.name, "x");
  CHECK_EQ(x.type, DataType::fp32);
  CHECK_EQ(unsigned{x.shape.rank}, 2u);
  CHECK_EQ(x.elements, 4u);
  CHECK_EQ(x.bytes, tensor);
  CHECK(x.bytes.data() == bytes.data() + bytes.size() - tensor.size());
}

TEST(typed_contents_become_the_raw_layout) {
  struct Row { const char* type; std::string contents, expected; };
  for (const Row& row : {
           Row{"BOOL", packed(1, {1, 0, 5}), std::string("\1\0\1", 3)},
           {"UINT8", packed(4, {1, 255, 256}), std::string("\1\377\0", 3)},
           {"UINT16", packed(4, {1, 65535, 65538}), little_endian<uint16_t>({1, 65535, 2})},
           {"UINT32", packed(4, {1, 2, 0xFFFFFFFF}), little_endian<uint32_t>({1, 2, 0xFFFFFFFF})},
           {"UINT64", packed(5, {1, 2, -1}), little_endian<uint64_t>({1, 2, UINT64_MAX})},
           {"INT8", packed(2, {1, -1, 300}), std::string("\1\377\54", 3)},
           {"INT16", packed(2, {1, -1, 65538}), little_endian<int16_t>({1, -1, 2})},
           {"INT32", packed(2, {1, -1, INT32_MIN}), little_endian<int32_t>({1, -1, INT32_MIN})},
           {"INT64", packed(3, {1, -1, INT64_MIN}), little_endian<int64_t>({1, -1, INT64_MIN})},
           {"FP32", text(6, little_endian<float>({1, -2, 3})), little_endian<float>({1, -2, 3})},
           {"FP64", text(7, little_endian<double>({1, -2, 3})), little_endian<double>({1, -2, 3})},
           {"BYTES", text(8, "ab") + text(8, "") + text(8, std::string_view("\0", 1)),
            element("ab") + element("") + element(std::string_view("\0", 1))}})
    CHECK_EQ(data_of(input("x", row.type, {3}, row.contents)), row.expected);
}

TEST(unpacked_elements_mean_the_same_as_packed_ones) {
  CHECK_EQ(data_of(input("x", "BOOL", {2}, varint(1, 1) + varint(1, 0))), std::string("\1\0", 2));
  CHECK_EQ(data_of(input("x", "INT8", {3}, varint(2, 7) + packed(2, {8, 9}))), "\7\10\11");
  std::string one = little_endian<float>({1}), two = little_endian<float>({2, 3});
  CHECK_EQ(data_of(input("x", "FP32", {3}, tag(6, 5) + one + text(6, two))), one + two);
  std::string wide = little_endian<double>({1});
  CHECK_EQ(data_of(input("x", "FP64", {2}, text(7, wide) + tag(7, 1) + wide)), wide + wide);
}

TEST(contents_sent_in_parts_are_merged) {
  std::string tensor = text(5, packed(3, {1})) + text(1, "x") + text(2, "INT64") +
                       packed(3, {2}) + varint(3, 1) + text(5, packed(3, {2}));
  CHECK_EQ(data_of(text(5, tensor)), little_endian<int64_t>({1, 2}));
}

TEST(views_hold_although_typed_contents_grow) {
  std::string bytes;
  for (int i = 0; i < 64; ++i) {
    std::vector<int64_t> values(static_cast<size_t>(i * 10), i);
    bytes += input("x" + std::to_string(i), i % 2 ? "INT16" : "INT32", {i * 10},
                   packed(2, values), true);
  }
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  for (int i = 0; i < 64; ++i) {
    std::vector<int16_t> narrow(static_cast<size_t>(i * 10), static_cast<int16_t>(i));
    std::vector<int32_t> wide(static_cast<size_t>(i * 10), i);
    CHECK_EQ(request.inputs[static_cast<size_t>(i)].bytes,
             i % 2 ? little_endian(narrow) : little_endian(wide));
  }
}

TEST(the_last_of_repeated_scalars_counts) {
  std::string bytes = text(1, "a") + text(1, "b") + text(3, "i") + text(3, "");
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  CHECK_EQ(request.model_name, "b");
  CHECK_EQ(request.id, "");
}

TEST(a_reused_request_remembers_nothing) {
  std::string bytes = text(1, "m") + param("p", varint(1, 1)) + output("y") +
                      input("x", "INT8", {1}, varint(2, 1));
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  REQUIRE(read_infer("", &request).ok());
  CHECK_EQ(request.model_name, "");
  CHECK(request.params.empty() && request.inputs.empty() && request.outputs.empty());
  CHECK(request.typed.empty());
}

TEST(a_large_typed_request_does_not_keep_its_memory) {
  std::string bytes =
      input("x", "INT64", {int64_t{kTypedKept}}, text(3, std::string(kTypedKept, '\0')));
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  CHECK(request.typed.capacity() > kTypedKept);
  request.clear();
  CHECK(request.typed.capacity() <= kTypedKept);
}

TEST(parameters_have_all_five_kinds) {
  std::string bytes = param("b", varint(1, 1)) + param("i", varint(2, static_cast<uint64_t>(-3))) +
                      param("t", text(3, "text")) + param("d", tag(4, 1) + little_endian<double>({2.5})) +
                      param("u", varint(5, UINT64_MAX)) + param("n", "");
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  REQUIRE(request.params.size() == 6);
  CHECK(request.params[0].kind == ParamKind::boolean && request.params[0].integer == 1);
  CHECK(request.params[1].kind == ParamKind::integer && request.params[1].integer == -3);
  CHECK(request.params[2].kind == ParamKind::text && request.params[2].text == "text");
  CHECK(request.params[3].kind == ParamKind::number && request.params[3].number == 2.5);
  CHECK(request.params[4].kind == ParamKind::unsigned_integer && request.params[4].integer == -1);
  CHECK(request.params[5].kind == ParamKind::none);
}

TEST(a_parameter_sent_twice_has_its_later_value) {
  std::string bytes = param("p", varint(2, 1)) + param("q", varint(2, 5)) + param("p", text(3, "late"));
  InferRequest request;
  REQUIRE(read_infer(bytes, &request).ok());
  REQUIRE(request.params.size() == 2);
  CHECK_EQ(request.params[0].text, "late");
  CHECK_EQ(request.params[1].integer, 5);
}

TEST(scalars_and_empty_tensors_are_read) {
  CHECK_EQ(data_of(input("x", "INT8", {}) + raw("\7")), "\7");
  CHECK_EQ(data_of(input("x", "INT8", {}, varint(2, 7))), "\7");
  CHECK_EQ(data_of(input("x", "INT8", {0})), "");
  CHECK_EQ(data_of(input("x", "FP32", {3, 0}) + raw("")), "");
  CHECK_EQ(data_of(input("x", "BYTES", {0})), "");
  CHECK_EQ(data_of(input("x", "FP16", {0, 4})), "");
  CHECK_EQ(data_of(input("x", "FP16", {1}) + raw("ab")), "ab");
  CHECK_EQ(data_of(input("x", "BF16", {1}) + raw("ab")), "ab");
}

TEST(bad_input_is_refused_naming_the_field) {
  std::string x = input("x", "FP32", {1, 4});
  std::string long_name(300, 'n');
  struct Row { std::string bytes; std::string message; };
  for (const Row& row : {
           Row{x + raw("123456789012"), "input byte size mismatch for input 'x': expected 16, got 12"},
           {input("x", "INT16", {2}, packed(2, {1, 2, 3})), "input byte size mismatch for input 'x': expected 4, got 6"},
           {x, "unable to find data for input tensor 'x' in request"},
           {input("x", "FP32", {}), "unable to find data for input tensor 'x' in request"},
           {input("x", "FP32", {4}, packed(2, {1, 2, 3, 4})), "input 'x' of datatype FP32 has int_contents, expected fp32_contents"},
           {input("x", "INT32", {1}, varint(2, 1) + varint(3, 1)), "input 'x' of datatype INT32 has int64_contents, expected int_contents"},
           {input("x", "FP16", {1}, text(6, "1234")), "input 'x' of datatype FP16 must be sent in raw_input_contents"},
           {input("x", "BF16", {1}, text(6, "1234")), "input 'x' of datatype BF16 must be sent in raw_input_contents"},
           {input("x", "INT8", {1}, varint(2, 1)) + raw("1"), "contents must not be set with raw_input_contents, but input 'x' has them"},
           {input("x", "INT8", {1}) + raw("1") + raw("2"), "unexpected number of raw_input_contents: expected 1 (one for each input), got 2"},
           {input("x", "INT8", {1}) + input("y", "INT8", {0}) + raw("1"), "unexpected number of raw_input_contents: expected 2 (one for each input), got 1"},
           {raw(""), "unexpected number of raw_input_contents: expected 0 (one for each input), got 1"},
           {input("x", "INT8", {1}) + input("x", "INT8", {1}) + raw("1") + raw("1"), "input 'x' already exists in request"},
           {output("y") + output("z") + output("y"), "output 'y' already requested"},
           {input("x", "FLOAT", {1}) + raw("1234"), "unknown datatype 'FLOAT' for input 'x'"},
           {input("x", "", {1}) + raw("1234"), "unknown datatype '' for input 'x'"},
           {input("x", "INT8", {2, -1}) + raw(""), "unexpected shape for input 'x': dimension 1 is -1"},
           {input("x", "INT8", {0, INT64_MIN}) + raw(""), "unexpected shape for input 'x': dimension 1 is -9223372036854775808"},
           {input("x", "INT8", {INT64_MAX, 3}) + raw(""), "shape of input 'x' has too many elements"},
           {input("x", "FP64", {int64_t{1} << 62}) + raw(""), "shape of input 'x' has too many elements"},
           {input("x", "INT8", std::vector<int64_t>(17, 1)) + raw("1"), "input 'x' has more than 16 dimensions"},
           {input("x", "BYTES", {1000001}), "input 'x' has 1000001 string elements, at most 1000000"},
           {input("x", "BYTES", {2}) + raw(element("a")), "unexpected number of string elements for input 'x': expected 2, got 1"},
           {input("x", "BYTES", {1}) + raw(element("a") + element("b")), "unexpected number of string elements for input 'x': expected 1, got 2"},
           {input("x", "BYTES", {1}) + raw("\1"), "incomplete string length indicator for input 'x': expected 4 bytes, got 1"},
           {input("x", "BYTES", {1}) + raw(element("abc").substr(0, 6)), "incomplete string data for input 'x': expected 3 bytes, got 2"},
           {input("x", "BYTES", {2}, text(8, "a")), "unexpected number of string elements for input 'x': expected 2, got 1"},
           {input(long_name, "INT8", {1}) + raw("1"), "input '" + std::string(256, 'n') + "...' is longer than 256 bytes"},
           {output(long_name), "requested output '" + std::string(256, 'n') + "...' is longer than 256 bytes"},
           {param(long_name, ""), "parameter '" + std::string(256, 'n') + "...' is longer than 256 bytes"},
           {text(1, long_name), "model_name '" + std::string(256, 'n') + "...' is longer than 256 bytes"}})
    CHECK_EQ(verdict(row.bytes), "bad_input: " + row.message);
}

TEST(names_in_messages_are_whole_characters_without_controls) {
  std::string name = std::string(255, 'n') + "\xC3\xA9" + "tail";
  CHECK_EQ(verdict(output(name)), "bad_input: requested output '" + std::string(255, 'n') +
                                      "...' is longer than 256 bytes");
  CHECK_EQ(verdict(output("a\nb\x7F") + output("a\nb\x7F")),
           "bad_input: output 'a?b?' already requested");
}

TEST(limits_hold_exactly) {
  std::string params, inputs, outputs, raws;
  for (int i = 0; i < 64; ++i) {
    std::string name = "n" + std::to_string(i);
    params += param(name, varint(1, 1));
    inputs += input(name, "INT8", {1});
    outputs += output(name);
    raws += raw("1");
  }
  CHECK_EQ(verdict(params + inputs + outputs + raws), "ok");
  CHECK_EQ(verdict(params + param("n0", "") + inputs + raws), "ok");
  CHECK_EQ(verdict(params + param("more", "")), "bad_input: too many parameters: at most 64");
  CHECK_EQ(verdict(inputs + input("more", "INT8", {1})), "bad_input: too many inputs: at most 64");
  CHECK_EQ(verdict(outputs + output("more")), "bad_input: too many requested outputs: at most 64");
  CHECK_EQ(verdict(inputs + raws + raw("1")), "bad_input: too many raw_input_contents: at most 64");
  CHECK_EQ(verdict(input("x", "INT8", std::vector<int64_t>(16, 1)) + raw("1")), "ok");
  CHECK_EQ(verdict(input(std::string(256, 'n'), "INT8", {1}) + raw("1")), "ok");
}

TEST(a_duplicate_is_found_wherever_it_stands) {
  for (int twin = 0; twin < 63; ++twin) {
    std::string bytes;
    for (int i = 0; i < 63; ++i) bytes += output("output_" + std::to_string(i));
    bytes += output("output_" + std::to_string(twin));
    CHECK_EQ(verdict(bytes), "bad_input: output 'output_" + std::to_string(twin) + "' already requested");
  }
}

TEST(unknown_fields_are_passed_over) {
  std::string unknown = varint(100, 1) + text(101, "anything") + tag(102, 5) + "1234" +
                        tag(103, 1) + "12345678" + tag(104, 3) + varint(1, 1) + tag(5, 3) +
                        tag(5, 4) + tag(104, 4);
  std::string tensor = text(1, "x") + text(2, "INT8") + unknown + varint(3, 1) + varint(1, 9) +
                       text(5, unknown + varint(2, 7));
  // A known field written in a way that is not its own is unknown too.
  CHECK_EQ(data_of(unknown + text(5, tensor) + varint(1, 9) + unknown), "\7");
  CHECK_EQ(verdict(unknown + text(6, text(1, "y") + unknown) +
                   text(4, text(1, "p") + unknown + text(2, unknown + varint(1, 1)))), "ok");
}

TEST(what_is_not_protobuf_is_undecodable) {
  std::string eleven(10, '\x80');
  for (const std::string& bytes : {
           std::string("\x08"), std::string("\x0A\x05" "abc"), tag(1, 2) + eleven + "\1",
           tag(100, 0) + eleven + std::string(1, '\1'), tag(0, 0) + "\1", varint(0, 1),
           std::string("\x0E"), std::string("\x0F"), tag(9, 4), tag(9, 3), tag(9, 3) + tag(8, 4),
           std::string("\x80\x80\x80\x80\x80\x01"), std::string("\xFF\xFF\xFF\xFF\xFF\x01"),
           std::string("\xA0\x86\x80\x80\x80\x00\x01", 7),  // field 100, its tag too long
           std::string("\xA0\x86\x80\x80\x10\x01"),          // or beyond 32 bits
           tag(1, 2) + std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
           tag(100, 1) + "1234567", tag(100, 5) + "123",
           text(1, "\xFF"), text(2, "\xC0\x80"), text(3, "\xED\xA0\x80"),
           text(3, "\xF4\x90\x80\x80"), text(3, "12345678\xC3"), text(3, "\xE2\x82"),
           text(4, text(1, "\xFF")), text(4, text(2, text(3, "\xFF"))), text(4, "\x0A"),
           text(5, text(1, "\xFF")), text(5, text(2, "\xFF")), text(5, text(3, "\x80")),
           text(5, text(4, "\x0A")), text(5, text(5, text(2, "\x80"))),
           text(5, text(5, text(6, "123"))), text(5, text(5, text(7, "1234"))),
           text(5, text(5, tag(6, 5) + "12")), text(6, text(1, "\xFF")), text(6, text(2, "\x0A"))})
    CHECK_EQ(verdict(bytes), kUndecodable);
}

TEST(groups_may_nest_a_hundred_deep_and_no_deeper) {
  auto nested = [](int depth) {
    std::string bytes;
    for (int i = 0; i < depth; ++i) bytes += tag(9, 3);
    for (int i = 0; i < depth; ++i) bytes += tag(9, 4);
    return bytes;
  };
  CHECK_EQ(verdict(nested(100)), "ok");
  CHECK_EQ(verdict(nested(101)), kUndecodable);
  CHECK_EQ(verdict(nested(100000)), kUndecodable);
}

TEST(every_cut_of_a_message_is_refused_or_whole) {
  std::string bytes = text(1, "m") + param("p", text(3, "v")) +
                      input("x", "INT32", {2}, packed(2, {1, 1000000})) + output("y");
  // Between two top-level fields a cut leaves a smaller message; elsewhere none.
  unsigned accepted = 0;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    // A copy of the exact size, so that a sanitizer sees a read past the end.
    std::vector<char> exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(cut));
    InferRequest request;
    accepted += read_infer({exact.data(), exact.size()}, &request).ok();
  }
  CHECK_EQ(accepted, 5u);
}

}  // namespace
}  // namespace router
