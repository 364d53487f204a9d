// First events: what happened to a unit for the first time, decided across all loops.
//
// A scope (a rollout, or one channel of it) is tested on units, not on requests: a unit whose
// version fails for it a hundred times is one failure. A filter per kind of event remembers
// the digests it has seen; a false positive drops an event, whichever variant it was.
// Requests without a sticky unit are units of their own and count without a filter, apart.
//
// A scope is known by its name and attempt and outlives tables; another attempt begins with
// nothing. Counts are kept by rollout_revision, the stratum of every test: those of an older
// revision stay, and grow by what calls that began under it still bring.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "base/bytes.h"
#include "watch/histogram.h"

namespace router {

enum class FirstKind : uint8_t {
  exposure,   // was dealt to the variant
  error,      // did not get a valid answer of the variant in time, for whatever reason
  invalid,    // the variant answered nonsense
  fallback,   // stable was asked instead
  over_p90,   // waited longer than the first threshold
  over_p99,
  over_p999,
  label,      // a label came that said the answer was wrong; counted by the control plane
  count
};
constexpr unsigned kFirstKinds = static_cast<unsigned>(FirstKind::count);
const char* first_kind_name(FirstKind kind);

// Which digests were seen: a Bloom filter whose five bits lie in one 64-bit word, so that one
// relaxed fetch_or decides. Any thread; made on first need. Half full is where a false
// positive becomes likely (3 %), and what it says then is no evidence.
class UnitFilter {
 public:
  static constexpr size_t kWords = size_t{1} << 20;  // 8 MiB
  static constexpr size_t kPageWords = 512;

  UnitFilter() = default;
  UnitFilter(const UnitFilter&) = delete;
  UnitFilter& operator=(const UnitFilter&) = delete;
  ~UnitFilter();

  bool is_first(uint64_t digest);
  bool is_made() const { return words_.load(std::memory_order_acquire) != nullptr; }
  double fill() const;
  bool is_saturated() const { return fill() >= 0.5; }
  // The pages with a bit in them; and those of a filter saved before, into an empty one.
  void save(Buffer* out);
  bool restore(ByteView* in);

 private:
  std::atomic<uint64_t>* words();

  std::atomic<std::atomic<uint64_t>*> words_{nullptr};  // release: zeroed before it is seen
  std::atomic<uint64_t> bits_{0};  // that are set; nothing is inferred from it
};

constexpr unsigned kClusters = 64;  // groups of buckets, for honest standard errors

struct Cluster {
  Counter requests, errors;
  Sum score;
};

// Large, and most cells of most loops never see a request: made on first use.
struct FirstDetail {
  Histogram latency;  // as judged, given up ones at the time that was waited
  Cluster clusters[kClusters];
};

// One loop's counts. Counts of units by kind, and of what their requests came to.
struct alignas(64) FirstCells {
  Counter sticky[kFirstKinds], other[kFirstKinds];
  Counter requests, errors, score_count;
  Sum score_sum, score_squares;
  std::atomic<FirstDetail*> made{nullptr};

  ~FirstCells() { delete made.load(std::memory_order_relaxed); }
  FirstDetail& detail();  // the loop's thread only
};

struct FirstKey {
  uint32_t rollout_revision = 0;
  std::string model, rule, variant;
  uint32_t version = 0, ordinal = 0;

  auto tied() const {
    return std::tie(rollout_revision, model, rule, version, ordinal, variant);
  }
  bool operator<(const FirstKey& other) const { return tied() < other.tied(); }
};

struct FirstEntry {
  FirstKey key;
  std::array<uint64_t, 2 * kFirstKinds> restored{};  // of an earlier process: sticky, other
  std::vector<std::unique_ptr<FirstCells>> loops;

  uint64_t units(FirstKind kind, bool is_sticky) const;
};

// Three latency edges in one word, so that a loop reads all of one tick: 16 bits each,
// position in the histogram plus 1; 0 when unset.
constexpr unsigned kEdges = 3;
uint64_t pack_edges(const int* positions);
// Whether a latency in the bucket at `position` is above an edge: an edge belongs to those
// that are not.
inline bool is_over(uint64_t word, unsigned which, int position) {
  const int edge = static_cast<int>(word >> (16 * which) & 0xFFFF) - 1;
  return edge >= 0 && position > edge;
}

class Scope {
 public:
  // Revisions whose counts are kept; a controller that reads each second has long read them.
  static constexpr size_t kRevisionsMax = 64;

  Scope(std::string called, uint32_t tried, unsigned loop_count)
      : name(std::move(called)), attempt(tried), loops_(loop_count) {}

  const std::string name;
  const uint32_t attempt;
  UnitFilter filters[kFirstKinds];

  std::shared_ptr<FirstEntry> entry(const FirstKey& key);
  // Lives as long as the scope. Written each tick; relaxed: one word is one tick's.
  std::atomic<uint64_t>* edges(uint32_t version, uint32_t ordinal);
  std::vector<std::shared_ptr<FirstEntry>> entries() const;
  uint64_t generation = 0;  // of the last table that named it; the registry's

 private:
  const unsigned loops_;
  mutable std::mutex mutex_;
  std::map<FirstKey, std::shared_ptr<FirstEntry>> entries_;
  std::map<std::pair<uint32_t, uint32_t>, std::unique_ptr<std::atomic<uint64_t>>> edges_;
};

// Owner of the scopes that the current table names, and of a few that it no longer does: one
// that leaves a table for a moment does not count its units again. Any thread.
class ScopeRegistry {
 public:
  static constexpr size_t kIdleMax = 4;

  explicit ScopeRegistry(unsigned loops) : loops_(loops) {}

  // Made when nobody asked before. For a table that is being resolved.
  std::shared_ptr<Scope> scope(const std::string& name, uint32_t attempt);
  // Null when there is none.
  std::shared_ptr<Scope> find(const std::string& name, uint32_t attempt) const;
  std::vector<std::shared_ptr<Scope>> all() const;
  // The scopes asked for since the last time are those of the table with this generation.
  void published(uint64_t generation);
  // Filters and counts, so that a restart does not count units twice; what is wrong with
  // bytes that were not saved so. Scopes that exist are left alone.
  void save(Buffer* out) const;
  std::string restore(ByteView bytes);

 private:
  std::shared_ptr<Scope> scope_locked(const std::string& name, uint32_t attempt);

  const unsigned loops_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, uint32_t>, std::shared_ptr<Scope>> scopes_;
};

}  // namespace router
