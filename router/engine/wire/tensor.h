// Tensors as they travel: a datatype, a shape, and little-endian row-major bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace router {

enum class DataType : uint8_t {
  invalid, boolean, uint8, uint16, uint32, uint64, int8, int16, int32, int64, fp16, bf16,
  fp32, fp64, bytes
};

constexpr unsigned kRankMax = 16;
constexpr unsigned kTensorsMax = 64;
constexpr unsigned kNameMax = 256;

const char* datatype_name(DataType type);      // "FP32"
DataType datatype_from_name(std::string_view name);
uint32_t datatype_size(DataType type);         // bytes an element; 0 for BYTES

struct Shape {
  uint8_t rank = 0;
  std::array<int64_t, kRankMax> dims{};

  bool operator==(const Shape& other) const;
};

// Number of elements; false when a dimension is negative or the product overflows.
bool element_count(const Shape& shape, uint64_t* count);

// A tensor's bytes belong to someone else (the request body, a run's result). BYTES
// elements are each a 4-byte little-endian length and that many bytes.
struct TensorView {
  std::string_view name;
  DataType type = DataType::invalid;
  Shape shape;
  uint64_t elements = 0;
  ByteView bytes;
};

// Element `index` as a number; NaN for BYTES. Integers beyond 2^53 are rounded.
double number_at(const TensorView& tensor, uint64_t index);

// The rows [first, first + count) along dimension 0, for fixed-size types.
ByteView row_bytes(const TensorView& tensor, uint64_t first, uint64_t count);

// Checks that `bytes` is exactly `elements` length-prefixed strings.
bool is_valid_bytes_tensor(ByteView bytes, uint64_t elements);

}  // namespace router
