// A GrpcConn and hand-written frames: what a request becomes, what an answer looks like,
// and that bad requests cost their own stream only.
#include <string>

#include "check.h"
#include "wire/peer.h"

namespace router::wire_test {
namespace {

Trailers failed_with(Code code, std::string_view message, int pushback_ms = kNoPushback) {
  return {code, message, pushback_ms, nullptr, 0};
}

TEST(the_first_bytes_announce_the_limits) {
  BodyBudget budget;
  WireLimits limits;
  GrpcConn conn(limits, &budget);
  Buffer out;
  conn.output(&out, 1 << 20);
  const std::string text(out.view());
  const auto setting = [](uint16_t id, uint32_t value) {
    return big_endian(id, 2) + big_endian(value, 4);
  };
  CHECK(text.find(setting(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100)) != std::string::npos);
  CHECK(text.find(setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 256 * 1024)) !=
        std::string::npos);
  CHECK(text.find(setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16 * 1024)) !=
        std::string::npos);
  CHECK(text.find(window_update(0, 4 * 1024 * 1024 - 65535)) != std::string::npos);
}

TEST(a_unary_call_opens_brings_its_message_and_half_closes) {
  Peer peer;
  CHECK(peer.send(unary(1, "hello", {{"x-user-id", "u1"}, {"grpc-timeout", "250m"},
                                     {"k-bin", "AAE"}, {"grpc-accept-encoding", "gzip"}})));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
  const Stream& stream = *peer.events[0].stream;
  CHECK_EQ(stream.path, "/pkg.Svc/Do");
  CHECK_EQ(stream.authority, "model.test");
  CHECK_EQ(stream.timeout_ns, 250'000'000);
  CHECK(stream.half_closed);
  REQUIRE(stream.metadata.size() == 2);
  CHECK_EQ(stream.metadata[0].name, "x-user-id");
  CHECK_EQ(stream.metadata[0].value, "u1");
  CHECK_EQ(stream.metadata[1].value, "AAE");
  CHECK_EQ(peer.events[1].body.view(), "hello");
}

TEST(delivery_one_byte_at_a_time_makes_the_same_events) {
  Peer peer;
  for (const char byte : unary(1, "hello", {{"x-user-id", "u1"}}) + unary(3, "again")) {
    CHECK(peer.send(std::string(1, byte)));
  }
  CHECK_EQ(peer.kinds(), "opened message half_closed opened message half_closed");
  CHECK_EQ(peer.events[4].body.view(), "again");
}

TEST(an_answer_is_headers_one_message_and_trailers) {
  Peer peer;
  peer.send(unary(1, "hello"));
  Stream* stream = peer.events[0].stream;
  const HeaderField extra[] = {{"route-variant", "2"}};
  peer.events.clear();
  peer.conn.respond(stream, message_frame("bye"), {Code::ok, {}, kNoPushback, extra, 1});
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 3);
  CHECK_EQ(answers[0].field(":status"), "200");
  CHECK_EQ(answers[0].field("content-type"), "application/grpc");
  CHECK_EQ(answers[1].payload, prefixed("bye"));
  CHECK_EQ(answers[2].field("grpc-status"), "0");
  CHECK_EQ(answers[2].field("route-variant"), "2");
  CHECK(answers[2].is_end() && !answers[1].is_end());
  CHECK_EQ(peer.kinds(), "closed");
  CHECK(!peer.events[0].by_peer);
  peer.conn.forget(stream);
  CHECK_EQ(peer.conn.stream_count(), 0u);
}

TEST(an_error_is_trailers_only_with_an_encoded_message_and_pushback) {
  Peer peer;
  peer.send(unary(1, "hello"));
  peer.conn.finish(peer.events[0].stream,
                   failed_with(Code::resource_exhausted, "100% full\n", 100));
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 1);
  CHECK(answers[0].is_end());
  CHECK_EQ(answers[0].field("grpc-status"), "8");
  CHECK_EQ(answers[0].field("grpc-message"), "100%25 full%0A");
  CHECK_EQ(answers[0].field("grpc-retry-pushback-ms"), "100");
}

TEST(a_long_status_message_is_cut_between_characters) {
  Peer peer;
  peer.send(unary(1, "hello"));
  std::string message(1023, 'a');
  for (int i = 0; i < 500; ++i) message += "\xc3\xa9";
  peer.conn.finish(peer.events[0].stream, failed_with(Code::internal, message));
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 1);
  CHECK_EQ(answers[0].field("grpc-message"), std::string(1023, 'a'));
}

