// The protobuf wire format, as far as the inference messages need it: a cursor that reads
// fields without ever passing its end, and functions that write them.
//
// Readers return false on bytes that are not protobuf, and the caller stops there; they
// accept and refuse what the protobuf libraries do. Nothing here allocates. Writers trust
// that the caller computed the size and made the room.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"

namespace router::protobuf {

enum WireType : uint32_t {
  kVarint = 0, kFixed64 = 1, kBytes = 2, kGroup = 3, kEndGroup = 4, kFixed32 = 5
};

// What precedes a field: its number and how its value is written.
constexpr uint32_t tag_of(uint32_t field, WireType type) { return field << 3 | type; }

// Groups inside groups; the protobuf libraries stop at the same depth.
constexpr int kDepthMax = 100;

struct Cursor {
  const uint8_t* at;
  const uint8_t* end;

  explicit Cursor(ByteView bytes)
      : at(reinterpret_cast<const uint8_t*>(bytes.data())), end(at + bytes.size()) {}
  bool done() const { return at == end; }
  size_t left() const { return static_cast<size_t>(end - at); }
};

// The bits past the 64th are dropped, as protobuf does; an eleventh byte is an error.
inline bool read_long_varint(Cursor* in, uint64_t* value) {
  uint64_t result = 0;
  for (unsigned shift = 0; shift < 70 && in->at != in->end; shift += 7) {
    uint8_t byte = *in->at++;
    if (shift < 64) result |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return false;
}
inline bool read_varint(Cursor* in, uint64_t* value) {
  if (in->at != in->end && *in->at < 0x80) {
    *value = *in->at++;
    return true;
  }
  return read_long_varint(in, value);
}

// A tag is a varint of at most five bytes and 32 bits; field 0 does not exist.
inline bool read_tag(Cursor* in, uint32_t* tag) {
  const uint8_t* start = in->at;
  uint64_t value;
  if (!read_varint(in, &value) || in->at - start > 5 || value > UINT32_MAX) return false;
  *tag = static_cast<uint32_t>(value);
  return value >> 3 != 0;
}

inline bool read_bytes(Cursor* in, ByteView* bytes) {
  uint64_t size;
  if (!read_varint(in, &size) || size > in->left()) return false;
  *bytes = ByteView(reinterpret_cast<const char*>(in->at), size);
  in->at += size;
  return true;
}

template <typename T>
bool read_fixed(Cursor* in, T* value) {
  if (in->left() < sizeof(T)) return false;
  std::memcpy(value, in->at, sizeof(T));
  in->at += sizeof(T);
  return true;
}

// Passes over the value behind `tag`, whole groups included.
inline bool skip_field(Cursor* in, uint32_t tag, int depth = 0) {
  uint64_t number;
  ByteView bytes;
  switch (tag & 7) {
    case kVarint: return read_varint(in, &number);
    case kFixed64: return read_fixed(in, &number);
    case kBytes: return read_bytes(in, &bytes);
    case kFixed32: {
      uint32_t word;
      return read_fixed(in, &word);
    }
    case kGroup: break;
    default: return false;
  }
  if (depth >= kDepthMax) return false;
  for (uint32_t inner; read_tag(in, &inner);) {
    if ((inner & 7) == kEndGroup) return inner >> 3 == tag >> 3;
    if (!skip_field(in, inner, depth + 1)) return false;
  }
  return false;
}

// Calls on_field(cursor, tag) for each field of a message; false as soon as it says so.
template <typename OnField>
bool each_field(ByteView message, OnField on_field) {
  uint32_t tag;
  for (Cursor in(message); !in.done();)
    if (!read_tag(&in, &tag) || !on_field(&in, tag)) return false;
  return true;
}

// Whether no byte is above 127: eight at a time, the last eight overlapping.
inline bool is_ascii(std::string_view text) {
  uint64_t all = 0, word;
  size_t at = 0;
  for (; text.size() - at >= 8; at += 8) {
    std::memcpy(&word, text.data() + at, 8);
    all |= word;
  }
  if (text.size() >= 8) {
    std::memcpy(&word, text.data() + text.size() - 8, 8);
    all |= word;
  } else {
    for (char c : text) all |= static_cast<uint8_t>(c);
  }
  return (all & 0x8080808080808080) == 0;
}

// No overlong forms, no surrogates, nothing above U+10FFFF.
inline bool is_utf8(std::string_view text) {
  if (is_ascii(text)) return true;
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};  // by length
  const uint8_t* at = reinterpret_cast<const uint8_t*>(text.data());
  size_t size;
  for (size_t left = text.size(); left != 0; at += size, left -= size) {
    size = *at < 0x80 ? 1 : *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2;
    if (size == 1) continue;
    if (*at < 0xC0 || *at >= 0xF8 || size > left) return false;
    uint32_t point = *at & (0x7Fu >> size);
    for (size_t i = 1; i < size; ++i) {
      if ((at[i] & 0xC0) != 0x80) return false;
      point = point << 6 | (at[i] & 0x3F);
    }
    bool is_surrogate = point >= 0xD800 && point < 0xE000;
    if (point < kSmallest[size] || point > 0x10FFFF || is_surrogate) return false;
  }
  return true;
}

inline bool read_text(Cursor* in, std::string_view* text) {
  return read_bytes(in, text) && is_utf8(*text);
}

// ---- writing

inline uint32_t varint_size(uint64_t value) {
  // Each seven bits begun take a byte: ceil(bits / 7) without a division.
  unsigned bits = 64 - static_cast<unsigned>(__builtin_clzll(value | 1));
  return (bits * 9 + 64) / 64;
}
// Of a length-prefixed field whose tag is one byte.
inline uint64_t field_size(uint64_t size) { return 1 + varint_size(size) + size; }

inline uint8_t* put_varint(uint8_t* at, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *at++ = static_cast<uint8_t>(value | 0x80);
  *at++ = static_cast<uint8_t>(value);
  return at;
}
// The tag (of a field below 16) and the length; the caller puts the bytes.
inline uint8_t* put_head(uint8_t* at, uint32_t field, uint64_t size) {
  *at++ = static_cast<uint8_t>(tag_of(field, kBytes));
  return put_varint(at, size);
}
inline uint8_t* put_bytes(uint8_t* at, uint32_t field, ByteView bytes) {
  at = put_head(at, field, bytes.size());
  if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
  return at + bytes.size();
}

}  // namespace router::protobuf
