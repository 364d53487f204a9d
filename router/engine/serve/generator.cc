#include "serve/generator.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <deque>
#include <map>
#include <memory>

#include "serve/json.h"
#include "serve/loop.h"
#include "watch/histogram.h"
#include "wire/client_conn.h"
#include "wire/protobuf.h"

namespace router {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSpinNs = 30'000;         // shorter sleeps mostly end too late
constexpr int64_t kLateNs = kMs;            // a send later than this is counted as late
constexpr int64_t kHousekeepNs = 10 * kMs;  // how exactly calls time out
constexpr int64_t kRetryNs = 100 * kMs;     // before a lost connection is opened again
constexpr size_t kIoBytes = 128 * 1024;
constexpr size_t kVersionsMax = 256;        // answers of more are in the codes alone
constexpr uint32_t kStreamsAtFirst = 100;   // of a connection whose SETTINGS have not come
constexpr uint64_t kStopTag = UINT64_MAX;   // in epoll; else a connection's index

// SplitMix64: equidistributed, seeded by any number, and good enough to draw loads with.
struct Draw {
  uint64_t state;

  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }
  // Of mean 1. The number drawn is never 0, which has no logarithm.
  double exponential() { return -std::log(static_cast<double>((next() >> 11) + 1) * 0x1p-53); }
};

struct Latency {
  Histogram histogram;
  uint64_t count = 0, max_ns = 0;

  void observe(int64_t ns) {
    histogram.observe(ns);
    max_ns = std::max(max_ns, static_cast<uint64_t>(ns));
    ++count;
  }
};

// What happened, and its JSON.
struct Figures {
  uint64_t due = 0, sent = 0, answered_in_time = 0, late = 0, late_max_ns = 0, held = 0;
  uint64_t in_flight_peak = 0, connections_lost = 0, bytes_out = 0, bytes_in = 0;
  uint64_t elapsed_ns = 0, is_interrupted = 0, codes[kCodeCount] = {};
  Latency from_due, from_send, of_errors;
  std::map<std::string, uint64_t, std::less<>> versions;
  std::string first_error, json = "{";

