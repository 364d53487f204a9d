// The evidence of rollouts in a snapshot: counts by scope, attempt, revision, rule and
// variant, each of which only grows; and how full the filters are.
#include "serve/plane.h"

namespace router {
namespace {

template <typename Get>
uint64_t over_loops(const FirstEntry& entry, Get get) {
  uint64_t total = 0;
  for (const auto& cells : entry.loops) total += get(*cells);
  return total;
}

double sum_over_loops(const FirstEntry& entry, Sum FirstCells::*member) {
  double total = 0;
  for (const auto& cells : entry.loops) total += ((*cells).*member).get();
  return total;
}

void write_units(Json* json, const char* name, const FirstEntry& entry, bool is_sticky) {
  json->key(name).open('{');
  for (unsigned at = 0; at < kFirstKinds; ++at) {
    const FirstKind kind{static_cast<uint8_t>(at)};
    json->key(first_kind_name(kind)).value(entry.units(kind, is_sticky));
  }
  json->close('}');
}

void write_clusters(Json* json, const std::vector<const FirstDetail*>& details) {
  json->key("clusters").open('[');
  for (unsigned at = 0; at < kClusters; ++at) {
    uint64_t requests = 0, errors = 0;
    double score = 0;
    for (const FirstDetail* detail : details) {
      requests += detail->clusters[at].requests.get();
      errors += detail->clusters[at].errors.get();
      score += detail->clusters[at].score.get();
    }
    if (requests == 0) continue;
    json->open('[');
    json->value(at);
    json->value(requests);
    json->value(errors);
    json->real(score);
    json->close(']');
  }
  json->close(']');
}

void write_entry(Json* json, const Scope& scope, const FirstEntry& entry) {
  std::vector<const FirstDetail*> details;
  std::vector<const Histogram*> latency;
  for (const auto& cells : entry.loops) {
    // Acquire: pairs with the loop that made it.
    const FirstDetail* made = cells->made.load(std::memory_order_acquire);
    if (made == nullptr) continue;
    details.push_back(made);
    latency.push_back(&made->latency);
  }
  json->open('{');
  json->key("scope").text(scope.name);
  json->key("attempt").value(scope.attempt);
  json->key("rollout_revision").value(entry.key.rollout_revision);
  json->key("model").text(entry.key.model);
  json->key("rule").text(entry.key.rule);
  json->key("variant").text(entry.key.variant);
  json->key("version").value(entry.key.version);
  json->key("ordinal").value(entry.key.ordinal);
  write_units(json, "sticky", entry, true);
  write_units(json, "other", entry, false);
  json->key("requests").value(
      over_loops(entry, [](const FirstCells& c) { return c.requests.get(); }));
  json->key("errors").value(
      over_loops(entry, [](const FirstCells& c) { return c.errors.get(); }));
  json->key("score").open('{');
  json->key("count").value(
      over_loops(entry, [](const FirstCells& c) { return c.score_count.get(); }));
  json->key("sum").real(sum_over_loops(entry, &FirstCells::score_sum));
  json->key("sum_squares").real(sum_over_loops(entry, &FirstCells::score_squares));
  json->close('}');
  json->key("latency");
  write_histogram(json, latency);
  write_clusters(json, details);
  json->close('}');
}

void write_filters(Json* json, const Scope& scope) {
  for (unsigned at = 0; at < kFirstKinds; ++at) {
    const UnitFilter& filter = scope.filters[at];
    if (!filter.is_made()) continue;
    json->open('{');
    json->key("scope").text(scope.name);
    json->key("attempt").value(scope.attempt);
    json->key("kind").text(first_kind_name(FirstKind{static_cast<uint8_t>(at)}));
    json->key("fill").real(filter.fill());
    json->key("is_saturated").boolean(filter.is_saturated());
    json->close('}');
  }
}

}  // namespace

void write_histogram(Json* json, const std::vector<const Histogram*>& parts) {
  uint64_t count = 0, sum_ns = 0;
  for (const Histogram* part : parts) sum_ns += part->sum_ns();
  std::string buckets;
  Json list(&buckets);
  list.open('[');
  for (int position = 0; position < Histogram::kBuckets; ++position) {
    uint64_t in_bucket = 0;
    for (const Histogram* part : parts) in_bucket += part->bucket(position);
    if (in_bucket == 0) continue;
    count += in_bucket;
    list.open('[');
    list.number(position + Histogram::kFirst);
    list.value(in_bucket);
    list.close(']');
  }
  list.close(']');
  json->open('{');
  json->key("count").value(count);
  json->key("sum").real(static_cast<double>(sum_ns) * 1e-9);
  json->key("buckets").raw(buckets);
  json->close('}');
}

void write_firsts(Json* json, const ScopeRegistry& scopes) {
  const auto all = scopes.all();
  json->key("firsts").open('[');
  for (const auto& scope : all) {
    for (const auto& entry : scope->entries()) write_entry(json, *scope, *entry);
  }
  json->close(']');
  json->key("filters").open('[');
  for (const auto& scope : all) write_filters(json, *scope);
  json->close(']');
}

}  // namespace router
