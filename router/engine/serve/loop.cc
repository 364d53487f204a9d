// The I/O beneath a turn: sockets, epoll, and the connections' ages.
//
// Level-triggered epoll. A connection is read once a turn and written once a turn; while its
// output is blocked it is not read, so a peer that does not read cannot make us buffer. When
// a connection ends, our side is shut first and the peer's end is awaited, because closing a
// socket with unread bytes resets it and takes the GOAWAY and the last answers with it.
#include "serve/loop.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "engine.h"

namespace router {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kOutputHighWater = 256 * 1024;
constexpr int kEventsMax = 256;
constexpr int kAcceptsMax = 64;                       // a turn, so that accepting cannot starve
constexpr int64_t kHousekeepNs = 250'000'000;
constexpr int64_t kSecondGoawayNs = 200'000'000;      // about a slow round trip
constexpr int64_t kLingerNs = 1'000'000'000;

// epoll tags that are not connections, of clients or (Upstreams::owns) of ours to servers.
constexpr uint64_t kMailTag = 0, kListenerTag = 1;    // listener i is kListenerTag + i
constexpr uint64_t kListenersMax = 64;

int64_t read_clock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::string peer_name(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text,
              sizeof text);
  } else if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text,
              sizeof text);
  }
  return text;  // empty for Unix sockets, which are not counted by peer
}

}  // namespace

int64_t monotonic_ns() { return read_clock(CLOCK_MONOTONIC); }
int64_t realtime_ns() { return read_clock(CLOCK_REALTIME); }

bool Peers::admit(const std::string& peer, const EngineOptions& options) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (total_.load(std::memory_order_relaxed) >= options.connections_max) return false;
  if (!peer.empty()) {
    uint32_t& count = counts_[peer];
    if (count >= options.connections_per_peer_max) return false;
    ++count;
  }
  total_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Peers::leave(const std::string& peer) {
  std::lock_guard<std::mutex> lock(mutex_);
  total_.fetch_sub(1, std::memory_order_relaxed);
  const auto found = counts_.find(peer);
  if (found != counts_.end() && --found->second == 0) counts_.erase(found);
}

Loop::Loop(Core* core, unsigned index)
    : core_(core), index_(index), read_buffer_(new uint8_t[kReadBytes]) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  spare_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kMailTag;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, mailbox_.fd(), &event);
  upstreams_ = std::make_unique<Upstreams>(core, index, epoll_);
  if (getrandom(random_state_, sizeof random_state_, 0) != sizeof random_state_) {
    random_state_[0] = static_cast<uint64_t>(realtime_ns());
    random_state_[1] = static_cast<uint64_t>(monotonic_ns());
  }
  random_state_[0] |= 1;
  for (size_t i = 0; i < core_->methods.size(); ++i) {
    method_codes_.push_back(std::make_unique<Counter[]>(kCodeCount));
  }
  core_->executors->add_loop_slot(&slot_);
}

Loop::~Loop() {
  // At the end the executors go first, and with them the watchdog that knew the slot.
  if (core_->executors != nullptr) core_->executors->remove_loop_slot(&slot_);
  for (auto& item : connections_) {
    item.second->grpc.abandon(&events_);
    ::close(item.second->fd);
    core_->peers.leave(item.second->peer);
  }
  events_.clear();
  ::close(epoll_);
  if (spare_ >= 0) ::close(spare_);
}

