#include "wire/grpc.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>

namespace router {
namespace {

constexpr char kHexDigits[] = "0123456789ABCDEF";

int hex_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

int base64_value(char symbol) {
  if (symbol >= 'A' && symbol <= 'Z') return symbol - 'A';
  if (symbol >= 'a' && symbol <= 'z') return symbol - 'a' + 26;
  if (symbol >= '0' && symbol <= '9') return symbol - '0' + 52;
  if (symbol == '+') return 62;
  if (symbol == '/') return 63;
  return -1;
}

// Owns zlib's state for one message.
struct Inflater {
  z_stream stream = {};
  bool is_ready = false;

  explicit Inflater(Encoding encoding) {
    // gRPC's "deflate" is the zlib format (RFC 1950); 16 asks zlib for a gzip header.
    const int window_bits = encoding == Encoding::gzip ? 16 + MAX_WBITS : MAX_WBITS;
    is_ready = inflateInit2(&stream, window_bits) == Z_OK;
  }
  ~Inflater() {
    if (is_ready) inflateEnd(&stream);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

Status too_large(uint32_t size_max) {
  return fail(Situation::message_too_large,
              "message is larger than the limit of " + std::to_string(size_max) + " bytes");
}

Status not_inflatable() {
  return fail(Situation::bad_framing, "compressed message cannot be decompressed");
}

}  // namespace

int64_t parse_grpc_timeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return -1;
  int64_t amount = 0;
  for (const char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return -1;
    amount = amount * 10 + (digit - '0');
  }
  int64_t unit_ns = 0;
  switch (text.back()) {
    case 'H': unit_ns = 3'600'000'000'000; break;
    case 'M': unit_ns = 60'000'000'000; break;
    case 'S': unit_ns = 1'000'000'000; break;
    case 'm': unit_ns = 1'000'000; break;
    case 'u': unit_ns = 1'000; break;
    case 'n': unit_ns = 1; break;
    default: return -1;
  }
  int64_t timeout_ns = 0;
  if (__builtin_mul_overflow(amount, unit_ns, &timeout_ns)) {
    return std::numeric_limits<int64_t>::max();
  }
  return timeout_ns;
}

void append_percent_encoded(Buffer* out, std::string_view message) {
  for (const char c : message) {
    if (c >= 0x20 && c <= 0x7e && c != '%') {
      out->push(static_cast<uint8_t>(c));
      continue;
    }
    const auto byte = static_cast<uint8_t>(c);
    const char escaped[] = {'%', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
    out->append(escaped, sizeof escaped);
  }
}

void append_percent_decoded(Buffer* out, std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_value(text[i + 2]) : -1;
    if (low < 0) {
      out->push(static_cast<uint8_t>(text[i]));
      continue;
    }
    out->push(static_cast<uint8_t>(high * 16 + low));
    i += 2;
  }
}

bool append_base64_decoded(Buffer* out, std::string_view text) {
  const size_t size_before = out->size();
  const bool may_be_padded = text.size() % 4 == 0;
  for (int i = 0; may_be_padded && i < 2 && !text.empty() && text.back() == '='; ++i) {
    text.remove_suffix(1);
  }
  if (text.size() % 4 == 1) return false;
  uint32_t bits = 0;
  unsigned bit_count = 0;
  for (const char symbol : text) {
    const int value = base64_value(symbol);
    if (value < 0) {
      out->truncate(size_before);
      return false;
    }
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xffffff;
    bit_count += 6;
    if (bit_count >= 8) {
      bit_count -= 8;
      out->push(static_cast<uint8_t>(bits >> bit_count));
    }
  }
  return true;
}

bool parse_encoding(std::string_view name, Encoding* encoding) {
  if (name == "identity") {
    *encoding = Encoding::identity;
  } else if (name == "gzip") {
    *encoding = Encoding::gzip;
  } else if (name == "deflate") {
    *encoding = Encoding::deflate;
  } else {
    return false;
  }
  return true;
}

bool is_grpc_content_type(std::string_view value) {
  constexpr std::string_view kBase = "application/grpc";
  constexpr std::string_view kProto = "+proto";
  if (value.substr(0, kBase.size()) != kBase) return false;
  value.remove_prefix(kBase.size());
  if (value.substr(0, kProto.size()) == kProto) value.remove_prefix(kProto.size());
  return value.empty() || value.front() == ';' || value.front() == ' ';
}

Status append_inflated(Buffer* out, ByteView compressed, Encoding encoding,
                       uint32_t size_max) {
  Inflater inflater(encoding);
  if (!inflater.is_ready) return fail(Situation::overload, "out of memory");
  z_stream& stream = inflater.stream;
  // zlib's interface wants a mutable pointer and does not write through it.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
  stream.avail_in = static_cast<uInt>(compressed.size());
  const size_t size_before = out->size();
  for (;;) {
    const size_t size = out->size() - size_before;
    // One byte more than allowed is enough to know that there is too much.
    const size_t room = std::min<size_t>(
        size_t{size_max} + 1 - size, std::max<size_t>({4096, compressed.size() * 2, size / 2}));
    stream.next_out = out->extend(room);
    stream.avail_out = static_cast<uInt>(room);
    const int result = inflate(&stream, Z_NO_FLUSH);
    out->truncate(out->size() - stream.avail_out);
    if (out->size() - size_before > size_max) return too_large(size_max);
    if (result == Z_STREAM_END) return stream.avail_in == 0 ? Status{} : not_inflatable();
    if (result != Z_OK || (stream.avail_in == 0 && stream.avail_out != 0)) {
      return not_inflatable();
    }
  }
}

void MessageReader::start(Encoding encoding, uint32_t size_max,
                          std::atomic<uint64_t>* budget) {
  ROUTER_ASSERT(!is_partial());
  encoding_ = encoding;
  size_max_ = size_max;
  budget_ = budget;
}

void MessageReader::stop() {
  body_ = BodyRef();
  prefix_size_ = 0;
  missing_ = 0;
}

Status MessageReader::take(ByteView* input, BodyRef* message) {
  if (prefix_size_ < kMessagePrefix) {
    const size_t count = std::min(input->size(), kMessagePrefix - prefix_size_);
    std::memcpy(prefix_ + prefix_size_, input->data(), count);
    prefix_size_ = static_cast<uint8_t>(prefix_size_ + count);
    input->remove_prefix(count);
    if (prefix_size_ < kMessagePrefix) return {};
    if (Status status = read_prefix(); !status.ok()) return status;
  }
  const size_t count = std::min<size_t>(input->size(), missing_);
  if (count != 0) {
    Body* body = body_.get();
    body->bytes.append(input->data(), count);
    body->charged += count;
    if (budget_ != nullptr) budget_->fetch_add(count, std::memory_order_relaxed);
    input->remove_prefix(count);
    missing_ -= static_cast<uint32_t>(count);
  }
  return missing_ == 0 ? complete(message) : Status{};
}

Status MessageReader::read_prefix() {
  if (prefix_[0] > 1) {
    return fail(Situation::bad_framing, "compressed flag is neither 0 nor 1");
  }
  compressed_ = prefix_[0] == 1;
  if (compressed_ && encoding_ == Encoding::identity) {
    return fail(Situation::bad_framing, "compressed flag is set without grpc-encoding");
  }
  missing_ = static_cast<uint32_t>(prefix_[1]) << 24 | static_cast<uint32_t>(prefix_[2]) << 16 |
             static_cast<uint32_t>(prefix_[3]) << 8 | prefix_[4];
  if (missing_ > size_max_) return too_large(size_max_);
  body_ = make_body();
  return {};
}

Status MessageReader::complete(BodyRef* message) {
  BodyRef whole = std::move(body_);
  prefix_size_ = 0;
  if (compressed_) {
    BodyRef inflated = make_body();
    Body* body = inflated.get();
    Status status = append_inflated(&body->bytes, whole.view(), encoding_, size_max_);
    if (!status.ok()) return status;
    body->charged = body->bytes.size();
    if (budget_ != nullptr) budget_->fetch_add(body->charged, std::memory_order_relaxed);
    whole = std::move(inflated);
  }
  *message = std::move(whole);
  return {};
}

BodyRef MessageReader::make_body() const {
  BodyRef made(new Body);
  made.get()->budget = budget_;
  return made;
}

}  // namespace router
