// A bounded ring of records, from one writer to whoever drains it.
//
// `push` belongs to one thread, the loop that owns the ring; `drain` to one reader at a
// time, on any thread. A record is in whole or not at all: what does not fit is refused, and
// the writer counts it. The bytes are not touched before they are used, so a ring that
// nobody writes to costs no memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/bytes.h"

namespace router {

class Ring {
 public:
  // A power of two.
  explicit Ring(size_t capacity) : capacity_(capacity), bytes_(new uint8_t[capacity]) {
    ROUTER_ASSERT((capacity & (capacity - 1)) == 0);
  }

  size_t capacity() const { return capacity_; }
  // A gauge: either end may move while it is read.
  size_t waiting() const {
    return head_.load(std::memory_order_relaxed) - tail_.load(std::memory_order_relaxed);
  }

  // Two parts, so that a writer need not join a head and a body. False: there is no room.
  bool push(ByteView head, ByteView body) {
    const size_t at = head_.load(std::memory_order_relaxed);
    // Acquire: what the reader has copied may be overwritten.
    const size_t free = capacity_ - (at - tail_.load(std::memory_order_acquire));
    if (head.size() + body.size() > free) return false;
    put(at, head);
    put(at + head.size(), body);
    // Release: a reader that sees the new head sees the record.
    head_.store(at + head.size() + body.size(), std::memory_order_release);
    return true;
  }

  // Appends every whole record to `out`.
  void drain(Buffer* out) {
    const size_t from = tail_.load(std::memory_order_relaxed);
    const size_t count = head_.load(std::memory_order_acquire) - from;
    const size_t first = std::min(count, capacity_ - (from & (capacity_ - 1)));
    out->append(bytes_.get() + (from & (capacity_ - 1)), first);
    out->append(bytes_.get(), count - first);
    tail_.store(from + count, std::memory_order_release);
  }

 private:
  void put(size_t at, ByteView part) {
    at &= capacity_ - 1;
    const size_t first = std::min(part.size(), capacity_ - at);
    if (first != 0) std::memcpy(bytes_.get() + at, part.data(), first);
    if (first != part.size()) {
      std::memcpy(bytes_.get(), part.data() + first, part.size() - first);
    }
  }

  const size_t capacity_;
  const std::unique_ptr<uint8_t[]> bytes_;
  alignas(64) std::atomic<size_t> head_{0};  // written by the writer only
  alignas(64) std::atomic<size_t> tail_{0};  // written by the reader only
};

}  // namespace router
