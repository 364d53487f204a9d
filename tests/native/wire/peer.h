// The other end of a GrpcConn, written by hand: frames as bytes, answers as frames.
//
// Headers go out as HPACK literals, so nothing here depends on the library under test;
// answers are inflated by nghttp2, whose tables the server uses.
#pragma once

#include <nghttp2/nghttp2.h>

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "wire/grpc_conn.h"

namespace router::wire_test {

using Fields = std::vector<std::pair<std::string, std::string>>;

inline const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr int64_t kSecond = 1'000'000'000;

inline std::string big_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i) & 255);
  return text;
}

inline std::string frame(uint8_t type, uint8_t flags, int32_t id, const std::string& payload) {
  return big_endian(payload.size(), 3) + static_cast<char>(type) + static_cast<char>(flags) +
         big_endian(static_cast<uint32_t>(id), 4) + payload;
}

// A string as HPACK writes it, without Huffman coding.
inline std::string hpack_string(const std::string& text) {
  std::string out;
  size_t size = text.size();
  if (size < 127) {
    out += static_cast<char>(size);
  } else {
    out += '\x7f';
    for (size -= 127; size >= 128; size >>= 7) out += static_cast<char>((size & 127) | 128);
    out += static_cast<char>(size);
  }
  return out + text;
}

inline std::string header_block(const Fields& fields) {
  std::string block;
  for (const auto& [name, value] : fields) {
    block += '\0' + hpack_string(name) + hpack_string(value);
  }
  return block;
}

inline Fields call_fields(const Fields& more = {}) {
  Fields fields = {{":method", "POST"},        {":scheme", "http"},
                   {":path", "/pkg.Svc/Do"},   {":authority", "model.test"},
                   {"te", "trailers"},         {"content-type", "application/grpc"},
                   {"user-agent", "peer/1"}};
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

inline std::string headers(int32_t id, const Fields& fields, bool is_end = false) {
  return frame(NGHTTP2_HEADERS,
               static_cast<uint8_t>(NGHTTP2_FLAG_END_HEADERS | (is_end ? 1 : 0)), id,
               header_block(fields));
}

inline std::string data(int32_t id, const std::string& payload, bool is_end = false) {
  return frame(NGHTTP2_DATA, is_end ? 1 : 0, id, payload);
}

inline std::string rst_stream(int32_t id, uint32_t error = NGHTTP2_CANCEL) {
  return frame(NGHTTP2_RST_STREAM, 0, id, big_endian(error, 4));
}

inline std::string window_update(int32_t id, uint32_t increment) {
  return frame(NGHTTP2_WINDOW_UPDATE, 0, id, big_endian(increment, 4));
}

inline std::string ping() { return frame(NGHTTP2_PING, 0, 0, "abcdefgh"); }
inline std::string empty_settings() { return frame(NGHTTP2_SETTINGS, 0, 0, ""); }

inline std::string prefixed(const std::string& message, bool is_compressed = false) {
  return std::string(1, is_compressed ? '\1' : '\0') + big_endian(message.size(), 4) + message;
}

// A whole unary call: headers, one message, end.
inline std::string unary(int32_t id, const std::string& message, const Fields& more = {}) {
  return headers(id, call_fields(more)) + data(id, prefixed(message), true);
}

struct Answer {
  uint8_t type = 0, flags = 0;
  int32_t id = 0;
  std::string payload;
  Fields fields;

  bool is_end() const { return (flags & NGHTTP2_FLAG_END_STREAM) != 0; }
  std::string field(const std::string& name) const {
    for (const auto& [key, value] : fields) {
      if (key == name) return value;
    }
    return "(none)";
  }
};

class Peer {
 public:
  explicit Peer(const WireLimits& limits = {}) : conn(limits, &budget) {
    nghttp2_hd_inflate_new(&inflater_);
    send(kPreface + empty_settings());
    read();
  }
  ~Peer() { nghttp2_hd_inflate_del(inflater_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  bool send(const std::string& bytes) {
    // From memory of the exact size, so that a sanitizer sees any step past the end.
    const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
    return is_alive = conn.receive(exact.data(), exact.size(), now_ns, &events);
  }

  // Everything the connection has to say, as frames.
  std::vector<Answer> read(size_t high_water = 1 << 30) {
    conn.output(&out_, high_water);
    conn.take_events(&events);
    std::vector<Answer> answers;
    std::string text(out_.view());
    size_t at = 0;
    while (text.size() - at >= 9) {
      const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
      const size_t size = static_cast<size_t>(byte(0) << 16 | byte(1) << 8 | byte(2));
      Answer answer{byte(3), byte(4), byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8),
                    text.substr(at + 9, size), {}};
      if (answer.type == NGHTTP2_HEADERS) inflate(&answer);
      answers.push_back(std::move(answer));
      at += 9 + size;
    }
    out_.clear();
    return answers;
  }

  // The events of one kind; empties the list of all.
  std::vector<Event> take(EventKind kind) {
    std::vector<Event> found;
    for (Event& event : events) {
      if (event.kind == kind) found.push_back(std::move(event));
    }
    events.clear();
    return found;
  }

  std::string kinds() const {
    std::string text;
    constexpr const char* kNames[] = {"opened", "message", "half_closed",
                                      "failed", "closed",  "drained"};
    for (const Event& event : events) {
      text += (text.empty() ? "" : " ") + std::string(kNames[static_cast<int>(event.kind)]);
    }
    return text;
  }

  BodyBudget budget;
  GrpcConn conn;
  std::vector<Event> events;
  int64_t now_ns = kSecond;
  bool is_alive = true;

 private:
  void inflate(Answer* answer) {
    const auto* in = reinterpret_cast<const uint8_t*>(answer->payload.data());
    size_t left = answer->payload.size();
    for (;;) {
      nghttp2_nv field;
      int flags = 0;
      const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &field, &flags, in, left, 1);
      if (used < 0) return;
      in += used;
      left -= static_cast<size_t>(used);
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
        answer->fields.emplace_back(
            std::string(reinterpret_cast<char*>(field.name), field.namelen),
            std::string(reinterpret_cast<char*>(field.value), field.valuelen));
      }
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
    }
    nghttp2_hd_inflate_end_headers(inflater_);
  }

  nghttp2_hd_inflater* inflater_ = nullptr;
  Buffer out_;
};

inline Buffer message_frame(const std::string& message) {
  Buffer made;
  made.append(prefixed(message));
  return made;
}

inline const Answer* find(const std::vector<Answer>& answers, uint8_t type, int32_t id = -1) {
  for (const Answer& answer : answers) {
    if (answer.type == type && (id < 0 || answer.id == id)) return &answer;
  }
  return nullptr;
}

}  // namespace router::wire_test
