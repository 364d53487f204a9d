#include "watch/compare.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace router {
namespace {

constexpr double kTiny = 1e-9;  // keeps a relative difference from zero finite

struct Rows {
  uint64_t count = 0, width = 0;
};

// A row is what stands behind dimension 0, except that a vector of a kind whose rows are
// lists is one list.
Rows rows_of(const TensorView& tensor, uint8_t kind) {
  if (tensor.elements == 0) return {};
  const bool is_list = kind == FH_OUTPUT_EMBEDDING || kind == FH_OUTPUT_RANKING;
  if (tensor.shape.rank < (is_list ? 2 : 1)) return {1, tensor.elements};
  const auto count = static_cast<uint64_t>(tensor.shape.dims[0]);
  return {count, tensor.elements / count};
}

bool is_real(DataType type) {
  return type == DataType::fp32 || type == DataType::fp64 || type == DataType::fp16 ||
         type == DataType::bf16;
}

double difference(double a, double b) { return a == b ? 0 : std::fabs(a - b); }

bool has_unlike_number(const TensorView& a, const TensorView& b) {
  if (!is_real(a.type)) return false;
  for (uint64_t i = 0; i < a.elements; ++i) {
    const double left = number_at(a, i), right = number_at(b, i);
    if (std::isfinite(left) && std::isfinite(right)) continue;
    if (!(left == right)) return true;
  }
  return false;
}

std::vector<std::string_view> texts_of(const TensorView& tensor) {
  std::vector<std::string_view> texts;
  for (size_t at = 0; at + 4 <= tensor.bytes.size();) {
    uint32_t length;
    std::memcpy(&length, tensor.bytes.data() + at, sizeof length);
    texts.push_back(tensor.bytes.substr(at + 4, length));
    at += 4 + length;
  }
  return texts;
}

// The elements as items that may be told apart: texts by their hash.
std::vector<uint64_t> items_of(const TensorView& tensor) {
  std::vector<uint64_t> items;
  if (tensor.type == DataType::bytes) {
    for (const std::string_view text : texts_of(tensor)) {
      items.push_back(std::hash<std::string_view>()(text));
    }
    return items;
  }
  const size_t size = datatype_size(tensor.type);
  for (uint64_t i = 0; i < tensor.elements; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i * size, size);
    items.push_back(is_real(tensor.type) && number_at(tensor, i) == 0 ? 0 : bits);
  }
  return items;
}

void note_row(Comparison* out, bool agrees, double distance) {
  ++out->rows;
  if (!agrees) ++out->rows_differing;
  out->agrees = out->agrees && agrees;
  out->distance = std::max(out->distance, distance);
}

unsigned class_slot(double label) {
  return label >= 0 && label < kFlipClasses - 1 ? static_cast<unsigned>(label)
                                                : kFlipClasses - 1;
}

void compare_probabilities(const CompareSpec& spec, const TensorView& a, const TensorView& b,
                           const Rows& rows, Comparison* out) {
  for (uint64_t row = 0; row < rows.count && spec.index < rows.width; ++row) {
    const double left = number_at(a, row * rows.width + spec.index);
    const double right = number_at(b, row * rows.width + spec.index);
    const bool was = left >= spec.threshold, is = right >= spec.threshold;
    ++out->flips[was][is];
    note_row(out, was == is, difference(left, right));
  }
}

uint64_t greatest_of(const TensorView& tensor, uint64_t first, uint64_t width) {
  uint64_t best = 0;
  for (uint64_t i = 1; i < width; ++i) {
    if (number_at(tensor, first + i) > number_at(tensor, first + best)) best = i;
  }
  return best;
}

void compare_classes(const TensorView& a, const TensorView& b, const Rows& rows,
                     Comparison* out) {
  if (rows.width == 1) {  // labels
    const auto left = items_of(a), right = items_of(b);
    for (uint64_t row = 0; row < rows.count; ++row) {
      const bool is_same = left[row] == right[row];
      if (a.type != DataType::bytes) {
        ++out->flips[class_slot(number_at(a, row))][class_slot(number_at(b, row))];
      }
      note_row(out, is_same, is_same ? 0 : 1);
    }
    return;
  }
  for (uint64_t row = 0; row < rows.count; ++row) {
    const uint64_t first = row * rows.width;
    const uint64_t was = greatest_of(a, first, rows.width);
    const uint64_t is = greatest_of(b, first, rows.width);
    double variation = 0;
    for (uint64_t i = first; i < first + rows.width; ++i) {
      variation += difference(number_at(a, i), number_at(b, i)) / 2;
    }
    ++out->flips[class_slot(static_cast<double>(was))][class_slot(static_cast<double>(is))];
    note_row(out, was == is, variation);
  }
}

