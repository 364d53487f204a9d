// Byte views, checked sizes, and the reference-counted body of a message.
//
// A Body belongs to one loop: its count is a plain integer, touched on that loop only.
// Other threads (executors) may read its bytes while the loop keeps a reference for them.
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#ifdef ROUTER_CHECKED
#include <cstdio>
#define ROUTER_ASSERT(claim)                                                            \
  ((claim) ? (void)0                                                                    \
           : (std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #claim), \
              std::abort()))
#else
#define ROUTER_ASSERT(claim) ((void)0)
#endif

namespace router {

using ByteView = std::string_view;

// Multiplies into `product`; false on overflow, `product` then undefined.
inline bool checked_mul(uint64_t a, uint64_t b, uint64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}
inline bool checked_add(uint64_t a, uint64_t b, uint64_t* sum) {
  return !__builtin_add_overflow(a, b, sum);
}

// A growable byte buffer that keeps its capacity when cleared.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  ByteView view() const { return {reinterpret_cast<const char*>(data_), size_}; }
  void clear() { size_ = 0; }

  // Makes room for `more` bytes behind the end; grows at least by half, so appending is
  // linear over all.
  void reserve_more(size_t more) {
    if (capacity_ - size_ >= more) return;
    size_t wanted = capacity_ + capacity_ / 2;
    if (wanted < size_ + more) wanted = size_ + more;
    if (wanted < 256) wanted = 256;
    void* grown = std::realloc(data_, wanted);
    if (grown == nullptr) std::abort();  // the process is out of memory: nothing is safe
    data_ = static_cast<uint8_t*>(grown);
    capacity_ = wanted;
  }
  // Adds `count` bytes of undefined content and returns where they start.
  uint8_t* extend(size_t count) {
    reserve_more(count);
    uint8_t* at = data_ + size_;
    size_ += count;
    return at;
  }
  void append(const void* bytes, size_t count) {
    if (count != 0) std::memcpy(extend(count), bytes, count);
  }
  void append(ByteView bytes) { append(bytes.data(), bytes.size()); }
  void push(uint8_t byte) { *extend(1) = byte; }
  void truncate(size_t size) {
    ROUTER_ASSERT(size <= size_);
    size_ = size;
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// One received message, shared by everything that needs it. `charged` bytes are counted
// against the engine's body budget until the last reference goes.
struct Body {
  Body() = default;
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;
  ~Body() {
    if (budget != nullptr) budget->fetch_sub(charged, std::memory_order_relaxed);
  }

  Buffer bytes;
  uint32_t references = 1;
  // The gauge these bytes are charged to, and how many: it outlives every body.
  std::atomic<uint64_t>* budget = nullptr;
  uint64_t charged = 0;
};

class BodyRef {
 public:
  BodyRef() = default;
  explicit BodyRef(Body* owned) : body_(owned) {}
  BodyRef(const BodyRef& other) : body_(other.body_) {
    if (body_ != nullptr) ++body_->references;
  }
  BodyRef(BodyRef&& other) noexcept : body_(std::exchange(other.body_, nullptr)) {}
  BodyRef& operator=(BodyRef other) noexcept {
    std::swap(body_, other.body_);
    return *this;
  }
  ~BodyRef() {
    if (body_ != nullptr && --body_->references == 0) delete body_;
  }
  explicit operator bool() const { return body_ != nullptr; }
  ByteView view() const { return body_ == nullptr ? ByteView() : body_->bytes.view(); }
  Body* get() const { return body_; }

 private:
  Body* body_ = nullptr;
};

}  // namespace router
