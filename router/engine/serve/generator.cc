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

#include "serve/plane.h"
#include "watch/histogram.h"
#include "wire/client_conn.h"
#include "wire/protobuf.h"

namespace router {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSpinNs = 30'000;        // a sleep of this length is late more often than not
constexpr int64_t kLateNs = 1 * kMs;       // a send later than this is counted as late
constexpr int64_t kHousekeepNs = 10 * kMs; // how exactly calls time out
constexpr int64_t kRetryNs = 100 * kMs;    // before a lost connection is opened again
constexpr size_t kReadBytes = 128 * 1024, kOutputHighWater = 128 * 1024;
constexpr size_t kVersionsMax = 256;       // more are not told: their sum is OK's rest
constexpr uint32_t kStreamsAtFirst = 100;  // of a connection whose SETTINGS have not come
constexpr uint64_t kStopTag = UINT64_MAX;  // in epoll; else a connection's index

// SplitMix64: equidistributed, seeded by any number, and good enough to draw loads with.
struct Draw {
  uint64_t state;

  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }
  uint64_t below(uint64_t limit) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(next()) * limit >> 64);
  }
  // Of mean 1. The draw is never 0, whose logarithm does not exist.
  double exponential() { return -std::log(static_cast<double>((next() >> 11) + 1) * 0x1p-53); }
};

struct Latency {
  Histogram histogram;
  int64_t max_ns = 0;
  uint64_t count = 0;

  void observe(int64_t ns) {
    histogram.observe(ns);
    max_ns = std::max(max_ns, ns);
    ++count;
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
  Generator(const BenchOptions& options, const std::vector<Buffer>& frames);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  void run();
  std::string report() const;

 private:
  bool is_open_loop() const { return options_.rate_milli != 0; }
  size_t in_flight() const { return calls_.size() - idle_.size(); }

  void adopt(Connection* connection, int fd);
  void reopen(Connection* connection, int64_t now);
  void lose(Connection* connection, int64_t now);
  void plan_next();
  void send_due(int64_t now);
  Connection* find_room();
  void start_call(Connection* connection, int64_t due_ns, int64_t now);
  void mark_dirty(Connection* connection);
  void flush(Connection* connection);
  void flush_dirty();
  void wait(int64_t now);
  void read(Connection* connection);
  void take_replies(int64_t now);
  void count_version(ByteView message);
  void keep_house(int64_t now);

  const BenchOptions& options_;
  const std::vector<Buffer>& frames_;
  CallHeaders headers_;
  std::vector<CallField> fields_;  // the last one is the unit, when there are units
  std::string timeout_text_;
  char unit_[24] = "u";
  sockaddr_storage address_{};     // where lost connections are opened again
  socklen_t address_size_ = sizeof address_;
  std::vector<Connection> connections_;
  std::vector<Connection*> dirty_;
  std::deque<OpenCall> calls_;  // of stable address: nghttp2's side keeps pointers
  std::vector<OpenCall*> idle_;
  std::vector<Reply> replies_;
  std::vector<uint8_t> input_;
  Buffer scratch_;
  Draw arrival_draw_, unit_draw_;
  int epoll_ = -1;
  size_t cursor_ = 0;
  int64_t start_ns_ = 0, end_ns_ = 0, next_due_ns_ = 0, housekeep_ns_ = 0;
  int64_t blocked_ns_ = -1;     // when a due request last found no room
  double due_offset_ns_ = 0;    // Poisson: the sum of the gaps so far
  bool is_sending_ = true, is_held_ = false, is_stopped_ = false;

  uint64_t due_ = 0, sent_ = 0, unsent_ = 0, late_ = 0, held_ = 0, in_time_ = 0, lost_ = 0;
  uint64_t bytes_out_ = 0, bytes_in_ = 0, answered_ = 0, codes_[kCodeCount] = {};
  int64_t late_max_ns_ = 0;
  size_t in_flight_peak_ = 0;
  Latency corrected_, from_send_, errors_;
  std::map<std::string, uint64_t, std::less<>> versions_;
  std::string first_error_;
};

Generator::Generator(const BenchOptions& options, const std::vector<Buffer>& frames)
    : options_(options), frames_(frames), headers_(options.authority, options.path),
      timeout_text_(std::to_string(options.timeout_ms) + "m"),
      connections_(options.sockets.size()), input_(kReadBytes), arrival_draw_{options.seed},
      unit_draw_{~options.seed} {
  for (const auto& [name, value] : options.metadata) fields_.push_back({name, value});
  fields_.push_back({"grpc-timeout", timeout_text_});
  if (options.units != 0) fields_.push_back({options.unit_header, unit_});
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  getpeername(options.sockets[0], reinterpret_cast<sockaddr*>(&address_), &address_size_);
  for (uint32_t i = 0; i < connections_.size(); ++i) {
    const auto count = static_cast<uint32_t>(connections_.size());
    const uint32_t extra = i < options.concurrency % count ? 1 : 0;
    connections_[i].index = i;
    connections_[i].share =
        is_open_loop() ? options.in_flight_max : options.concurrency / count + extra;
    adopt(&connections_[i], options.sockets[i]);
  }
  if (options.stop_fd < 0) return;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kStopTag;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, options.stop_fd, &event);
}

