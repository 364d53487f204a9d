#include "serve/upstream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "serve/link.h"
#include "serve/loop.h"

namespace router {
namespace {

constexpr int64_t kCheckEveryNs = 2'000'000'000, kCheckLimitNs = 2'000'000'000;
constexpr unsigned kPicksMax = 8;     // addresses tried before an attempt is given up
constexpr std::string_view kCarried[] = {"traceparent", "tracestate", "baggage",
                                         "x-request-id"};

// At most eight digits, as gRPC has it: microseconds up to 99 s, milliseconds beyond.
std::string_view timeout_text(int64_t ns, char (&text)[16]) {
  const int64_t us = std::max<int64_t>(ns / 1000, 1);
  const bool is_short = us <= 99'999'999;
  const int length = std::snprintf(text, sizeof text, "%lld%c",
                                   static_cast<long long>(is_short ? us : us / 1000),
                                   is_short ? 'u' : 'm');
  return {text, static_cast<size_t>(length)};
}

Sending sending_of(const Attempt& attempt, bool is_lost) {
  switch (attempt.status.situation) {
    case Situation::ok: return Sending::answered;
    case Situation::bad_input:
    case Situation::overload: return Sending::refused;
    case Situation::deadline: return Sending::late;
    default: return is_lost ? Sending::lost : Sending::failed;
  }
}

}  // namespace

Upstreams::Upstreams(Core* core, unsigned index, int epoll)
    : core_(core), index_(index), epoll_(epoll),
      random_state_(static_cast<uint64_t>(monotonic_ns())) {}

Upstreams::~Upstreams() = default;

// SplitMix64.
uint64_t Upstreams::draw(uint64_t below) {
  uint64_t z = random_state_ += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return (z ^ z >> 31) % below;
}

Sent* Upstreams::make_sent() {
  if (free_sent_.empty()) {
    sent_store_.push_back(std::make_unique<Sent>());
    free_sent_.push_back(sent_store_.back().get());
  }
  Sent* sent = free_sent_.back();
  free_sent_.pop_back();
  *sent = Sent{};
  return sent;
}

Pool* Upstreams::pool_of(const Version& version) {
  std::unique_ptr<Pool>& pool = pools_[version.upstream.get()];
  if (pool == nullptr) {
    pool = std::make_unique<Pool>(version.upstream);
    for (const auto& endpoint : version.upstream->endpoints) {
      pool->cells.push_back(
          core_->cells.target(version.model, version.number, endpoint->target)
              ->loops[index_].get());
    }
    place_peers(pool.get());
  }
  return pool.get();
}

// Addresses that are new get peers, those that are gone finish what they have.
void Upstreams::place_peers(Pool* pool) {
  const auto& endpoints = pool->upstream->endpoints;
  for (unsigned at = 0; at < endpoints.size(); ++at) {
    const uint32_t generation = endpoints[at]->generation();
    if (pool->generations[at] == generation) continue;
    pool->generations[at] = generation;
    const std::vector<Address> addresses = endpoints[at]->addresses();
    for (const auto& peer : pool->peers) {
      if (peer->endpoint != at) continue;
      peer->is_gone =
          std::find(addresses.begin(), addresses.end(), peer->address) == addresses.end();
      if (!peer->is_gone) continue;
      for (const auto& link : peer->links) retire(link.get());
    }
    for (const Address& address : addresses) {
      const auto same = [&](const auto& peer) {
        return peer->endpoint == at && peer->address == address;
      };
      if (std::any_of(pool->peers.begin(), pool->peers.end(), same)) continue;
      pool->peers.push_back(std::make_unique<Peer>(pool, at, address));
    }
  }
}

void Upstreams::send(Batch* batch, int64_t now_ns) {
  Sent* sent = make_sent();
  sent->batch = batch;
  sent->pool = pool_of(*batch->version);
  batch->sent = sent;
  batch->started_ns = now_ns;
  const size_t share = sent->pool->upstream->in_flight / core_->options.loops;
  if (sent->pool->in_flight++ >= std::max<size_t>(share, 1)) {
    batch->attempts[0]->status =
        fail(Situation::overload, "too many requests to the model's server are in flight");
    return finish(sent, now_ns);
  }
  transmit(sent, now_ns);
}

void Upstreams::transmit(Sent* sent, int64_t now_ns) {
  for (unsigned i = 0; i < kPicksMax; ++i) {
    Peer* peer = pick(sent->pool, sent->avoided, now_ns);
    if (peer == nullptr) break;
    Link* link = link_of(peer, now_ns);
    if (link != nullptr && start(sent, link, now_ns)) return;
  }
  Version* version = sent->batch->version;
  version->note_failure("no server of it can be reached: " + sent->pool->problem);
  version->counters.failures.fetch_add(1, std::memory_order_relaxed);
  sent->batch->attempts[0]->status =
      fail(Situation::model_failed, "no server of the model can be reached");
  finish(sent, now_ns);
}

bool Upstreams::start(Sent* sent, Link* link, int64_t now_ns) {
  const Attempt& attempt = *sent->batch->attempts[0];
  // A shadow's request has no client any more, whose metadata could be passed on.
  const bool is_shadow = sent->batch->is_shadow;
  const auto* call = is_shadow ? nullptr : static_cast<const Call*>(attempt.owner);
  char timeout[16];
  CallField fields[1 + std::size(kCarried)];
  size_t count = 0;
  fields[count++] = {"grpc-timeout", timeout_text(attempt.deadline_ns - now_ns, timeout)};
  size_t metadata_count = 0;
  const HeaderField* metadata =
      is_shadow ? nullptr : call->exchange->metadata(&metadata_count);
  for (const std::string_view name : kCarried) {
    const auto* found = std::find_if(metadata, metadata + metadata_count,
                                     [&](const HeaderField& each) { return each.name == name; });
    if (found != metadata + metadata_count) fields[count++] = {name, found->value};
  }
  frame_.clear();
  write_upstream_frame(is_shadow ? shadow_body(attempt) : call->body.view(),
                       *sent->pool->upstream, &frame_);
  sent->link = link;
  sent->sends = link->sends;
  sent->id = link->wire.start(sent->pool->infer[link->peer->endpoint], fields, count,
                              std::move(frame_), sent);
  if (sent->id < 0) {
    retire(link);
    return false;
  }
  ++link->peer->in_flight;
  mark_dirty(link);
  return true;
}

// `avoided`, if not null, is taken only when there is no other.
Peer* Upstreams::pick(Pool* pool, const Peer* avoided, int64_t now_ns) {
  std::vector<Peer*>& good = pool->good;
  std::vector<Peer*>& bad = pool->bad;
  good.clear();
  bad.clear();
  for (const auto& peer : pool->peers) {
    if (peer->is_gone || now_ns < peer->reachable_ns) continue;
    if (!peer->breaker.is_open() && peer.get() != avoided) {
      good.push_back(peer.get());
    } else if (peer->breaker.is_open() && peer->may_try && peer->breaker.allows(now_ns)) {
      peer->may_try = false;
      return peer.get();
    } else {
      bad.push_back(peer.get());
    }
  }
  const std::vector<Peer*>& from = good.empty() ? bad : good;
  if (from.size() < 2) return from.empty() ? nullptr : from[0];
  const uint64_t first = draw(from.size());
  const uint64_t second = (first + 1 + draw(from.size() - 1)) % from.size();
  return from[first]->in_flight <= from[second]->in_flight ? from[first] : from[second];
}

// The connection with the fewest calls, or another one when all are full.
Link* Upstreams::link_of(Peer* peer, int64_t now_ns) {
  Link* best = nullptr;
  size_t accepting = 0;
  for (const auto& link : peer->links) {
    if (link->is_dead || link->is_retired) continue;
    ++accepting;
    if (best == nullptr || link->wire.open_count() < best->wire.open_count()) best = link.get();
  }
  const bool is_full = best != nullptr && best->wire.open_count() >= best->streams_max();
  if (best != nullptr && (!is_full || accepting >= peer->pool->upstream->connections)) {
    return best;
  }
  Link* opened = open_link(peer, now_ns);
  return opened == nullptr ? best : opened;
}

Link* Upstreams::open_link(Peer* peer, int64_t now_ns) {
  const auto* address = reinterpret_cast<const sockaddr*>(&peer->address.name);
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && address->sa_family != AF_UNIX) {
    const int on = 1, patience_ms = 20'000;  // for bytes nobody acknowledges
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
  }
  const bool is_open = fd >= 0 && connect(fd, address, peer->address.size) == 0;
  if (!is_open && (fd < 0 || errno != EINPROGRESS)) {
    peer->was_unreachable(now_ns, std::strerror(errno));
    if (fd >= 0) ::close(fd);
    return nullptr;
  }
  Link* link =
      peer->links.emplace_back(std::make_unique<Link>(peer, fd, limits_of(core_))).get();
  link->is_connected = is_open;
  link->opened_ns = link->heard_ns = now_ns;
  const int64_t age_ns = peer->pool->upstream->age_ns;
  link->retire_ns = now_ns + age_ns - age_ns / 10 +
                    static_cast<int64_t>(draw(static_cast<uint64_t>(age_ns / 5 + 1)));
  link->mask = is_open ? EPOLLIN : EPOLLIN | EPOLLOUT;
  epoll_event event{};
  event.events = link->mask;
  event.data.u64 = reinterpret_cast<uint64_t>(link) | 1;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  add(&peer->cells()->connections, 1);
  mark_dirty(link);
  return link;
}