// xoroshiro128+: units of requests that bring none need spread, not secrecy.
uint64_t Loop::draw_random() {
  const uint64_t a = random_state_[0];
  uint64_t b = random_state_[1];
  const uint64_t drawn = a + b;
  b ^= a;
  random_state_[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
  random_state_[1] = (b << 37) | (b >> 27);
  return drawn;
}

void Loop::listen(int fd, int listener) {
  ROUTER_ASSERT(listeners_.size() < kListenersMax);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenerTag + listeners_.size();
  listeners_.push_back({fd, listener});
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

void Loop::wait() {
  epoll_event events[kEventsMax];
  has_mail_ = false;
  const bool is_quiet = connections_.empty() && upstreams_->is_idle() && !is_draining_;
  int64_t timeout_ns = is_quiet ? -1 : kHousekeepNs;
  if (upstreams_->has_work()) timeout_ns = 0;
  if (!timers_.empty()) {
    const int64_t until = std::max<int64_t>(timers_.next_ns() - monotonic_ns(), 0);
    timeout_ns = timeout_ns < 0 ? until : std::min(timeout_ns, until);
  }
  int count = 0;
  if (core_->options.spin_ns > 0) {
    const int64_t spin_until = monotonic_ns() + core_->options.spin_ns;
    do {
      count = epoll_wait(epoll_, events, kEventsMax, 0);
    } while (count == 0 && monotonic_ns() < spin_until);
  }
  if (count == 0) {
    timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
    count = epoll_pwait2(epoll_, events, kEventsMax, timeout_ns < 0 ? nullptr : &timeout,
                         nullptr);
  }
  now_ns_ = monotonic_ns();
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = events[i].data.u64;
    if (tag == kMailTag) {
      mailbox_.clear_wake();
      has_mail_ = true;
    } else if (tag < kListenerTag + kListenersMax) {
      accept_from(listeners_[tag - kListenerTag]);
    } else if (Upstreams::owns(tag)) {
      upstreams_->note_ready(tag, events[i].events);
    } else {
      auto* connection = reinterpret_cast<Connection*>(tag);
      if ((events[i].events & EPOLLOUT) != 0) mark_dirty(connection);
      if ((events[i].events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
        ready_.push_back(connection);
      }
    }
  }
}

// No descriptor is left for the connection that waits, and one that is not taken would wake
// every turn. It is taken with the spare descriptor and closed; false when that failed.
bool Loop::refuse_waiting(const Listener& listener) {
  if (spare_ < 0) return false;
  ::close(spare_);
  const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd >= 0) {
    counters_.refused_connections.add(1);
    ::close(fd);
  }
  spare_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  return fd >= 0;
}

void Loop::accept_from(const Listener& listener) {
  for (int i = 0; i < kAcceptsMax; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd = accept4(listener.fd, reinterpret_cast<sockaddr*>(&address), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if ((errno == EMFILE || errno == ENFILE) && refuse_waiting(listener)) continue;
      return;  // none waiting
    }
    std::string peer = peer_name(address);
    if (!core_->peers.admit(peer, core_->options)) {
      counters_.refused_connections.add(1);
      ::close(fd);
      continue;
    }
    counters_.accepted.add(1);
    if (address.ss_family != AF_UNIX) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    Loop* fewest = this;
    for (const auto& loop : core_->loops) {
      if (loop->connection_count() < fewest->connection_count()) fewest = loop.get();
    }
    fewest->connection_count_.fetch_add(1, std::memory_order_relaxed);
    if (fewest == this) {
      adopt(fd, listener.kind, std::move(peer));
    } else {
      fewest->post({LetterKind::connection, fd, listener.kind, std::move(peer), nullptr});
    }
  }
}

void Loop::adopt(int fd, int listener, std::string peer) {
  auto made = std::make_unique<Connection>(core_->options.wire, &core_->bodies);
  Connection* connection = made.get();
  connection->fd = fd;
  connection->listener = listener;
  connection->peer = std::move(peer);
  connection->opened_ns = connection->active_ns = now_ns_;
  if (const TlsContextRef tls = core_->tls[listener - 1].get()) {
    connection->tls = std::make_unique<TlsStream>(*tls, &connection->out);
  }
  // The age varies by a tenth either way, so that clients do not all come back at once.
  const int64_t age = core_->options.age_ns;
  connection->retire_ns =
      now_ns_ + age - age / 10 + static_cast<int64_t>(draw_random() % static_cast<uint64_t>(
                                                                          age / 5 + 1));
  connections_[connection] = std::move(made);
  connection->epoll_mask = EPOLLIN;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = reinterpret_cast<uint64_t>(connection);
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  if (is_draining_) {
    connection->grpc.announce_shutdown();
    connection->announced_ns = now_ns_;
  }
  mark_dirty(connection);  // our SETTINGS
}

void Loop::read_from(Connection* connection) {
  if (connection->is_dead) return;
  if (connection->is_lingering || connection->is_ending) return drain_reads(connection);
  const ssize_t got = recv(connection->fd, read_buffer_.get(), kReadBytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  bool is_alive = got > 0;
  if (is_alive) {
    connection->active_ns = now_ns_;
    is_alive = take_bytes(connection, static_cast<size_t>(got));
    mark_dirty(connection);
    if (!is_alive) connection->is_ending = true;
  } else {
    connection->grpc.abandon(&events_);
  }
  for (Event& event : events_) on_event(connection, &event);
  events_.clear();
  if (got <= 0) bury(connection);
}

// False when the connection is to be closed once what it has to say is written.
bool Loop::take_bytes(Connection* connection, size_t count) {
  TlsStream* tls = connection->tls.get();
  if (tls == nullptr) {
    return connection->grpc.receive(read_buffer_.get(), count, now_ns_, &events_);
  }
  plain_.clear();
  const bool is_tls_alive = tls->receive(read_buffer_.get(), count, &plain_);
  count_handshake(connection, tls->outcome());
  const bool is_alive =
      plain_.empty() ||
      connection->grpc.receive(plain_.data(), plain_.size(), now_ns_, &events_);
  if (!is_tls_alive) connection->grpc.abandon(&events_);
  return is_alive && is_tls_alive;
}

void Loop::count_handshake(Connection* connection, TlsOutcome outcome) {
  if (connection->handshake != TlsOutcome::pending || outcome == TlsOutcome::pending) return;
  connection->handshake = outcome;
  counters_.handshakes[static_cast<unsigned>(outcome)].add(1);
}

// Bytes nobody will look at: read so that closing does not reset the connection.
void Loop::drain_reads(Connection* connection) {
  const ssize_t got = recv(connection->fd, read_buffer_.get(), kReadBytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) return;
  connection->grpc.abandon(&events_);
  for (Event& event : events_) on_event(connection, &event);
  events_.clear();
  bury(connection);
}

void Loop::mark_dirty(Connection* connection) {
  if (connection->is_dirty || connection->is_dead) return;
  connection->is_dirty = true;
  dirty_.push_back(connection);
}

void Loop::write_dirty() {
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Connection* connection = dirty_[i];
    connection->is_dirty = false;
    if (!connection->is_dead) write_to(connection);
  }
  dirty_.clear();
}

void Loop::fill_output(Connection* connection) {
  if (connection->tls == nullptr) {
    return connection->grpc.output(&connection->out, kOutputHighWater);
  }
  if (!connection->tls->is_established()) return;  // our SETTINGS wait
  plain_.clear();
  connection->grpc.output(&plain_, kOutputHighWater);
  if (!connection->tls->send(plain_.view())) connection->is_ending = true;
}

void Loop::write_to(Connection* connection) {
  for (;;) {
    if (connection->written == connection->out.size()) {
      connection->out.clear();
      connection->written = 0;
      if (connection->is_lingering) break;
      fill_output(connection);
      if (connection->out.empty()) break;
    }
    const ssize_t sent =
        send(connection->fd, connection->out.data() + connection->written,
             connection->out.size() - connection->written, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EINTR) return set_mask(connection, EPOLLOUT);
      connection->grpc.abandon(&events_);
      for (Event& event : events_) on_event(connection, &event);
      events_.clear();
      return bury(connection);
    }
    connection->written += static_cast<size_t>(sent);
    connection->active_ns = now_ns_;
  }
  connection->grpc.take_events(&events_);  // streams that ended, or may send on
  for (Event& event : events_) on_event(connection, &event);
  events_.clear();
  set_mask(connection, EPOLLIN);
  if (connection->is_ending || connection->grpc.is_closing()) end_connection(connection);
}

