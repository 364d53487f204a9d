// The I/O of connections to upstream servers: reading, writing, losing them, and what is
// done now and then. serve/upstream.cc decides what is sent over them.
#include "serve/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "serve/loop.h"

namespace router {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kOutputHighWater = 256 * 1024;
// Between two answers to calls: gRPC servers take the first PING and two strikes.
constexpr unsigned kPingsMax = 3;
constexpr const char* kInferPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr const char* kCheckPath = "/grpc.health.v1.Health/Check";

}  // namespace

Link::Link(Peer* of, int socket, const ClientLimits& limits)
    : peer(of), fd(socket), wire(limits) {
  const Upstream& upstream = *of->pool->upstream;
  if (upstream.tls == nullptr) return;
  const std::string& host = upstream.endpoints[of->endpoint]->host;
  tls = std::make_unique<TlsStream>(*upstream.tls, &out,
                                    upstream.tls_name.empty() ? host : upstream.tls_name);
}

Link::~Link() {
  if (fd >= 0) ::close(fd);
}

void Peer::was_unreachable(int64_t now_ns, const std::string& why) {
  pool->problem = pool->upstream->endpoints[endpoint]->target + ": " + why;
  reachable_ns = now_ns + backoff_ns;
  backoff_ns = std::min(backoff_ns * 2, kBackoffMaxNs);
  pool->upstream->endpoints[endpoint]->is_doubtful.store(true, std::memory_order_relaxed);
}

Pool::Pool(std::shared_ptr<const Upstream> of)
    : upstream(std::move(of)), generations(upstream->endpoints.size()) {
  for (const auto& endpoint : upstream->endpoints) {
    std::string authority = endpoint->is_unix ? "localhost" : endpoint->target;
    if (!upstream->tls_name.empty()) authority = upstream->tls_name;
    infer.emplace_back(authority, kInferPath, upstream->tls != nullptr, "identity");
    check.emplace_back(authority, kCheckPath, upstream->tls != nullptr, "identity");
  }
}

ClientLimits limits_of(Core* core) {
  const EngineOptions& options = core->options;
  ClientLimits limits;
  limits.message_in_max = options.message_out_max;
  limits.header_list_max = 2 * options.wire.metadata_bytes_max;  // headers and trailers
  limits.is_identity_only = true;
  limits.budget = &core->bodies.used;
  limits.budget_max = options.wire.body_bytes_max;
  return limits;
}

void Upstreams::note_ready(uint64_t tag, uint32_t events) {
  auto* link = reinterpret_cast<Link*>(tag & ~uint64_t{1});
  if ((events & EPOLLOUT) != 0) mark_dirty(link);
  if (link->is_ready || (link->is_connected && events == EPOLLOUT)) return;
  link->is_ready = true;
  ready_.push_back(link);
}

void Upstreams::mark_dirty(Link* link) {
  if (link->is_dirty || link->is_dead) return;
  link->is_dirty = true;
  dirty_.push_back(link);
}

void Upstreams::read(int64_t now_ns) {
  for (Link* link : ready_) {
    link->is_ready = false;
    if (!link->is_dead) receive(link, now_ns);
  }
  ready_.clear();
}

void Upstreams::receive(Link* link, int64_t now_ns) {
  if (!link->is_connected) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return lose(link, now_ns, std::strerror(error));
    link->is_connected = true;
    return mark_dirty(link);
  }
  if (read_buffer_ == nullptr) read_buffer_.reset(new uint8_t[kReadBytes]);
  const ssize_t got = recv(link->fd, read_buffer_.get(), kReadBytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return lose(link, now_ns, "the connection was closed");
  link->heard_ns = now_ns;
  const uint8_t* bytes = read_buffer_.get();
  size_t count = static_cast<size_t>(got);
  bool is_alive = true;
  if (link->tls != nullptr) {
    plain_.clear();
    is_alive = link->tls->receive(bytes, count, &plain_);
    bytes = plain_.data();
    count = plain_.size();
  }
  if (count != 0 && !link->is_established) {
    link->is_established = true;
    link->peer->backoff_ns = Peer::kBackoffFirstNs;
    link->peer->reachable_ns = 0;
  }
  if (count != 0) is_alive = link->wire.receive(bytes, count, &replies_) && is_alive;
  if (!is_alive) link->is_ending = true;
  if (!is_alive || !link->wire.is_accepting()) retire(link);
  mark_dirty(link);
  take_replies(link, now_ns);
}

