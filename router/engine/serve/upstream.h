// One loop's connections to the servers in which upstream versions live.
//
// Touched on its loop only. An attempt goes out with `send` and comes back, once, through
// `take_finished`, whatever happens to its connection; the loop finishes it there like any
// other batch. Per version there is a pool: an address of every target, each with a few
// connections and a breaker. An attempt takes the less busy of two addresses drawn at
// random. One whose breaker opened is left out until its server says that it serves and
// one request went well; when all are out they are used all the same, for a version
// without servers answers nobody. What was certainly never looked at is sent once more.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "run/upstream.h"
#include "serve/core.h"

namespace router {

ByteView shadow_body(const Attempt& attempt);  // of a shadow's (shadow.cc)

struct Link;
struct Peer;
struct Pool;
struct Sent;

class Upstreams {
 public:
  Upstreams(Core* core, unsigned index, int epoll);
  ~Upstreams();

  // The batch has one attempt, of an upstream version, whose owner is a Call.
  void send(Batch* batch, int64_t now_ns);
  // Nobody waits for it any more, perhaps because it took too long. Does nothing when the
  // batch is not out.
  void cancel(Batch* batch, bool was_late);

  // Epoll tags of ours have their lowest bit set; those of the loop are pointers or small.
  static bool owns(uint64_t tag) { return (tag & 1) != 0 && tag > 4096; }
  void note_ready(uint64_t tag, uint32_t events);
  void read(int64_t now_ns);    // what is ready
  void flush(int64_t now_ns);   // writes what waits
  // Timeouts, checks, moved names; drops the pools of versions that no table of `tables`
  // routes to.
  void housekeep(int64_t now_ns, const std::vector<std::unique_ptr<LoopTable>>& tables);

  // Moves what came back behind `batches`; false when there was nothing.
  bool take_finished(std::vector<Batch*>* batches);
  bool has_work() const { return !finished_.empty() || !dirty_.empty(); }
  bool is_idle() const { return pools_.empty(); }

 private:
  Pool* pool_of(const Version& version);
  void place_peers(Pool* pool);
  void transmit(Sent* sent, int64_t now_ns);
  bool start(Sent* sent, Link* link, int64_t now_ns);
  Peer* pick(Pool* pool, const Peer* avoided, int64_t now_ns);
  Link* link_of(Peer* peer, int64_t now_ns);
  Link* open_link(Peer* peer, int64_t now_ns);
  void begin_check(Peer* peer, int64_t now_ns);
  void keep_link(Link* link, bool is_wanted, int64_t now_ns);
  void keep_peer(Peer* peer, bool is_wanted, int64_t now_ns);

  void receive(Link* link, int64_t now_ns);
  void write(Link* link, int64_t now_ns);
  void set_mask(Link* link, uint32_t mask);
  void mark_dirty(Link* link);
  void take_replies(Link* link, int64_t now_ns);
  bool fill(Link* link);
  void lose(Link* link, int64_t now_ns, const std::string& why);
  void on_reply(Sent* sent, Reply* reply, bool is_lost, int64_t now_ns);
  void on_check(Sent* sent, const Reply& reply, int64_t now_ns);
  void charge(Peer* peer, Sending outcome, int64_t now_ns);
  void finish(Sent* sent, int64_t now_ns);
  void sweep();
  uint64_t draw(uint64_t below);
  Sent* make_sent();

  Core* const core_;
  const unsigned index_;
  const int epoll_;
  uint64_t random_state_;
  std::unordered_map<const Upstream*, std::unique_ptr<Pool>> pools_;
  std::vector<Link*> ready_, dirty_, dead_;
  std::vector<Batch*> finished_;
  std::vector<Reply> replies_;
  std::vector<std::unique_ptr<Sent>> sent_store_;
  std::vector<Sent*> free_sent_;
  std::unique_ptr<uint8_t[]> read_buffer_;
  InferRequest scratch_;
  Buffer frame_, plain_;
};

}  // namespace router
