#include "check.h"
#include "message.h"
#include "wire/tensor.h"

namespace router {
namespace {

Shape shape_of(const std::vector<int64_t>& dims) {
  Shape shape;
  for (int64_t dim : dims) shape.dims[shape.rank++] = dim;
  return shape;
}

TEST(every_datatype_is_found_by_its_name) {
  for (unsigned i = 1; i <= static_cast<unsigned>(DataType::bytes); ++i) {
    DataType type = static_cast<DataType>(i);
    CHECK_EQ(datatype_from_name(datatype_name(type)), type);
  }
}

TEST(what_is_not_a_datatype_is_invalid) {
  using namespace std::literals;
  for (std::string_view name : {""sv, "INVALID"sv, "FP"sv, "FP320"sv, "fp32"sv, "FP32\0"sv,
                                "STRING"sv, "UINT8UINT8"sv, "\0"sv, "BOOL "sv})
    CHECK_EQ(datatype_from_name(name), DataType::invalid);
}

TEST(datatypes_have_the_sizes_of_the_protocol) {
  struct Row { const char* name; uint32_t size; };
  for (Row row : {Row{"BOOL", 1}, {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4}, {"UINT64", 8},
                  {"INT8", 1}, {"INT16", 2}, {"INT32", 4}, {"INT64", 8}, {"FP16", 2},
                  {"BF16", 2}, {"FP32", 4}, {"FP64", 8}, {"BYTES", 0}})
    CHECK_EQ(datatype_size(datatype_from_name(row.name)), row.size);
}

TEST(elements_are_the_product_of_the_dimensions) {
  constexpr int64_t kLarge = int64_t{1} << 40;
  struct Row { std::vector<int64_t> dims; bool is_good; uint64_t count; };
  for (const Row& row : {Row{{}, true, 1}, {{7}, true, 7}, {{2, 3, 4}, true, 24},
                         {{0}, true, 0}, {{kLarge, kLarge, 0}, true, 0},
                         {{0, kLarge, kLarge}, true, 0}, {{kLarge, kLarge}, false, 0},
                         {{-1}, false, 0}, {{0, -1}, false, 0}, {{INT64_MAX, 2}, true, 0xFFFFFFFFFFFFFFFE},
                         {{INT64_MAX, 3}, false, 0}}) {
    uint64_t count = 0;
    CHECK_EQ(element_count(shape_of(row.dims), &count), row.is_good);
    if (row.is_good) CHECK_EQ(count, row.count);
  }
}

TEST(shapes_are_equal_when_their_dimensions_are) {
  CHECK(shape_of({2, 3}) == shape_of({2, 3}));
  CHECK(!(shape_of({2, 3}) == shape_of({3, 2})));
  CHECK(!(shape_of({2}) == shape_of({2, 0})));
}

TEST(rows_are_cut_along_the_first_dimension) {
  TensorView tensor;
  tensor.type = DataType::int16;
  tensor.shape = shape_of({3, 2});
  tensor.bytes = "aabbccddeeff";
  CHECK_EQ(row_bytes(tensor, 0, 3), "aabbccddeeff");
  CHECK_EQ(row_bytes(tensor, 1, 1), "ccdd");
  CHECK_EQ(row_bytes(tensor, 3, 0), "");
  tensor.shape = shape_of({0, 2});
  tensor.bytes = {};
  CHECK_EQ(row_bytes(tensor, 0, 0), "");
}

TEST(strings_must_fill_their_tensor_exactly) {
  std::string two = message::element("ab") + message::element("");
  CHECK(is_valid_bytes_tensor(two, 2));
  CHECK(is_valid_bytes_tensor("", 0));
  CHECK(!is_valid_bytes_tensor(two, 1));
  CHECK(!is_valid_bytes_tensor(two, 3));
  CHECK(!is_valid_bytes_tensor("", 1));
  for (size_t cut = 1; cut < two.size(); ++cut)
    CHECK(!is_valid_bytes_tensor(std::string_view(two).substr(0, cut), 2));
  CHECK(!is_valid_bytes_tensor(std::string_view("\xFF\xFF\xFF\xFFxx", 6), 1));
}

}  // namespace
}  // namespace router
