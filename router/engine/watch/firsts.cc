#include "watch/firsts.h"

#include <algorithm>
#include <cstdlib>

#include "base/crc32c.h"

namespace router {
namespace {

constexpr uint32_t kMagic = 0x31544C46;  // "FLT1"
constexpr uint64_t kPending = UINT64_MAX;  // generation of a scope whose table is not out yet

// Where a digest's bits are. Digests of one variant share their upper bits (they are its
// buckets), so all bits are mixed first.
uint64_t mixed(uint64_t digest) {
  digest = (digest ^ digest >> 32) * 0xD6E8FEB86659FD93ull;
  digest = (digest ^ digest >> 32) * 0xD6E8FEB86659FD93ull;
  return digest ^ digest >> 32;
}

uint64_t bits_of(uint64_t mixed_digest) {
  uint64_t bits = 0;
  for (unsigned i = 0; i < 5; ++i) bits |= uint64_t{1} << (mixed_digest >> (6 * i) & 63);
  return bits;
}

template <typename T>
void put(Buffer* out, T value) {
  out->append(&value, sizeof value);
}

void put_text(Buffer* out, const std::string& text) {
  put(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}

template <typename T>
bool take(ByteView* in, T* value) {
  if (in->size() < sizeof(T)) return false;
  std::memcpy(value, in->data(), sizeof(T));
  in->remove_prefix(sizeof(T));
  return true;
}

bool take_text(ByteView* in, std::string* text) {
  uint32_t size;
  if (!take(in, &size) || in->size() < size) return false;
  text->assign(in->substr(0, size));
  in->remove_prefix(size);
  return true;
}

bool restore_entry(ByteView* in, Scope* scope) {
  FirstKey key;
  std::array<uint64_t, 2 * kFirstKinds> counts;
  if (!take_text(in, &key.model) || !take_text(in, &key.rule) ||
      !take_text(in, &key.variant) || !take(in, &key.rollout_revision) ||
      !take(in, &key.version) || !take(in, &key.ordinal) || !take(in, &counts)) {
    return false;
  }
  scope->entry(key)->restored = counts;
  return true;
}

bool restore_scope(ByteView* in, Scope* scope) {
  uint32_t count;
  if (!take(in, &count)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    if (!restore_entry(in, scope)) return false;
  }
  return std::all_of(std::begin(scope->filters), std::end(scope->filters),
                     [in](UnitFilter& filter) { return filter.restore(in); });
}

}  // namespace

const char* first_kind_name(FirstKind kind) {
  constexpr const char* kNames[kFirstKinds] = {"exposure", "error",    "invalid",   "fallback",
                                               "over_p90", "over_p99", "over_p999", "label"};
  return kNames[static_cast<unsigned>(kind)];
}

UnitFilter::~UnitFilter() { std::free(words_.load(std::memory_order_relaxed)); }

std::atomic<uint64_t>* UnitFilter::words() {
  static_assert(sizeof(std::atomic<uint64_t>) == sizeof(uint64_t));
  std::atomic<uint64_t>* found = words_.load(std::memory_order_acquire);
  if (found != nullptr) return found;
  // Fresh from the system: pages without an event in them cost nothing.
  auto* made = static_cast<std::atomic<uint64_t>*>(std::calloc(kWords, sizeof(uint64_t)));
  if (made == nullptr) std::abort();
  if (words_.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return made;
  std::free(made);  // another loop was quicker
  return found;
}

bool UnitFilter::is_first(uint64_t digest) {
  const uint64_t mix = mixed(digest);
  const uint64_t bits = bits_of(mix);
  std::atomic<uint64_t>& word = words()[mix >> 44];
  // Most units were seen before, and reading shares the line where a write would take it.
  if ((word.load(std::memory_order_relaxed) & bits) == bits) return false;
  const uint64_t before = word.fetch_or(bits, std::memory_order_relaxed);
  if ((before & bits) == bits) return false;
  bits_.fetch_add(static_cast<uint64_t>(__builtin_popcountll(bits & ~before)),
                  std::memory_order_relaxed);
  return true;
}

double UnitFilter::fill() const {
  return static_cast<double>(bits_.load(std::memory_order_relaxed)) /
         static_cast<double>(kWords * 64);
}

void UnitFilter::save(Buffer* out) {
  // Acquire and release: counts that were read before stay before.
  bits_.fetch_add(0, std::memory_order_acq_rel);
  const std::atomic<uint64_t>* words = words_.load(std::memory_order_acquire);
  const size_t count_at = out->size();
  uint32_t count = 0;
  put(out, count);
  for (size_t page = 0; words != nullptr && page < kWords / kPageWords; ++page) {
    std::array<uint64_t, kPageWords> copy;
    uint64_t any = 0;
    for (size_t i = 0; i < kPageWords; ++i) {
      any |= copy[i] = words[page * kPageWords + i].load(std::memory_order_relaxed);
    }
    if (any == 0) continue;
    put(out, static_cast<uint32_t>(page));
    out->append(copy.data(), sizeof copy);
    ++count;
  }
  std::memcpy(out->data() + count_at, &count, sizeof count);
}

bool UnitFilter::restore(ByteView* in) {
  uint32_t count, page;
  if (!take(in, &count)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    if (!take(in, &page) || page >= kWords / kPageWords) return false;
    for (size_t at = 0; at < kPageWords; ++at) {
      uint64_t word;
      if (!take(in, &word)) return false;
      words()[page * kPageWords + at].store(word, std::memory_order_relaxed);
      bits_.fetch_add(static_cast<uint64_t>(__builtin_popcountll(word)),
                      std::memory_order_relaxed);
    }
  }
  return true;
}

FirstDetail& FirstCells::detail() {
  FirstDetail* found = made.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = new FirstDetail();
    made.store(found, std::memory_order_release);  // publishes the zeros to snapshots
  }
  return *found;
}

uint64_t FirstEntry::units(FirstKind kind, bool is_sticky) const {
  const auto at = static_cast<unsigned>(kind);
  uint64_t total = restored[at + (is_sticky ? 0 : kFirstKinds)];
  for (const auto& cells : loops) {
    total += (is_sticky ? cells->sticky : cells->other)[at].get();
  }
  return total;
}

uint64_t pack_edges(const int* positions) {
  uint64_t word = 0;
  for (unsigned which = 0; which < kEdges; ++which) {
    const int position = std::clamp(positions[which], -1, Histogram::kBuckets);
    word |= static_cast<uint64_t>(position + 1) << (16 * which);
  }
  return word;
}

std::shared_ptr<FirstEntry> Scope::entry(const FirstKey& key) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& found = entries_[key];
  if (found == nullptr) {
    found = std::make_shared<FirstEntry>();
    found->key = key;
    for (unsigned i = 0; i < loops_; ++i) {
      found->loops.push_back(std::make_unique<FirstCells>());
    }
  }
  const std::shared_ptr<FirstEntry> result = found;
  size_t revisions = 0;
  uint32_t last = 0;
  for (auto at = entries_.rbegin(); at != entries_.rend(); ++at) {
    if (revisions == 0 || at->first.rollout_revision != last) ++revisions;
    last = at->first.rollout_revision;
    if (revisions <= kRevisionsMax) continue;
    entries_.erase(entries_.begin(), at.base());  // the oldest; a table may still hold them
    break;
  }
  return result;
}

std::atomic<uint64_t>* Scope::edges(uint32_t version, uint32_t ordinal) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& found = edges_[{version, ordinal}];
  if (found == nullptr) found = std::make_unique<std::atomic<uint64_t>>(0);
  return found.get();
}

