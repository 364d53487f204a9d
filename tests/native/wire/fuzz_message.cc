// Any bytes as a stream of messages, and as each of gRPC's small encodings. The first byte
// chooses the compression; a message is the same in one piece and byte by byte.
#include <cstdlib>
#include <string>

#include "wire/grpc.h"

namespace router {
namespace {

constexpr uint32_t kSizeMax = 4096;

std::string read_all(ByteView input, size_t step, Encoding encoding) {
  std::atomic<uint64_t> used{0};
  std::string seen;
  {
    MessageReader reader;
    reader.start(encoding, kSizeMax, &used);
    for (size_t at = 0; at < input.size(); at += step) {
      ByteView piece = input.substr(at, step);
      while (!piece.empty()) {
        BodyRef message;
        const Status status = reader.take(&piece, &message);
        if (!status.ok()) return seen + advice_for(status.situation).name;
        if (!message) continue;
        if (message.view().size() > kSizeMax) std::abort();
        seen += "[" + std::string(message.view()) + "]";
      }
    }
    seen += reader.is_partial() ? "..." : "";
  }
  if (used.load() != 0) std::abort();
  return seen;
}

void run(const uint8_t* data, size_t size) {
  const auto encoding = static_cast<Encoding>(data[0] % 3);
  const ByteView input(reinterpret_cast<const char*>(data + 1), size - 1);
  if (read_all(input, 1, encoding) != read_all(input, size, encoding)) std::abort();
  Buffer out;
  append_base64_decoded(&out, input);
  out.clear();
  append_percent_encoded(&out, input);
  Buffer back;
  append_percent_decoded(&back, out.view());
  if (back.view() != input) std::abort();
  back.clear();
  append_percent_decoded(&back, input);
  if (parse_grpc_timeout(input) < -1) std::abort();
  (void)is_grpc_content_type(input);
}

}  // namespace
}  // namespace router

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size != 0) router::run(data, size);
  return 0;
}
