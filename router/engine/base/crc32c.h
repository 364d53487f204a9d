// CRC-32C (Castagnoli) by table: the checksum of records on the tape. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace router {

constexpr std::array<uint32_t, 256> crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t rest = i;
    for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1 ? 0x82F63B78u : 0u);
    table[i] = rest;
  }
  return table;
}

inline uint32_t crc32c(const void* bytes, size_t count) {
  static constexpr std::array<uint32_t, 256> kTable = crc32c_table();
  const auto* at = static_cast<const uint8_t*>(bytes);
  uint32_t crc = UINT32_MAX;
  for (const uint8_t* end = at + count; at != end; ++at) {
    crc = crc >> 8 ^ kTable[(crc ^ *at) & 0xFF];
  }
  return ~crc;
}

}  // namespace router