  void add_answer(Code code, const Reply& reply, int64_t from_due_ns, int64_t from_send_ns) {
    ++codes[static_cast<size_t>(code)];
    if (code == Code::ok) {
      from_due.observe(from_due_ns);
      from_send.observe(from_send_ns);
      add_version(reply.body.view());
      return;
    }
    of_errors.observe(from_due_ns);
    if (!first_error.empty()) return;
    first_error = code_name(code);
    if (protobuf::is_utf8(reply.message)) first_error += ": " + reply.message;
  }
  // The field is the second on the wire; what follows it is not looked at.
  void add_version(ByteView message) {
    std::string_view version;
    uint32_t tag = 0;
    for (protobuf::Cursor in(message); !in.done() && protobuf::read_tag(&in, &tag);) {
      const bool is_version = tag == protobuf::tag_of(2, protobuf::kBytes);
      if (is_version && !protobuf::read_text(&in, &version)) version = {};
      if (is_version || !protobuf::skip_field(&in, tag)) break;
    }
    const auto found = versions.find(version);
    if (found != versions.end()) {
      ++found->second;
    } else if (versions.size() < kVersionsMax) {
      versions.emplace(version, 1);
    }
  }
  void put(std::string_view name, uint64_t value) {
    if (json.back() != '{') json.push_back(',');
    append_json_text(&json, name);
    json += ":" + std::to_string(value);
  }
  void put(std::string_view name, const Latency& latency) {
    json.append(",\"").append(name).append("\":{");
    put("count", latency.count);
    put("sum_ns", latency.histogram.sum_ns());
    constexpr std::pair<const char*, double> kQuantiles[] = {
        {"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}};
    for (const auto& [key, quantile] : kQuantiles) {
      // A bucket's upper edge may lie above everything that was seen.
      const auto edge = static_cast<uint64_t>(latency.histogram.quantile_ns(quantile));
      put(key, std::min(edge, latency.max_ns));
    }
    put("max_ns", latency.max_ns);
    json.push_back('}');
  }
  std::string report() {
    put("due", due), put("sent", sent), put("answered_in_time", answered_in_time);
    put("late", late), put("late_max_ns", late_max_ns), put("held", held);
    put("in_flight_peak", in_flight_peak), put("connections_lost", connections_lost);
    put("bytes_out", bytes_out), put("bytes_in", bytes_in), put("elapsed_ns", elapsed_ns);
    put("is_interrupted", is_interrupted);
    json += ",\"codes\":{";
    for (unsigned i = 0; i < kCodeCount; ++i) {
      if (codes[i] != 0) put(code_name(static_cast<Code>(i)), codes[i]);
    }
    json += "},\"versions\":{";
    for (const auto& [version, count] : versions) put(version, count);
    json += "}";
    put("latency", from_due), put("latency_from_send", from_send);
    put("latency_of_errors", of_errors);
    json += ",\"first_error\":";
    append_json_text(&json, first_error);
    return json + "}";
  }
};

struct Connection {
  int fd = -1;
  uint32_t index = 0, open = 0, share = 0, open_max = 0;
  std::unique_ptr<ClientConn> wire;
  Buffer out;
  size_t written = 0;
  bool is_blocked = false, is_dirty = false, has_answered = false;
  int64_t retry_ns = 0;
};

struct OpenCall {
  Connection* connection = nullptr;  // null: not in use
  int32_t id = 0;
  bool has_expired = false;
  int64_t due_ns = 0, sent_ns = 0;
};

class Generator {
 public:
  Generator(const BenchOptions& options, const std::vector<Buffer>& frames)
      : options_(options), frames_(frames), headers_(options.authority, options.path),
        timeout_text_(std::to_string(options.timeout_ms) + "m"),
        connections_(options.sockets.size()), input_(kIoBytes), arrivals_{options.seed},
        units_{~options.seed}, epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    for (const auto& [name, value] : options.metadata) fields_.push_back({name, value});
    fields_.push_back({"grpc-timeout", timeout_text_});
    if (options.units != 0) fields_.push_back({options.unit_header, unit_text_});
    getpeername(options.sockets[0], reinterpret_cast<sockaddr*>(&address_), &address_size_);
    const auto count = static_cast<uint32_t>(connections_.size());
    for (uint32_t i = 0; i < count; ++i) {
      connections_[i].index = i;
      const uint32_t extra = i < options.concurrency % count ? 1 : 0;
      const uint32_t share = options.concurrency / count + extra;
      connections_[i].share = is_open_loop() ? UINT32_MAX : share;
      adopt(&connections_[i], options.sockets[i]);
    }
    if (options.stop_fd >= 0) listen_to(EPOLL_CTL_ADD, options.stop_fd, kStopTag, EPOLLIN);
  }
  ~Generator() {
    for (const Connection& connection : connections_) {
      if (connection.fd >= 0) ::close(connection.fd);
    }
    ::close(epoll_);
  }
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  std::string run() {
    const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // by default a sleep may be 50 us too long
    int64_t now = start_ns_ = housekeep_ns_ = monotonic_ns();
    end_ns_ = start_ns_ + options_.duration_ns;
    if (is_open_loop()) plan_next();
    for (bool is_sending = true; !is_stopped_ && (is_sending || in_flight() != 0);) {
      if (is_sending) {
        // Also once after the end: what was due just before it is sent all the same.
        is_sending = now < end_ns_;
        send_due(now);
      }
      flush_dirty();
      wait(is_sending);
      now = monotonic_ns();
      if (now >= housekeep_ns_) keep_house(now);
    }
    if (is_stopped_) end_ns_ = std::min(end_ns_, now);
    // What was due and found no room until the end.
    while (is_open_loop() && next_due_ns_ < end_ns_) plan_next();
    figures_.due = is_open_loop() ? planned_ - 1 : figures_.sent;
    figures_.elapsed_ns = static_cast<uint64_t>(end_ns_ - start_ns_);
    figures_.is_interrupted = is_stopped_;
    prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
    return figures_.report();
  }

 private:
  bool is_open_loop() const { return options_.rate_milli != 0; }
  size_t in_flight() const { return calls_.size() - idle_.size(); }

  // Constant gaps come from the request's number, so that no error adds up.
  void plan_next() {
    const double gap_ns = 1e12 / static_cast<double>(options_.rate_milli);
    poisson_ns_ += options_.is_poisson ? gap_ns * arrivals_.exponential() : 0;
    const double constant_ns = gap_ns * static_cast<double>(planned_++);
    next_due_ns_ =
        start_ns_ + static_cast<int64_t>(options_.is_poisson ? poisson_ns_ : constant_ns);
  }

  void send_due(int64_t now) {
    is_held_ = false;
    while (is_open_loop() ? next_due_ns_ <= now && next_due_ns_ < end_ns_ : now < end_ns_) {
      Connection* connection = find_room();
      if (connection == nullptr) {
        is_held_ = true;
        held_ns_ = now;
        return;
      }
      start_call(connection, is_open_loop() ? next_due_ns_ : now, now);
      if (is_open_loop()) plan_next();
    }
  }

  Connection* find_room() {
    if (in_flight() >= (is_open_loop() ? options_.in_flight_max : options_.concurrency)) {
      return nullptr;
    }
    for (size_t tried = 0; tried < connections_.size(); ++tried) {
      Connection& connection = connections_[cursor_];
      cursor_ = cursor_ + 1 == connections_.size() ? 0 : cursor_ + 1;
      if (connection.fd >= 0 && connection.open < connection.open_max &&
          connection.wire->is_accepting()) {
        return &connection;
      }
    }
    return nullptr;
  }

  void start_call(Connection* connection, int64_t due_ns, int64_t now) {
    if (idle_.empty()) idle_.push_back(&calls_.emplace_back());
    OpenCall* call = idle_.back();
    idle_.pop_back();
    if (options_.units != 0) {
      const uint64_t unit = units_.next() % options_.units;
      const auto end = std::to_chars(unit_text_ + 1, std::end(unit_text_), unit).ptr;
      fields_.back().value = {unit_text_, static_cast<size_t>(end - unit_text_)};
    }
    scratch_.clear();
    scratch_.append(frames_[figures_.sent % frames_.size()].view());
    *call = {connection, 0, false, due_ns, now};
    ++connection->open;
    ++figures_.sent;
    figures_.in_flight_peak = std::max<uint64_t>(figures_.in_flight_peak, in_flight());
    figures_.late += now - due_ns > kLateNs;
    figures_.late_max_ns = std::max(figures_.late_max_ns, static_cast<uint64_t>(now - due_ns));
    figures_.held += is_open_loop() && due_ns <= held_ns_;
    // Never refused: it is accepting, and no run is long enough to use up the ids.
    call->id = connection->wire->start(headers_, fields_.data(), fields_.size(),
                                       std::move(scratch_), call);
    mark_dirty(connection);
  }

  void mark_dirty(Connection* connection) {
    if (!connection->is_dirty) dirty_.push_back(connection);
    connection->is_dirty = true;
  }

  void flush_dirty() {
    for (Connection* connection : dirty_) {
      connection->is_dirty = false;
      if (connection->fd >= 0) flush(connection);
    }
    dirty_.clear();
    if (!replies_.empty()) take_replies(monotonic_ns());
  }

  void flush(Connection* connection) {
    Buffer& out = connection->out;
    bool is_blocked = false;
    while (!is_blocked) {
      if (connection->written == out.size()) {
        out.clear();
        connection->written = 0;
        connection->wire->output(&out, kIoBytes);
        if (out.empty()) break;
      }
      const ssize_t count = ::send(connection->fd, out.data() + connection->written,
                                   out.size() - connection->written, MSG_NOSIGNAL);
      // A failure other than "not now" shows when reading, after what was still said.
      is_blocked = count < 0 && errno != EINTR;
      if (count < 0) continue;
      connection->written += static_cast<size_t>(count);
      figures_.bytes_out += static_cast<uint64_t>(count);
    }
    if (is_blocked != connection->is_blocked) {
      const uint32_t wanted = is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN;
      listen_to(EPOLL_CTL_MOD, connection->fd, connection->index, wanted);
    }
    connection->is_blocked = is_blocked;
    connection->wire->take_replies(&replies_);
  }

  void listen_to(int act, int fd, uint64_t tag, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = tag;
    epoll_ctl(epoll_, act, fd, &event);
  }

  void wait(bool is_sending) {
    int64_t wake_ns = housekeep_ns_;
    if (is_sending) wake_ns = std::min(wake_ns, end_ns_);
    if (is_sending && is_open_loop() && !is_held_) {
      wake_ns = std::min(wake_ns, next_due_ns_ - kSpinNs);
    }
    const int64_t left_ns = std::max<int64_t>(wake_ns - monotonic_ns(), 0);
    const timespec timeout = {left_ns / 1'000'000'000, left_ns % 1'000'000'000};
    epoll_event events[256];
    const int count = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kStopTag) {
        is_stopped_ = true;
        continue;
      }
      Connection* connection = &connections_[events[i].data.u64];
      mark_dirty(connection);
      if (connection->fd >= 0 && events[i].events != EPOLLOUT) read(connection);
    }
  }

  void read(Connection* connection) {
    for (int round = 0; round < 16; ++round) {  // so that one cannot starve the others
      const ssize_t count = ::recv(connection->fd, input_.data(), input_.size(), 0);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      const int64_t now = monotonic_ns();
      const auto size = static_cast<size_t>(std::max<ssize_t>(count, 0));
      figures_.bytes_in += size;
      const bool is_alive =
          size != 0 && connection->wire->receive(input_.data(), size, &replies_);
      take_replies(now);
      const bool is_over = connection->open == 0 && !connection->wire->is_accepting();
      if (!is_alive || is_over) return lose(connection, is_over, now);
      connection->open_max = std::min(connection->share, connection->wire->streams_max());
      if (size < input_.size()) return;
    }
  }

  void take_replies(int64_t now) {
    for (const Reply& reply : replies_) {
      auto* call = static_cast<OpenCall*>(reply.call);
      const Code code = call->has_expired ? Code::deadline_exceeded : reply.code;
      figures_.answered_in_time += now <= end_ns_;
      figures_.add_answer(code, reply, now - call->due_ns, now - call->sent_ns);
      --call->connection->open;
      call->connection->has_answered |= reply.has_trailers;
      call->connection = nullptr;
      idle_.push_back(call);
    }
    replies_.clear();
  }

  void adopt(Connection* connection, int fd) {
    connection->fd = fd;
    connection->wire = std::make_unique<ClientConn>(ClientLimits{});
    connection->open_max = std::min(connection->share, kStreamsAtFirst);
    connection->out.clear();
    connection->written = 0;
    connection->is_blocked = connection->has_answered = false;
    listen_to(EPOLL_CTL_ADD, fd, connection->index, EPOLLIN);
    mark_dirty(connection);
  }

  // `is_over`: the server said GOAWAY and has answered everything.
  void lose(Connection* connection, bool is_over, int64_t now) {
    figures_.connections_lost += connection->has_answered && !is_over;
    connection->wire->abandon(&replies_);
    ::close(connection->fd);  // epoll forgets it
    connection->fd = -1;
    take_replies(now);
    connection->wire.reset();
    connection->retry_ns = now + kRetryNs;
    if (is_over && connection->has_answered) reopen(connection, now);  // as clients do
  }

  // Begins to connect; what is written before it is connected waits for EPOLLOUT.
  void reopen(Connection* connection, int64_t now) {
    connection->retry_ns = now + kRetryNs;
    const int family = address_.ss_family, yes = 1;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    if (family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    const auto* address = reinterpret_cast<const sockaddr*>(&address_);
    if (connect(fd, address, address_size_) == 0 || errno == EINPROGRESS) {
      adopt(connection, fd);
    } else {
      ::close(fd);
    }
  }

  void keep_house(int64_t now) {
    housekeep_ns_ = now + kHousekeepNs;
    for (OpenCall& call : calls_) {
      if (call.connection == nullptr || call.has_expired) continue;
      // The server was told the same timeout; it has had until now to say so itself.
      if (now - call.sent_ns < options_.timeout_ms * kMs) continue;
      call.has_expired = true;
      call.connection->wire->cancel(call.id);
      mark_dirty(call.connection);
    }
    for (Connection& connection : connections_) {
      if (connection.fd < 0 && now >= connection.retry_ns) reopen(&connection, now);
    }
  }

  const BenchOptions& options_;
  const std::vector<Buffer>& frames_;
  CallHeaders headers_;
  std::vector<CallField> fields_;  // the last one is the unit, when there are units
  std::string timeout_text_;
  char unit_text_[24] = "u";
  sockaddr_storage address_{};     // where lost connections are opened again
  socklen_t address_size_ = sizeof address_;
  std::vector<Connection> connections_;
  std::vector<Connection*> dirty_;
  std::deque<OpenCall> calls_;     // a deque: `wire` holds pointers into it
  std::vector<OpenCall*> idle_;
  std::vector<Reply> replies_;
  std::vector<uint8_t> input_;
  Buffer scratch_;
  Draw arrivals_, units_;
  int epoll_;
  size_t cursor_ = 0;
  int64_t start_ns_ = 0, end_ns_ = 0, housekeep_ns_ = 0;
  int64_t next_due_ns_ = 0, held_ns_ = -1;  // when a due request last found no room
  double poisson_ns_ = 0;                   // the sum of the gaps so far
  uint64_t planned_ = 0;                    // requests whose due time is fixed
  bool is_held_ = false, is_stopped_ = false;
  Figures figures_;
};

}  // namespace

