#include "watch/cells.h"

#include <algorithm>

namespace router {

const char* stage_name(Stage stage) {
  constexpr const char* kNames[kStageCount] = {"decode", "queue", "run", "encode", "total"};
  return kNames[static_cast<unsigned>(stage)];
}

StageHistograms& VariantCells::stages() {
  StageHistograms* made = histograms.load(std::memory_order_relaxed);
  if (made == nullptr) {
    made = new StageHistograms();
    // Publishes the zeroed histograms to snapshots.
    histograms.store(made, std::memory_order_release);
  }
  return *made;
}

bool Breaker::allows(int64_t now_ns) {
  if (!is_open_.load(std::memory_order_relaxed)) return true;
  if (now_ns < probe_at_ns_) return false;
  probe_at_ns_ = now_ns + backoff_ns_;
  return true;
}

void Breaker::succeeded() {
  window_ <<= 1;
  filled_ = std::min(filled_ + 1, kWindow);
  consecutive_ = 0;
  if (is_open_.load(std::memory_order_relaxed)) {
    is_open_.store(false, std::memory_order_relaxed);
    window_ = 0;
    filled_ = 0;
    backoff_ns_ = kBackoffFirstNs;
  }
}

void Breaker::failed(int64_t now_ns) {
  window_ = (window_ << 1) | 1u;
  filled_ = std::min(filled_ + 1, kWindow);
  ++consecutive_;
  if (is_open_.load(std::memory_order_relaxed)) {
    backoff_ns_ = std::min(backoff_ns_ * 2, kBackoffMaxNs);
    probe_at_ns_ = now_ns + backoff_ns_;
    return;
  }
  const auto failures =
      static_cast<unsigned>(__builtin_popcount(window_ & ((1u << kWindow) - 1)));
  if (consecutive_ >= kConsecutiveMax || (filled_ == kWindow && failures * 2 >= kWindow)) {
    is_open_.store(true, std::memory_order_relaxed);
    trips_.add(1);
    probe_at_ns_ = now_ns + backoff_ns_;
  }
}

VariantEntry* CellRegistry::variant(const std::string& model, const std::string& variant,
                                    uint32_t version, uint32_t ordinal) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& entry = variants_[{model, variant, version, ordinal}];
  if (entry == nullptr) {
    entry = std::make_unique<VariantEntry>();
    entry->model = model;
    entry->variant = variant;
    entry->version = version;
    entry->ordinal = ordinal;
    for (unsigned i = 0; i < loops_; ++i) {
      entry->loops.push_back(std::make_unique<VariantCells>());
    }
  }
  return entry.get();
}

RouteEntry* CellRegistry::route(const std::string& model, const std::string& rule,
                                const std::string& variant, uint32_t version,
                                uint32_t ordinal, uint8_t reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& entry = routes_[{model, rule, variant, version, ordinal, reason}];
  if (entry == nullptr) {
    entry = std::make_unique<RouteEntry>();
    entry->model = model;
    entry->rule = rule;
    entry->variant = variant;
    entry->version = version;
    entry->ordinal = ordinal;
    entry->reason = reason;
    for (unsigned i = 0; i < loops_; ++i) {
      entry->loops.push_back(std::make_unique<RouteCell>());
    }
  }
  return entry.get();
}

TargetEntry* CellRegistry::target(const std::string& model, uint32_t version,
                                  const std::string& target) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& entry = targets_[{model, version, target}];
  if (entry == nullptr) {
    entry = std::make_unique<TargetEntry>();
    entry->model = model;
    entry->target = target;
    entry->version = version;
    for (unsigned i = 0; i < loops_; ++i) {
      entry->loops.push_back(std::make_unique<TargetCells>());
    }
  }
  return entry.get();
}

ShadowEntry* CellRegistry::shadow(const std::string& model, const std::string& shadow,
                                  const std::string& variant, uint32_t version,
                                  uint8_t kind) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto ordinal = static_cast<unsigned>(shadows_.size());
  auto& entry = shadows_[{model, shadow, variant, version, kind}];
  if (entry == nullptr) {
    entry = std::make_unique<ShadowEntry>();
    entry->model = model;
    entry->shadow = shadow;
    entry->variant = variant;
    entry->version = version;
    entry->kind = kind;
    entry->ordinal = ordinal;
    for (unsigned i = 0; i < loops_; ++i) {
      entry->loops.push_back(std::make_unique<ShadowCells>());
    }
  }
  return entry.get();
}

const char* shadow_drop_name(ShadowDrop why) {
  constexpr const char* kNames[kShadowDrops] = {"full",  "memory",     "late",
                                                "stuck", "unanswered", "draining"};
  return kNames[static_cast<unsigned>(why)];
}

const char* sending_name(Sending outcome) {
  constexpr const char* kNames[kSendingCount] = {"answered", "refused",   "failed", "lost",
                                                 "late",     "cancelled", "resent"};
  return kNames[static_cast<unsigned>(outcome)];
}

}  // namespace router
