#include "watch/histogram.h"

#include <cmath>
#include <cstring>

namespace router {
namespace {

// For the top six mantissa bits: how many of the edges 2^(k/32), k = 0..31, lie below the
// smallest mantissa with those bits. At most two more can lie inside the slice.
struct Edges {
  uint64_t mantissa[33];
  uint8_t below[64];

  Edges() {
    for (int k = 0; k < 32; ++k) mantissa[k] = mantissa_of(std::exp2(k / 32.0));
    mantissa[32] = UINT64_MAX;
    for (uint64_t slice = 0; slice < 64; ++slice) {
      uint8_t count = 0;
      while (count < 32 && mantissa[count] < (slice << 46)) ++count;
      below[slice] = count;
    }
  }
  static uint64_t mantissa_of(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits & ((1ull << 52) - 1);
  }
};

const Edges kEdges;

}  // namespace

int Histogram::index_of(int64_t ns) {
  if (ns <= 0) return 0;
  const double seconds = static_cast<double>(ns) * 1e-9;
  uint64_t bits;
  std::memcpy(&bits, &seconds, sizeof bits);
  const int exponent = static_cast<int>(bits >> 52) - 1023;
  const uint64_t mantissa = bits & ((1ull << 52) - 1);
  int count = kEdges.below[mantissa >> 46];
  while (kEdges.mantissa[count] < mantissa) ++count;
  const int index = exponent * 32 + count - kFirst;
  if (index < 0) return 0;
  return index < kBuckets ? index : kBuckets - 1;
}

int64_t Histogram::quantile_ns(double quantile) const {
  uint64_t total = 0;
  for (const Counter& bucket : buckets_) total += bucket.get();
  if (total == 0) return 0;
  const double wanted = quantile * static_cast<double>(total);
  uint64_t seen = 0;
  for (int position = 0; position < kBuckets; ++position) {
    seen += buckets_[position].get();
    if (static_cast<double>(seen) >= wanted) {
      return static_cast<int64_t>(std::exp2((position + kFirst) / 32.0) * 1e9);
    }
  }
  return static_cast<int64_t>(std::exp2(kLast / 32.0) * 1e9);
}

}  // namespace router
