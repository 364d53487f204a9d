// Looks the names of upstream targets up again, on a thread of its own.
//
// As often as an endpoint wants it, and soon after a loop lost a connection: never on a
// loop, because the system's resolver takes as long as it likes. A lookup that does not
// return is left behind at the end; it touches nothing but its endpoint.
#pragma once

#include <memory>
#include <vector>

#include "run/upstream.h"

namespace router {

class Resolver {
 public:
  Resolver();
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Any thread. An endpoint is forgotten when nobody else holds it.
  void watch(const std::vector<std::shared_ptr<Endpoint>>& endpoints);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the thread, which may outlast us
};

}  // namespace router
