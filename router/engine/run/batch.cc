#include "run/batch.h"

#include <algorithm>

namespace router {

bool can_join(const Attempt& a, const Attempt& b) {
  if (a.binding.rows == 0 || b.binding.rows == 0) return false;
  for (size_t i = 0; i < a.binding.input_at.size(); ++i) {
    const Shape& left = a.request->inputs[a.binding.input_at[i]].shape;
    const Shape& right = b.request->inputs[b.binding.input_at[i]].shape;
    if (left.rank != right.rank) return false;
    for (unsigned d = 1; d < left.rank; ++d) {
      if (left.dims[d] != right.dims[d]) return false;
    }
  }
  return true;
}

uint64_t form_batch(const Version& version, std::vector<Attempt*>* pending,
                    std::vector<Attempt*>* chosen) {
  chosen->clear();
  if (pending->empty()) return 0;
  Attempt* first = pending->front();
  chosen->push_back(first);
  uint64_t rows = first->binding.rows, good_rows = rows;
  size_t good = 1;
  const auto& sizes = version.batch_sizes;
  uint64_t most = version.rows_max == 0 ? UINT64_MAX : version.rows_max;
  if (!sizes.empty()) {
    most = std::min<uint64_t>(most, *std::max_element(sizes.begin(), sizes.end()));
  }
  if (version.may_batch && !version.has_mixed_rows.load(std::memory_order_relaxed)) {
    for (size_t i = 1; i < pending->size() && rows < most; ++i) {
      Attempt* next = (*pending)[i];
      if (next->binding.rows > most - rows || !can_join(*first, *next)) continue;
      chosen->push_back(next);
      rows += next->binding.rows;
      if (sizes.empty() || std::find(sizes.begin(), sizes.end(), rows) != sizes.end()) {
        good = chosen->size();
        good_rows = rows;
      }
    }
  }
  chosen->resize(good);
  // `chosen` is in the order of `pending`, so one pass takes it out.
  size_t taken = 0, kept = 0;
  for (Attempt* attempt : *pending) {
    if (taken < good && attempt == (*chosen)[taken]) {
      ++taken;
    } else {
      (*pending)[kept++] = attempt;
    }
  }
  pending->resize(kept);
  return good_rows;
}

}  // namespace router
