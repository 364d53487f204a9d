#include "serve/table.h"

#include <algorithm>
#include <cstdio>

#include "serve/answer.h"

namespace router {
namespace {

std::string name_of(const LiveTable& table, fh_text at) { return std::string(table.text(at)); }

// A disabled variant keeps its place (ordinals never move) but needs no version.
std::string resolve_versions(const VersionMap& versions, CellRegistry* cells,
                             const fh_model& model, LiveTable* table) {
  const std::string name = name_of(*table, model.name);
  for (uint32_t i = 0; i < model.variant_count; ++i) {
    const uint32_t index = model.variant_first + i;
    const fh_variant& variant = table->view.variants[index];
    const auto found = versions.find({name, variant.version});
    if (found != versions.end()) {
      table->versions[index] = found->second;
    } else if ((variant.flags & FH_VARIANT_DISABLED) == 0 || i == model.stable) {
      return "model '" + name + "' version " + std::to_string(variant.version) +
             " is not loaded";
    }
    table->variants[index] =
        cells->variant(name, name_of(*table, variant.name), variant.version, variant.ordinal);
  }
  return {};
}

void resolve_routes(CellRegistry* cells, const fh_model& model, LiveTable* table) {
  const std::string name = name_of(*table, model.name);
  const auto add = [&](uint32_t first, const std::string& rule, uint32_t index,
                       uint8_t reason) {
    for (uint32_t i = 0; i < model.variant_count; ++i) {
      const fh_variant& variant = table->view.variants[model.variant_first + i];
      table->routes[first + i] =
          cells->route(name, rule, name_of(*table, variant.name), variant.version,
                       variant.ordinal, reason);
      encode_annotations(*table, model, model.variant_first + i, index, reason,
                         &table->annotations[first + i]);
    }
  };
  add(model.cell_static, "pin", FH_NONE, FH_REASON_STATIC);
  add(model.cell_default, "default", FH_NONE, FH_REASON_DEFAULT);
  for (uint32_t i = 0; i < model.rule_count; ++i) {
    const uint32_t index = model.rule_first + i;
    const fh_rule& rule = table->view.rules[index];
    add(rule.cell_first, name_of(*table, rule.name), index, rule.reason);
  }
}

// Units are counted where a rule of a scope dealt them: pins, overrides and holdouts have
// cells of other rules, and nothing random about them.
void resolve_firsts(ScopeRegistry* scopes, const fh_model& model, LiveTable* table) {
  for (uint32_t i = 0; i < model.rule_count; ++i) {
    const uint32_t index = model.rule_first + i;
    const fh_rule& rule = table->view.rules[index];
    const bool is_dealt = rule.reason != FH_REASON_OVERRIDE && rule.reason != FH_REASON_HOLDOUT;
    if (rule.scope.length == 0 || !is_dealt) continue;
    const auto scope = scopes->scope(name_of(*table, rule.scope), rule.attempt);
    for (uint32_t ordinal = 0; ordinal < model.variant_count; ++ordinal) {
      const fh_variant& variant = table->view.variants[model.variant_first + ordinal];
      FirstKey key{rule.rollout_revision, name_of(*table, model.name),
                   name_of(*table, rule.name), name_of(*table, variant.name),
                   variant.version, variant.ordinal};
      LiveFirst& first = table->firsts[rule.cell_first + ordinal];
      first.scope = scope;
      first.entry = scope->entry(key);
      first.edges = scope->edges(variant.version, variant.ordinal);
      first.rule = index;
    }
  }
}

// Variants that some rule splits traffic between are compared, so they run in the same
// place: each variant with the others of its group, groups being what rules connect.
void group_variants(const fh_model& model, LiveTable* table) {
  std::vector<uint32_t> group(model.variant_count);
  for (uint32_t i = 0; i < model.variant_count; ++i) group[i] = i;
  for (uint32_t i = 0; i < model.rule_count; ++i) {
    const fh_rule& rule = table->view.rules[model.rule_first + i];
    if (rule.map == FH_NONE) continue;
    // What the rule does not claim falls through, in the end to stable.
    const uint8_t* map = table->view.maps + static_cast<size_t>(rule.map) * FH_BUCKETS;
    std::vector<bool> is_in(model.variant_count, false);
    for (uint32_t bucket = 0; bucket < FH_BUCKETS; ++bucket) {
      is_in[map[bucket] == FH_CONTINUE ? model.stable : map[bucket]] = true;
    }
    uint32_t joined = FH_NONE;
    for (uint32_t variant = 0; variant < model.variant_count; ++variant) {
      if (!is_in[variant]) continue;
      if (joined == FH_NONE) joined = group[variant];
      std::replace(group.begin(), group.end(), uint32_t{group[variant]}, joined);
    }
  }
  for (uint32_t i = 0; i < model.variant_count; ++i) {
    for (uint32_t other = 0; other < model.variant_count; ++other) {
      const uint32_t index = model.variant_first + other;
      if (group[other] == group[i] && table->versions[index] != nullptr) {
        table->compared_with[model.variant_first + i].push_back(index);
      }
    }
  }
}

// What may run at the lowest priority: a session of its own, else the one that serves. The
// threads of a session with several have its priority and would take the shadow's runs.
std::shared_ptr<Version> find_beside(const VersionMap& beside, const std::string& model,
                                     uint32_t version, std::shared_ptr<Version> served) {
  const auto found = beside.find({model, version});
  if (found != beside.end()) return found->second;
  return served != nullptr && served->intra_op_threads > 1 ? nullptr : served;
}

std::string resolve_shadows(const VersionMap& beside, CellRegistry* cells,
                            const fh_model& model, LiveTable* table) {
  const std::string name = name_of(*table, model.name);
  const auto resolve = [&](uint32_t index) {
    const auto& variant = table->view.variants[index];
    return find_beside(beside, name, variant.version, table->versions[index]);
  };
  for (uint32_t i = 0; i < model.shadow_count; ++i) {
    const fh_shadow& shadow = table->view.shadows[model.shadow_first + i];
    const uint32_t index = model.variant_first + shadow.variant;
    const fh_variant& variant = table->view.variants[index];
    LiveShadow& live = table->shadows[model.shadow_first + i];
    live.entry = cells->shadow(name, name_of(*table, shadow.name),
                               name_of(*table, variant.name), variant.version,
                               model.output_kind);
    live.spec = {table->text(model.output_tensor), model.output_kind, model.output_index,
                 model.output_threshold, shadow.tolerance_abs, shadow.tolerance_rel,
                 shadow.top_k};
    if (table->versions[index] == nullptr) continue;
    live.version = resolve(index);
    live.stable = resolve(model.variant_first + model.stable);
    if (live.version == nullptr) {
      return "model '" + name + "' version " + std::to_string(variant.version) +
             " runs on several threads: as a shadow it needs a session of its own, loaded "
             "with shadow=1";
    }
  }
  return {};
}

std::string compile_regexes(LiveTable* table) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  for (uint32_t i = 0; i < table->view.header->regexes.count; ++i) {
    const std::string pattern = name_of(*table, table->view.regexes[i]);
    auto compiled = std::make_unique<re2::RE2>(pattern, options);
    if (!compiled->ok()) {
      return "regular expression '" + pattern + "': " + compiled->error();
    }
    table->regexes.push_back(std::move(compiled));
  }
  return {};
}

}  // namespace

