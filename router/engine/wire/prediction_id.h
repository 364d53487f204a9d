// The prediction id: what was served, in at most 64 URL-safe characters, authenticated.
//
// One codec for both planes: the engine mints, Python reads back through the engine's door.
// 48 bytes before base64url (64 characters, no padding): format and key id 1, time s 4,
// model hash 4, version 4, rule hash 4, rollout_revision 3, variant 1, bucket and flags 2,
// propensity 2, score f32 4, keyed unit tag 6, sequence 3, MAC 10 (HMAC-SHA-256, truncated).
#pragma once

#include <cstdint>
#include <string_view>

namespace router {

constexpr unsigned kPredictionIdLength = 64;
constexpr unsigned kMintKeyLength = 32;
constexpr unsigned kMintKeyIdMax = 15;  // half a byte, beside the format

struct Prediction {
  uint32_t time_s = 0;
  uint32_t model_hash = 0;   // low 32 bits of XXH64(name, 0)
  uint32_t version = 0;
  uint32_t rule_hash = 0;    // low 32 bits of XXH64(rule name, 0)
  uint32_t rollout_revision = 0;  // low 24 bits are kept
  uint8_t variant = 0;
  uint16_t bucket = 0;       // 0-9999, or 0x3FFF for none
  bool is_fallback = false, is_sticky = false;
  uint16_t propensity_bp = 0;
  float score = 0;           // NaN when there is none
  uint64_t unit_tag = 0;     // low 48 bits: keyed digest of the unit
  uint32_t sequence = 0;     // low 24 bits
};

// A key with its precomputed state; make one per table; its const functions may be
// called from any number of threads at once.
class MintKey {
 public:
  MintKey(uint8_t id, const uint8_t secret[kMintKeyLength]);
  ~MintKey();
  MintKey(MintKey&& other) noexcept;
  MintKey(const MintKey&) = delete;
  uint8_t id() const { return id_; }

  void mint(const Prediction& prediction, char out[kPredictionIdLength]) const;
  // False when the text is malformed, of another key, or not ours.
  bool read(std::string_view text, Prediction* out) const;
  // 48-bit keyed tag of a unit, so that an id never tells who it was.
  uint64_t tag_unit(std::string_view unit) const;

 private:
  uint8_t id_ = 0;
  void* state_ = nullptr;
};

// The key id a text claims, or -1 when it cannot be one of ours.
int claimed_key(std::string_view text);

}  // namespace router
