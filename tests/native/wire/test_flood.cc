// Peers that cost much and bring nothing: each kind is stopped with its own counter, and
// what stock clients do is never punished.
#include <string>

#include "check.h"
#include "wire/peer.h"

namespace router::wire_test {
namespace {

WireLimits strict() {
  WireLimits limits;
  limits.control_frames_max = 10;
  return limits;
}

std::string times(int count, const std::string& bytes) {
  std::string all;
  for (int i = 0; i < count; ++i) all += bytes;
  return all;
}

// Sends and answers one unary call.
void call_once(Peer* peer, int32_t id) {
  peer->send(unary(id, "x"));
  for (Event& event : peer->take(EventKind::opened)) {
    peer->conn.respond(event.stream, message_frame("y"), {});
  }
  peer->read();
  for (const Event& event : peer->take(EventKind::closed)) peer->conn.forget(event.stream);
}

const std::string kPriority = frame(NGHTTP2_PRIORITY, 0, 1, std::string(4, '\0') + "\x10");
const std::string kUnknown = frame(0xbe, 0, 0, "grease");

void expect_calm(const char* what, const std::string& repeated, Abuse kind) {
  Peer peer(strict());
  peer.send(headers(1, call_fields()));
  CHECK(peer.send(times(10, repeated)));
  CHECK(peer.send(data(1, prefixed("useful"))));  // counts start again
  CHECK(peer.send(times(10, repeated)));
  peer.read();
  CHECK(!peer.send(repeated));
  const std::vector<Answer> answers = peer.read();
  const Answer* goaway = find(answers, NGHTTP2_GOAWAY);
  REQUIRE(goaway != nullptr);
  CHECK_EQ(goaway->payload.substr(4, 4), big_endian(NGHTTP2_ENHANCE_YOUR_CALM, 4));
  if (peer.conn.abuse_count(kind) != 1) check::report(__FILE__, __LINE__, what);
}

TEST(floods_of_cheap_frames_are_stopped_and_counted_by_kind) {
  expect_calm("settings", empty_settings(), Abuse::settings_flood);
  expect_calm("priority", kPriority, Abuse::priority_flood);
  expect_calm("window", window_update(0, 1), Abuse::window_flood);
  expect_calm("empty data", data(1, ""), Abuse::empty_data);
  expect_calm("padded data",
              frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, "\x04" + std::string(4, '\0')),
              Abuse::empty_data);
  expect_calm("unknown", kUnknown, Abuse::unknown_frames);
  expect_calm("acks", frame(NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "abcdefgh"),
              Abuse::ping_flood);
}

TEST(a_flood_is_seen_however_the_bytes_are_cut) {
  Peer peer(strict());
  const std::string flood = headers(1, call_fields()) + times(11, kUnknown);
  const size_t cut = flood.size() - kUnknown.size() + 8;  // inside the last frame's header
  for (const char byte : flood.substr(0, cut)) CHECK(peer.send(std::string(1, byte)));
  CHECK(!peer.send(flood.substr(cut)));
}

TEST(window_updates_for_a_long_answer_are_not_a_flood) {
  Peer peer(strict());
  peer.send(headers(1, call_fields(), true));
  peer.conn.respond(peer.events[0].stream, message_frame(std::string(2'000'000, 'x')), {});
  peer.events.clear();
  for (int i = 0; i < 100 && peer.kinds().empty(); ++i) {
    peer.read();
    CHECK(peer.send(times(5, window_update(0, 8'000) + window_update(1, 8'000))));
  }
  CHECK_EQ(peer.kinds(), "closed");
}

TEST(a_ping_into_silence_within_ten_seconds_is_a_strike_and_the_third_ends_it) {
  Peer peer;
  for (int i = 0; i < 3; ++i) CHECK(peer.send(ping()));
  CHECK(!peer.send(ping()));
  const std::vector<Answer> answers = peer.read();
  const Answer* goaway = find(answers, NGHTTP2_GOAWAY);
  REQUIRE(goaway != nullptr);
  CHECK_EQ(goaway->payload.substr(4), big_endian(NGHTTP2_ENHANCE_YOUR_CALM, 4) +
                                          "too_many_pings");
  CHECK_EQ(peer.conn.abuse_count(Abuse::ping_flood), 1u);
}

TEST(pings_ten_seconds_apart_are_never_strikes) {
  Peer peer;
  for (int i = 0; i < 50; ++i) {
    CHECK(peer.send(ping()));
    CHECK(find(peer.read(), NGHTTP2_PING) != nullptr);
    peer.now_ns += 10 * kSecond;
  }
}

TEST(pings_just_under_ten_seconds_apart_are_strikes) {
  Peer peer;
  for (int i = 0; i < 3; ++i) {
    CHECK(peer.send(ping()));
    peer.now_ns += 10 * kSecond - 1;
  }
  CHECK(!peer.send(ping()));
}

TEST(bandwidth_probes_of_a_stock_client_are_never_punished) {
  Peer peer;
  int32_t id = 1;
  for (int probe = 0; probe < 300; ++probe, peer.now_ns += kSecond / 10) {
    call_once(&peer, id);
    id += 2;
    CHECK(peer.send(ping()));
  }
  CHECK_EQ(peer.conn.abuse_count(Abuse::ping_flood), 0u);
}

TEST(an_answer_forgives_earlier_strikes) {
  Peer peer;
  for (int32_t id = 1; id < 40; id += 2) {
    CHECK(peer.send(times(3, ping())));  // the first is none, the next two are strikes
    call_once(&peer, id);
  }
}

TEST(streams_opened_and_reset_in_a_row_end_the_connection) {
  Peer peer;
  int32_t id = 1;
  for (int i = 0; i < 200; ++i, id += 2) {
    CHECK(peer.send(headers(id, call_fields()) + rst_stream(id)));
    for (const Event& event : peer.take(EventKind::closed)) peer.conn.forget(event.stream);
  }
  CHECK(!peer.send(headers(id, call_fields()) + rst_stream(id)));
  CHECK_EQ(peer.conn.abuse_count(Abuse::reset_flood), 1u);
  peer.events.clear();
}

TEST(cancels_between_answers_are_ordinary) {
  Peer peer;
  for (int32_t id = 1; id < 2000; id += 4) {
    call_once(&peer, id);
    CHECK(peer.send(headers(id + 2, call_fields()) + rst_stream(id + 2)));
    for (const Event& event : peer.take(EventKind::closed)) peer.conn.forget(event.stream);
  }
}

TEST(making_us_reset_streams_by_window_overflow_ends_the_connection) {
  Peer peer;
  int32_t id = 1;
  for (int i = 0; i < 200; ++i, id += 2) {
    REQUIRE(peer.send(headers(id, call_fields()) + window_update(id, 0x7fffffff)));
    peer.read();
    std::vector<Event> closed = peer.take(EventKind::closed);
    REQUIRE(closed.size() == 1);
    CHECK(closed[0].by_peer);
    peer.conn.forget(closed[0].stream);
  }
  CHECK_EQ(peer.conn.abuse_count(Abuse::window_flood), 200u);
  const bool is_alive = peer.send(headers(id, call_fields()) + window_update(id, 0x7fffffff));
  peer.read();
  CHECK(!is_alive || !peer.send(ping()));
  peer.events.clear();
}

TEST(a_bomb_of_indexed_headers_is_refused_and_kept_small) {
  Peer peer;
  // One literal that enters the table, then thousands of references of one byte each.
  std::string block = header_block(call_fields());
  block += '\x40' + hpack_string("bomb") + hpack_string(std::string(3000, 'b'));
  block += std::string(12'000, '\xbe');
  CHECK(peer.send(frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block)));
  CHECK_EQ(peer.kinds(), "");
  const std::vector<Answer> answers = peer.read();
  const Answer* answer = find(answers, NGHTTP2_HEADERS, 1);
  REQUIRE(answer != nullptr);
  CHECK_EQ(answer->field("grpc-status"), "8");
  CHECK_EQ(peer.conn.abuse_count(Abuse::header_size), 1u);
  CHECK(peer.send(unary(3, "next")));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
}

TEST(an_endless_header_block_ends_the_connection) {
  Peer peer;
  bool is_alive = peer.send(frame(NGHTTP2_HEADERS, 0, 1, header_block(call_fields())));
  for (int i = 0; i < 20 && is_alive; ++i) {
    is_alive = peer.send(frame(NGHTTP2_CONTINUATION, 0, 1,
                               header_block({{"a", std::string(100, 'x')}})));
  }
  CHECK(!is_alive);
  CHECK(find(peer.read(), NGHTTP2_GOAWAY) != nullptr);
}

TEST(a_peer_that_does_not_speak_http2_gets_a_goaway) {
  BodyBudget budget;
  GrpcConn conn(WireLimits(), &budget);
  std::vector<Event> events;
  const std::string hello = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  CHECK(!conn.receive(reinterpret_cast<const uint8_t*>(hello.data()), hello.size(), kSecond,
                      &events));
  Buffer out;
  conn.output(&out, 1 << 20);
  CHECK(out.view().find("protocol_error") != std::string_view::npos || out.size() > 17);
  CHECK_EQ(conn.abuse_count(Abuse::protocol), 1u);
}

TEST(broken_framing_ends_the_connection_with_a_reason) {
  const std::string all[] = {
      frame(NGHTTP2_PING, 0, 0, "short"),
      frame(NGHTTP2_SETTINGS, 0, 0, "12345"),
      frame(NGHTTP2_DATA, 0, 0, "x"),
      frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, header_block(call_fields())),
      frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, "\xff\xff\xff\xff\xff"),
      frame(NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, big_endian(2, 4)),
      frame(NGHTTP2_WINDOW_UPDATE, 0, 0, big_endian(0, 4)),
      window_update(0, 0x7fffffff),
      rst_stream(7),
      frame(NGHTTP2_CONTINUATION, 0, 1, "x"),
      std::string("\xff\xff\xff\0\0\0\0\0\1", 9),
  };
  for (const std::string& bytes : all) {
    Peer peer;
    const bool is_alive = peer.send(bytes);
    if (is_alive) check::report(__FILE__, __LINE__, "alive after " + std::to_string(&bytes - all));
    const std::vector<Answer> answers = peer.read();
    const Answer* goaway = find(answers, NGHTTP2_GOAWAY);
    REQUIRE(goaway != nullptr);
    CHECK(goaway->payload.substr(4, 4) != big_endian(NGHTTP2_NO_ERROR, 4));
    CHECK_EQ(peer.conn.abuse_count(Abuse::protocol), 1u);
    CHECK(!peer.send(ping()));
  }
}

TEST(every_kind_of_abuse_has_a_name_of_its_own) {
  for (unsigned a = 0; a < static_cast<unsigned>(Abuse::count); ++a) {
    for (unsigned b = 0; b < a; ++b) {
      CHECK(std::string(abuse_name(static_cast<Abuse>(a))) !=
            abuse_name(static_cast<Abuse>(b)));
    }
  }
}

}  // namespace
}  // namespace router::wire_test
