// Counters of what happened, kept by name so that they outlive a table.
//
// The registry belongs to the engine; publish looks entries up under its lock and gives
// loops plain pointers. An entry has one part per loop, written by that loop only. Entries
// are never freed: names come from configuration, so their number is bounded by it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "_fasthash.h"
#include "base/status.h"
#include "watch/compare.h"
#include "watch/histogram.h"

namespace router {

enum class Stage : uint8_t { decode, queue, run, encode, total, count };
constexpr unsigned kStageCount = static_cast<unsigned>(Stage::count);
const char* stage_name(Stage stage);

// Histograms are large and most variants of many models are never called: made on first
// use by the loop, published with release so that a snapshot sees them whole.
struct StageHistograms {
  Histogram stages[kStageCount];
};

// Takes a variant out after failures in a row or half of a window, and lets one call in
// after a backoff to see whether it recovered. One loop's view, its only user.
class Breaker {
 public:
  // True when a call may go to the variant now; when open, one probe per backoff may.
  bool allows(int64_t now_ns);
  void succeeded();
  void failed(int64_t now_ns);

  bool is_open() const { return is_open_.load(std::memory_order_relaxed); }
  uint64_t trips() const { return trips_.get(); }

 private:
  static constexpr unsigned kConsecutiveMax = 5;
  static constexpr unsigned kWindow = 20;
  static constexpr int64_t kBackoffFirstNs = 500'000'000, kBackoffMaxNs = 30'000'000'000;

  uint32_t window_ = 0;     // outcomes, newest in bit 0, 1 for a failure
  unsigned filled_ = 0, consecutive_ = 0;
  int64_t probe_at_ns_ = 0, backoff_ns_ = kBackoffFirstNs;
  std::atomic<bool> is_open_{false};  // read by snapshots; nothing is inferred
  Counter trips_;
};

struct alignas(64) VariantCells {
  Counter codes[kCodeCount];
  Counter failures, timeouts, invalid, fallbacks, cancelled, skipped;
  Counter score_count;
  Sum score_sum, score_squares;
  Counter queue_ns, last_ms;
  Counter batch_runs[12], batch_ns[12];  // by power of two of rows
  Breaker breaker;
  std::atomic<StageHistograms*> histograms{nullptr};

  ~VariantCells() { delete histograms.load(std::memory_order_relaxed); }
  StageHistograms& stages();  // the loop's thread only
};

struct VariantEntry {
  std::string model, variant;
  uint32_t version = 0, ordinal = 0;
  std::vector<std::unique_ptr<VariantCells>> loops;
};

// How attempts sent to a target came back.
enum class Sending : uint8_t {
  answered,   // with outputs
  refused,    // with a status that is the request's or the load's fault
  failed,     // with any other status, or an answer that is none
  lost,       // the connection went
  late,       // not in time
  cancelled,  // nobody waited any more
  resent,     // never looked at: sent again elsewhere
  count
};
constexpr unsigned kSendingCount = static_cast<unsigned>(Sending::count);
const char* sending_name(Sending outcome);

struct alignas(64) TargetCells {
  Counter sent[kSendingCount];
  std::atomic<uint32_t> connections{0}, ejected{0};  // gauges: addresses of the target
};

struct TargetEntry {
  std::string model, target;
  uint32_t version = 0;
  std::vector<std::unique_ptr<TargetCells>> loops;
};

// Why a shadow did not run a request it was to run.
enum class ShadowDrop : uint8_t {
  full,        // its queue was
  memory,      // bodies and answers that wait for shadows hold all they may
  late,        // its turn did not come in time
  stuck,       // a run of it does not end
  unanswered,  // nothing was answered that it could be compared with
  draining,
  count
};
constexpr unsigned kShadowDrops = static_cast<unsigned>(ShadowDrop::count);
const char* shadow_drop_name(ShadowDrop why);

struct alignas(64) ShadowCells {
  Counter sampled, failed, dropped[kShadowDrops];
  std::atomic<uint32_t> waiting{0};  // a gauge: taken and not come back, the loop's bound
  PairCells pairs, noise;            // noise: stable beside stable
  Histogram run;
  Counter cpu_ns;
};

struct ShadowEntry {
  std::string model, shadow, variant;
  uint32_t version = 0;
  uint8_t kind = 0;                  // fh_output_kind
  unsigned ordinal = 0;
  // A run was given up and is still there. Late news costs only another thread's wait.
  std::atomic<bool> is_stuck{false};
  std::vector<std::unique_ptr<ShadowCells>> loops;
};

struct alignas(64) RouteCell {
  fh_cell cell{};
};

struct RouteEntry {
  std::string model, rule, variant;
  uint32_t version = 0, ordinal = 0;
  uint8_t reason = 0;
  std::vector<std::unique_ptr<RouteCell>> loops;
};

class CellRegistry {
 public:
  explicit CellRegistry(unsigned loops) : loops_(loops) {}

  VariantEntry* variant(const std::string& model, const std::string& variant,
                        uint32_t version, uint32_t ordinal = 0);
  RouteEntry* route(const std::string& model, const std::string& rule,
                    const std::string& variant, uint32_t version, uint32_t ordinal,
                    uint8_t reason);
  ShadowEntry* shadow(const std::string& model, const std::string& shadow,
                      const std::string& variant, uint32_t version, uint8_t kind);
  TargetEntry* target(const std::string& model, uint32_t version, const std::string& target);

  template <typename Visit>
  void each_variant(Visit visit) const {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& item : variants_) visit(*item.second);
  }
  template <typename Visit>
  void each_shadow(Visit visit) const {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& item : shadows_) visit(*item.second);
  }
  template <typename Visit>
  void each_route(Visit visit) const {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& item : routes_) visit(*item.second);
  }
  template <typename Visit>
  void each_target(Visit visit) const {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& item : targets_) visit(*item.second);
  }

 private:
  unsigned loops_;
  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, uint32_t, uint32_t>,
           std::unique_ptr<VariantEntry>>
      variants_;
  std::map<std::tuple<std::string, std::string, std::string, uint32_t, uint32_t, uint8_t>,
           std::unique_ptr<RouteEntry>>
      routes_;
  std::map<std::tuple<std::string, std::string, std::string, uint32_t, uint8_t>,
           std::unique_ptr<ShadowEntry>>
      shadows_;
  std::map<std::tuple<std::string, uint32_t, std::string>, std::unique_ptr<TargetEntry>>
      targets_;
};

}  // namespace router
