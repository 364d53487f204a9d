#include "run/upstream.h"

#include <netdb.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>

#include "run/slot.h"
#include "wire/protobuf.h"

namespace router {
namespace {

constexpr size_t kAddressesMax = 16;   // of one name
constexpr size_t kMessageMax = 256;    // of the upstream's words that a client gets to see
constexpr std::string_view kUnixPrefix = "unix:";

std::string unix_address(std::string_view path, Address* address) {
  auto* name = reinterpret_cast<sockaddr_un*>(&address->name);
  if (path.empty() || path.size() >= sizeof name->sun_path) return "is not a socket's path";
  name->sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), name->sun_path);
  address->size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return {};
}

std::string host_of(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos || colon == 0) return {};
  const bool is_bracketed = target[0] == '[' && target[colon - 1] == ']' && colon > 2;
  return is_bracketed ? target.substr(1, colon - 2) : target.substr(0, colon);
}

std::string inet_addresses(const std::string& host, const std::string& target,
                           std::vector<Address>* found) {
  if (host.empty()) return "is not host:port or unix:path";
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  const int code = getaddrinfo(host.c_str(), target.c_str() + target.rfind(':') + 1, &hints, &list);
  if (code != 0) return std::string("cannot be looked up: ") + gai_strerror(code);
  for (addrinfo* at = list; at != nullptr && found->size() < kAddressesMax; at = at->ai_next) {
    Address& address = found->emplace_back();
    std::memcpy(&address.name, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
  }
  freeaddrinfo(list);
  return {};
}

// name|DATATYPE|d0,d1; a name may hold any character.
std::string read_spec(std::string_view text, TensorSpec* spec) {
  const size_t second = text.rfind('|');
  const size_t first = second == 0 || second == text.npos ? text.npos : text.rfind('|', second - 1);
  if (first == text.npos) return "'" + std::string(text) + "' is not name|DATATYPE|shape";
  spec->name = text.substr(0, first);
  spec->type = datatype_from_name(text.substr(first + 1, second - first - 1));
  if (spec->type == DataType::invalid) return quoted(spec->name) + " has an unknown datatype";
  for (const std::string& item : split_list(text.substr(second + 1))) {
    int64_t size = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), size);
    if (error != std::errc() || *end != '\0' || size < -1 || spec->shape.rank == kRankMax) {
      return quoted(spec->name) + " has a shape that cannot be";
    }
    spec->shape.dims[spec->shape.rank++] = size;
  }
  return {};
}

std::string read_specs(const Options& options, const std::string& prefix,
                       std::vector<TensorSpec>* specs) {
  for (unsigned i = 0; i <= kTensorsMax; ++i) {
    const std::string_view text = option(options, prefix + std::to_string(i));
    if (text.empty()) break;
    if (i == kTensorsMax) return "too many tensors";
    std::string why = read_spec(text, &specs->emplace_back());
    if (!why.empty()) return why;
  }
  return specs->empty() ? "no " + prefix + "0" : std::string();
}

std::string read_tls(const Options& options, Upstream* upstream) {
  if (option(options, "tls").empty()) return {};
  upstream->tls_name = option(options, "tls_name");
  const TlsFiles files{option(options, "tls_cert"), option(options, "tls_key"),
                       option(options, "tls_ca")};
  return TlsContext::make_client(files, clock_ns(CLOCK_REALTIME) / 1'000'000'000,
                                 &upstream->tls);
}

