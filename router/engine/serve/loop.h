// A loop: one thread that works in turns. turn.cc is the flow; loop.cc is the I/O beneath it.
//
// Everything but `mailbox`, `connection_count`, `held_generation` and the counters is the
// loop's own and is touched on its thread only.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mailbox.h"
#include "serve/answer.h"
#include "serve/call.h"
#include "serve/context.h"
#include "serve/core.h"
#include "serve/shadow.h"
#include "serve/timers.h"
#include "serve/upstream.h"
#include "wire/tls.h"

namespace router {

struct Connection {
  Connection(const WireLimits& limits, BodyBudget* budget) : grpc(limits, budget) {}

  int fd = -1;
  int listener = 0;
  std::string peer;
  GrpcConn grpc;
  Buffer out;                   // for the socket: behind TLS, where there is TLS
  std::unique_ptr<TlsStream> tls;  // null: the listener is plain
  TlsOutcome handshake = TlsOutcome::pending;  // as counted
  size_t written = 0;           // of `out`
  uint32_t epoll_mask = 0;
  bool is_dirty = false;        // something may be ready to write
  bool is_ending = false;       // close once `out` is written
  bool is_lingering = false;    // our side is shut; waiting for the peer's end
  bool is_dead = false;         // freed at the end of the turn
  int64_t opened_ns = 0;
  int64_t active_ns = 0, retire_ns = 0;      // last byte; when its age is up
  int64_t announced_ns = 0, linger_until_ns = 0;
  bool is_closed_to_new = false;
};

struct LoopCounters {
  Counter turns, loop_runs, handed_over, accepted, refused_connections;
  Counter situations[static_cast<unsigned>(Situation::count)];
  Counter abuse[static_cast<unsigned>(Abuse::count)];
  Counter handshakes[static_cast<unsigned>(TlsOutcome::count)];
  std::atomic<uint64_t> calls{0};  // a gauge, written by the loop
};

class Loop {
 public:
  Loop(Core* core, unsigned index);
  ~Loop();

  void run();  // the thread's body: turns until told to stop
  void listen(int fd, int listener);  // before run
  void post(Letter letter) { mailbox_.post(std::move(letter)); }
  void wake() { mailbox_.wake(); }
  Tape& tape() { return *core_->tapes[index_]; }  // the loop's thread only

  // A lane gives a shadow's work back; it wakes the loop when it has nothing else to do.
  void give_back(ShadowWork* work);
  bool has_returned() const { return returned_.load(std::memory_order_relaxed) != nullptr; }

  uint32_t connection_count() const { return connection_count_.load(std::memory_order_relaxed); }
  // The oldest table generation this loop may still read. Release after the last read of an
  // older table, acquire by the reaper, which may then free it.
  uint64_t held_generation() const { return held_generation_.load(std::memory_order_acquire); }
  bool is_drained() const { return is_drained_.load(std::memory_order_acquire); }
  const LoopCounters& counters() const { return counters_; }
  const std::vector<std::unique_ptr<Counter[]>>& method_codes() const { return method_codes_; }

 private:
  struct Listener {
    int fd;
    int kind;
  };

  // turn.cc
  void turn();
  void take_table();
  void release_table(LoopTable* table);
  void on_letter(Letter* letter);
  void begin_call(Exchange* exchange, BodyRef body);
  Status admit(Call* call);
  Status route_call(Call* call);
  Status start_attempt(Call* call, unsigned which, uint32_t variant);
  void run_pending();
  void place_batch(LoopTable* table, uint32_t variant, Batch* batch);
  bool may_run_here(const LoopTable& table, uint32_t variant, const Batch& batch) const;
  void finish_batch(Batch* batch);
  void send_upstream();
  void finish_upstream();

  // shadow.cc
  void take_shadows(Call* call, const fh_request& request);
  void start_shadows(Call* call, unsigned served);
  void forget_shadows(Call* call);
  void send_shadows();
  void finish_shadows();
  void finish_shadow(ShadowWork* work);
  void finish_sent_shadow(Batch* batch);
  void cancel_late_shadows();
  ShadowWork* add_shadow(Shadowed* of, const LiveShadow* shadow, bool is_noise);
  void release_shadow(ShadowWork* work);

  // exchange.cc
  void on_event(Connection* connection, Event* event);
  void open_exchange(Connection* connection, Stream* stream);
  void on_message(Exchange* exchange, BodyRef body);
  void on_half_closed(Exchange* exchange);
  void on_closed(Exchange* exchange, bool by_peer);
  void on_method_message(Exchange* exchange, BodyRef body);
  void on_reply(MethodReply* reply);
  void begin_local(LocalCall* local);

  // firsts.cc
  void watch_unit(Call* call, bool is_sticky);
  void charge(Call* call, FirstKind kind);
  void charge_outcome(Call* call, Code code);
  void judge_latency(Call* call, int64_t ns, bool was_given_up);
  void watch_score(const Call& call, double score);
  void record_request(const Call& call, const fh_model& model, const HeaderField* metadata,
                      size_t count);
  void record_exposure(const Call& call, unsigned served, const Judgement& judgement);
  void record_first(const Call& call, FirstKind kind);

