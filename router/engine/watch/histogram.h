// An exponential latency histogram: upper edges 2^(i/32) seconds, upper-inclusive, for i
// from -640 to 224, which is Prometheus's native histogram schema 5. Bounds outside are
// clamped into the first and last bucket.
//
// One writer, its loop: relaxed load and store, because nothing is inferred from a count.
#pragma once

#include <atomic>
#include <cstdint>

namespace router {

// A counter with one writer.
class Counter {
 public:
  void add(uint64_t amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// The same for sums of reals.
class Sum {
 public:
  void add(double amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  double get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  static constexpr int kFirst = -640, kLast = 224;
  static constexpr int kBuckets = kLast - kFirst + 1;

  void observe(int64_t ns) {
    if (ns < 0) ns = 0;
    buckets_[index_of(ns)].add(1);
    sum_ns_.add(static_cast<uint64_t>(ns));
  }
  uint64_t bucket(int position) const { return buckets_[position].get(); }
  uint64_t sum_ns() const { return sum_ns_.get(); }

  // Position (0-based) of the bucket of a duration.
  static int index_of(int64_t ns);
  // Upper edge in nanoseconds of the bucket that holds the quantile; 0 when empty.
  int64_t quantile_ns(double quantile) const;

 private:
  Counter buckets_[kBuckets];
  Counter sum_ns_;
};

}  // namespace router
