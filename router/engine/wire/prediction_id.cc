// The low-level SHA-256 functions are deprecated in favour of EVP, whose contexts live on
// the heap: copying a keyed one costs two allocations and several hundred nanoseconds. A
// SHA256_CTX is a plain value, so a keyed state is copied on the stack and one key serves
// all threads at once.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "wire/prediction_id.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <cmath>
#include <utility>

#include "base/bytes.h"

namespace router {
namespace {

constexpr size_t kSize = 48;       // before base64url
constexpr size_t kMacSize = 10;
constexpr size_t kSigned = kSize - kMacSize;
constexpr uint8_t kFormat = 1;     // high nibble of the first byte; the low one is the key
constexpr uint8_t kUnitDomain = 0; // first byte of what tag_unit signs: no format has it
constexpr uint16_t kBucketMask = 0x3FFF, kFallbackFlag = 0x4000, kStickyFlag = 0x8000;
constexpr char kAlphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// HMAC (RFC 2104) after its key blocks: what remains is the message and one more block.
struct HmacState {
  SHA256_CTX inner, outer;
};

void finish_hmac(SHA256_CTX inner, SHA256_CTX outer, uint8_t mac[SHA256_DIGEST_LENGTH]) {
  SHA256_Final(mac, &inner);
  SHA256_Update(&outer, mac, SHA256_DIGEST_LENGTH);
  SHA256_Final(mac, &outer);
}

// The parts between the first byte and the MAC, in order, each with its size: writing and
// reading go through this one list. `bucket` travels with the flags in its upper bits.
template <typename Parts, typename Visit>
void each_part(Parts& p, Visit visit) {
  visit(p.time_s, 4);
  visit(p.model_hash, 4);
  visit(p.version, 4);
  visit(p.rule_hash, 4);
  visit(p.rollout_revision, 3);
  visit(p.variant, 1);
  visit(p.bucket, 2);
  visit(p.propensity_bp, 2);
  visit(p.score, 4);
  visit(p.unit_tag, 6);
  visit(p.sequence, 3);
}

void pack(Prediction p, uint8_t key, uint8_t out[kSigned]) {
  if (std::isnan(p.score)) p.score = __builtin_nanf("");  // one NaN stands for all
  unsigned flags = (p.is_fallback ? kFallbackFlag : 0u) | (p.is_sticky ? kStickyFlag : 0u);
  p.bucket = static_cast<uint16_t>((p.bucket & kBucketMask) | flags);
  uint8_t* at = out;
  *at++ = static_cast<uint8_t>(kFormat << 4 | key);
  each_part(p, [&at](const auto& part, size_t size) {
    std::memcpy(at, &part, size);
    at += size;
  });
  ROUTER_ASSERT(at == out + kSigned);
}

void unpack(const uint8_t in[kSigned], Prediction* out) {
  const uint8_t* at = in + 1;
  each_part(*out, [&at](auto& part, size_t size) {
    part = 0;
    std::memcpy(&part, at, size);
    at += size;
  });
  out->is_fallback = (out->bucket & kFallbackFlag) != 0;
  out->is_sticky = (out->bucket & kStickyFlag) != 0;
  out->bucket &= kBucketMask;
}

void encode(const uint8_t in[kSize], char out[kPredictionIdLength]) {
  for (size_t i = 0; i < kSize; i += 3, out += 4) {
    uint32_t bits = static_cast<uint32_t>(in[i] << 16 | in[i + 1] << 8 | in[i + 2]);
    for (unsigned j = 0; j < 4; ++j) out[j] = kAlphabet[bits >> (18 - 6 * j) & 63];
  }
}

int digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '-' ? 62 : c == '_' ? 63 : -1;
}

// 48 bytes fill 64 characters exactly, so no two texts mean the same bytes.
bool decode(std::string_view text, uint8_t out[kSize]) {
  if (text.size() != kPredictionIdLength) return false;
  for (size_t i = 0; i < kPredictionIdLength; i += 4, out += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 4; ++j) {
      int value = digit(text[i + j]);
      if (value < 0) return false;
      bits = bits << 6 | static_cast<uint32_t>(value);
    }
    out[0] = static_cast<uint8_t>(bits >> 16);
    out[1] = static_cast<uint8_t>(bits >> 8);
    out[2] = static_cast<uint8_t>(bits);
  }
  return true;
}

const HmacState* keyed(const void* state) {
  ROUTER_ASSERT(state != nullptr);  // the key was moved away
  return static_cast<const HmacState*>(state);
}

void sign(const HmacState* key, const uint8_t bytes[kSigned],
          uint8_t mac[SHA256_DIGEST_LENGTH]) {
  SHA256_CTX inner = key->inner;
  SHA256_Update(&inner, bytes, kSigned);
  finish_hmac(inner, key->outer, mac);
}

}  // namespace

MintKey::MintKey(uint8_t id, const uint8_t secret[kMintKeyLength]) : id_(id) {
  ROUTER_ASSERT(id <= kMintKeyIdMax);
  HmacState* state = new HmacState;
  uint8_t block[SHA256_CBLOCK];
  auto absorb = [&](SHA256_CTX* context, uint8_t pad) {
    for (size_t i = 0; i < sizeof block; ++i)
      block[i] = static_cast<uint8_t>((i < kMintKeyLength ? secret[i] : 0) ^ pad);
    SHA256_Init(context);
    SHA256_Update(context, block, sizeof block);
  };
  absorb(&state->inner, 0x36);
  absorb(&state->outer, 0x5C);
  OPENSSL_cleanse(block, sizeof block);
  state_ = state;
}

MintKey::MintKey(MintKey&& other) noexcept
    : id_(other.id_), state_(std::exchange(other.state_, nullptr)) {}

MintKey::~MintKey() {
  if (state_ == nullptr) return;
  OPENSSL_cleanse(state_, sizeof(HmacState));
  delete static_cast<HmacState*>(state_);
}

void MintKey::mint(const Prediction& prediction, char out[kPredictionIdLength]) const {
  uint8_t bytes[kSigned + SHA256_DIGEST_LENGTH];  // the whole MAC; its start is kept
  pack(prediction, id_, bytes);
  sign(keyed(state_), bytes, bytes + kSigned);
  encode(bytes, out);
}

bool MintKey::read(std::string_view text, Prediction* out) const {
  uint8_t bytes[kSize], mac[SHA256_DIGEST_LENGTH];
  if (!decode(text, bytes) || bytes[0] != (kFormat << 4 | id_)) return false;
  sign(keyed(state_), bytes, mac);
  if (CRYPTO_memcmp(mac, bytes + kSigned, kMacSize) != 0) return false;
  unpack(bytes, out);
  return true;
}

uint64_t MintKey::tag_unit(std::string_view unit) const {
  uint8_t mac[SHA256_DIGEST_LENGTH];
  SHA256_CTX inner = keyed(state_)->inner;
  SHA256_Update(&inner, &kUnitDomain, 1);
  SHA256_Update(&inner, unit.data(), unit.size());
  finish_hmac(inner, keyed(state_)->outer, mac);
  uint64_t tag = 0;
  std::memcpy(&tag, mac, 6);
  return tag;
}

int claimed_key(std::string_view text) {
  uint8_t bytes[kSize];
  if (!decode(text, bytes) || bytes[0] >> 4 != kFormat) return -1;
  return bytes[0] & 0x0F;
}

}  // namespace router