void Loop::set_mask(Connection* connection, uint32_t mask) {
  if (connection->epoll_mask == mask) return;
  connection->epoll_mask = mask;
  epoll_event event{};
  event.events = mask;
  event.data.u64 = reinterpret_cast<uint64_t>(connection);
  epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd, &event);
}

void Loop::end_connection(Connection* connection) {
  if (connection->is_lingering) return;
  connection->is_lingering = true;
  connection->linger_until_ns = now_ns_ + kLingerNs;
  if (connection->tls != nullptr) {
    connection->tls->close();  // a few bytes; if they do not fit, the end says as much
    send(connection->fd, connection->out.data(), connection->out.size(), MSG_NOSIGNAL);
    connection->out.clear();
  }
  ::shutdown(connection->fd, SHUT_WR);
}

void Loop::bury(Connection* connection) {
  if (connection->is_dead) return;
  connection->is_dead = true;
  if (connection->tls != nullptr) count_handshake(connection, TlsOutcome::abandoned);
  for (unsigned kind = 0; kind < static_cast<unsigned>(Abuse::count); ++kind) {
    counters_.abuse[kind].add(connection->grpc.abuse_count(static_cast<Abuse>(kind)));
  }
  epoll_ctl(epoll_, EPOLL_CTL_DEL, connection->fd, nullptr);
  ::close(connection->fd);
  core_->peers.leave(connection->peer);
  connection_count_.fetch_sub(1, std::memory_order_relaxed);
  dead_.push_back(connection);
}