bool option_ms(const Options& options, std::string_view key, int64_t* ns, std::string* why) {
  auto ms = static_cast<uint32_t>(*ns / 1'000'000);
  if (!option_number(options, key, 1'000'000'000, &ms, why)) return false;
  *ns = int64_t{ms} * 1'000'000;
  return true;
}

class UpstreamVersion final : public Version {
 public:
  // Loops send its attempts themselves; whoever hands one to a thread made a mistake.
  void run(Batch* batch, RunSlot*) override {
    fail_attempts(this, batch, batch->attempts.data(), batch->attempts.size(),
                  "an upstream version does not run here");
  }
};

// Before anything of it reaches a client or a log: bounded, whole characters, no controls.
std::string cleaned(std::string text) {
  if (text.size() > kMessageMax) {
    size_t size = kMessageMax;
    while (size > 0 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
    text.resize(size);
  }
  if (!protobuf::is_utf8(text)) return "the message of the model's server is not text";
  for (char& letter : text) {
    if (static_cast<uint8_t>(letter) < 0x20 || letter == 0x7F) letter = ' ';
  }
  return text;
}

bool fits(const TensorSpec& spec, const TensorView& tensor) {
  if (tensor.type != spec.type || tensor.shape.rank != spec.shape.rank) return false;
  for (unsigned d = 0; d < spec.shape.rank; ++d) {
    const int64_t wanted = spec.shape.dims[d];
    if (wanted >= 0 && wanted != tensor.shape.dims[d]) return false;
  }
  return true;
}

// The outputs that were asked for, in that order; a name says what is wrong with the answer.
std::string take_outputs(const Signature& signature, const InferRequest& answer,
                         Attempt* attempt) {
  attempt->outputs.clear();
  for (const uint8_t index : attempt->binding.outputs) {
    const TensorSpec& spec = signature.outputs[index];
    const auto found = std::find_if(answer.inputs.begin(), answer.inputs.end(),
                                    [&](const auto& each) { return each.name == spec.name; });
    if (found == answer.inputs.end()) return "its answer has no output " + quoted(spec.name);
    if (!fits(spec, *found)) {
      return "its answer has another datatype or shape for output " + quoted(spec.name);
    }
    attempt->outputs.push_back(*found);
    attempt->outputs.back().name = spec.name;
  }
  return {};
}

}  // namespace

bool Address::operator==(const Address& other) const {
  return size == other.size && std::memcmp(&name, &other.name, size) == 0;
}

Endpoint::Endpoint(std::string text, int64_t resolve)
    : target(std::move(text)), is_unix(target.rfind(kUnixPrefix, 0) == 0),
      host(is_unix ? std::string() : host_of(target)), resolve_ns(resolve) {}

std::string Endpoint::look_up() {
  std::vector<Address> found;
  std::string why = is_unix ? unix_address(std::string_view(target).substr(kUnixPrefix.size()),
                                           &found.emplace_back())
                            : inet_addresses(host, target, &found);
  if (!why.empty()) {
    failures.fetch_add(1, std::memory_order_relaxed);
    return "target '" + target + "' " + why;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (found == addresses_) return {};
  addresses_ = std::move(found);
  generation_.fetch_add(1, std::memory_order_release);
  return {};
}

std::vector<Address> Endpoint::addresses() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return addresses_;
}

std::string load_upstream(const Options& options, std::unique_ptr<Version>* out) {
  auto upstream = std::make_shared<Upstream>();
  auto made = std::make_unique<UpstreamVersion>();
  std::string why;
  int64_t resolve_ns = 30'000'000'000;
  const bool good =
      option_number(options, "connections", 64, &upstream->connections, &why) &&
      option_number(options, "in_flight", 1 << 20, &upstream->in_flight, &why) &&
      option_ms(options, "connect_timeout_ms", &upstream->connect_ns, &why) &&
      option_ms(options, "keepalive_ms", &upstream->keepalive_ns, &why) &&
      option_ms(options, "keepalive_timeout_ms", &upstream->pong_ns, &why) &&
      option_ms(options, "connection_age_ms", &upstream->age_ns, &why) &&
      option_ms(options, "resolve_ms", &resolve_ns, &why);
  if (!good) return why;
  if (upstream->connections == 0) return "connections must be at least 1";
  for (const std::string& target : split_list(option(options, "targets"))) {
    auto& endpoint = upstream->endpoints;
    why = endpoint.emplace_back(std::make_shared<Endpoint>(target, resolve_ns))->look_up();
    if (!why.empty()) return why;
  }
  if (upstream->endpoints.empty()) return "an upstream version needs targets";
  upstream->model = option(options, "upstream_model");
  upstream->version = option(options, "upstream_version");
  why = read_tls(options, upstream.get());
  if (!why.empty()) return "TLS: " + why;
  why = read_specs(options, "input.", &made->signature.inputs);
  if (why.empty()) why = read_specs(options, "output.", &made->signature.outputs);
  if (!why.empty()) return why;
  made->platform = option(options, "platform", "upstream");
  made->upstream = std::move(upstream);
  *out = std::move(made);
  return {};
}

void write_upstream_frame(ByteView body, const Upstream& upstream, Buffer* out) {
  using namespace protobuf;
  constexpr uint32_t kModel = tag_of(1, kBytes), kVersion = tag_of(2, kBytes);
  const size_t start = out->size();
  out->reserve_more(kMessagePrefix + body.size() + upstream.model.size() +
                    upstream.version.size() + 16);
  out->extend(kMessagePrefix);
  const auto put_name = [out](uint32_t field, std::string_view name) {
    if (name.empty()) return;
    uint8_t* at = out->extend(field_size(name.size()));
    put_bytes(at, field, name);
  };
  put_name(1, upstream.model);
  put_name(2, upstream.version);
  // Runs of fields between the names are copied as they are. The body was read before, so
  // every field of it ends where it should.
  Cursor in(body);
  const uint8_t* kept = in.at;
  while (!in.done()) {
    const uint8_t* field = in.at;
    uint32_t tag = 0;
    if (!read_tag(&in, &tag) || !skip_field(&in, tag)) break;
    if (tag != kModel && tag != kVersion) continue;
    out->append(kept, static_cast<size_t>(field - kept));
    kept = in.at;
  }
  out->append(kept, static_cast<size_t>(in.end - kept));
  const auto size = static_cast<uint32_t>(out->size() - start - kMessagePrefix);
  uint8_t* prefix = out->data() + start;
  prefix[0] = 0;
  for (unsigned i = 0; i < 4; ++i) prefix[1 + i] = static_cast<uint8_t>(size >> (24 - 8 * i));
}

void take_reply(Version* version, Reply* reply, int64_t now_ns, InferRequest* scratch,
                Attempt* attempt) {
  std::string why;
  if (reply->code == Code::ok) {
    const Status status = read_infer_reply(reply->body.view(), scratch);
    why = status.ok() ? take_outputs(version->signature, *scratch, attempt)
                      : "its answer is malformed: " + status.message;
    if (why.empty()) {
      attempt->status = Status();
      auto* result = new RunResult;
      attempt->result = ResultRef(result);
      result->body = std::move(reply->body);
      if (!scratch->typed.empty()) result->buffers.push_back(std::move(scratch->typed));
      return;
    }
  } else {
    why = std::string("it answered ") + code_name(reply->code) + ": " + cleaned(reply->message);
  }
  attempt->outputs.clear();
  attempt->result = ResultRef();
  // An upstream that gives up long before the deadline has failed like any other.
  constexpr int64_t kNearNs = 20'000'000;
  if (reply->code == Code::invalid_argument && reply->has_trailers) {
    attempt->status = fail(Situation::bad_input, cleaned(std::move(reply->message)));
  } else if (reply->code == Code::resource_exhausted && !reply->is_malformed) {
    attempt->status = fail(Situation::overload, "the model's server has no room");
  } else if (reply->code == Code::deadline_exceeded && attempt->deadline_ns - now_ns < kNearNs) {
    attempt->status = fail(Situation::deadline, "the deadline passed");
  } else {
    attempt->status = fail(Situation::model_failed,
                           "model " + quoted(version->model) + " version " +
                               std::to_string(version->number) + " failed");
    version->counters.failures.fetch_add(1, std::memory_order_relaxed);
  }
  version->note_failure(why);
}

}  // namespace router