// Also what gathered in `replies_` already.
void Upstreams::take_replies(Link* link, int64_t now_ns) {
  link->wire.take_replies(&replies_);
  std::vector<Reply> replies = std::move(replies_);
  replies_.clear();
  for (Reply& reply : replies) on_reply(static_cast<Sent*>(reply.call), &reply, false, now_ns);
  replies.clear();
  if (replies_.empty()) replies_.swap(replies);
}

void Upstreams::flush(int64_t now_ns) {
  // Losing a link may send its calls over others, which are then dirty too.
  for (size_t i = 0; i < dirty_.size(); ++i) {
    dirty_[i]->is_dirty = false;
    write(dirty_[i], now_ns);
  }
  dirty_.clear();
  sweep();
}

void Upstreams::write(Link* link, int64_t now_ns) {
  if (link->is_dead || !link->is_connected) return;
  for (;;) {
    if (link->written == link->out.size()) {
      link->out.clear();
      link->written = 0;
      if (!fill(link)) return lose(link, now_ns, "the connection is broken");
      if (link->out.empty()) break;
    }
    const ssize_t sent = ::send(link->fd, link->out.data() + link->written,
                                link->out.size() - link->written, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      // Read on all the same: a server that answers early must not wait for us to wait.
      return set_mask(link, EPOLLIN | EPOLLOUT);
    }
    if (sent < 0) {
      // What it said before it went is still to be read: a GOAWAY, perhaps.
      const std::string why = std::strerror(errno);
      receive(link, now_ns);
      return lose(link, now_ns, why);
    }
    link->written += static_cast<size_t>(sent);
    if (link->tls == nullptr || link->tls->is_established()) ++link->sends;
  }
  set_mask(link, EPOLLIN);
  take_replies(link, now_ns);
  const bool is_over = link->is_retired && link->wire.open_count() == 0;
  if (!link->is_ending && !is_over) return;
  lose(link, now_ns, "the connection has ended");
}

// Moves what is to be said into `out`, which is empty or holds what TLS itself says. False:
// the connection is broken.
bool Upstreams::fill(Link* link) {
  if (link->tls == nullptr) {
    link->wire.output(&link->out, kOutputHighWater);
    return true;
  }
  if (!link->tls->is_established() || link->is_ending) return true;
  plain_.clear();
  link->wire.output(&plain_, kOutputHighWater);
  return plain_.empty() || link->tls->send(plain_.view());
}

void Upstreams::set_mask(Link* link, uint32_t mask) {
  if (link->mask == mask) return;
  link->mask = mask;
  epoll_event event{};
  event.events = mask;
  event.data.u64 = reinterpret_cast<uint64_t>(link) | 1;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, link->fd, &event);
}

void Upstreams::lose(Link* link, int64_t now_ns, const std::string& why) {
  if (link->is_dead) return;
  link->is_dead = true;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, link->fd, nullptr);
  ::close(std::exchange(link->fd, -1));
  Peer* peer = link->peer;
  add(&peer->cells()->connections, -1);
  dead_.push_back(link);
  // One that we retired ourselves may end without a word; one that broke off did not want.
  const bool was_wanted = link->is_ending || !link->is_retired;
  const bool has_problem = link->tls != nullptr && !link->tls->problem().empty();
  const std::string reason = has_problem ? "TLS: " + link->tls->problem() : why;
  if (!link->is_established && was_wanted) peer->was_unreachable(now_ns, reason);
  peer->pool->upstream->endpoints[peer->endpoint]->is_doubtful.store(
      true, std::memory_order_relaxed);
  std::vector<Reply> replies;
  link->wire.take_replies(&replies);
  const size_t answered = replies.size();
  link->wire.abandon(&replies);
  for (size_t i = 0; i < replies.size(); ++i) {
    if (i >= answered) replies[i].message = reason;
    on_reply(static_cast<Sent*>(replies[i].call), &replies[i], i >= answered, now_ns);
  }
}

