// What the snapshot says of shadows.
#include <algorithm>

#include "serve/json.h"
#include "serve/plane.h"

namespace router {
namespace {

void write_spread(Json* json, const char* name, const std::vector<const Spread*>& parts) {
  uint64_t count = 0;
  double sum = 0, squares = 0, most = 0;
  for (const Spread* part : parts) {
    if (part->count.get() == 0) continue;
    most = count == 0 ? part->max.get() : std::max(most, part->max.get());
    count += part->count.get();
    sum += part->sum.get();
    squares += part->sum_squares.get();
  }
  json->key(name).open('{');
  json->key("count").value(count);
  json->key("sum").real(sum);
  json->key("sum_squares").real(squares);
  json->key("max").real(most);
}

void write_pairs(Json* json, const std::vector<const PairCells*>& parts) {
  const auto total = [&](auto get) {
    uint64_t sum = 0;
    for (const PairCells* part : parts) sum += get(*part).get();
    return sum;
  };
  constexpr std::pair<const char*, Counter PairCells::*> kCounts[] = {
      {"pairs", &PairCells::pairs}, {"disagreements", &PairCells::disagreements},
      {"mismatched", &PairCells::mismatched}, {"missing", &PairCells::missing},
      {"dtype", &PairCells::dtype}, {"shape", &PairCells::shape}, {"nan", &PairCells::nan},
      {"rows", &PairCells::rows}, {"rows_differing", &PairCells::rows_differing}};
  for (const auto& [name, member] : kCounts) {
    json->key(name).value(total([m = member](const PairCells& c) -> const Counter& { return c.*m; }));
  }
  json->key("flips").open('[');
  for (unsigned at = 0; at < kFlipClasses * kFlipClasses; ++at) {
    const unsigned was = at / kFlipClasses, is = at % kFlipClasses;
    const uint64_t count =
        total([=](const PairCells& c) -> const Counter& { return c.flips[was][is]; });
    if (count == 0) continue;
    json->open('[');
    json->value(was);
    json->value(is);
    json->value(count);
    json->close(']');
  }
  json->close(']');
  constexpr std::pair<const char*, Spread PairCells::*> kSpreads[] = {
      {"distance", &PairCells::distance}, {"relative", &PairCells::relative},
      {"cosine", &PairCells::cosine}, {"overlap", &PairCells::overlap},
      {"rbo", &PairCells::rbo}};
  for (const auto& [name, member] : kSpreads) {
    std::vector<const Spread*> spreads;
    for (const PairCells* part : parts) spreads.push_back(&(part->*member));
    write_spread(json, name, spreads);
    if (member == &PairCells::distance) {
      // Upper edges are powers of two: [[power, count], ...].
      json->key("histogram").open('[');
      for (int i = 0; i < PairCells::kBuckets; ++i) {
        const uint64_t count =
            total([=](const PairCells& c) -> const Counter& { return c.buckets[i]; });
        if (count == 0) continue;
        json->open('[');
        json->number(i + PairCells::kFirstPower);
        json->value(count);
        json->close(']');
      }
      json->close(']');
    }
    json->close('}');
  }
}

void write_shadow(Json* json, const ShadowEntry& entry) {
  constexpr const char* kKinds[] = {"none",  "probability", "class",
                                    "value", "embedding",   "ranking"};
  uint64_t sampled = 0, failed = 0, waiting = 0, cpu_ns = 0, dropped[kShadowDrops] = {};
  std::vector<const PairCells*> pairs, noise;
  std::vector<const Histogram*> runs;
  for (const auto& cells : entry.loops) {
    sampled += cells->sampled.get();
    failed += cells->failed.get();
    waiting += cells->waiting.load(std::memory_order_relaxed);
    cpu_ns += cells->cpu_ns.get();
    for (unsigned i = 0; i < kShadowDrops; ++i) dropped[i] += cells->dropped[i].get();
    pairs.push_back(&cells->pairs);
    noise.push_back(&cells->noise);
    runs.push_back(&cells->run);
  }
  json->open('{');
  json->key("model").text(entry.model);
  json->key("shadow").text(entry.shadow);
  json->key("variant").text(entry.variant);
  json->key("version").value(entry.version);
  json->key("kind").text(kKinds[entry.kind % std::size(kKinds)]);
  json->key("sampled").value(sampled);
  json->key("failed").value(failed);
  json->key("waiting").value(waiting);
  json->key("dropped").open('{');
  for (unsigned i = 0; i < kShadowDrops; ++i) {
    json->key(shadow_drop_name(static_cast<ShadowDrop>(i))).value(dropped[i]);
  }
  json->close('}');
  write_pairs(json, pairs);
  json->key("run");
  write_histogram(json, runs);
  json->key("cpu_ns").value(cpu_ns);
  json->key("noise").open('{');
  write_pairs(json, noise);
  json->close('}');
  json->close('}');
}

}  // namespace

void write_shadows(Json* json, const Core& core) {
  json->key("shadows").open('[');
  core.cells.each_shadow([&](const ShadowEntry& entry) { write_shadow(json, entry); });
  json->close(']');
}

}  // namespace router