Generator::~Generator() {
  for (Connection& connection : connections_) {
    if (connection.fd >= 0) ::close(connection.fd);
  }
  ::close(epoll_);
}

void Generator::adopt(Connection* connection, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = connection->index;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  connection->fd = fd;
  connection->wire = std::make_unique<ClientConn>(ClientLimits{});
  connection->open_max = std::min(connection->share, kStreamsAtFirst);
  connection->out.clear();
  connection->written = 0;
  connection->is_blocked = connection->has_answered = false;
  mark_dirty(connection);
}

// Begins to connect; what is written before it is connected waits for EPOLLOUT.
void Generator::reopen(Connection* connection, int64_t now) {
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

void Generator::lose(Connection* connection, int64_t now) {
  const bool is_goodbye = connection->open == 0 && !connection->wire->is_accepting();
  connection->wire->abandon(&replies_);
  ::close(connection->fd);  // epoll forgets it
  connection->fd = -1;
  connection->wire.reset();
  take_replies(now);
  lost_ += !is_goodbye;
  connection->retry_ns = now + kRetryNs;
  // A server that said GOAWAY and then answered everything: go on at once, as clients do.
  if (is_goodbye && connection->has_answered) reopen(connection, now);
}

// Constant gaps come from the request's number, so that no error adds up.
void Generator::plan_next() {
  const double gap_ns = 1e12 / static_cast<double>(options_.rate_milli);
  due_offset_ns_ = options_.is_poisson ? due_offset_ns_ + gap_ns * arrival_draw_.exponential()
                                       : gap_ns * static_cast<double>(due_);
  next_due_ns_ = start_ns_ + static_cast<int64_t>(due_offset_ns_);
  if (next_due_ns_ < end_ns_) ++due_;
}

Connection* Generator::find_room() {
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

void Generator::send_due(int64_t now) {
  is_held_ = false;
  while (is_open_loop() ? next_due_ns_ <= now && next_due_ns_ < end_ns_ : now < end_ns_) {
    Connection* connection = find_room();
    if (connection == nullptr) {
      is_held_ = true;
      blocked_ns_ = now;
      return;
    }
    start_call(connection, is_open_loop() ? next_due_ns_ : now, now);
    if (is_open_loop()) plan_next();
  }
}

void Generator::start_call(Connection* connection, int64_t due_ns, int64_t now) {
  if (idle_.empty()) idle_.push_back(&calls_.emplace_back());
  OpenCall* call = idle_.back();
  idle_.pop_back();
  if (options_.units != 0) {
    const uint64_t unit = unit_draw_.below(options_.units);
    const auto end = std::to_chars(unit_ + 1, unit_ + sizeof unit_, unit).ptr;
    fields_.back().value = {unit_, static_cast<size_t>(end - unit_)};
  }
  scratch_.clear();
  scratch_.append(frames_[sent_ % frames_.size()].view());
  *call = {connection, 0, false, due_ns, now};
  ++connection->open;
  ++sent_;
  in_flight_peak_ = std::max(in_flight_peak_, in_flight());
  if (is_open_loop()) {
    late_ += now - due_ns > kLateNs;
    late_max_ns_ = std::max(late_max_ns_, now - due_ns);
    held_ += due_ns <= blocked_ns_;
  }
  call->id = connection->wire->start(headers_, fields_.data(), fields_.size(),
                                     std::move(scratch_), call);
  if (call->id < 0) {  // ids have run out: the call never left
    Reply unsent;
    unsent.call = call;
    unsent.code = Code::unavailable;
    replies_.push_back(std::move(unsent));
    take_replies(now);
  }
  mark_dirty(connection);
}

void Generator::mark_dirty(Connection* connection) {
  if (connection->is_dirty) return;
  connection->is_dirty = true;
  dirty_.push_back(connection);
}

void Generator::flush(Connection* connection) {
  Buffer& out = connection->out;
  bool is_blocked = false;
  while (connection->fd >= 0 && !is_blocked) {
    if (connection->written == out.size()) {
      out.clear();
      connection->written = 0;
      connection->wire->output(&out, kOutputHighWater);
      if (out.empty()) break;
    }
    const ssize_t count = ::send(connection->fd, out.data() + connection->written,
                                 out.size() - connection->written, MSG_NOSIGNAL);
    if (count > 0) {
      connection->written += static_cast<size_t>(count);
      bytes_out_ += static_cast<uint64_t>(count);
    } else if (errno != EINTR) {
      // Any other failure shows when reading, with what the server still had to say.
      is_blocked = true;
    }
  }
  if (connection->fd < 0) return;
  if (is_blocked != connection->is_blocked) {
    connection->is_blocked = is_blocked;
    epoll_event event{};
    event.events = is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.u64 = connection->index;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd, &event);
  }
  connection->wire->take_replies(&replies_);
}

void Generator::flush_dirty() {
  for (size_t i = 0; i < dirty_.size(); ++i) {
    dirty_[i]->is_dirty = false;
    flush(dirty_[i]);
  }
  dirty_.clear();
  if (!replies_.empty()) take_replies(monotonic_ns());
}

void Generator::wait(int64_t now) {
  int64_t wake_ns = housekeep_ns_;
  if (is_sending_) wake_ns = std::min(wake_ns, end_ns_);
  if (is_sending_ && is_open_loop() && !is_held_) {
    wake_ns = std::min(wake_ns, next_due_ns_ - kSpinNs);
  }
  const int64_t left_ns = dirty_.empty() ? std::max<int64_t>(wake_ns - now, 0) : 0;
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

void Generator::read(Connection* connection) {
  for (int round = 0; round < 16; ++round) {  // so that one cannot starve the others
    const ssize_t count = ::recv(connection->fd, input_.data(), input_.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    const int64_t now = monotonic_ns();
    if (count <= 0) return lose(connection, now);
    const auto size = static_cast<size_t>(count);
    bytes_in_ += size;
    const bool is_alive = connection->wire->receive(input_.data(), size, &replies_);
    take_replies(now);
    if (!is_alive) return lose(connection, now);
    connection->open_max = std::min(connection->share, connection->wire->streams_max());
    if (!connection->wire->is_accepting() && connection->open == 0) {
      return lose(connection, now);
    }
    if (size < input_.size()) return;
  }
}

void Generator::take_replies(int64_t now) {
  for (Reply& reply : replies_) {
    auto* call = static_cast<OpenCall*>(reply.call);
    const Code code = call->has_expired ? Code::deadline_exceeded : reply.code;
    ++codes_[static_cast<size_t>(code)];
    ++answered_;
    in_time_ += now <= end_ns_;
    --call->connection->open;
    call->connection->has_answered = true;
    call->connection = nullptr;
    idle_.push_back(call);
    if (code == Code::ok) {
      corrected_.observe(now - call->due_ns);
      from_send_.observe(now - call->sent_ns);
      count_version(reply.body.view());
      continue;
    }
    errors_.observe(now - call->due_ns);
    if (first_error_.empty()) {
      const bool is_text = protobuf::is_utf8(reply.message);
      first_error_ = code_name(code) + (": " + (is_text ? reply.message : std::string()));
    }
  }
  replies_.clear();
}

void Generator::count_version(ByteView message) {
  constexpr uint32_t kModelVersion = protobuf::tag_of(2, protobuf::kBytes);
  std::string_view version;
  uint32_t tag = 0;
  // The field is second on the wire; what follows it is not looked at.
  for (protobuf::Cursor in(message); !in.done() && protobuf::read_tag(&in, &tag);) {
    if (tag == kModelVersion) {
      if (!protobuf::read_text(&in, &version)) version = {};
      break;
    }
    if (!protobuf::skip_field(&in, tag)) break;
  }
  const auto found = versions_.find(version);
  if (found != versions_.end()) {
    ++found->second;
  } else if (versions_.size() < kVersionsMax) {
    versions_.emplace(version, 1);
  }
}

void Generator::keep_house(int64_t now) {
  housekeep_ns_ = now + kHousekeepNs;
  for (OpenCall& call : calls_) {
    if (call.connection == nullptr || call.has_expired) continue;
    // The server was told the same timeout; it has until now to say so itself.
    if (now - call.sent_ns < options_.timeout_ms * kMs) continue;
    call.has_expired = true;
    call.connection->wire->cancel(call.id);
    mark_dirty(call.connection);
  }
  for (Connection& connection : connections_) {
    if (connection.fd < 0 && now >= connection.retry_ns) reopen(&connection, now);
  }
}

void Generator::run() {
  const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // by default a sleep may be 50 us too long
  int64_t now = start_ns_ = housekeep_ns_ = monotonic_ns();
  end_ns_ = start_ns_ + options_.duration_ns;
  if (is_open_loop()) plan_next();
  while (!is_stopped_ && (is_sending_ || in_flight() != 0)) {
    if (is_sending_) {
      // Also once after the end: what was due just before it is sent all the same.
      const bool is_last = now >= end_ns_;
      send_due(now);
      is_sending_ = !is_last;
    }
    flush_dirty();
    wait(monotonic_ns());
    now = monotonic_ns();
    if (now >= housekeep_ns_) keep_house(now);
  }
  if (is_stopped_) end_ns_ = std::min(end_ns_, now);
  // What was due and found no room until the end.
  if (is_open_loop()) {
    while (next_due_ns_ < end_ns_) plan_next();
    due_ = std::max(due_, sent_);
    unsent_ = due_ - sent_;
  }
  prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

void append_count(std::string* json, const char* name, uint64_t value) {
  if (json->back() != '{') json->push_back(',');
  json->append("\"").append(name).append("\":").append(std::to_string(value));
}

void append_latency(std::string* json, const char* name, const Latency& latency) {
  constexpr std::pair<const char*, double> kQuantiles[] = {
      {"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}};
  json->append(",\"").append(name).append("\":{");
  append_count(json, "count", latency.count);
  append_count(json, "mean_ns",
               latency.count == 0 ? 0 : latency.histogram.sum_ns() / latency.count);
  for (const auto& [key, quantile] : kQuantiles) {
    // A bucket's upper edge may lie above everything that was seen.
    const int64_t edge = std::min(latency.histogram.quantile_ns(quantile), latency.max_ns);
    append_count(json, key, static_cast<uint64_t>(edge));
  }
  append_count(json, "max_ns", static_cast<uint64_t>(latency.max_ns));
  json->push_back('}');
}

std::string Generator::report() const {
  std::string json = "{";
  append_count(&json, "due", is_open_loop() ? due_ : sent_);
  const std::pair<const char*, uint64_t> counts[] = {
      {"sent", sent_}, {"unsent", unsent_}, {"answered", answered_},
      {"answered_in_time", in_time_}, {"unanswered", in_flight()}, {"late", late_},
      {"late_max_ns", static_cast<uint64_t>(late_max_ns_)}, {"held", held_},
      {"in_flight_peak", in_flight_peak_}, {"connections_lost", lost_},
      {"bytes_out", bytes_out_}, {"bytes_in", bytes_in_},
      {"elapsed_ns", static_cast<uint64_t>(end_ns_ - start_ns_)}};
  for (const auto& [name, value] : counts) append_count(&json, name, value);
  json += ",\"codes\":{";
  for (unsigned i = 0; i < kCodeCount; ++i) {
    if (codes_[i] != 0) append_count(&json, code_name(static_cast<Code>(i)), codes_[i]);
  }
  json += "},\"versions\":{";
  for (const auto& [version, count] : versions_) {
    if (json.back() != '{') json.push_back(',');
    append_json_text(&json, version);
    json += ":" + std::to_string(count);
  }
  json += "}";
  append_latency(&json, "latency", corrected_);
  append_latency(&json, "latency_from_send", from_send_);
  append_latency(&json, "latency_of_errors", errors_);
  json += ",\"first_error\":";
  append_json_text(&json, first_error_);
  return json + ",\"is_interrupted\":" + (is_stopped_ ? "true}" : "false}");
}

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
    return key + "=" + value + ": not a number";
  }
  const auto take = [&](auto* into, uint64_t low, uint64_t high) {
    if (number < low || number > high) {
      return key + "=" + value + ": expected " + std::to_string(low) + " to " +
             std::to_string(high);
    }
    *into = static_cast<std::remove_reference_t<decltype(*into)>>(number);
    return std::string();
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
  const auto generator = std::make_unique<Generator>(options, frames);
  generator->run();
  return generator->report();
}

}  // namespace router
