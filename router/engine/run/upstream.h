// A version that lives in another server: what was said of it at load, what it is sent,
// and what its answers mean.
//
// Bytes to values; the sockets are serve/upstream.cc's. Everything but an endpoint's
// addresses is immutable after load and may be read from any thread.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "run/version.h"
#include "wire/client_conn.h"
#include "wire/tls.h"

namespace router {

struct Address {
  sockaddr_storage name{};
  socklen_t size = 0;

  bool operator==(const Address& other) const;
};

// One target of the configuration, "host:port" or "unix:path", and where it is now. Loops
// read the addresses, the resolver replaces them.
class Endpoint {
 public:
  Endpoint(std::string text, int64_t resolve_ns);

  const std::string target;
  const bool is_unix;
  const std::string host;  // of the target, without port and brackets; empty for a socket
  const int64_t resolve_ns;  // how often its name is looked up again
  // Looks the name up and says what went wrong; addresses that were found before stay
  // then. Takes as long as the resolver of the system does: never called on a loop.
  std::string look_up();
  std::vector<Address> addresses() const;
  // Grows when the addresses change. Release after, acquire before the addresses are read.
  uint32_t generation() const { return generation_.load(std::memory_order_acquire); }
  // A loop lost a connection to it: it may have moved. Nothing else is inferred.
  std::atomic<bool> is_doubtful{false};
  std::atomic<uint32_t> failures{0};  // lookups in vain

 private:
  mutable std::mutex mutex_;
  std::vector<Address> addresses_;
  std::atomic<uint32_t> generation_{0};
};

// What a version knows of the servers that answer for it.
struct Upstream {
  std::vector<std::shared_ptr<Endpoint>> endpoints;  // at least one
  TlsContextRef tls;              // null: plain text
  std::string tls_name;           // whose certificate theirs must be; empty: the target's
  std::string model, version;     // what it is called there; no version: theirs to choose
  uint32_t connections = 4;       // at most, for each loop and address
  uint32_t in_flight = 1024;      // attempts at once, over all loops
  int64_t connect_ns = 2'000'000'000;  // until the server's first byte
  // Silence while calls are open until a PING is sent, and from then until the connection
  // is given up. No silence: never.
  int64_t keepalive_ns = 5'000'000'000, pong_ns = 2'000'000'000;
  int64_t age_ns = 1'800'000'000'000;  // of a connection, give or take a tenth
};

// The gRPC frame of a request as the upstream is to see it: only the names of the model and
// of the version are other ones, all else are the client's bytes.
void write_upstream_frame(ByteView body, const Upstream& upstream, Buffer* out);

// Fills the attempt's status, and its outputs when the reply is a good one. `now_ns` tells
// a deadline that passed from one the upstream made up. `scratch` is the caller's, for reuse.
void take_reply(Version* version, Reply* reply, int64_t now_ns, InferRequest* scratch,
                Attempt* attempt);

}  // namespace router
