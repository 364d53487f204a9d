// What a loop keeps of the servers of upstream versions. Private to serve/upstream*.cc.
//
// A pool belongs to a version, its peers to the addresses of the version's targets, links
// to a peer. A link that died stays until the end of the flush, because lists of the turn
// may name it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "run/upstream.h"
#include "serve/core.h"
#include "watch/cells.h"

namespace router {

struct Pool;
struct Peer;
struct Link;

// A call on its way: an attempt, or a health check.
struct Sent {
  Batch* batch = nullptr;   // null: a check, or cancelled and only its reply is awaited
  Pool* pool = nullptr;
  Link* link = nullptr;
  int32_t id = -1;          // of its stream
  const Peer* avoided = nullptr;  // where it was sent in vain
  uint64_t sends = 0;       // of the link when it was started
  bool was_resent = false, is_check = false;
};

// A connection.
struct Link {
  Link(Peer* of, int socket, const ClientLimits& limits);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Streams that are worth starting: what the server allows, once it has said so.
  size_t streams_max() const { return is_established ? wire.streams_max() : 100; }

  Peer* const peer;
  int fd;
  ClientConn wire;
  Buffer out;                    // for the socket
  std::unique_ptr<TlsStream> tls;
  size_t written = 0;            // of `out`
  uint32_t mask = 0;             // epoll's
  uint64_t sends = 0;            // writes that took bytes
  int64_t opened_ns = 0, heard_ns = 0, pinged_ns = 0;
  int64_t retire_ns = 0;         // it is old then
  bool is_connected = false;     // the socket is
  bool is_established = false;   // the server has said something
  bool is_retired = false;       // no new calls; closed when the last has ended
  bool is_ending = false;        // closed once `out` is written
  bool is_ready = false, is_dirty = false, is_dead = false;
};

// An address.
struct Peer {
  static constexpr int64_t kBackoffFirstNs = 500'000'000, kBackoffMaxNs = 30'000'000'000;

  Peer(Pool* of, unsigned at, const Address& where) : pool(of), endpoint(at), address(where) {}
  TargetCells* cells() const;
  // A connection could not be made, or its server never said a word.
  void was_unreachable(int64_t now_ns, const std::string& why);

  Pool* const pool;
  const unsigned endpoint;
  const Address address;
  std::vector<std::unique_ptr<Link>> links;
  uint32_t in_flight = 0;
  Breaker breaker;
  bool may_try = false;          // its breaker is open, but it said that it serves
  bool is_gone = false;          // the name has other addresses now
  bool is_counted_out = false;   // in the gauge
  Sent* check = nullptr;
  int64_t check_at_ns = 0, check_until_ns = 0;
  int64_t reachable_ns = 0, backoff_ns = kBackoffFirstNs;  // not connected to before
};

// The servers of a version.
struct Pool {
  explicit Pool(std::shared_ptr<const Upstream> of);

  const std::shared_ptr<const Upstream> upstream;
  std::vector<uint32_t> generations;   // of the endpoints' addresses, like those below
  std::vector<TargetCells*> cells;
  std::deque<CallHeaders> infer, check;
  std::vector<std::unique_ptr<Peer>> peers;
  std::string problem;                 // of the last connection that was not made
  uint64_t in_flight = 0;
  std::vector<Peer*> good, bad;        // scratch of pick
};

inline void retire(Link* link) { link->is_retired = true; }
inline TargetCells* Peer::cells() const { return pool->cells[endpoint]; }

// The loop is the only writer.
inline void add(std::atomic<uint32_t>* gauge, int amount) {
  gauge->store(gauge->load(std::memory_order_relaxed) + static_cast<uint32_t>(amount),
               std::memory_order_relaxed);
}

ClientLimits limits_of(Core* core);

}  // namespace router
