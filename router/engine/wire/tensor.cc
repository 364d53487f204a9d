#include "wire/tensor.h"

namespace router {
namespace {

struct TypeRow {
  const char* name;
  uint32_t size;
};
// In the order of DataType.
constexpr TypeRow kTypes[] = {
    {"INVALID", 0}, {"BOOL", 1},  {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4},
    {"UINT64", 8},  {"INT8", 1},  {"INT16", 2}, {"INT32", 4},  {"INT64", 8},
    {"FP16", 2},    {"BF16", 2},  {"FP32", 4},  {"FP64", 8},   {"BYTES", 0},
};
static_assert(sizeof kTypes / sizeof kTypes[0] == static_cast<size_t>(DataType::bytes) + 1,
              "every datatype has a row");

// A name of up to eight characters as one integer, so that finding it is a switch.
constexpr uint64_t packed(std::string_view name) {
  uint64_t value = 0;
  for (size_t i = 0; i < name.size(); ++i)
    value |= static_cast<uint64_t>(static_cast<uint8_t>(name[i])) << (8 * i);
  return value;
}

}  // namespace

const char* datatype_name(DataType type) {
  return kTypes[static_cast<unsigned>(type)].name;
}

uint32_t datatype_size(DataType type) { return kTypes[static_cast<unsigned>(type)].size; }

DataType datatype_from_name(std::string_view name) {
  if (name.size() > 8) return DataType::invalid;
  switch (packed(name)) {
    case packed("BOOL"): return DataType::boolean;
    case packed("UINT8"): return DataType::uint8;
    case packed("UINT16"): return DataType::uint16;
    case packed("UINT32"): return DataType::uint32;
    case packed("UINT64"): return DataType::uint64;
    case packed("INT8"): return DataType::int8;
    case packed("INT16"): return DataType::int16;
    case packed("INT32"): return DataType::int32;
    case packed("INT64"): return DataType::int64;
    case packed("FP16"): return DataType::fp16;
    case packed("BF16"): return DataType::bf16;
    case packed("FP32"): return DataType::fp32;
    case packed("FP64"): return DataType::fp64;
    case packed("BYTES"): return DataType::bytes;
    default: return DataType::invalid;
  }
}

bool Shape::operator==(const Shape& other) const {
  if (rank != other.rank) return false;
  for (unsigned i = 0; i < rank; ++i)
    if (dims[i] != other.dims[i]) return false;
  return true;
}

bool element_count(const Shape& shape, uint64_t* count) {
  // A zero anywhere makes the tensor empty, whatever the other dimensions would overflow
  // to; a negative one is wrong even then.
  uint64_t product = 1;
  bool overflows = false, is_empty = false;
  for (unsigned i = 0; i < shape.rank; ++i) {
    if (shape.dims[i] < 0) return false;
    is_empty |= shape.dims[i] == 0;
    overflows |= !checked_mul(product, static_cast<uint64_t>(shape.dims[i]), &product);
  }
  *count = is_empty ? 0 : product;
  return is_empty || !overflows;
}

ByteView row_bytes(const TensorView& tensor, uint64_t first, uint64_t count) {
  ROUTER_ASSERT(tensor.shape.rank > 0 && tensor.type != DataType::bytes);
  uint64_t rows = static_cast<uint64_t>(tensor.shape.dims[0]);
  ROUTER_ASSERT(first <= rows && count <= rows - first);
  if (rows == 0) return {};
  uint64_t row_size = tensor.bytes.size() / rows;
  return tensor.bytes.substr(first * row_size, count * row_size);
}

bool is_valid_bytes_tensor(ByteView bytes, uint64_t elements) {
  const char* at = bytes.data();
  uint64_t left = bytes.size();
  for (; elements != 0 && left >= 4; --elements) {
    uint32_t length;
    std::memcpy(&length, at, 4);
    if (length > left - 4) return false;
    at += 4 + uint64_t{length};
    left -= 4 + uint64_t{length};
  }
  return elements == 0 && left == 0;
}

}  // namespace router