void compare_values(const CompareSpec& spec, const TensorView& a, const TensorView& b,
                    const Rows& rows, Comparison* out) {
  if (a.type == DataType::bytes) {
    const bool is_same = a.bytes == b.bytes;
    return note_row(out, is_same, is_same ? 0 : 1);
  }
  for (uint64_t row = 0; row < rows.count; ++row) {
    double worst = 0;
    bool is_within = true;
    for (uint64_t i = row * rows.width; i < (row + 1) * rows.width; ++i) {
      const double left = number_at(a, i);
      const double apart = difference(left, number_at(b, i));
      const double size = std::isfinite(left) ? std::fabs(left) : 0;
      worst = std::max(worst, apart);
      out->relative = std::max(out->relative, apart / (size + kTiny));
      if (apart > spec.tolerance_abs + spec.tolerance_rel * size) is_within = false;
    }
    note_row(out, is_within, worst);
  }
}

void compare_embeddings(const CompareSpec& spec, const TensorView& a, const TensorView& b,
                        const Rows& rows, Comparison* out) {
  for (uint64_t row = 0; row < rows.count; ++row) {
    double product = 0, left = 0, right = 0;
    for (uint64_t i = row * rows.width; i < (row + 1) * rows.width; ++i) {
      const double x = number_at(a, i), y = number_at(b, i);
      product += x * y;
      left += x * x;
      right += y * y;
    }
    // Two zero vectors are the same; one has no direction to share with the other.
    double cosine = left == 0 && right == 0 ? 1 : product / std::sqrt(left * right);
    if ((left == 0) != (right == 0)) cosine = 0;
    if (!std::isfinite(cosine)) out->mismatch |= kMismatchNan;
    cosine = std::clamp(cosine, -1.0, 1.0);
    out->cosine = std::min(out->cosine, cosine);
    note_row(out, 1 - cosine <= spec.tolerance_abs, 1 - cosine);
  }
}

// The best `k` of a row, best first: scores are sorted, ids and texts are in order already.
std::vector<uint64_t> best_of(const TensorView& tensor, const std::vector<uint64_t>& items,
                              uint64_t first, uint64_t width, size_t k) {
  std::vector<uint64_t> best;
  if (!is_real(tensor.type)) {
    const auto from = items.begin() + static_cast<std::ptrdiff_t>(first);
    return {from, from + static_cast<std::ptrdiff_t>(k)};
  }
  for (uint64_t i = 0; i < width; ++i) best.push_back(i);
  const auto end = best.begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(best.begin(), end, best.end(), [&](uint64_t x, uint64_t y) {
    const double left = number_at(tensor, first + x), right = number_at(tensor, first + y);
    return left > right || (left == right && x < y);
  });
  best.resize(k);
  return best;
}

// Rank-biased overlap, extrapolated (Webber, Moffat, Zobel 2010), of lists of one length.
void compare_ranking(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b,
                     double* overlap, double* rbo) {
  double common = 0, sum = 0, weight = 1;
  for (size_t d = 0; d < a.size(); ++d) {
    const auto depth = static_cast<std::ptrdiff_t>(d);
    if (a[d] == b[d]) {
      common += 1;
    } else {
      common += std::find(b.begin(), b.begin() + depth, a[d]) != b.begin() + depth;
      common += std::find(a.begin(), a.begin() + depth, b[d]) != a.begin() + depth;
    }
    weight *= kRankPersistence;
    sum += std::min(common / static_cast<double>(d + 1), 1.0) * weight;
  }
  *overlap = std::min(common / static_cast<double>(a.size()), 1.0);
  *rbo = sum * (1 - kRankPersistence) / kRankPersistence + *overlap * weight;
}

void compare_rankings(const CompareSpec& spec, const TensorView& a, const TensorView& b,
                      const Rows& rows, Comparison* out) {
  const auto wanted = std::clamp<uint64_t>(spec.top_k, 1, kRankedMax);
  const auto k = static_cast<size_t>(std::min(wanted, rows.width));
  const bool is_scored = is_real(a.type);
  const auto left = is_scored ? std::vector<uint64_t>() : items_of(a);
  const auto right = is_scored ? std::vector<uint64_t>() : items_of(b);
  for (uint64_t row = 0; row < rows.count; ++row) {
    const uint64_t first = row * rows.width;
    double overlap = 1, rbo = 1;
    compare_ranking(best_of(a, left, first, rows.width, k),
                    best_of(b, right, first, rows.width, k), &overlap, &rbo);
    out->overlap = std::min(out->overlap, overlap);
    out->rbo = std::min(out->rbo, rbo);
    note_row(out, 1 - rbo <= spec.tolerance_abs, 1 - rbo);
  }
}