uint32_t LiveTable::find_model(std::string_view name) const {
  uint32_t low = 0, high = view.header->models.count;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    const int order = text(view.models[middle].name).compare(name);
    if (order == 0) return middle;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return FH_NONE;
}

std::string resolve_table(ByteView bytes, const fh_kernel_api& kernel,
                          const LoadedVersions& loaded, CellRegistry* cells,
                          ScopeRegistry* scopes, std::unique_ptr<LiveTable>* out) {
  auto table = std::make_unique<LiveTable>();
  table->words = std::make_unique<uint64_t[]>(bytes.size() / 8 + 1);
  if (!bytes.empty()) std::memcpy(table->words.get(), bytes.data(), bytes.size());
  char why[256] = {};
  const auto* data = reinterpret_cast<const uint8_t*>(table->words.get());
  if (kernel.check(data, bytes.size(), &table->view, why, sizeof why) != 0) {
    return std::string("routing table: ") + why;
  }
  const fh_header& header = *table->view.header;
  std::snprintf(table->revision, sizeof table->revision, "%016llx",
                static_cast<unsigned long long>(header.revision));
  table->versions.resize(header.variants.count);
  table->variants.resize(header.variants.count);
  table->compared_with.resize(header.variants.count);
  table->routes.resize(header.cell_count);
  table->firsts.resize(header.cell_count);
  table->shadows.resize(header.shadows.count);
  table->annotations.resize(header.cell_count);
  const auto hash = [&](fh_text at) {
    return static_cast<uint32_t>(kernel.xxh64(data + at.offset, at.length, 0));
  };
  for (uint32_t i = 0; i < header.models.count; ++i) {
    const fh_model& model = table->view.models[i];
    std::string problem = resolve_versions(loaded.served, cells, model, table.get());
    if (!problem.empty()) return problem;
    resolve_routes(cells, model, table.get());
    resolve_firsts(scopes, model, table.get());
    table->refused.push_back(cells->variant(name_of(*table, model.name), "", 0));
    table->model_hashes.push_back(hash(model.name));
    group_variants(model, table.get());
    problem = resolve_shadows(loaded.beside, cells, model, table.get());
    if (!problem.empty()) return problem;
  }
  for (uint32_t i = 0; i < header.rules.count; ++i) {
    table->rule_hashes.push_back(hash(table->view.rules[i].name));
  }
  for (uint32_t i = 0; i < header.keys.count; ++i) {
    table->keys.emplace_back(table->view.keys[i].id, table->view.keys[i].secret);
  }
  std::string problem = compile_regexes(table.get());
  if (problem.empty()) *out = std::move(table);
  return problem;
}

std::unique_ptr<LoopTable> hold_table(LiveTable* live, unsigned loop) {
  auto held = std::make_unique<LoopTable>();
  held->live = live;
  held->variants.resize(live->versions.size());
  for (size_t i = 0; i < held->variants.size(); ++i) {
    held->variants[i].version = live->versions[i].get();
    held->variants[i].cells = live->variants[i]->loops[loop].get();
    held->variants[i].lane = live->view.variants[i].ordinal;
  }
  for (RouteEntry* entry : live->routes) {
    held->routes.push_back(entry == nullptr ? nullptr : &entry->loops[loop]->cell);
  }
  for (const LiveFirst& first : live->firsts) {
    const bool is_counted = first.scope != nullptr;
    held->firsts.push_back(is_counted ? LoopFirst{&first, first.entry->loops[loop].get()}
                                      : LoopFirst{});
  }
  for (VariantEntry* entry : live->refused) {
    held->refused.push_back(entry->loops[loop].get());
  }
  return held;
}

int match_regex(const void* table, uint32_t regex, const uint8_t* data, uint32_t length) {
  const auto* live = static_cast<const LiveTable*>(table);
  const re2::StringPiece value(reinterpret_cast<const char*>(data), length);
  return re2::RE2::FullMatch(value, *live->regexes[regex]) ? 1 : 0;
}

}  // namespace router