TEST(a_streaming_answer_sends_headers_once_and_ends_with_trailers) {
  Peer peer;
  peer.send(unary(1, "hello"));
  Stream* stream = peer.events[0].stream;
  peer.conn.send_message(stream, message_frame("a"));
  CHECK_EQ(peer.read().size(), 2u);
  peer.conn.send_message(stream, message_frame("b"));
  peer.conn.send_message(stream, message_frame("c"));
  const std::vector<Answer> more = peer.read();
  REQUIRE(more.size() == 1);
  CHECK_EQ(more[0].payload, prefixed("b") + prefixed("c"));
  peer.conn.finish(stream, failed_with(Code::unavailable, "gone"));
  const std::vector<Answer> last = peer.read();
  REQUIRE(last.size() == 1);
  CHECK_EQ(last[0].field("grpc-status"), "14");
  CHECK(last[0].is_end());
}

TEST(a_stream_that_waits_for_the_peer_is_told_when_it_may_send_on) {
  Peer peer;
  peer.send(unary(1, "hello"));
  Stream* stream = peer.events[0].stream;
  peer.conn.send_message(stream, message_frame(std::string(200'000, 'x')));
  peer.events.clear();
  peer.read();  // the default window of 64 KiB is used up
  CHECK_EQ(stream->sent_pending, 200'005u - 65'535u);
  CHECK_EQ(peer.kinds(), "");
  peer.send(window_update(0, 1 << 20) + window_update(1, 1 << 20));
  peer.read();
  CHECK_EQ(stream->sent_pending, 0u);
  CHECK_EQ(peer.kinds(), "drained");
}

TEST(an_answer_before_the_end_of_the_request_resets_without_error) {
  Peer peer;
  peer.send(headers(1, call_fields()));
  peer.conn.finish(peer.events[0].stream, failed_with(Code::not_found, "no"));
  peer.events.clear();
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 2);
  CHECK_EQ(answers[1].type, NGHTTP2_RST_STREAM);
  CHECK_EQ(answers[1].payload, big_endian(NGHTTP2_NO_ERROR, 4));
  CHECK_EQ(peer.kinds(), "closed");
  CHECK(!peer.events[0].by_peer);
  CHECK(peer.send(data(1, prefixed("late"), true)));  // what was under way is ignored
}

TEST(a_reset_by_the_peer_is_a_cancel) {
  Peer peer;
  peer.send(headers(1, call_fields()) + rst_stream(1));
  CHECK_EQ(peer.kinds(), "opened closed");
  CHECK(peer.events[1].by_peer);
  // An answer to a stream that is gone goes nowhere.
  peer.conn.respond(peer.events[0].stream, message_frame("x"), {});
  CHECK(find(peer.read(), NGHTTP2_HEADERS) == nullptr);
}

TEST(our_reset_closes_the_stream_and_is_not_a_cancel) {
  Peer peer;
  peer.send(headers(1, call_fields()));
  peer.conn.reset(peer.events[0].stream, NGHTTP2_CANCEL);
  peer.events.clear();
  CHECK_EQ(peer.read().size(), 1u);
  CHECK_EQ(peer.kinds(), "closed");
  CHECK(!peer.events[0].by_peer);
}

TEST(several_messages_of_one_stream_arrive_in_order) {
  Peer peer;
  peer.send(headers(1, call_fields()) + data(1, prefixed("a") + prefixed("").substr(0, 3)) +
            data(1, prefixed("").substr(3) + prefixed("b"), true));
  CHECK_EQ(peer.kinds(), "opened message message message half_closed");
  CHECK_EQ(peer.events[2].body.view(), "");
  CHECK_EQ(peer.events[3].body.view(), "b");
}

TEST(a_request_of_no_message_half_closes) {
  Peer peer;
  peer.send(headers(1, call_fields(), true));
  CHECK_EQ(peer.kinds(), "opened half_closed");
}

TEST(request_trailers_end_the_request_and_are_not_metadata) {
  Peer peer;
  peer.send(headers(1, call_fields()) + data(1, prefixed("a")) +
            headers(1, {{"x-late", "1"}}, true));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
  CHECK_EQ(peer.events[0].stream->metadata.size(), 0u);
}

// --- what breaks gRPC's rules ------------------------------------------------------------

struct Broken {
  std::string bytes;
  Situation situation;
};

TEST(a_broken_request_fails_its_stream_once_and_the_connection_lives_on) {
  const std::string open = headers(1, call_fields());
  const std::string gzip_open = headers(1, call_fields({{"grpc-encoding", "gzip"}}));
  const Broken all[] = {
      {open + data(1, "\2" + prefixed("x").substr(1)), Situation::bad_framing},
      {open + data(1, prefixed("x", true)), Situation::bad_framing},
      {open + data(1, prefixed("hello").substr(0, 7), true), Situation::bad_framing},
      {open + data(1, std::string(2, '\0'), true), Situation::bad_framing},
      {open + data(1, std::string("\0\1\0\0\1", 5)), Situation::message_too_large},
      {open + data(1, std::string("\0\xff\xff\xff\xff", 5)), Situation::message_too_large},
      {gzip_open + data(1, prefixed("not gzip", true)), Situation::bad_framing},
  };
  for (const Broken& broken : all) {
    Peer peer;
    std::string bytes = broken.bytes;
    peer.send(bytes);
    std::vector<Event> failed = peer.take(EventKind::failed);
    REQUIRE(failed.size() == 1);
    CHECK_EQ(peer.budget.used.load(), 0u);
    peer.conn.finish(failed[0].stream, failed_with(failed[0].status.code(), "bad"));
    CHECK(find(peer.read(), NGHTTP2_HEADERS, 1) != nullptr);
    peer.events.clear();
    CHECK(peer.send(unary(3, "next")));
    CHECK_EQ(peer.kinds(), "opened message half_closed");
  }
}

TEST(a_message_over_the_limit_fails_at_its_prefix_and_the_rest_is_discarded) {
  WireLimits limits;
  limits.message_in_max = 1000;
  Peer peer(limits);
  peer.send(headers(1, call_fields()) + data(1, prefixed(std::string(1001, 'x')).substr(0, 5)));
  std::vector<Event> failed = peer.take(EventKind::failed);
  REQUIRE(failed.size() == 1);
  CHECK(failed[0].status.situation == Situation::message_too_large);
  // Windows keep moving: more than both windows hold can still be sent.
  bool is_stream_window_back = false, is_connection_window_back = false;
  for (int i = 0; i < 400; ++i) {
    CHECK(peer.send(data(1, std::string(16'000, 'x'))));
    for (const Answer& answer : peer.read()) {
      if (answer.type != NGHTTP2_WINDOW_UPDATE) continue;
      (answer.id == 0 ? is_connection_window_back : is_stream_window_back) = true;
    }
  }
  CHECK(is_stream_window_back && is_connection_window_back);
  CHECK_EQ(peer.budget.used.load(), 0u);
  CHECK_EQ(peer.kinds(), "");
}

TEST(an_unknown_encoding_fails_and_the_answer_names_what_is_accepted) {
  Peer peer;
  peer.send(unary(1, "x", {{"grpc-encoding", "snappy"}}));
  CHECK_EQ(peer.kinds(), "opened failed");
  CHECK(peer.events[1].status.situation == Situation::bad_encoding);
  peer.conn.finish(peer.events[0].stream, failed_with(Code::unimplemented, "no"));
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 1);
  CHECK_EQ(answers[0].field("grpc-accept-encoding"), "identity,gzip,deflate");
}

TEST(what_is_not_grpc_gets_an_http_status_and_no_event) {
  const auto status_of = [](const std::string& bytes) {
    Peer peer;
    CHECK(peer.send(bytes));
    CHECK_EQ(peer.kinds(), "");
    const std::vector<Answer> answers = peer.read();
    const Answer* answer = find(answers, NGHTTP2_HEADERS);
    return answer != nullptr && answer->is_end() ? answer->field(":status") : "(none)";
  };
  const Fields base = {{":scheme", "http"}, {":path", "/"}, {":authority", "a"}};
  const auto with = [&base](const std::string& method, const Fields& more) {
    Fields fields = {{":method", method}};
    fields.insert(fields.end(), base.begin(), base.end());
    fields.insert(fields.end(), more.begin(), more.end());
    return fields;
  };
  CHECK_EQ(status_of(headers(1, with("POST", {{"content-type", "application/json"}}), true)),
           "415");
  CHECK_EQ(status_of(headers(1, with("POST", {}))), "415");
  CHECK_EQ(status_of(headers(1, with("GET", {}), true)), "405");
  CHECK_EQ(status_of(headers(1, {{":method", "CONNECT"}, {":authority", "a"}})), "405");
}

TEST(a_refused_request_may_end_by_itself_and_is_reset_when_it_does_not) {
  Peer peer;
  const Fields json = {{":method", "POST"}, {":scheme", "http"}, {":path", "/"},
                       {":authority", "a"}, {"content-type", "application/json"}};
  peer.send(headers(1, json) + headers(3, json));
  CHECK(find(peer.read(), NGHTTP2_RST_STREAM) == nullptr);
  CHECK(peer.send(data(1, "{}", true)));
  CHECK_EQ(peer.conn.stream_count(), 1u);
  peer.conn.expire_slow(kSecond + 1, &peer.events);
  const std::vector<Answer> answers = peer.read();
  REQUIRE(answers.size() == 1);
  CHECK_EQ(answers[0].payload, big_endian(NGHTTP2_NO_ERROR, 4));
  CHECK_EQ(peer.conn.stream_count(), 0u);
  CHECK_EQ(peer.kinds(), "");
}

TEST(a_malformed_request_is_reset_and_the_connection_lives_on) {
  Peer peer;
  const Fields no_path = {{":method", "POST"}, {":scheme", "http"},
                          {"content-type", "application/grpc"}};
  CHECK(peer.send(headers(1, no_path)));
  const std::vector<Answer> answers = peer.read();
  const Answer* reset = find(answers, NGHTTP2_RST_STREAM, 1);
  REQUIRE(reset != nullptr);
  CHECK_EQ(reset->payload, big_endian(NGHTTP2_PROTOCOL_ERROR, 4));
  CHECK_EQ(peer.kinds(), "");
  CHECK_EQ(peer.conn.stream_count(), 0u);
  CHECK(peer.send(unary(3, "next")));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
}

TEST(duplicates_of_reserved_headers_are_tolerated_and_the_first_counts) {
  Peer peer;
  peer.send(unary(1, "x", {{"user-agent", "b"}, {"te", "trailers"},
                           {"content-type", "application/grpc"}, {"grpc-timeout", "1S"},
                           {"grpc-timeout", "2S"}}));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
  CHECK_EQ(peer.events[0].stream->timeout_ns, kSecond);
  CHECK_EQ(peer.events[0].stream->metadata.size(), 0u);
}

TEST(metadata_over_a_limit_refuses_the_stream_and_not_the_connection) {
  Fields many, one_more;
  for (int i = 0; i < 64; ++i) many.emplace_back("k" + std::to_string(i), "v");
  one_more = many;
  one_more.emplace_back("k64", "v");
  // 32 bytes of overhead and one of name, counted as HTTP/2 counts.
  const Fields large = {{"k", std::string(8192 - 33, 'v')}};
  const Fields larger = {{"k", std::string(8192 - 32, 'v')}};
  Peer peer;
  peer.send(unary(1, "x", many) + unary(3, "x", large));
  CHECK_EQ(peer.take(EventKind::opened).size(), 2u);
  CHECK(peer.send(unary(5, "x", one_more) + unary(7, "x", larger)));
  CHECK_EQ(peer.kinds(), "");
  const std::vector<Answer> answers = peer.read();
  for (const int32_t id : {5, 7}) {
    const Answer* answer = find(answers, NGHTTP2_HEADERS, id);
    REQUIRE(answer != nullptr);
    CHECK_EQ(answer->field("grpc-status"), "8");
    CHECK_EQ(answer->field("grpc-retry-pushback-ms"), "-1");
  }
  CHECK_EQ(peer.conn.abuse_count(Abuse::header_count), 1u);
  CHECK_EQ(peer.conn.abuse_count(Abuse::header_size), 1u);
}

// --- many streams, windows, budget -------------------------------------------------------

TEST(a_hundred_streams_are_open_at_once_and_one_more_is_refused) {
  Peer peer;
  peer.send(frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, ""));
  std::string bytes;
  for (int32_t id = 1; id < 200; id += 2) bytes += headers(id, call_fields());
  CHECK(peer.send(bytes));
  CHECK_EQ(peer.conn.stream_count(), 100u);
  peer.send(headers(201, call_fields()));
  CHECK_EQ(peer.take(EventKind::opened).size(), 100u);
}

TEST(windows_come_back_by_halves_and_not_by_frames) {
  Peer peer;
  peer.send(frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, "") + headers(1, call_fields()));
  const std::string message = prefixed(std::string(600'000, 'x'));
  size_t updates = 0;
  for (size_t at = 0; at < message.size(); at += 16'000) {
    CHECK(peer.send(data(1, message.substr(at, 16'000), at + 16'000 >= message.size())));
    for (const Answer& answer : peer.read()) updates += answer.type == NGHTTP2_WINDOW_UPDATE;
  }
  CHECK_EQ(peer.kinds(), "opened message half_closed");
  CHECK_EQ(peer.events[1].body.view().size(), 600'000u);
  CHECK(updates >= 3 && updates <= 8);
}

TEST(bytes_in_flight_are_charged_until_the_body_is_freed) {
  Peer peer;
  peer.send(unary(1, std::string(1000, 'x')));
  CHECK_EQ(peer.budget.used.load(), 1000u);
  peer.events.clear();
  CHECK_EQ(peer.budget.used.load(), 0u);
}

TEST(no_window_is_given_while_the_budget_is_used_up_and_it_comes_back_after) {
  WireLimits limits;
  limits.body_bytes_max = 100'000;
  Peer peer(limits);
  peer.budget.used = 100'001;  // another connection's
  peer.send(headers(1, call_fields()) + data(1, prefixed(std::string(60'000, 'x')).substr(0, 9)));
  for (int i = 0; i < 4; ++i) peer.send(data(1, std::string(3'000, 'x')));
  CHECK(find(peer.read(), NGHTTP2_WINDOW_UPDATE) == nullptr);
  CHECK_EQ(peer.kinds(), "opened");
  peer.budget.used -= 100'001;
  for (int i = 0; i < 8; ++i) peer.send(data(1, std::string(4'000, 'x')));
  CHECK(find(peer.read(), NGHTTP2_WINDOW_UPDATE, 1) != nullptr);
}

TEST(a_budget_far_exceeded_gives_the_request_up) {
  WireLimits limits;
  limits.body_bytes_max = 8'000;
  Peer peer(limits);
  peer.budget.used = 9'001;
  peer.send(unary(1, "hello"));
  std::vector<Event> failed = peer.take(EventKind::failed);
  REQUIRE(failed.size() == 1);
  CHECK(failed[0].status.situation == Situation::overload);
  peer.budget.used = 0;
}

// --- endings -----------------------------------------------------------------------------

TEST(shutdown_announces_then_closes_and_open_streams_finish) {
  Peer peer;
  peer.send(unary(1, "a"));
  Stream* stream = peer.events[0].stream;
  peer.conn.announce_shutdown();
  const std::vector<Answer> first = peer.read();
  REQUIRE(first.size() == 1);
  CHECK_EQ(first[0].payload.substr(0, 4), big_endian(0x7fffffff, 4));
  CHECK(!peer.conn.is_closing());
  peer.events.clear();
  CHECK(peer.send(unary(3, "still taken")));
  CHECK_EQ(peer.kinds(), "opened message half_closed");
  Stream* second_stream = peer.events[0].stream;
  peer.conn.close_to_new_streams();
  peer.events.clear();
  CHECK(peer.send(unary(5, "too late")));
  CHECK_EQ(peer.kinds(), "");
  const std::vector<Answer> second = peer.read();
  REQUIRE(!second.empty());
  CHECK_EQ(second[0].payload.substr(0, 4), big_endian(3, 4));
  peer.conn.respond(stream, message_frame("x"), {});
  peer.conn.respond(second_stream, message_frame("y"), {});
  CHECK(!peer.conn.is_closing());
  CHECK_EQ(peer.read().size(), 6u);
  for (const Event& event : peer.take(EventKind::closed)) peer.conn.forget(event.stream);
  CHECK(peer.conn.is_closing());
}

TEST(an_abandoned_connection_closes_every_stream_and_writes_nothing) {
  Peer peer;
  peer.send(unary(1, "a") + headers(3, call_fields()));
  peer.conn.respond(peer.events[0].stream, message_frame("x"), {});
  peer.events.clear();
  peer.conn.abandon(&peer.events);
  CHECK_EQ(peer.kinds(), "closed closed");
  for (const Event& event : peer.take(EventKind::closed)) {
    CHECK(event.by_peer);
    peer.conn.forget(event.stream);
  }
  CHECK(!peer.conn.wants_write());
  CHECK_EQ(peer.read().size(), 0u);
  CHECK(peer.conn.is_closing());
  CHECK(!peer.send(ping()));
}

TEST(a_message_that_stops_arriving_fails_and_one_that_has_not_begun_does_not) {
  Peer peer;
  peer.send(headers(1, call_fields()) + headers(3, call_fields()) +
            data(3, prefixed("hello").substr(0, 8)));
  peer.events.clear();
  peer.conn.expire_slow(kSecond, &peer.events);
  CHECK_EQ(peer.kinds(), "");
  peer.conn.expire_slow(kSecond + 1, &peer.events);
  REQUIRE(peer.kinds() == "failed");
  CHECK_EQ(peer.events[0].stream->id, 3);
  CHECK(peer.events[0].status.situation == Situation::deadline);
  CHECK_EQ(peer.conn.abuse_count(Abuse::slow_message), 1u);
  peer.events.clear();
  peer.conn.expire_slow(kSecond + 1, &peer.events);
  CHECK_EQ(peer.kinds(), "");
}

TEST(an_answer_nobody_makes_room_for_is_given_up) {
  Peer peer;
  peer.send(unary(1, "a"));
  peer.conn.respond(peer.events[0].stream, message_frame(std::string(100'000, 'x')), {});
  peer.events.clear();
  peer.read();  // the first 65,535 bytes, and then the window is closed
  peer.conn.expire_slow(kSecond, &peer.events);
  peer.conn.expire_slow(9 * kSecond, &peer.events);
  CHECK_EQ(peer.kinds(), "");
  peer.send(window_update(0, 1'000) + window_update(1, 1'000));
  peer.read();
  peer.conn.expire_slow(12 * kSecond, &peer.events);
  CHECK_EQ(peer.kinds(), "");  // some of it moved
  peer.conn.expire_slow(23 * kSecond, &peer.events);
  CHECK(find(peer.read(), NGHTTP2_RST_STREAM) != nullptr);
  CHECK_EQ(peer.kinds(), "closed");
  CHECK_EQ(peer.conn.abuse_count(Abuse::slow_message), 1u);
}

TEST(a_silence_that_we_caused_is_overload_and_not_the_clients_fault) {
  WireLimits limits;
  limits.body_bytes_max = 1'000;
  Peer peer(limits);
  peer.budget.used = 1'001;
  peer.send(headers(1, call_fields()) + data(1, prefixed("hello").substr(0, 8)));
  peer.conn.expire_slow(kSecond + 1, &peer.events);
  std::vector<Event> failed = peer.take(EventKind::failed);
  REQUIRE(failed.size() == 1);
  CHECK(failed[0].status.situation == Situation::overload);
  CHECK_EQ(peer.conn.abuse_count(Abuse::slow_message), 0u);
  peer.budget.used = 0;
}

TEST(output_stops_at_the_high_water_mark_and_goes_on_later) {
  Peer peer;
  peer.send(window_update(0, 1 << 24) + headers(1, call_fields(), true) +
            window_update(1, 1 << 24));
  peer.conn.respond(peer.events[0].stream, message_frame(std::string(1 << 20, 'x')), {});
  Buffer out;
  peer.conn.output(&out, 100'000);
  CHECK(out.size() >= 100'000 && out.size() < 120'000);
  CHECK(peer.conn.wants_write());
  while (peer.conn.wants_write()) peer.conn.output(&out, out.size() + 100'000);
  CHECK(out.size() > (1 << 20));
  peer.events.clear();
}

TEST(streams_are_recycled_without_a_trace) {
  Peer peer;
  for (int32_t id = 1; id < 2000; id += 2) {
    const bool is_first = id % 4 == 1;
    peer.send(unary(id, "m", is_first ? Fields{{"a", "1"}, {"grpc-timeout", "1S"}} : Fields{}));
    REQUIRE(peer.kinds() == "opened message half_closed");
    Stream* stream = peer.events[0].stream;
    CHECK_EQ(stream->metadata.size(), is_first ? 1u : 0u);
    CHECK_EQ(stream->timeout_ns, is_first ? kSecond : -1);
    if (is_first) {
      peer.conn.finish(stream, failed_with(Code::internal, "x"));
    } else {
      peer.conn.respond(stream, message_frame("ok"), {});
    }
    peer.read();
    for (const Event& event : peer.take(EventKind::closed)) peer.conn.forget(event.stream);
  }
  CHECK_EQ(peer.conn.stream_count(), 0u);
}

}  // namespace
}  // namespace router::wire_test