std::vector<std::shared_ptr<FirstEntry>> Scope::entries() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<FirstEntry>> all;
  for (const auto& item : entries_) all.push_back(item.second);
  return all;
}

std::shared_ptr<Scope> ScopeRegistry::scope_locked(const std::string& name,
                                                   uint32_t attempt) {
  auto& found = scopes_[{name, attempt}];
  if (found == nullptr) found = std::make_shared<Scope>(name, attempt, loops_);
  return found;
}

std::shared_ptr<Scope> ScopeRegistry::scope(const std::string& name, uint32_t attempt) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = scope_locked(name, attempt);
  found->generation = kPending;
  return found;
}

std::shared_ptr<Scope> ScopeRegistry::find(const std::string& name, uint32_t attempt) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = scopes_.find({name, attempt});
  return found == scopes_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Scope>> ScopeRegistry::all() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<Scope>> found;
  for (const auto& item : scopes_) found.push_back(item.second);
  return found;
}

void ScopeRegistry::published(uint64_t generation) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint64_t> idle;  // generations of those that the table does not name
  for (auto& [identity, scope] : scopes_) {
    if (scope->generation == kPending) {
      scope->generation = generation;
    } else if (scope->generation != generation) {
      idle.push_back(scope->generation);
    }
  }
  if (idle.size() <= kIdleMax) return;
  std::nth_element(idle.begin(), idle.end() - kIdleMax, idle.end());
  const uint64_t oldest = *(idle.end() - kIdleMax);
  for (auto at = scopes_.begin(); at != scopes_.end();) {
    at = at->second->generation < oldest ? scopes_.erase(at) : std::next(at);
  }
}

