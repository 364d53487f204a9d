// A mailbox into a loop: any thread posts, the loop takes everything at once.
//
// The eventfd is written only when the box was empty, so a burst costs one wake-up. Bounded
// by what can be in flight: batches and method replies, each limited where it is made.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace router {

template <typename Letter>
class Mailbox {
 public:
  Mailbox() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Mailbox() { close(fd_); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  int fd() const { return fd_; }  // readable when there may be letters

  void post(Letter letter) {
    bool was_empty;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      was_empty = letters_.empty();
      letters_.push_back(std::move(letter));
    }
    if (was_empty) wake();
  }

  void wake() {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the loop is awake anyway.
    [[maybe_unused]] ssize_t written = write(fd_, &one, sizeof one);
  }

  // Moves all letters into `out`, which must be empty.
  void take(std::vector<Letter>* out) {
    std::lock_guard<std::mutex> lock(mutex_);
    out->swap(letters_);
  }

  void clear_wake() {
    uint64_t count;
    [[maybe_unused]] ssize_t got = read(fd_, &count, sizeof count);
  }

 private:
  std::mutex mutex_;
  std::vector<Letter> letters_;
  int fd_;
};

}  // namespace router
