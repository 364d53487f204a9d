// TLS without I/O: bytes from a socket in, plain bytes out; plain bytes in, bytes for the
// socket out. TLS 1.2 or later, and HTTP/2 agreed on by ALPN, or no connection.
//
// A context is immutable once made and may be used from any thread. A stream belongs to one
// thread and keeps its context alive, so replacing a context never touches a connection
// that exists. Only OpenSSL looks at the time, and only to judge the peer's certificate.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"

struct ssl_ctx_st;
struct ssl_st;
struct bio_st;

namespace router {

// PEM text. `certificates`: the leaf, then what leads to a root.
struct TlsFiles {
  ByteView certificates, key, authorities;
};

class TlsContext;
using TlsContextRef = std::shared_ptr<const TlsContext>;

class TlsContext {
 public:
  // Both return what is wrong, empty when `made` was set. `now_s` is Unix time: a
  // certificate outside its validity is refused.
  //
  // A server checks the certificate of a client that brings one, if there are authorities,
  // and turns away those that bring none if `requires_client`.
  static std::string make_server(const TlsFiles& files, bool requires_client, int64_t now_s,
                                 TlsContextRef* made);
  // A client trusts `authorities`, or the system's if there are none, and has a certificate
  // of its own if `certificates` is not empty.
  static std::string make_client(const TlsFiles& files, int64_t now_s, TlsContextRef* made);

  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  int64_t expires_s() const { return expires_s_; }  // of the leaf, Unix time; 0 without one
  ssl_ctx_st* get() const { return context_; }

 private:
  TlsContext();
  std::string use_certificates(const TlsFiles& files, int64_t now_s);
  std::string use_authorities(ByteView pem, bool tells_clients);

  ssl_ctx_st* context_;
  int64_t expires_s_ = 0;
};

// How a handshake ended.
enum class TlsOutcome : uint8_t {
  pending,
  ok,
  not_tls,          // the first bytes were something else
  no_version,       // nothing in common: version or cipher
  no_h2,            // the peer did not offer HTTP/2, or did not agree to it
  bad_certificate,  // of the peer: missing, expired, not signed by an authority, other name
  peer_refused,     // the peer sent an alert: it does not trust us, for one
  timeout,          // set by whoever has a clock
  abandoned,        // the peer left
  failed,           // anything else
  count
};
const char* tls_outcome_name(TlsOutcome outcome);

class TlsStream {
 public:
  // What is for the socket is appended to `out`, which must outlive the stream.
  TlsStream(const TlsContext& context, Buffer* out);  // server
  // Client: the server's certificate must be for `name`, a DNS name or an address. Its
  // first bytes are in `out` at once.
  TlsStream(const TlsContext& context, Buffer* out, const std::string& name);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Takes all bytes; what they said is appended to `plain`. False when nothing more will
  // come: close the connection once `out` is written (it may hold an alert).
  bool receive(const uint8_t* bytes, size_t count, Buffer* plain);
  // After the handshake only. False: the connection is broken.
  bool send(ByteView plain);
  // Says goodbye, so that the peer can tell an end from a cut.
  void close();

  bool is_established() const { return outcome_ == TlsOutcome::ok; }
  TlsOutcome outcome() const { return outcome_; }
  // Why the handshake or the connection failed, in OpenSSL's words.
  const std::string& problem() const { return problem_; }
  // The peer's first URI name, else its first DNS name; empty without a certificate, or
  // when the name has characters it should not have.
  const std::string& identity() const { return identity_; }

 private:
  static int on_read(bio_st* bio, char* into, int count);
  static int on_write(bio_st* bio, const char* bytes, int count);
  static void on_step(const ssl_st* ssl, int where, int);
  static const void* io_method();
  void attach(const TlsContext& context);
  bool shake_hands();
  bool give_up(int result);

  ssl_st* ssl_ = nullptr;
  Buffer* const out_;
  ByteView input_;  // not yet read by OpenSSL; empty outside of `receive`
  TlsOutcome outcome_ = TlsOutcome::pending;
  bool is_broken_ = false;
  unsigned idle_steps_ = 0;  // handshake messages since there were plain bytes
  std::string problem_, identity_;
};

}  // namespace router
