// gRPC's own encodings, as bytes to values: timeout, status message, binary metadata, and
// messages cut out of DATA.
//
// Nothing here knows HTTP/2. A length the peer declared is only ever compared with a limit:
// memory is taken as bytes arrive, and a compressed message is inflated no further than
// the limit of an uncompressed one.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"

namespace router {

enum class Encoding : uint8_t { identity, gzip, deflate };

constexpr size_t kMessagePrefix = 5;  // compressed flag, then the length, big-endian

// grpc-timeout ("250m") to nanoseconds; -1 when it is not one. At most 8 digits, as the
// protocol says; more than int64 holds (99999999H) is the largest int64.
int64_t parse_grpc_timeout(std::string_view text);

// Percent-encodes a status message as the gRPC protocol wants it, and back. Decoding takes
// a stray '%' as itself, as the protocol asks.
void append_percent_encoded(Buffer* out, std::string_view message);
void append_percent_decoded(Buffer* out, std::string_view text);

// Binary metadata (names ending in -bin) with or without padding. False, with `out` as it
// was, when the text is not base64.
bool append_base64_decoded(Buffer* out, std::string_view text);

// "identity", "gzip", "deflate"; false for any other name.
bool parse_encoding(std::string_view name, Encoding* encoding);

// Whether a content type is application/grpc, with +proto or parameters or without.
bool is_grpc_content_type(std::string_view value);

// Inflates one whole message; message_too_large once it would pass `size_max`.
Status append_inflated(Buffer* out, ByteView compressed, Encoding encoding,
                       uint32_t size_max);

// Cuts messages out of a stream of bytes that arrive in pieces of any size.
class MessageReader {
 public:
  // `budget` (may be null) is charged with every byte kept until its body is freed.
  void start(Encoding encoding, uint32_t size_max, std::atomic<uint64_t>* budget);

  // Takes bytes off the front of `input`, to the end of one message at most; `message` is
  // set when that message is complete. After a failure the reader must be stopped.
  Status take(ByteView* input, BodyRef* message);

  // Whether a message has begun and not ended.
  bool is_partial() const { return prefix_size_ != 0; }
  // Frees what was kept of an unfinished message.
  void stop();

 private:
  Status read_prefix();
  Status complete(BodyRef* message);
  BodyRef make_body() const;

  Encoding encoding_ = Encoding::identity;
  bool compressed_ = false;
  uint8_t prefix_size_ = 0;
  uint8_t prefix_[kMessagePrefix] = {};
  uint32_t size_max_ = 0;
  uint32_t missing_ = 0;  // bytes of the message still to come
  std::atomic<uint64_t>* budget_ = nullptr;
  BodyRef body_;
};

}  // namespace router
