#include "check.h"

#include <cmath>

#include "wire/prediction_id.h"

namespace router {
namespace {

MintKey key_of(uint8_t id, uint8_t first = 0) {
  uint8_t secret[kMintKeyLength];
  for (unsigned i = 0; i < kMintKeyLength; ++i) secret[i] = static_cast<uint8_t>(first + i);
  return MintKey(id, secret);
}

Prediction sample() {
  Prediction p;
  p.time_s = 1700000000;
  p.model_hash = 0x01020304;
  p.version = 7;
  p.rule_hash = 0xA1B2C3D4;
  p.rollout_revision = 0x123456;
  p.variant = 2;
  p.bucket = 9999;
  p.is_sticky = true;
  p.propensity_bp = 1250;
  p.score = 0.25f;
  p.unit_tag = 0x665544332211;
  p.sequence = 0xABCDEF;
  return p;
}

std::string minted(const MintKey& key, const Prediction& p) {
  char text[kPredictionIdLength];
  key.mint(p, text);
  return {text, kPredictionIdLength};
}

// Computed with Python: base64url(body + hmac.digest(bytes(range(32)), body, "sha256")[:10])
// with body packed little-endian. A change here makes every id that is out there unknown.
TEST(ids_are_what_they_always_were) {
  CHECK_EQ(minted(key_of(5), sample()), "FQDxU2UEAwIBBwAAANTDsqFWNBICD6fiBAAAgD4RIjNEVWbvzasrxnVkn0YSUJm-");
  CHECK_EQ(key_of(5).tag_unit("user-1"), 109135457387211ull);
  CHECK_EQ(key_of(5).tag_unit(""), 187189410664935ull);
}

TEST(an_id_gives_back_what_was_minted) {
  MintKey key = key_of(15);
  Prediction p = sample(), back;
  REQUIRE(key.read(minted(key, p), &back));
  CHECK_EQ(back.time_s, p.time_s);
  CHECK_EQ(back.model_hash, p.model_hash);
  CHECK_EQ(back.version, p.version);
  CHECK_EQ(back.rule_hash, p.rule_hash);
  CHECK_EQ(back.rollout_revision, p.rollout_revision);
  CHECK_EQ(back.variant, p.variant);
  CHECK_EQ(back.bucket, p.bucket);
  CHECK_EQ(back.is_fallback, false);
  CHECK_EQ(back.is_sticky, true);
  CHECK_EQ(back.propensity_bp, p.propensity_bp);
  CHECK_EQ(back.score, p.score);
  CHECK_EQ(back.unit_tag, p.unit_tag);
  CHECK_EQ(back.sequence, p.sequence);
}

TEST(what_does_not_fit_is_cut_and_no_score_stays_no_score) {
  MintKey key = key_of(0);
  Prediction p, back;
  p.rollout_revision = 0xFF000001;
  p.unit_tag = 0xFFFF000000000002;
  p.sequence = 0xFF000003;
  p.bucket = 0x3FFF;
  p.is_fallback = true;
  p.score = -std::nanf("7");
  REQUIRE(key.read(minted(key, p), &back));
  CHECK_EQ(back.rollout_revision, 1u);
  CHECK_EQ(back.unit_tag, 2u);
  CHECK_EQ(back.sequence, 3u);
  CHECK_EQ(back.bucket, 0x3FFF);
  CHECK(back.is_fallback && !back.is_sticky);
  CHECK(std::isnan(back.score));
  std::string text = minted(key, p);
  p.score = std::nanf("");
  CHECK_EQ(minted(key, p), text);
}

TEST(every_changed_character_is_refused) {
  constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \n";
  MintKey key = key_of(3);
  std::string text = minted(key, sample());
  Prediction back;
  for (size_t at = 0; at < text.size(); ++at) {
    for (char c : kAlphabet) {
      std::string changed = text;
      changed[at] = c;
      CHECK_EQ(key.read(changed, &back), c == text[at]);
    }
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << bit);
      CHECK(!key.read(flipped, &back));
    }
  }
}

TEST(another_length_is_refused) {
  MintKey key = key_of(3);
  std::string text = minted(key, sample());
  Prediction back;
  for (size_t size = 0; size < text.size(); ++size) CHECK(!key.read(text.substr(0, size), &back));
  CHECK(!key.read(text + "A", &back));
  CHECK(!key.read(text + text, &back));
  CHECK(key.read(text, &back));
}

TEST(another_key_refuses_an_id) {
  std::string text = minted(key_of(3), sample());
  Prediction back;
  CHECK(!key_of(4).read(text, &back));     // another id, same secret
  CHECK(!key_of(3, 1).read(text, &back));  // same id, another secret
}

TEST(a_text_claims_the_key_that_minted_it) {
  for (uint8_t id = 0; id <= kMintKeyIdMax; ++id)
    CHECK_EQ(claimed_key(minted(key_of(id), sample())), int{id});
  CHECK_EQ(claimed_key(""), -1);
  CHECK_EQ(claimed_key(std::string(64, 'A')), -1);  // another format
  CHECK_EQ(claimed_key(std::string(63, 'E')), -1);
  CHECK_EQ(claimed_key(std::string(64, '=')), -1);
}

TEST(a_moved_key_mints_the_same) {
  MintKey key = key_of(3);
  std::string text = minted(key, sample());
  MintKey moved = std::move(key);
  CHECK_EQ(minted(moved, sample()), text);
}

TEST(a_unit_tag_depends_on_key_and_unit) {
  CHECK(key_of(3).tag_unit("a") != key_of(3).tag_unit("b"));
  CHECK(key_of(3).tag_unit("a") != key_of(3, 1).tag_unit("a"));
  CHECK_EQ(key_of(3).tag_unit(std::string(100000, 'u')) >> 48, 0u);
}

}  // namespace
}  // namespace router