void Upstreams::cancel(Batch* batch, bool was_late) {
  auto* sent = static_cast<Sent*>(batch->sent);
  if (sent == nullptr) return;
  const int64_t now_ns = monotonic_ns();
  Link* link = sent->link;
  const bool is_late = was_late || batch->attempts[0]->deadline_ns <= now_ns;
  if (is_late) batch->version->note_failure("it did not answer in time");
  link->wire.cancel(sent->id);
  mark_dirty(link);
  --link->peer->in_flight;
  charge(link->peer, is_late ? Sending::late : Sending::cancelled, now_ns);
  batch->was_terminated.store(true, std::memory_order_relaxed);
  batch->attempts[0]->status = fail(Situation::cancelled, "the request was cancelled");
  batch->version->counters.terminated.fetch_add(1, std::memory_order_relaxed);
  batch->finished_ns = now_ns;
  --sent->pool->in_flight;
  batch->sent = nullptr;
  sent->batch = nullptr;  // its reply comes all the same, and frees it
  finished_.push_back(batch);
}

void Upstreams::on_reply(Sent* sent, Reply* reply, bool is_lost, int64_t now_ns) {
  if (sent->is_check) return on_check(sent, *reply, now_ns);
  if (sent->batch == nullptr) return free_sent_.push_back(sent);
  Attempt& attempt = *sent->batch->attempts[0];
  Link* link = sent->link;
  --link->peer->in_flight;
  // Nothing was written since it was started: the server cannot have seen it.
  const bool was_unseen = reply->is_unprocessed || (is_lost && sent->sends == link->sends);
  if (was_unseen && !sent->was_resent && now_ns < attempt.deadline_ns) {
    sent->was_resent = true;
    sent->avoided = link->peer;
    link->peer->cells()->sent[static_cast<unsigned>(Sending::resent)].add(1);
    return transmit(sent, now_ns);
  }
  take_reply(sent->batch->version, reply, now_ns, &scratch_, &attempt);
  charge(link->peer, sending_of(attempt, is_lost), now_ns);
  finish(sent, now_ns);
}