const TensorView* named(const std::vector<TensorView>& tensors, std::string_view name) {
  for (const TensorView& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace

Comparison compare_answers(const CompareSpec& spec, const std::vector<TensorView>& answered,
                           const std::vector<TensorView>& shadow) {
  Comparison out;
  for (const TensorView& tensor : answered) {
    const TensorView* other = named(shadow, tensor.name);
    if (other == nullptr) {
      out.mismatch |= kMismatchMissing;
    } else {
      if (other->type != tensor.type) out.mismatch |= kMismatchDtype;
      if (!(other->shape == tensor.shape)) out.mismatch |= kMismatchShape;
    }
  }
  const TensorView* a = spec.tensor.empty() ? nullptr : named(answered, spec.tensor);
  const bool is_judged = a != nullptr;
  if (a == nullptr && !answered.empty()) a = &answered[0];
  const TensorView* b = a == nullptr ? nullptr : named(shadow, a->name);
  if (b != nullptr && a->type == b->type && a->shape == b->shape) {
    if (has_unlike_number(*a, *b)) out.mismatch |= kMismatchNan;
    const uint8_t kind = is_judged ? spec.kind : uint8_t{FH_OUTPUT_NONE};
    const Rows rows = rows_of(*a, kind);
    const bool is_text = a->type == DataType::bytes;
    if (out.mismatch != 0) {
      // Nothing that could be measured would mean anything.
    } else if (kind == FH_OUTPUT_PROBABILITY && !is_text) {
      compare_probabilities(spec, *a, *b, rows, &out);
    } else if (kind == FH_OUTPUT_CLASS && (!is_text || rows.width == 1)) {
      compare_classes(*a, *b, rows, &out);
    } else if (kind == FH_OUTPUT_EMBEDDING && !is_text) {
      compare_embeddings(spec, *a, *b, rows, &out);
    } else if (kind == FH_OUTPUT_RANKING && rows.count != 0) {
      compare_rankings(spec, *a, *b, rows, &out);
    } else {
      compare_values(spec, *a, *b, rows, &out);
    }
  }
  out.agrees = out.agrees && out.mismatch == 0;
  return out;
}

void Spread::add(double value) {
  if (count.get() == 0 || value > max.get()) max.add(value - max.get());
  count.add(1);
  sum.add(value);
  sum_squares.add(value * value);
}

void PairCells::add(uint8_t kind, const Comparison& pair) {
  pairs.add(1);
  if (!pair.agrees) disagreements.add(1);
  if (pair.mismatch != 0) {
    mismatched.add(1);
    missing.add((pair.mismatch & kMismatchMissing) != 0);
    dtype.add((pair.mismatch & kMismatchDtype) != 0);
    shape.add((pair.mismatch & kMismatchShape) != 0);
    nan.add((pair.mismatch & kMismatchNan) != 0);
    return;
  }
  rows.add(pair.rows);
  rows_differing.add(pair.rows_differing);
  distance.add(pair.distance);
  int power = 0;  // distance = m * 2^power, m in [0.5, 1)
  const double mantissa = std::frexp(pair.distance, &power);
  if (mantissa == 0.5) --power;  // upper edges are inclusive
  if (mantissa == 0) power = kFirstPower;
  buckets[std::clamp(power - kFirstPower, 0, kBuckets - 1)].add(1);
  if (kind == FH_OUTPUT_PROBABILITY || kind == FH_OUTPUT_CLASS) {
    for (unsigned was = 0; was < kFlipClasses; ++was) {
      for (unsigned is = 0; is < kFlipClasses; ++is) {
        if (pair.flips[was][is] != 0) flips[was][is].add(pair.flips[was][is]);
      }
    }
  } else if (kind == FH_OUTPUT_EMBEDDING) {
    cosine.add(pair.cosine);
  } else if (kind == FH_OUTPUT_RANKING) {
    overlap.add(pair.overlap);
    rbo.add(pair.rbo);
  } else {
    relative.add(pair.relative);
  }
}

}  // namespace router
