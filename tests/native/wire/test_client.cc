// A ClientConn against a GrpcConn, bytes passed by hand: both roles agree on everything a
// call can be.
#include <map>
#include <string>

#include "check.h"
#include "wire/client_conn.h"
#include "wire/peer.h"

namespace router::wire_test {
namespace {

class Pair {
 public:
  explicit Pair(const WireLimits& limits = {}) : server(limits, &budget) { exchange(); }

  int32_t start(const std::string& message, uintptr_t tag, const std::vector<CallField>& extra = {}) {
    return client.start(headers_, extra.data(), extra.size(), message_frame(message),
                        reinterpret_cast<void*>(tag));
  }

  // Passes bytes both ways, in pieces of `step`, until neither side has anything to say.
  void exchange(size_t step = 1 << 20) {
    for (bool is_moving = true; is_moving;) {
      is_moving = false;
      Buffer out;
      client.output(&out, step);
      if (!out.empty()) is_moving = true;
      deliver(out, step, [this](const uint8_t* bytes, size_t count) {
        server.receive(bytes, count, kSecond, &events);
      });
      out.clear();
      server.output(&out, step);
      server.take_events(&events);
      if (!out.empty()) is_moving = true;
      deliver(out, step, [this](const uint8_t* bytes, size_t count) {
        client.receive(bytes, count, &replies);
      });
      client.take_replies(&replies);
      answer();
    }
  }

  BodyBudget budget;
  GrpcConn server;
  ClientConn client{ClientLimits{}};
  std::vector<Event> events;
  std::vector<Reply> replies;
  bool is_echoing = true;
  std::vector<Stream*> waiting;

 private:
  template <typename Take>
  static void deliver(const Buffer& out, size_t step, Take take) {
    for (size_t at = 0; at < out.size(); at += step) {
      const size_t count = std::min(step, out.size() - at);
      const std::vector<uint8_t> exact(out.data() + at, out.data() + at + count);
      take(exact.data(), exact.size());
    }
  }

  void answer() {
    std::vector<Event> taken;
    taken.swap(events);
    for (Event& event : taken) {
      switch (event.kind) {
        case EventKind::message:
          if (is_echoing) {
            server.respond(event.stream, message_frame(std::string(event.body.view())), {});
          } else {
            waiting.push_back(event.stream);
          }
          break;
        case EventKind::failed:
          server.finish(event.stream, {event.status.code(), event.status.message,
                                       advice_for(event.status.situation).pushback_ms, nullptr, 0});
          break;
        case EventKind::closed:
          server.forget(event.stream);
          break;
        default:
          break;
      }
    }
  }

