// Builds protobuf messages byte by byte, wrong ones included, for tests that must control
// the encoding. `+` joins fields: text(1, "m") + varint(2, 5).
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace router::message {

inline std::string raw_varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
inline std::string tag(uint32_t field, uint32_t wire_type) {
  return raw_varint(uint64_t{field} << 3 | wire_type);
}
inline std::string varint(uint32_t field, uint64_t value) {
  return tag(field, 0) + raw_varint(value);
}
inline std::string text(uint32_t field, std::string_view bytes) {
  return tag(field, 2) + raw_varint(bytes.size()) + std::string(bytes);
}
template <typename T>
std::string little_endian(const std::vector<T>& values) {
  std::string out;
  for (T value : values) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
  }
  return out;
}
inline std::string packed(uint32_t field, const std::vector<int64_t>& values) {
  std::string run;
  for (int64_t value : values) run += raw_varint(static_cast<uint64_t>(value));
  return text(field, run);
}
// A string as an element of a BYTES tensor.
inline std::string element(std::string_view bytes) {
  return little_endian<uint32_t>({static_cast<uint32_t>(bytes.size())}) + std::string(bytes);
}

// Fields of a ModelInferRequest.
inline std::string input(std::string_view name, std::string_view datatype,
                         const std::vector<int64_t>& shape, std::string_view contents = {},
                         bool has_contents = false) {
  std::string tensor = text(1, name) + text(2, datatype) + packed(3, shape);
  if (has_contents || !contents.empty()) tensor += text(5, contents);
  return text(5, tensor);
}
inline std::string raw(std::string_view bytes) { return text(7, bytes); }
inline std::string output(std::string_view name) { return text(6, text(1, name)); }
inline std::string param(std::string_view name, std::string_view value) {
  return text(4, text(1, name) + text(2, value));
}

}  // namespace router::message