void Upstreams::sweep() {
  for (Link* link : dead_) {
    auto& links = link->peer->links;
    links.erase(std::find_if(links.begin(), links.end(),
                             [&](const auto& each) { return each.get() == link; }));
  }
  dead_.clear();
}

void Upstreams::housekeep(int64_t now_ns,
                          const std::vector<std::unique_ptr<LoopTable>>& tables) {
  for (auto at = pools_.begin(); at != pools_.end();) {
    Pool* pool = at->second.get();
    const auto is_routed = [&](const auto& table) {
      const auto& versions = table->live->versions;
      return std::any_of(versions.begin(), versions.end(), [&](const auto& version) {
        return version != nullptr && version->upstream.get() == at->first;
      });
    };
    const bool is_wanted = std::any_of(tables.begin(), tables.end(), is_routed);
    size_t links = 0;
    place_peers(pool);
    for (const auto& peer : pool->peers) {
      keep_peer(peer.get(), is_wanted, now_ns);
      links += peer->links.size();
    }
    const auto is_over = [](const auto& peer) { return peer->is_gone && peer->links.empty(); };
    pool->peers.erase(std::remove_if(pool->peers.begin(), pool->peers.end(), is_over),
                      pool->peers.end());
    at = is_wanted || links != 0 ? std::next(at) : pools_.erase(at);
  }
}

void Upstreams::keep_link(Link* link, bool is_wanted, int64_t now_ns) {
  if (link->is_dead) return;
  const Upstream& upstream = *link->peer->pool->upstream;
  if (now_ns > link->retire_ns) retire(link);
  const bool is_silent =
      !link->is_established && now_ns - link->opened_ns > upstream.connect_ns;
  const bool is_over = link->is_retired && link->wire.open_count() == 0;
  if (!is_wanted || is_silent || is_over) return lose(link, now_ns, "no word in time");
  if (link->wire.awaits_pong()) {
    if (now_ns - std::max(link->pinged_ns, link->heard_ns) <= upstream.pong_ns) return;
    // The machine may still take connections for a process that is stopped.
    link->peer->was_unreachable(now_ns, "it does not answer a PING");
    return lose(link, now_ns, "it does not answer a PING");
  }
  // Each time twice as patient, until it says something of a call.
  const unsigned pings = link->wire.pings();
  const bool may_ping = upstream.keepalive_ns > 0 && pings < kPingsMax;
  if (!may_ping || !link->is_established || link->wire.open_count() == 0) return;
  if (now_ns - link->heard_ns <= upstream.keepalive_ns << pings) return;
  link->wire.ping();
  link->pinged_ns = now_ns;
  mark_dirty(link);
}

void Upstreams::keep_peer(Peer* peer, bool is_wanted, int64_t now_ns) {
  for (size_t i = 0; i < peer->links.size(); ++i) {  // losing one may open another
    keep_link(peer->links[i].get(), is_wanted, now_ns);
  }
  const bool is_open = is_wanted && !peer->is_gone && peer->breaker.is_open();
  const bool is_out = is_open || (is_wanted && !peer->is_gone && now_ns < peer->reachable_ns);
  if (is_out != peer->is_counted_out) add(&peer->cells()->ejected, is_out ? 1 : -1);
  peer->is_counted_out = is_out;
  if (peer->check != nullptr && now_ns > peer->check_until_ns) {
    Link* link = peer->check->link;
    link->wire.cancel(peer->check->id);
    mark_dirty(link);
  } else if (is_open && peer->check == nullptr && !peer->may_try &&
             now_ns >= std::max(peer->check_at_ns, peer->reachable_ns)) {
    begin_check(peer, now_ns);
  }
}

}  // namespace router