  CallHeaders headers_{"model.test", "/pkg.Svc/Do"};
};

uintptr_t tag_of(const Reply& reply) { return reinterpret_cast<uintptr_t>(reply.call); }

TEST(a_call_and_its_reply_agree) {
  Pair pair;
  const std::vector<CallField> extra = {{"x-user-id", "u1"}, {"grpc-timeout", "1S"}};
  CHECK(pair.start("hello", 7, extra) > 0);
  pair.exchange();
  REQUIRE(pair.replies.size() == 1);
  CHECK_EQ(tag_of(pair.replies[0]), 7u);
  CHECK(pair.replies[0].code == Code::ok);
  CHECK_EQ(pair.replies[0].body.view(), "hello");
  CHECK_EQ(pair.client.open_count(), 0u);
  CHECK_EQ(pair.server.stream_count(), 0u);
}

TEST(bytes_one_at_a_time_make_the_same_call) {
  Pair pair;
  pair.start("hello", 7);
  pair.exchange(1);
  REQUIRE(pair.replies.size() == 1);
  CHECK_EQ(pair.replies[0].body.view(), "hello");
}

TEST(large_messages_pass_both_ways_under_flow_control) {
  for (const size_t size : {size_t{600'000}, size_t{16 * 1024 * 1024}}) {
    Pair pair;
    std::string message(size, '\0');
    for (size_t i = 0; i < size; i += 997) message[i] = static_cast<char>(i);
    pair.start(message, 1);
    pair.exchange();
    REQUIRE(pair.replies.size() == 1);
    CHECK(pair.replies[0].code == Code::ok);
    CHECK(pair.replies[0].body.view() == message);
    CHECK_EQ(pair.budget.used.load(), 0u);
  }
}

TEST(one_byte_over_sixteen_mebibytes_is_too_large_and_says_never_to_retry) {
  Pair pair;
  pair.start(std::string(16 * 1024 * 1024 + 1, 'x'), 1);
  pair.exchange();
  REQUIRE(pair.replies.size() == 1);
  CHECK(pair.replies[0].code == Code::resource_exhausted);
  CHECK_EQ(pair.replies[0].pushback_ms, -1);
  CHECK_EQ(pair.replies[0].message, "message is larger than the limit of 16777216 bytes");
}

TEST(many_more_calls_than_streams_are_all_answered) {
  Pair pair;
  for (uintptr_t tag = 0; tag < 1000; ++tag) {
    CHECK(pair.start("m" + std::to_string(tag), tag) > 0);
  }
  pair.exchange();
  CHECK_EQ(pair.client.streams_max(), 100u);
  CHECK_EQ(pair.replies.size(), 1000u);
  for (const Reply& reply : pair.replies) {
    CHECK_EQ(reply.body.view(), "m" + std::to_string(tag_of(reply)));
  }
}

TEST(status_messages_survive_the_wire) {
  Pair pair;
  pair.is_echoing = false;
  pair.start("x", 1);
  pair.exchange();
  REQUIRE(pair.waiting.size() == 1);
  pair.server.finish(pair.waiting[0], {Code::invalid_argument, "input \"\xc3\xa9\" is 100%",
                                       kNoPushback, nullptr, 0});
  pair.exchange();
  REQUIRE(pair.replies.size() == 1);
  CHECK(pair.replies[0].code == Code::invalid_argument);
  CHECK(pair.replies[0].has_trailers);
  CHECK_EQ(pair.replies[0].message, "input \"\xc3\xa9\" is 100%");
  CHECK_EQ(pair.replies[0].pushback_ms, kNoPushback);
}

TEST(a_cancelled_call_is_answered_as_such_on_both_sides) {
  Pair pair;
  pair.is_echoing = false;
  const int32_t id = pair.start("x", 1);
  pair.exchange();
  pair.client.cancel(id);
  pair.exchange();
  REQUIRE(pair.replies.size() == 1);
  CHECK(pair.replies[0].code == Code::cancelled);
  CHECK_EQ(pair.server.stream_count(), 0u);
}

TEST(a_call_cancelled_before_it_was_sent_is_answered_too) {
  Pair pair;
  pair.is_echoing = false;
  int32_t last = 0;
  for (uintptr_t tag = 0; tag < 101; ++tag) last = pair.start("x", tag);
  pair.exchange();
  pair.client.cancel(last);
  pair.exchange();
  CHECK_EQ(pair.client.open_count(), 100u);
  REQUIRE(pair.replies.size() == 1);
  CHECK(pair.replies[0].code == Code::cancelled);
  pair.waiting.clear();
  pair.client.abandon(&pair.replies);
  CHECK_EQ(pair.replies.size(), 101u);
}

TEST(a_goaway_ends_calls_it_did_not_see_as_unprocessed) {
  Pair pair;
  pair.is_echoing = false;
  for (uintptr_t tag = 0; tag < 102; ++tag) pair.start("x", tag);
  pair.exchange();
  pair.server.close_to_new_streams();
  pair.exchange();
  CHECK(!pair.client.is_accepting());
  CHECK_EQ(pair.start("y", 500), -1);
  for (Stream* stream : pair.waiting) pair.server.respond(stream, message_frame("z"), {});
  pair.exchange();
  size_t served = 0, unprocessed = 0;
  for (const Reply& reply : pair.replies) {
    served += reply.code == Code::ok;
    unprocessed += reply.is_unprocessed && reply.code == Code::unavailable;
  }
  CHECK_EQ(served, 100u);
  CHECK_EQ(unprocessed, 2u);
  CHECK(pair.server.is_closing());
}

TEST(a_ping_is_answered_and_forgotten_when_a_call_is_answered) {
  Pair pair;
  pair.client.ping();
  CHECK(pair.client.awaits_pong());
  pair.exchange();
  CHECK(!pair.client.awaits_pong());
  CHECK_EQ(pair.client.pings(), 1u);
  pair.start("hello", 1);
  pair.exchange();
  CHECK_EQ(pair.client.pings(), 0u);
}

TEST(a_lost_connection_answers_every_call_as_unavailable) {
  Pair pair;
  pair.is_echoing = false;
  pair.start("x", 1);
  pair.start("x", 2);
  pair.exchange();
  pair.client.abandon(&pair.replies);
  REQUIRE(pair.replies.size() == 2);
  CHECK(pair.replies[0].code == Code::unavailable);
  CHECK_EQ(pair.start("x", 3), -1);
  Buffer out;
  pair.client.output(&out, 1 << 20);
  CHECK(out.empty());
}

// What a server of another make may answer: frames by hand.
Reply reply_to(const std::string& bytes) {
  ClientConn client{ClientLimits{}};
  const CallHeaders headers_of_call("a", "/b/c");
  client.start(headers_of_call, nullptr, 0, message_frame("x"), nullptr);
  Buffer out;
  client.output(&out, 1 << 20);
  std::vector<Reply> replies;
  const std::string all = empty_settings() + bytes;
  client.receive(reinterpret_cast<const uint8_t*>(all.data()), all.size(), &replies);
  out.clear();
  client.output(&out, 1 << 20);
  client.take_replies(&replies);
  client.abandon(&replies);
  CHECK_EQ(replies.size(), 1u);
  return replies.empty() ? Reply() : std::move(replies[0]);
}

const Fields kGood = {{":status", "200"}, {"content-type", "application/grpc"}};

TEST(http_errors_without_grpc_status_are_mapped) {
  CHECK(reply_to(headers(1, {{":status", "503"}}, true)).code == Code::unavailable);
  CHECK(reply_to(headers(1, {{":status", "404"}}, true)).code == Code::unimplemented);
  CHECK(reply_to(headers(1, {{":status", "415"}}, true)).code == Code::unknown);
  CHECK(reply_to(headers(1, {{":status", "401"}}) + data(1, "<html>", true)).code ==
        Code::unauthenticated);
}

TEST(resets_are_mapped_and_a_refused_stream_may_be_sent_again) {
  const Reply refused = reply_to(rst_stream(1, NGHTTP2_REFUSED_STREAM));
  CHECK(refused.code == Code::unavailable && refused.is_unprocessed);
  CHECK(reply_to(rst_stream(1, NGHTTP2_ENHANCE_YOUR_CALM)).code == Code::resource_exhausted);
  CHECK(reply_to(rst_stream(1, NGHTTP2_INTERNAL_ERROR)).code == Code::internal);
}

TEST(an_ok_without_a_message_or_with_two_is_internal) {
  const std::string ok = headers(1, {{"grpc-status", "0"}}, true);
  CHECK(reply_to(headers(1, kGood) + ok).code == Code::internal);
  CHECK(reply_to(headers(1, kGood) + data(1, prefixed("abc").substr(0, 6)) + ok).code ==
        Code::internal);
  CHECK(reply_to(headers(1, kGood) + data(1, prefixed("a") + prefixed("b")) + ok).code ==
        Code::internal);
  CHECK(reply_to(headers(1, kGood) + data(1, prefixed("a")) + ok).code == Code::ok);
}

TEST(a_status_that_is_no_code_is_unknown) {
  CHECK(reply_to(headers(1, kGood) + headers(1, {{"grpc-status", "99"}}, true)).code ==
        Code::unknown);
  CHECK(reply_to(headers(1, kGood) + headers(1, {{"grpc-status", "x"}}, true)).code ==
        Code::unknown);
}

TEST(a_pushback_that_is_no_number_means_never) {
  const Fields trailers = {{"grpc-status", "14"}, {"grpc-retry-pushback-ms", "soon"}};
  CHECK_EQ(reply_to(headers(1, kGood) + headers(1, trailers, true)).pushback_ms, -1);
}

}  // namespace
}  // namespace router::wire_test