void Loop::sweep() {
  for (Connection* connection : dead_) connections_.erase(connection);
  dead_.clear();
  if (!is_draining_ || is_drained_.load(std::memory_order_relaxed)) return;
  if (connections_.empty() && exchanges_open_ == 0) {
    is_drained_.store(true, std::memory_order_release);
  }
}

void Loop::housekeep() {
  if (now_ns_ - housekept_ns_ < kHousekeepNs) return;
  housekept_ns_ = now_ns_;
  for (auto& item : connections_) {
    if (!item.first->is_dead) keep_connection(item.first);
  }
  upstreams_->housekeep(now_ns_, tables_);
  if (!shadow_sent_.empty()) cancel_late_shadows();
  write_dirty();
}

void Loop::keep_connection(Connection* connection) {
  const EngineOptions& options = core_->options;
  const bool is_stalled = connection->tls != nullptr &&
                          connection->handshake == TlsOutcome::pending &&
                          now_ns_ - connection->opened_ns > options.handshake_ns;
  if (is_stalled) {
    count_handshake(connection, TlsOutcome::timeout);
    return bury(connection);  // no stream was ever opened
  }
  if (connection->is_lingering) {
    if (now_ns_ < connection->linger_until_ns) return;
    connection->grpc.abandon(&events_);
  } else {
    connection->grpc.expire_slow(now_ns_ - options.slow_message_ns, &events_);
    const bool is_idle = connection->grpc.stream_count() == 0 &&
                         now_ns_ - connection->active_ns > options.idle_ns;
    const bool is_old = now_ns_ > connection->retire_ns;
    if (connection->announced_ns == 0 && (is_idle || is_old)) {
      connection->grpc.announce_shutdown();
      connection->announced_ns = now_ns_;
    } else if (connection->announced_ns != 0 && !connection->is_closed_to_new &&
               now_ns_ - connection->announced_ns > kSecondGoawayNs) {
      connection->grpc.close_to_new_streams();
      connection->is_closed_to_new = true;
    } else if (connection->announced_ns != 0 && !is_draining_ &&
               now_ns_ - connection->announced_ns > options.age_grace_ns) {
      connection->grpc.abandon(&events_);
      connection->is_ending = true;
    }
    mark_dirty(connection);
  }
  for (Event& event : events_) on_event(connection, &event);
  events_.clear();
  if (connection->is_lingering) bury(connection);
}

void Loop::start_drain() {
  is_draining_ = true;
  for (const Listener& listener : listeners_) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, listener.fd, nullptr);
  }
  for (auto& item : connections_) {
    Connection* connection = item.first;
    if (connection->is_dead || connection->announced_ns != 0) continue;
    connection->grpc.announce_shutdown();
    connection->announced_ns = now_ns_;
    mark_dirty(connection);
  }
}

// The grace is over: whoever still waits is told to go elsewhere.
void Loop::cut_off() {
  is_cut_off_ = true;
  for (const auto& exchange : exchange_store_) {
    const std::vector<Call*> calls = exchange->calls;
    for (Call* call : calls) {
      if (call->is_answered) continue;
      refuse(call, fail(Situation::draining, "the server is shutting down"));
    }
    if (exchange->stream == nullptr && exchange->local == nullptr) continue;
    finish_exchange(exchange.get(), fail(Situation::draining, "the server is shutting down"));
    if (exchange->stream == nullptr && exchange->calls.empty()) release_exchange(exchange.get());
  }
  for (auto& item : connections_) {
    item.first->is_ending = true;
    mark_dirty(item.first);
  }
}

}  // namespace router
