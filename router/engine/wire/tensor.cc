#include "wire/tensor.h"

#include <cmath>
#include <limits>

namespace router {
namespace {

template <typename T>
T element_at(ByteView bytes, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof value);
  return value;
}

double half_value(unsigned bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double fraction = bits & 1023;
  double size = exponent == 0 ? std::ldexp(fraction, -24)
                              : std::ldexp(fraction + 1024, exponent - 25);
  if (exponent == 31) size = fraction == 0 ? HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return (bits & 0x8000) != 0 ? -size : size;
}

struct TypeRow {
  char name[8];  // padded with zeros: finding one is comparing integers
  uint32_t size;
};
// In the order of DataType.
constexpr TypeRow kTypes[] = {
    {"INVALID", 0}, {"BOOL", 1},  {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4},
    {"UINT64", 8},  {"INT8", 1},  {"INT16", 2}, {"INT32", 4},  {"INT64", 8},
    {"FP16", 2},    {"BF16", 2},  {"FP32", 4},  {"FP64", 8},   {"BYTES", 0},
};
constexpr unsigned kTypeCount = sizeof kTypes / sizeof kTypes[0];
static_assert(kTypeCount == static_cast<size_t>(DataType::bytes) + 1,
              "every datatype has a row");

}  // namespace

const char* datatype_name(DataType type) {
  return kTypes[static_cast<unsigned>(type)].name;
}

uint32_t datatype_size(DataType type) { return kTypes[static_cast<unsigned>(type)].size; }

DataType datatype_from_name(std::string_view name) {
  // A zero at its end would hide in the padding.
  if (name.empty() || name.size() >= sizeof TypeRow::name || name.back() == 0)
    return DataType::invalid;
  char padded[sizeof TypeRow::name] = {};
  std::memcpy(padded, name.data(), name.size());
  for (unsigned i = kTypeCount; --i != 0;)  // what models use most comes last
    if (std::memcmp(kTypes[i].name, padded, sizeof padded) == 0)
      return static_cast<DataType>(i);
  return DataType::invalid;
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

double number_at(const TensorView& tensor, uint64_t index) {
  const ByteView bytes = tensor.bytes;
  switch (tensor.type) {
    case DataType::fp32: return element_at<float>(bytes, index);
    case DataType::fp64: return element_at<double>(bytes, index);
    case DataType::fp16: return half_value(element_at<uint16_t>(bytes, index));
    case DataType::bf16: {
      const uint32_t bits = uint32_t{element_at<uint16_t>(bytes, index)} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
    case DataType::int64: return static_cast<double>(element_at<int64_t>(bytes, index));
    case DataType::int32: return element_at<int32_t>(bytes, index);
    case DataType::int16: return element_at<int16_t>(bytes, index);
    case DataType::int8: return element_at<int8_t>(bytes, index);
    case DataType::uint64: return static_cast<double>(element_at<uint64_t>(bytes, index));
    case DataType::uint32: return element_at<uint32_t>(bytes, index);
    case DataType::uint16: return element_at<uint16_t>(bytes, index);
    case DataType::uint8:
    case DataType::boolean: return element_at<uint8_t>(bytes, index);
    default: return std::numeric_limits<double>::quiet_NaN();
  }
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
