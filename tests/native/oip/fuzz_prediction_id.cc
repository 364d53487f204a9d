// What must hold of prediction ids: only what a key minted is read, what is read mints the
// same text again, and any fields come back (less the bits that the format cuts).
#include <cstdlib>
#include <cstring>

#include "base/bytes.h"
#include "wire/prediction_id.h"

using namespace router;

namespace {

void must(bool claim) {
  if (!claim) std::abort();
}

// The bytes of the input are the fields of a prediction.
Prediction prediction_from(const uint8_t* data, size_t size) {
  uint8_t bytes[48] = {};
  if (size != 0) std::memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
  Prediction p;
  std::memcpy(&p.time_s, bytes, 4);
  std::memcpy(&p.model_hash, bytes + 4, 4);
  std::memcpy(&p.version, bytes + 8, 4);
  std::memcpy(&p.rule_hash, bytes + 12, 4);
  std::memcpy(&p.rollout_revision, bytes + 16, 4);
  p.variant = bytes[20];
  std::memcpy(&p.bucket, bytes + 22, 2);
  p.is_fallback = (bytes[21] & 1) != 0;
  p.is_sticky = (bytes[21] & 2) != 0;
  std::memcpy(&p.propensity_bp, bytes + 24, 2);
  std::memcpy(&p.score, bytes + 28, 4);
  std::memcpy(&p.unit_tag, bytes + 32, 8);
  std::memcpy(&p.sequence, bytes + 40, 4);
  return p;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const uint8_t secret[kMintKeyLength] = "a key that fuzzing does not kno";
  static const MintKey key(9, secret);
  Prediction back;
  char text[kPredictionIdLength];

  std::string_view claim(reinterpret_cast<const char*>(data), size);
  int claimed = claimed_key(claim);
  must(claimed >= -1 && claimed <= static_cast<int>(kMintKeyIdMax));
  if (key.read(claim, &back)) {
    key.mint(back, text);
    must(claimed == 9 && std::memcmp(text, data, sizeof text) == 0);
  }

  Prediction p = prediction_from(data, size);
  key.mint(p, text);
  std::string_view minted(text, sizeof text);
  must(key.read(minted, &back));
  must(back.time_s == p.time_s && back.model_hash == p.model_hash && back.version == p.version &&
       back.rule_hash == p.rule_hash && back.variant == p.variant &&
       back.propensity_bp == p.propensity_bp && back.is_sticky == p.is_sticky &&
       back.is_fallback == p.is_fallback);
  must(back.rollout_revision == (p.rollout_revision & 0xFFFFFF) &&
       back.bucket == (p.bucket & 0x3FFF) && back.sequence == (p.sequence & 0xFFFFFF) &&
       back.unit_tag == (p.unit_tag & 0xFFFFFFFFFFFF));
  must(p.score == back.score || (p.score != p.score && back.score != back.score));
  size_t at = size % sizeof text;
  text[at] = static_cast<char>(text[at] ^ (1 << (size / sizeof text % 8)));
  must(!key.read(minted, &back));
  must(key.tag_unit(claim) >> 48 == 0);
  return 0;
}