void Upstreams::charge(Peer* peer, Sending outcome, int64_t now_ns) {
  peer->cells()->sent[static_cast<unsigned>(outcome)].add(1);
  if (outcome == Sending::answered || outcome == Sending::refused) {
    return peer->breaker.succeeded();
  }
  if (outcome == Sending::cancelled) return;
  const bool was_open = peer->breaker.is_open();
  peer->breaker.failed(now_ns);
  if (was_open || !peer->breaker.is_open()) return;
  peer->check_at_ns = now_ns + Peer::kBackoffFirstNs;
  // What made it fail may be the connection: it comes back on a new one.
  for (const auto& link : peer->links) retire(link.get());
}

void Upstreams::finish(Sent* sent, int64_t now_ns) {
  Batch* batch = sent->batch;
  VersionCounters& counters = batch->version->counters;
  const int64_t run_ns = now_ns - batch->started_ns;
  if (!batch->is_shadow) {
    counters.runs.fetch_add(1, std::memory_order_relaxed);
    counters.rows.fetch_add(batch->rows, std::memory_order_relaxed);
    counters.run_ns.fetch_add(static_cast<uint64_t>(run_ns), std::memory_order_relaxed);
  }
  batch->finished_ns = now_ns;
  --sent->pool->in_flight;
  batch->sent = nullptr;
  finished_.push_back(batch);
  free_sent_.push_back(sent);
}

bool Upstreams::take_finished(std::vector<Batch*>* batches) {
  if (finished_.empty()) return false;
  batches->insert(batches->end(), finished_.begin(), finished_.end());
  finished_.clear();
  return true;
}

// Asks a server whose breaker is open whether it serves.
void Upstreams::begin_check(Peer* peer, int64_t now_ns) {
  peer->check_at_ns = now_ns + kCheckEveryNs;
  Link* link = link_of(peer, now_ns);
  if (link == nullptr) return;
  Sent* sent = make_sent();
  sent->is_check = true;
  sent->pool = peer->pool;
  sent->link = link;
  const CallField timeout{"grpc-timeout", "2S"};
  frame_.clear();
  std::fill_n(frame_.extend(kMessagePrefix), kMessagePrefix, uint8_t{0});
  sent->id = link->wire.start(peer->pool->check[peer->endpoint], &timeout, 1,
                              std::move(frame_), sent);
  if (sent->id < 0) {
    retire(link);
    return free_sent_.push_back(sent);
  }
  peer->check = sent;
  peer->check_until_ns = now_ns + kCheckLimitNs;
  mark_dirty(link);
}

void Upstreams::on_check(Sent* sent, const Reply& reply, int64_t now_ns) {
  Peer* peer = sent->link->peer;
  peer->check = nullptr;
  free_sent_.push_back(sent);
  // A server that has no such method has answered; the next request will tell.
  const bool is_unknown = reply.has_trailers && (reply.code == Code::unimplemented ||
                                                 reply.code == Code::unauthenticated ||
                                                 reply.code == Code::permission_denied);
  const bool is_serving = reply.code == Code::ok && reply.body.view() == "\x08\x01";
  peer->may_try = is_serving || is_unknown;
  if (!peer->may_try) peer->breaker.failed(now_ns);
}

}  // namespace router
