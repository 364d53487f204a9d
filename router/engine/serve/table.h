// A published routing table with everything it names resolved: versions, counters,
// expressions, mint keys. Immutable; made by publish, freed by the reaper.
//
// A LoopTable is one loop's hold on it: pending attempts and a plain count of the calls that
// use it. When it is no longer the current one and its count is zero the loop lets go, and
// when every loop has, the reaper frees it, and with it the versions nobody else routes to.
#pragma once

#include <re2/re2.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "_fasthash.h"
#include "base/bytes.h"
#include "run/version.h"
#include "watch/cells.h"
#include "watch/firsts.h"
#include "wire/prediction_id.h"

namespace router {

using VersionKey = std::pair<std::string, uint32_t>;
using VersionMap = std::map<VersionKey, std::shared_ptr<Version>>;

// Where the first events of a cell's requests count.
struct LiveFirst {
  std::shared_ptr<Scope> scope;
  std::shared_ptr<FirstEntry> entry;
  const std::atomic<uint64_t>* edges = nullptr;
  uint32_t rule = 0;
};

// A shadow of a table: whom it counts for, what it runs, how its answers are compared.
struct LiveShadow {
  ShadowEntry* entry = nullptr;
  std::shared_ptr<Version> version;
  std::shared_ptr<Version> stable;    // for the noise floor; null: it may not run beside
  CompareSpec spec;
};

struct LiveTable {
  uint64_t generation = 0;
  std::unique_ptr<uint64_t[]> words;  // the table's bytes, 8-aligned
  fh_table view{};
  char revision[17] = {};             // 16 hex digits
  std::vector<std::shared_ptr<Version>> versions;  // by global variant; null if disabled
  std::vector<VariantEntry*> variants;             // by global variant
  std::vector<VariantEntry*> refused;              // by model: no variant was chosen
  std::vector<RouteEntry*> routes;                 // by cell
  std::vector<LiveFirst> firsts;                   // by cell; no scope: nothing counts
  std::vector<LiveShadow> shadows;                 // by global shadow; disabled: no version
  std::vector<std::string> annotations;  // by cell: what its answers say, encoded
  std::vector<std::unique_ptr<re2::RE2>> regexes;
  std::vector<MintKey> keys;
  std::vector<uint32_t> model_hashes, rule_hashes;
  std::vector<std::vector<uint32_t>> compared_with;  // by global variant, itself included

  std::string_view text(fh_text at) const {
    return {reinterpret_cast<const char*>(view.bytes) + at.offset, at.length};
  }
  // Index of a model by name, or FH_NONE.
  uint32_t find_model(std::string_view name) const;
};

struct LoadedVersions {
  const VersionMap& served;
  const VersionMap& beside;  // sessions of their own for shadows
};

// Checks and resolves; returns what is wrong, or empty with `out` set.
std::string resolve_table(ByteView bytes, const fh_kernel_api& kernel,
                          const LoadedVersions& loaded, CellRegistry* cells,
                          ScopeRegistry* scopes, std::unique_ptr<LiveTable>* out);

struct LoopVariant {
  Version* version = nullptr;
  VariantCells* cells = nullptr;
  std::vector<Attempt*> pending;      // formed into batches at the end of the turn
  int64_t stable_p99_ns = 0, p99_at_ns = 0;  // cached quantile, refreshed each second
  uint32_t lane = 0;                  // its ordinal: two of one version queue apart
};

struct LoopFirst {
  const LiveFirst* live = nullptr;    // null: the cell's requests count nowhere
  FirstCells* cells = nullptr;
};

struct LoopTable {
  LiveTable* live = nullptr;
  uint64_t references = 0;            // calls that use it
  std::vector<LoopVariant> variants;  // by global variant
  std::vector<fh_cell*> routes;       // by cell
  std::vector<LoopFirst> firsts;      // by cell
  std::vector<VariantCells*> refused; // by model
};

std::unique_ptr<LoopTable> hold_table(LiveTable* live, unsigned loop);

// fh_regex_fn over a LiveTable.
int match_regex(const void* table, uint32_t regex, const uint8_t* data, uint32_t length);

}  // namespace router
