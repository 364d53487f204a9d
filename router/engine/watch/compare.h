// What two answers to one request differ in, and how such pairs add up.
//
// `compare_answers` is a pure function of tensor views: any thread. The cells have one
// writer each, their loop; everything in them adds up over loops and time, maxima apart,
// so snapshots merge. Figures of a pair are those of its worst row.
#pragma once

#include <string_view>
#include <vector>

#include "_fasthash.h"
#include "watch/histogram.h"
#include "wire/tensor.h"

namespace router {

struct CompareSpec {
  std::string_view tensor;           // what is compared; empty: the first output, by value
  uint8_t kind = FH_OUTPUT_NONE;
  uint32_t index = 0;                // of a row of probabilities: the score
  double threshold = 0.5;
  double tolerance_abs = 0, tolerance_rel = 0;
  uint32_t top_k = 10;
};

constexpr unsigned kFlipClasses = 8; // the last one stands for all classes behind it
constexpr unsigned kRankedMax = 100; // places of a ranking that are looked at
constexpr double kRankPersistence = 0.9;

// Why two answers cannot be compared, as bits.
enum Mismatch : uint8_t {
  kMismatchMissing = 1,  // an output that was answered is not in the shadow's answer
  kMismatchDtype = 2, kMismatchShape = 4,
  kMismatchNan = 8       // not a number on either side, or infinite on one
};

struct Comparison {
  uint8_t mismatch = 0;
  bool agrees = true;          // same decision, or within tolerance; never with a mismatch
  double distance = 0;         // by kind; see architecture.md
  double relative = 0;         // values
  double cosine = 1;           // embeddings
  double overlap = 1, rbo = 1; // rankings
  uint64_t rows = 0, rows_differing = 0;
  uint32_t flips[kFlipClasses][kFlipClasses] = {};  // by class answered, then the shadow's
};

Comparison compare_answers(const CompareSpec& spec, const std::vector<TensorView>& answered,
                           const std::vector<TensorView>& shadow);

struct Spread {
  Counter count;
  Sum sum, sum_squares, max;
  void add(double value);
};

struct alignas(64) PairCells {
  // Powers of two: bucket i holds distances in (2^(i-33), 2^(i-32)], the first one also
  // all below, the last one all above.
  static constexpr int kBuckets = 64, kFirstPower = -32;

  Counter pairs, disagreements, mismatched, missing, dtype, shape, nan;
  Counter rows, rows_differing;
  Counter flips[kFlipClasses][kFlipClasses];
  Spread distance, relative, cosine, overlap, rbo;
  Counter buckets[kBuckets];

  void add(uint8_t kind, const Comparison& pair);
};

}  // namespace router
