// Filters and scopes: a unit is new once, whoever asks, and what is saved is not new again.
#include <thread>

#include "check.h"
#include "watch/firsts.h"

namespace router {
namespace {

// Digests are hashes: any good mix of a counter is one.
uint64_t digest_of(uint64_t unit) {
  unit = (unit + 0x9E3779B97F4A7C15ull) * 0xBF58476D1CE4E5B9ull;
  unit = (unit ^ unit >> 27) * 0x94D049BB133111EBull;
  return unit ^ unit >> 31;
}

FirstKey key_of(uint32_t revision, const char* variant = "v") {
  return {revision, "m", "rule", variant, 1, 0};
}

std::string saved(const ScopeRegistry& scopes) {
  Buffer out;
  scopes.save(&out);
  return std::string(out.view());
}

TEST(a_digest_is_new_once) {
  UnitFilter filter;
  CHECK(!filter.is_made());
  CHECK(filter.is_first(digest_of(1)));
  CHECK(!filter.is_first(digest_of(1)));
  CHECK(filter.is_first(digest_of(2)));
  CHECK(filter.is_made());
}

TEST(two_loops_find_each_digest_new_once_between_them) {
  constexpr uint64_t kUnits = 50'000;
  UnitFilter filter;
  std::atomic<uint64_t> found{0};
  const auto ask = [&] {
    for (uint64_t unit = 0; unit < kUnits; ++unit) {
      if (filter.is_first(digest_of(unit))) found.fetch_add(1);
    }
  };
  std::thread first(ask), second(ask);
  first.join();
  second.join();
  // At 0.4 % of the bits set a false positive has a chance of about 1e-9 a unit.
  CHECK_EQ(found.load(), kUnits);
}

// All from the buckets of one variant at 1 %: the upper 32 bits hold a hundredth of what
// they could.
TEST(a_filter_takes_units_of_a_small_share_as_well) {
  constexpr uint64_t kUnits = 300'000;
  UnitFilter filter;
  uint64_t found = 0;
  for (uint64_t unit = 0; unit < kUnits; ++unit) {
    const uint64_t digest = digest_of(unit);
    found += filter.is_first((digest >> 32) / 100 << 32 | (digest & UINT32_MAX));
  }
  // Each sets 4.8 bits on average of 2^26: 2 % full, false positives below 1e-4 of the last.
  CHECK(kUnits - found < 30);
  CHECK(filter.fill() > 0.020);
  CHECK(filter.fill() < 0.023);
}

TEST(a_filter_is_saturated_when_half_of_it_is_full) {
  UnitFilter filter;
  uint64_t unit = 0;
  while (filter.fill() < 0.499) filter.is_first(digest_of(unit++));
  CHECK(!filter.is_saturated());
  while (filter.fill() < 0.5) filter.is_first(digest_of(unit++));
  CHECK(filter.is_saturated());
  // 2^26 bits hold ln 2 / 4.8 units a bit at half: nine million, where 4.8 is 5 bits less
  // those that coincide.
  CHECK(unit > 9'000'000);
  CHECK(unit < 10'500'000);
}

TEST(an_edge_belongs_to_those_that_are_not_over_it) {
  const int positions[kEdges] = {0, 500, -1};
  const uint64_t word = pack_edges(positions);
  CHECK(!is_over(word, 0, 0));
  CHECK(is_over(word, 0, 1));
  CHECK(!is_over(word, 1, 500));
  CHECK(is_over(word, 1, 501));
  CHECK(!is_over(word, 2, Histogram::kBuckets - 1));  // unset
  const int outside[kEdges] = {-7, Histogram::kBuckets + 7, Histogram::kBuckets - 1};
  CHECK(!is_over(pack_edges(outside), 0, 1));
  CHECK(!is_over(pack_edges(outside), 1, Histogram::kBuckets - 1));
  CHECK(!is_over(pack_edges(outside), 2, Histogram::kBuckets - 1));
}

TEST(a_scope_is_known_by_its_name_and_attempt) {
  ScopeRegistry scopes(1);
  const auto scope = scopes.scope("a", 1);
  CHECK(scopes.scope("a", 1) == scope);
  CHECK(scopes.scope("a", 2) != scope);
  CHECK(scopes.scope("b", 1) != scope);
  CHECK(scopes.find("a", 3) == nullptr);
  CHECK(scopes.find("a", 1) == scope);
}

TEST(a_scope_out_of_the_table_is_kept_until_too_many_are) {
  ScopeRegistry scopes(1);
  for (uint32_t i = 1; i <= 6; ++i) {
    scopes.scope("a", i);
    scopes.published(i);
  }
  // The current one and the last four.
  CHECK(scopes.find("a", 1) == nullptr);
  for (uint32_t i = 2; i <= 6; ++i) CHECK(scopes.find("a", i) != nullptr);
  for (uint64_t later = 7; later < 20; ++later) {
    scopes.scope("a", 2);
    scopes.published(later);
  }
  for (uint32_t i = 2; i <= 6; ++i) CHECK(scopes.find("a", i) != nullptr);
}

TEST(counts_of_older_revisions_stay_until_there_are_too_many) {
  Scope scope("a", 1, 1);
  const auto oldest = scope.entry(key_of(1));
  scope.entry(key_of(1, "w"));
  for (uint32_t revision = 2; revision <= Scope::kRevisionsMax; ++revision) {
    scope.entry(key_of(revision));
  }
  CHECK_EQ(scope.entries().size(), Scope::kRevisionsMax + 1);
  CHECK(scope.entry(key_of(1)) == oldest);
  scope.entry(key_of(Scope::kRevisionsMax + 1));
  CHECK_EQ(scope.entries().size(), Scope::kRevisionsMax);
  CHECK_EQ(scope.entries()[0]->key.rollout_revision, 2u);
}

TEST(what_was_saved_is_neither_new_nor_forgotten) {
  ScopeRegistry before(2);
  const auto scope = before.scope("a", 3);
  const auto entry = scope->entry(key_of(7));
  for (uint64_t unit = 0; unit < 1000; ++unit) {
    CHECK(scope->filters[1].is_first(digest_of(unit)));
    entry->loops[unit % 2]->sticky[1].add(1);
    entry->loops[0]->other[2].add(2);
  }
  ScopeRegistry after(1);
  CHECK_EQ(after.restore(saved(before)), "");
  const auto found = after.find("a", 3);
  REQUIRE(found != nullptr);
  for (uint64_t unit = 0; unit < 1000; ++unit) {
    CHECK(!found->filters[1].is_first(digest_of(unit)));
  }
  CHECK(found->filters[1].is_first(digest_of(1000)));
  CHECK(!found->filters[0].is_made());
  CHECK_EQ(found->filters[1].fill() > scope->filters[1].fill(), true);
  const auto kept = found->entry(key_of(7));
  CHECK_EQ(kept->units(FirstKind::error, true), 1000u);
  CHECK_EQ(kept->units(FirstKind::invalid, false), 2000u);
  CHECK_EQ(kept->units(FirstKind::error, false), 0u);
  kept->loops[0]->sticky[1].add(1);
  CHECK_EQ(kept->units(FirstKind::error, true), 1001u);
  CHECK_EQ(after.restore(saved(before)), "");  // a scope that exists is left alone
  CHECK_EQ(kept->units(FirstKind::error, true), 1001u);
}

TEST(damaged_bytes_are_refused) {
  ScopeRegistry before(1);
  before.scope("a", 1)->filters[0].is_first(digest_of(1));
  const std::string good = saved(before);
  for (const size_t size : {size_t{0}, size_t{3}, size_t{8}, good.size() - 1}) {
    ScopeRegistry after(1);
    CHECK(after.restore(good.substr(0, size)) != "");
  }
  std::string bad = good;
  bad[good.size() / 2] = static_cast<char>(bad[good.size() / 2] ^ 1);
  ScopeRegistry after(1);
  CHECK(after.restore(bad) != "");
  CHECK(after.all().empty());
}

}  // namespace
}  // namespace router
