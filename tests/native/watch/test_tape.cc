// The ring and the tape: whole records or none, from one thread to another.
#include <thread>

#include "base/crc32c.h"
#include "check.h"
#include "watch/tape.h"

namespace router {
namespace {

std::string drained(Ring* ring) {
  Buffer out;
  ring->drain(&out);
  return std::string(out.view());
}

TEST(a_ring_gives_back_what_was_pushed_in_order) {
  Ring ring(16);
  CHECK(ring.push("ab", "cd"));
  CHECK(ring.push("", "efg"));
  CHECK_EQ(drained(&ring), "abcdefg");
  CHECK_EQ(drained(&ring), "");
}

TEST(a_record_goes_round_the_end_of_a_ring) {
  Ring ring(8);
  CHECK(ring.push("123", "45"));
  CHECK_EQ(drained(&ring), "12345");
  CHECK(ring.push("abc", "def"));
  CHECK_EQ(drained(&ring), "abcdef");
  CHECK(ring.push("g", "hijklmn"));
  CHECK_EQ(drained(&ring), "ghijklmn");
}

TEST(a_record_that_does_not_fit_is_refused_whole) {
  Ring ring(8);
  CHECK(ring.push("12345", "67"));
  CHECK(!ring.push("8", "9"));
  CHECK(ring.push("8", ""));
  CHECK(!ring.push("", "x"));
  CHECK_EQ(drained(&ring), "12345678");
}

TEST(a_reader_on_another_thread_sees_every_record_whole) {
  constexpr uint32_t kRecords = 200'000;
  Tape tape(1 << 12);
  std::thread writer([&] {
    for (uint32_t i = 1; i <= kRecords;) {
      tape.begin().number(1, i).fixed(2, i * uint64_t{0x9E3779B97F4A7C15});
      if (tape.end(Recorded::first_event)) ++i;
    }
  });
  uint32_t seen = 0;
  bool is_sound = true;
  while (seen != kRecords && is_sound) {
    Buffer out;
    tape.drain(&out);
    for (size_t at = 0; at != out.size();) {
      uint32_t head[2];
      std::memcpy(head, out.data() + at, sizeof head);
      at += sizeof head;
      is_sound = is_sound && crc32c(out.data() + at, head[0]) == head[1];
      Record expected;
      ++seen;
      expected.number(1, seen).fixed(2, seen * uint64_t{0x9E3779B97F4A7C15});
      is_sound = is_sound && out.view().substr(at + 2, head[0] - 2) == expected.view();
      at += head[0];
    }
  }
  writer.join();
  CHECK(is_sound);
  CHECK_EQ(tape.written(Recorded::first_event), uint64_t{kRecords});
}

TEST(what_is_dropped_is_counted_by_kind) {
  Tape tape(1 << 10);
  const std::string large(600, 'x');
  tape.begin().bytes(5, large);
  CHECK(tape.end(Recorded::request));
  tape.begin().bytes(5, large);
  CHECK(!tape.end(Recorded::request));
  tape.begin().number(1, 1);
  CHECK(tape.end(Recorded::exposure));
  CHECK_EQ(tape.written(Recorded::request), 1u);
  CHECK_EQ(tape.dropped(Recorded::request), 1u);
  CHECK_EQ(tape.written(Recorded::exposure), 1u);
  CHECK_EQ(tape.dropped(Recorded::exposure), 0u);
}

TEST(a_checksum_is_the_published_one) {
  CHECK_EQ(crc32c("123456789", 9), 0xE3069283u);
  CHECK_EQ(crc32c("", 0), 0u);
}

}  // namespace
}  // namespace router

