// gRPC's own encodings: timeouts, status messages, binary metadata, content types, and
// messages cut out of bytes in pieces of any size.
#include <zlib.h>

#include <limits>
#include <string>

#include "check.h"
#include "wire/grpc.h"

namespace router {
namespace {

std::string percent_encoded(std::string_view text) {
  Buffer out;
  append_percent_encoded(&out, text);
  return std::string(out.view());
}

std::string percent_decoded(std::string_view text) {
  Buffer out;
  append_percent_decoded(&out, text);
  return std::string(out.view());
}

std::string base64_decoded(std::string_view text) {
  Buffer out;
  out.append("<");
  const bool is_base64 = append_base64_decoded(&out, text);
  return std::string(out.view()) + (is_base64 ? "" : " refused");
}

std::string compressed(const std::string& text, int window_bits) {
  z_stream stream = {};
  deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}
std::string gzipped(const std::string& text) { return compressed(text, 31); }
std::string deflated(const std::string& text) { return compressed(text, 15); }

std::string prefix(uint8_t flag, uint32_t size) {
  const char bytes[] = {static_cast<char>(flag), static_cast<char>(size >> 24),
                        static_cast<char>(size >> 16), static_cast<char>(size >> 8),
                        static_cast<char>(size)};
  return {bytes, sizeof bytes};
}

// All messages in `input`, given in steps of `step` bytes, or how it failed.
std::string read_all(std::string_view input, size_t step, Encoding encoding = Encoding::identity,
                     uint32_t size_max = 1000) {
  std::atomic<uint64_t> used{0};
  std::string seen;
  {
    MessageReader reader;
    reader.start(encoding, size_max, &used);
    for (size_t at = 0; at < input.size(); at += step) {
      ByteView piece = input.substr(at, step);
      while (!piece.empty()) {
        BodyRef message;
        const Status status = reader.take(&piece, &message);
        if (!status.ok()) return seen + "!" + advice_for(status.situation).name;
        if (message) seen += "[" + std::string(message.view()) + "]";
      }
    }
    if (reader.is_partial()) seen += "...";
  }
  CHECK_EQ(used.load(), 0u);
  return seen;
}

TEST(timeouts_are_read_in_every_unit) {
  CHECK_EQ(parse_grpc_timeout("250m"), 250'000'000);
  CHECK_EQ(parse_grpc_timeout("1H"), 3'600'000'000'000);
  CHECK_EQ(parse_grpc_timeout("2M"), 120'000'000'000);
  CHECK_EQ(parse_grpc_timeout("3S"), 3'000'000'000);
  CHECK_EQ(parse_grpc_timeout("4u"), 4'000);
  CHECK_EQ(parse_grpc_timeout("99999999n"), 99'999'999);
  CHECK_EQ(parse_grpc_timeout("0n"), 0);
}

TEST(a_timeout_beyond_int64_is_the_largest) {
  CHECK_EQ(parse_grpc_timeout("99999999H"), std::numeric_limits<int64_t>::max());
}

TEST(what_is_not_a_timeout_is_refused) {
  for (const char* text : {"", "m", "5", "5x", "-5m", "+5m", "5 m", "123456789m", "1.5S"}) {
    CHECK_EQ(parse_grpc_timeout(text), -1);
  }
}

TEST(status_messages_are_percent_encoded_and_back) {
  CHECK_EQ(percent_encoded("plain text~"), "plain text~");
  CHECK_EQ(percent_encoded("100%\n"), "100%25%0A");
  CHECK_EQ(percent_encoded("\xc3\xa9"), "%C3%A9");
  CHECK_EQ(percent_decoded("100%25%0a%C3%A9"), "100%\n\xc3\xa9");
}

TEST(a_stray_percent_decodes_to_itself) {
  CHECK_EQ(percent_decoded("5% of %zz%4"), "5% of %zz%4");
}

TEST(binary_metadata_decodes_with_and_without_padding) {
  CHECK_EQ(base64_decoded(""), "<");
  CHECK_EQ(base64_decoded("AAE="), std::string("<\0\1", 3));
  CHECK_EQ(base64_decoded("AAE"), std::string("<\0\1", 3));
  CHECK_EQ(base64_decoded("YQ=="), "<a");
  CHECK_EQ(base64_decoded("YQ"), "<a");
  CHECK_EQ(base64_decoded("+/+/"), "<\xfb\xff\xbf");
}

TEST(what_is_not_base64_leaves_the_output_alone) {
  for (const char* text : {"A", "A===", "AAAA=", "AA=A", "A B=", "====", "AAE=AAE="}) {
    CHECK_EQ(base64_decoded(text), "< refused");
  }
}

TEST(content_types_of_grpc_are_told_from_others) {
  for (const char* type : {"application/grpc", "application/grpc+proto",
                           "application/grpc;charset=utf-8", "application/grpc+proto; v=1"}) {
    CHECK(is_grpc_content_type(type));
  }
  for (const char* type : {"", "application/json", "application/grpc-web",
                           "application/grpc+json", "application/grpcx", "text/plain"}) {
    CHECK(!is_grpc_content_type(type));
  }
}

TEST(messages_are_the_same_in_pieces_of_any_size) {
  const std::string input = prefix(0, 3) + "abc" + prefix(0, 0) + prefix(0, 1) + "d";
  for (size_t step = 1; step <= input.size(); ++step) {
    CHECK_EQ(read_all(input, step), "[abc][][d]");
  }
}

TEST(an_unfinished_message_is_partial) {
  CHECK_EQ(read_all(prefix(0, 3) + "ab", 1), "...");
  CHECK_EQ(read_all(prefix(0, 3).substr(0, 2), 1), "...");
}

TEST(a_declared_length_beyond_the_limit_fails_at_the_prefix) {
  CHECK_EQ(read_all(prefix(0, 1000) + std::string(1000, 'x'), 64).size(), 1002u);
  CHECK_EQ(read_all(prefix(0, 1001), 64), "!message_too_large");
  CHECK_EQ(read_all(prefix(0, 0xffffffff), 64), "!message_too_large");
}

TEST(a_bad_prefix_is_bad_framing) {
  CHECK_EQ(read_all(prefix(2, 1) + "x", 64), "!bad_framing");
  CHECK_EQ(read_all(prefix(1, 1) + "x", 64), "!bad_framing");
}

TEST(compressed_messages_are_inflated_and_plain_ones_left_alone) {
  const std::string gzip = gzipped("hello hello hello");
  const std::string zlib = deflated("hello");
  const auto size = [](const std::string& s) { return static_cast<uint32_t>(s.size()); };
  CHECK_EQ(read_all(prefix(1, size(gzip)) + gzip + prefix(0, 1) + "x", 7, Encoding::gzip),
           "[hello hello hello][x]");
  CHECK_EQ(read_all(prefix(1, size(zlib)) + zlib, 7, Encoding::deflate), "[hello]");
}

TEST(a_compressed_message_of_exactly_the_limit_is_accepted_and_one_more_is_not) {
  const std::string fits = gzipped(std::string(1000, 'x'));
  const std::string over = gzipped(std::string(1001, 'x'));
  const auto size = [](const std::string& s) { return static_cast<uint32_t>(s.size()); };
  CHECK_EQ(read_all(prefix(1, size(fits)) + fits, 999, Encoding::gzip).size(), 1002u);
  CHECK_EQ(read_all(prefix(1, size(over)) + over, 999, Encoding::gzip),
           "!message_too_large");
}

TEST(a_gzip_bomb_is_inflated_no_further_than_the_limit) {
  const std::string bomb = gzipped(std::string(8 * 1024 * 1024, '\0'));
  Buffer out;
  CHECK(append_inflated(&out, bomb, Encoding::gzip, 64 * 1024).situation ==
        Situation::message_too_large);
  CHECK(out.capacity() < 256 * 1024);
}

TEST(damaged_truncated_and_trailing_compressed_bytes_are_bad_framing) {
  const std::string whole = gzipped("hello");
  std::string damaged = whole;
  damaged[damaged.size() - 5] ^= 1;  // the checksum
  for (const std::string& bytes :
       {damaged, whole.substr(0, whole.size() - 1), whole + "x", std::string("no"),
        std::string(), deflated("hello")}) {
    Buffer out;
    CHECK(append_inflated(&out, bytes, Encoding::gzip, 1000).situation ==
          Situation::bad_framing);
  }
}

}  // namespace
}  // namespace router
