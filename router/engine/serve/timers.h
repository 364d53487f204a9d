// Timers of a loop's calls: a binary heap of calls by due time, each knowing its place, so
// that an answered call leaves at once instead of lingering until its deadline.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "serve/call.h"

namespace router {

class Timers {
 public:
  void set(Call* call, int64_t due_ns) {
    call->due_ns = due_ns;
    if (call->timer == kNoTimer) {
      call->timer = static_cast<uint32_t>(heap_.size());
      heap_.push_back(call);
    }
    sift_up(call->timer);
    sift_down(call->timer);
  }

  void cancel(Call* call) {
    if (call->timer == kNoTimer) return;
    const uint32_t hole = call->timer;
    Call* last = heap_.back();
    heap_.pop_back();
    call->timer = kNoTimer;
    if (last == call) return;
    heap_[hole] = last;
    last->timer = hole;
    sift_up(hole);
    sift_down(last->timer);
  }

  bool empty() const { return heap_.empty(); }
  int64_t next_ns() const { return heap_.empty() ? INT64_MAX : heap_[0]->due_ns; }
  Call* first() const { return heap_[0]; }

 private:
  void swap(uint32_t a, uint32_t b) {
    std::swap(heap_[a], heap_[b]);
    heap_[a]->timer = a;
    heap_[b]->timer = b;
  }
  void sift_up(uint32_t at) {
    while (at > 0) {
      const uint32_t parent = (at - 1) / 2;
      if (heap_[parent]->due_ns <= heap_[at]->due_ns) return;
      swap(parent, at);
      at = parent;
    }
  }
  void sift_down(uint32_t at) {
    for (;;) {
      uint32_t least = at;
      for (uint32_t child = 2 * at + 1; child <= 2 * at + 2; ++child) {
        if (child < heap_.size() && heap_[child]->due_ns < heap_[least]->due_ns) least = child;
      }
      if (least == at) return;
      swap(least, at);
      at = least;
    }
  }

  std::vector<Call*> heap_;
};

}  // namespace router