// Counts before filters: what happens meanwhile is then lost to the next process and not
// counted by it again.
void ScopeRegistry::save(Buffer* out) const {
  const auto scopes = all();
  put(out, kMagic);
  put(out, static_cast<uint32_t>(scopes.size()));
  for (const auto& scope : scopes) {
    put_text(out, scope->name);
    put(out, scope->attempt);
    const auto entries = scope->entries();
    put(out, static_cast<uint32_t>(entries.size()));
    for (const auto& entry : entries) {
      const FirstKey& key = entry->key;
      put_text(out, key.model);
      put_text(out, key.rule);
      put_text(out, key.variant);
      put(out, key.rollout_revision);
      put(out, key.version);
      put(out, key.ordinal);
      for (const bool is_sticky : {true, false}) {
        for (unsigned kind = 0; kind < kFirstKinds; ++kind) {
          put(out, entry->units(FirstKind{static_cast<uint8_t>(kind)}, is_sticky));
        }
      }
    }
    for (UnitFilter& filter : scope->filters) filter.save(out);
  }
  put(out, crc32c(out->data(), out->size()));
}

std::string ScopeRegistry::restore(ByteView bytes) {
  uint32_t magic = 0, count = 0, crc = 0;
  const size_t size = bytes.size() - std::min(bytes.size(), sizeof crc);
  ByteView in = bytes.substr(0, size), end = bytes.substr(size);
  if (!take(&end, &crc) || crc32c(bytes.data(), size) != crc || !take(&in, &magic) ||
      magic != kMagic) {
    return "filters: these bytes are not saved filters, or are damaged";
  }
  bool is_whole = take(&in, &count);
  std::lock_guard<std::mutex> lock(mutex_);
  for (uint32_t i = 0; is_whole && i < count; ++i) {
    std::string name;
    uint32_t attempt = 0;
    is_whole = take_text(&in, &name) && take(&in, &attempt);
    if (!is_whole) break;
    Scope ignored(name, attempt, loops_);
    const bool is_known = scopes_.count({name, attempt}) != 0;
    Scope* scope = is_known ? &ignored : scope_locked(name, attempt).get();
    is_whole = restore_scope(&in, scope);
  }
  return is_whole && in.empty() ? std::string() : "filters: the bytes end too early";
}

}  // namespace router