  // fallback.cc
  void finish_attempt(Call* call, unsigned which, const Batch& batch);
  void start_fallback(Call* call);
  bool may_fall_back(const Call& call) const;
  int64_t fallback_time(Call* call, int64_t now);
  void arm_timer(Call* call);
  void fire_timers();
  void abandon_attempts(Call* call);
  void cancel_call(Call* call);

  // outcome.cc
  void answer(Call* call, unsigned served, const Judgement& judgement);
  void send_in_order(Exchange* exchange, uint64_t place, Buffer&& frame);
  void refuse(Call* call, const Status& status);
  void settle(Call* call, Code code);
  void observe_batch(const Batch& batch);
  void finish_exchange(Exchange* exchange, const Status& status);
  void finish_local(Exchange* exchange, const Trailers& trailers, std::string_view message);
  void wake_local_callers();
  VariantCells* cells_of(const Call& call) const;
  Batch* make_batch();
  Call* make_call();
  void release_call(Call* call);
  Exchange* make_exchange();
  void release_exchange(Exchange* exchange);

  // loop.cc
  void wait();
  void accept_from(const Listener& listener);
  bool refuse_waiting(const Listener& listener);
  void adopt(int fd, int listener, std::string peer);
  void read_from(Connection* connection);
  void drain_reads(Connection* connection);
  bool take_bytes(Connection* connection, size_t count);
  void fill_output(Connection* connection);
  void count_handshake(Connection* connection, TlsOutcome outcome);
  void write_dirty();
  void write_to(Connection* connection);
  void mark_dirty(Connection* connection);
  void set_mask(Connection* connection, uint32_t mask);
  void end_connection(Connection* connection);
  void bury(Connection* connection);
  void sweep();
  void housekeep();
  void keep_connection(Connection* connection);
  void start_drain();
  void cut_off();

  Core* const core_;
  const unsigned index_;
  Mailbox<Letter> mailbox_;
  int epoll_ = -1;
  int spare_ = -1;              // see refuse_waiting
  std::vector<Listener> listeners_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> dirty_, ready_, dead_;
  std::vector<Letter> letters_;
  std::vector<Event> events_;
  std::unique_ptr<uint8_t[]> read_buffer_;
  Buffer plain_;                         // one connection's, decrypted or to be encrypted
  int64_t now_ns_ = 0, decoded_ns_ = 0, housekept_ns_ = 0;
  bool is_stopping_ = false, is_draining_ = false, has_mail_ = false;
  bool is_cut_off_ = false;

  std::vector<std::unique_ptr<LoopTable>> tables_;  // the current one last
  LoopTable* table_ = nullptr;
  struct Due {
    LoopTable* table;
    uint32_t variant;
  };
  std::vector<Due> due_;                 // variants with pending attempts
  uint64_t rotation_ = 0;                // whose turn it is to run first
  int64_t turn_load_ns_ = 0;             // predicted run time pending this turn
  Timers timers_;
  RunSlot slot_;
  std::unique_ptr<Upstreams> upstreams_;
  std::vector<Batch*> come_back_;        // scratch of finish_upstream
  std::unordered_map<uint64_t, Exchange*> method_exchanges_;
  uint64_t next_exchange_ = 1;
  std::vector<std::unique_ptr<Call>> call_store_;
  std::vector<Call*> free_calls_;
  std::vector<std::unique_ptr<Exchange>> exchange_store_;
  std::vector<Exchange*> free_exchanges_;
  std::vector<std::unique_ptr<Batch>> batch_store_;
  std::vector<Batch*> free_batches_;
  uint64_t exchanges_open_ = 0;
  // Release by a lane, acquire by the loop: a work is seen with all that the lane found.
  std::atomic<ShadowWork*> returned_{nullptr};
  std::vector<Shadowed*> shadow_due_;    // answered in this turn
  std::vector<ShadowWork*> shadow_sent_; // to other servers
  uint64_t shadow_bytes_ = 0;            // of bodies and answers that shadows hold
  std::vector<std::unique_ptr<Shadowed>> shadowed_store_;
  std::vector<Shadowed*> free_shadowed_;
  std::vector<std::unique_ptr<ShadowWork>> work_store_;
  std::vector<ShadowWork*> free_works_;
  // Calls answered since the last observation, and when.
  struct Answered {
    StageHistograms* stages;
    int64_t received_ns;
  };
  std::vector<Answered> answered_;
  std::vector<LocalCall*> finished_locals_;
  ContextScratch scratch_;
  Annotations annotations_;
  uint64_t random_state_[2];
  uint32_t sequence_ = 0;
  uint64_t draw_random();

  std::atomic<uint32_t> connection_count_{0};
  std::atomic<uint64_t> held_generation_{0};
  std::atomic<bool> is_drained_{false};
  LoopCounters counters_;
  std::vector<std::unique_ptr<Counter[]>> method_codes_;  // by method, then code
};

}  // namespace router