std::string BenchOptions::set(const std::string& key, const std::string& value) {
  if (key == "authority") return authority = value, std::string();
  if (key == "path") return path = value, std::string();
  if (key == "unit_header") return unit_header = value, std::string();
  if (key.compare(0, 9, "metadata:") == 0) {
    return metadata.emplace_back(key.substr(9), value), std::string();
  }
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    return key + "=" + value + ": not a number or an unknown option";
  }
  const auto take = [&](auto* into, uint64_t low, uint64_t high) {
    const bool is_taken = number >= low && number <= high;
    if (is_taken) *into = static_cast<std::remove_reference_t<decltype(*into)>>(number);
    return is_taken ? std::string()
                    : key + "=" + value + ": expected " + std::to_string(low) + " to " +
                          std::to_string(high);
  };
  if (key == "socket") return take(&sockets.emplace_back(), 0, INT32_MAX);
  if (key == "is_poisson") return take(&is_poisson, 0, 1);
  if (key == "rate_milli") return take(&rate_milli, 0, 1'000'000'000);
  if (key == "concurrency") return take(&concurrency, 1, 100'000);
  if (key == "in_flight_max") return take(&in_flight_max, 1, 100'000);
  if (key == "duration_ns") return take(&duration_ns, 1, 600'000'000'000);
  if (key == "timeout_ms") return take(&timeout_ms, 1, 600'000);
  if (key == "units") return take(&units, 0, UINT64_MAX);
  if (key == "seed") return take(&seed, 0, UINT64_MAX);
  if (key == "stop_fd") return take(&stop_fd, 0, INT32_MAX);
  return key + ": unknown option";
}

std::string run_bench(const BenchOptions& options, const std::vector<Buffer>& frames) {
  return std::make_unique<Generator>(options, frames)->run();
}

}  // namespace router
