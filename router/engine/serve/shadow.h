// Attempts without a call: requests that other versions run too, and what comes of them.
//
// Loops own both structures and reuse them. A work is made when a request is routed, handed
// to a lane once the answer is written, and comes back through Loop::give_back; in between
// the lane alone touches it, and reads what it shares with the others of its request.
#pragma once

#include <memory>

#include "serve/options.h"
#include "serve/table.h"
#include "watch/tape.h"

namespace router {

class Loop;
struct ShadowWork;

// A request that shadows run, and how it was answered.
struct Shadowed {
  BodyRef body;
  InferRequest request;
  LoopTable* table = nullptr;        // held until the last work is back
  uint32_t model = 0, served = 0;    // `served`: global index of the variant that answered
  std::vector<TensorView> answered;
  ResultRef result;
  uint64_t bytes = 0;                // counted against the loop's share of shadow_bytes_max
  std::vector<ShadowWork*> works;
  size_t left = 0;                   // works that are not back
};

enum class ShadowOutcome : uint8_t { paired, failed, dropped };

struct ShadowWork {
  Shadowed* of = nullptr;
  Loop* loop = nullptr;
  const LiveShadow* shadow = nullptr;
  Version* version = nullptr;        // the shadow's; for noise, the one that answered
  bool is_noise = false;
  bool has_run = false;              // by another server: what is left is comparing
  Attempt attempt;
  Batch batch;                       // to another server
  uint64_t digest = 0;               // of the unit with the shadow's seed; 0: no unit
  int64_t deadline_ns = 0;
  ShadowWork* next = nullptr;        // in a lane's inbox, or among those that came back
  // What the lane found.
  bool is_chosen = false;            // its own mark
  ShadowOutcome outcome = ShadowOutcome::failed;
  ShadowDrop why = ShadowDrop::late;
  Comparison compared;
  int64_t run_ns = 0, cpu_ns = 0;
  bool is_sampled = false;
  Record sample;
};

// The shadow executor: threads at nice 19 that are never used for anything else, as one
// cannot go back. A shadow belongs to one lane. Nothing is locked between a loop and a
// lane: whoever waits for a lock held by a thread of the lowest priority has its priority.
class ShadowLanes {
 public:
  explicit ShadowLanes(const EngineOptions& options);
  ~ShadowLanes();

  void push(ShadowWork* work);       // loops; then, once for all,
  void wake();
  static void be_nice();             // the calling thread, for ever: to nice 19
  // Ends runs that take too long, and gives up on those that do not end. The reaper.
  void watch(int64_t now_ns);
  // Drops what waits and ends what runs. False: a run does not end, and what it reads has
  // to stay. Once the loops have stopped.
  bool stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with threads: one that hangs may outlast us
};

// A ShadowPair of router.v1 (proto/router/v1/tape.proto). Never holds the unit: parameters
// are left out, and the inputs too where one of them is the unit.
void record_pair(const ShadowWork& work, bool is_random, Record* out);

}  // namespace router
