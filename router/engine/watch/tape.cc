#include "watch/tape.h"

#include "base/crc32c.h"
#include "wire/protobuf.h"

namespace router {
namespace {

constexpr size_t kFrameHead = 8;   // length and checksum
constexpr size_t kFieldMax = 15;   // a tag of 5 bytes and a varint of 10

uint8_t* put_tag(uint8_t* at, uint32_t field, protobuf::WireType type) {
  return protobuf::put_varint(at, protobuf::tag_of(field, type));
}

void finish(Buffer* out, uint8_t* start, const uint8_t* end) {
  out->truncate(out->size() - kFieldMax + static_cast<size_t>(end - start));
}

}  // namespace

const char* recorded_name(Recorded kind) {
  constexpr const char* kNames[kRecordedCount] = {"",        "exposure", "first_event",
                                                  "shadow_pair", "request",  "span"};
  return kNames[static_cast<unsigned>(kind)];
}

Record& Record::number(uint32_t field, uint64_t value) {
  if (value == 0) return *this;
  uint8_t* start = made_.extend(kFieldMax);
  finish(&made_, start,
         protobuf::put_varint(put_tag(start, field, protobuf::kVarint), value));
  return *this;
}

Record& Record::fixed(uint32_t field, uint64_t value) {
  if (value == 0) return *this;
  uint8_t* start = made_.extend(kFieldMax);
  uint8_t* at = put_tag(start, field, protobuf::kFixed64);
  std::memcpy(at, &value, sizeof value);
  finish(&made_, start, at + sizeof value);
  return *this;
}

Record& Record::real(uint32_t field, double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return fixed(field, bits);
}

Record& Record::bytes(uint32_t field, ByteView value) {
  if (value.empty()) return *this;
  uint8_t* start = made_.extend(kFieldMax);
  finish(&made_, start,
         protobuf::put_varint(put_tag(start, field, protobuf::kBytes), value.size()));
  made_.append(value);
  return *this;
}

bool Tape::end(Recorded kind) {
  // The frame's head is filled in when it is drained: a checksum is not the loop's work.
  uint8_t head[kFrameHead + 16] = {};
  const auto number = static_cast<uint32_t>(kind);
  const uint8_t* end =
      protobuf::put_head(head + kFrameHead, number, record_.view().size());
  const auto size = static_cast<size_t>(end - head);
  const auto length = static_cast<uint32_t>(size - kFrameHead + record_.view().size());
  std::memcpy(head, &length, sizeof length);
  const bool has_room =
      ring_.push({reinterpret_cast<const char*>(head), size}, record_.view());
  (has_room ? written_ : dropped_)[number].add(1);
  return has_room;
}

void Tape::drain(Buffer* out) {
  size_t at = out->size();
  ring_.drain(out);
  while (at != out->size()) {
    uint32_t length;
    std::memcpy(&length, out->data() + at, sizeof length);
    const uint32_t crc = crc32c(out->data() + at + kFrameHead, length);
    std::memcpy(out->data() + at + sizeof length, &crc, sizeof crc);
    at += kFrameHead + length;
  }
}

}  // namespace router
