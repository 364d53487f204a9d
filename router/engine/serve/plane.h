// The engine: owner of the core, the loops' threads, the versions and the tables.
//
// Its methods are what engine.h offers; abi.cc translates. `publish`, `load` and `unload`
// may be called from any thread and are serialised here.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/core.h"
#include "serve/json.h"
#include "serve/loop.h"
#include "serve/resolver.h"

namespace router {

class Engine {
 public:
  Engine(const EngineOptions& options, const fh_kernel_api* kernel);
  ~Engine();

  std::string load(const std::string& model, uint32_t number, ByteView bytes,
                   const Options& options, std::string* report);
  std::string unload(const std::string& model, uint32_t number);
  std::string publish(ByteView table);
  std::string start();
  void listen(int fd, int listener);
  bool has_loops() const { return !core_.loops.empty(); }
  // False when the engine has stopped.
  bool call(LocalCall* call);
  bool send(uint64_t stream, MethodReply* reply);
  int drain(int64_t grace_ms);
  void stop();
  std::string snapshot() const;
  void drain_tapes(Buffer* out);
  Core& core() { return core_; }

 private:
  void make_loops();
  void reap();  // the reaper's thread
  uint64_t oldest_held() const;

  Core core_;
  Resolver resolver_;
  std::vector<std::thread> threads_;
  std::thread reaper_;
  mutable std::mutex mutex_;         // versions_, tables_, generation_, what has happened
  std::condition_variable retired_;  // tables_ grew, or stopping
  std::mutex taping_;                // one reader of the tapes at a time
  std::mutex sending_;               // is_closed_; apart, as a publish takes its time
  bool is_closed_ = false;           // the loops are going: nothing is posted to them
  VersionMap versions_;
  VersionMap beside_;                // loaded with shadow=1: sessions of their own
  std::vector<std::unique_ptr<LiveTable>> tables_;  // the current one last
  uint64_t generation_ = 0;
  std::atomic<uint32_t> next_loop_{0};
  bool is_started_ = false, is_stopped_ = false;
  int64_t started_ns_ = 0;
};

// Parts of a snapshot (snapshot_firsts.cc).
void write_histogram(Json* json, const std::vector<const Histogram*>& parts);
void write_shadows(Json* json, const Core& core);  // snapshot_shadow.cc
void write_firsts(Json* json, const ScopeRegistry& scopes);
// JSON text of a version for load reports and snapshots (snapshot.cc).
std::string describe_version(const Version& version);

}  // namespace router
