// A loop's tape: records that may be dropped, each drop counted by kind.
//
// `begin`, `end` and what they return belong to the loop; `drain` to one reader at a time.
// A record is one field of `router.v1.Record` (proto/router/v1/tape.proto): its number is
// its kind. Drained bytes are frames, as they stand on disk: u32 length and u32 CRC-32C of
// the record, both little-endian, then the record.
#pragma once

#include "base/ring.h"
#include "watch/histogram.h"

namespace router {

// The numbers are those of the fields of router.v1.Record.
enum class Recorded : uint8_t {
  exposure = 1, first_event = 2, shadow_pair = 3, request = 4, span = 5, count = 6
};
constexpr unsigned kRecordedCount = static_cast<unsigned>(Recorded::count);
const char* recorded_name(Recorded kind);

// The fields of one record's message. Those that are zero or empty are left out, as the
// protobuf libraries do.
class Record {
 public:
  Record& number(uint32_t field, uint64_t value);
  Record& fixed(uint32_t field, uint64_t value);  // fixed64: digests
  Record& real(uint32_t field, double value);     // double
  Record& bytes(uint32_t field, ByteView value);  // text, bytes, messages
  void clear() { made_.clear(); }
  ByteView view() const { return made_.view(); }

 private:
  Buffer made_;
};

class Tape {
 public:
  explicit Tape(size_t capacity) : ring_(capacity) {}

  Record& begin() {
    record_.clear();
    return record_;
  }
  // False when there was no room; counted either way.
  bool end(Recorded kind);
  void drain(Buffer* out);

  const Ring& ring() const { return ring_; }
  uint64_t written(Recorded kind) const { return written_[static_cast<unsigned>(kind)].get(); }
  uint64_t dropped(Recorded kind) const { return dropped_[static_cast<unsigned>(kind)].get(); }

 private:
  Ring ring_;
  Record record_;
  Counter written_[kRecordedCount], dropped_[kRecordedCount];
};

}  // namespace router
