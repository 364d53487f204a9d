#include "wire/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <vector>

namespace router {
namespace {

constexpr unsigned char kAlpn[] = {2, 'h', '2'};
constexpr unsigned char kSessionContext[] = "router";
// Of TLS 1.2, what HTTP/2 does not forbid (RFC 9113, appendix A).
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr size_t kRecordMax = 16 * 1024;
constexpr size_t kIdentityMax = 255;
// New keys cost a peer 27 bytes and us some microseconds, so that one read could hold a loop
// for a tenth of a second. A server's first message may be a few tickets; 32 is what others
// allow.
constexpr unsigned kIdleStepsMax = 32;

template <typename T, void (*release)(T*)>
struct Releaser {
  void operator()(T* owned) const { release(owned); }
};
using Certificate = std::unique_ptr<X509, Releaser<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Releaser<EVP_PKEY, EVP_PKEY_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Releaser<GENERAL_NAMES, GENERAL_NAMES_free>>;
using Source = std::unique_ptr<BIO, Releaser<BIO, BIO_free_all>>;

Source read_text(ByteView text) {
  return Source(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// An encrypted key is refused; without this OpenSSL would ask at the terminal.
int no_password(char*, int, int, void*) { return 0; }

std::string reason(std::string_view what) {
  const unsigned long error = ERR_peek_last_error();
  const char* text = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return text == nullptr ? std::string(what) : std::string(what) + ": " + text;
}

// All certificates of a text; false when a part of it cannot be read.
bool read_certificates(ByteView pem, std::vector<Certificate>* read) {
  const Source source = read_text(pem);
  while (X509* next = PEM_read_bio_X509(source.get(), nullptr, no_password, nullptr)) {
    read->emplace_back(next);
  }
  const bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (is_end) ERR_clear_error();
  return is_end;
}

int64_t unix_time(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? int64_t{timegm(&parts)} : 0;
}

int select_alpn(SSL*, const unsigned char** selected, unsigned char* size,
                const unsigned char* offered, unsigned int offered_size, void*) {
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, size, kAlpn, sizeof kAlpn, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *selected = found;
  return SSL_TLSEXT_ERR_OK;
}

// A name as metadata may carry it. An authority signs what it likes, so nothing is taken
// for granted: a DNS name cannot pass for a URI, and neither can forge a header.
std::string read_name(const GENERAL_NAME& name) {
  const ASN1_IA5STRING* text = name.d.ia5;
  const std::string_view view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                              static_cast<size_t>(ASN1_STRING_length(text)));
  const auto is_plain = [](char c) { return c > ' ' && c < 0x7f; };
  const bool is_text = !view.empty() && view.size() <= kIdentityMax &&
                       std::all_of(view.begin(), view.end(), is_plain);
  const bool has_scheme = view.find(':') != std::string_view::npos;
  return is_text && has_scheme == (name.type == GEN_URI) ? std::string(view) : std::string();
}

std::string read_identity(const SSL* ssl) {
  const Certificate peer(SSL_get1_peer_certificate(ssl));
  if (peer == nullptr) return {};
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(peer.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (const int kind : {GEN_URI, GEN_DNS}) {
    for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
      const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
      if (name->type == kind) return read_name(*name);
    }
  }
  return {};
}

// Which way a handshake failed, from the first error OpenSSL queued.
TlsOutcome classify(unsigned long error) {
  if (ERR_GET_LIB(error) != ERR_LIB_SSL) return TlsOutcome::failed;
  const int why = ERR_GET_REASON(error);
  if (why > SSL_AD_REASON_OFFSET) return TlsOutcome::peer_refused;
  switch (why) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_BAD_RECORD_TYPE: return TlsOutcome::not_tls;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_PROTOCOLS_AVAILABLE: return TlsOutcome::no_version;
    case SSL_R_NO_APPLICATION_PROTOCOL: return TlsOutcome::no_h2;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TlsOutcome::bad_certificate;
    default: return TlsOutcome::failed;
  }
}

}  // namespace

const char* tls_outcome_name(TlsOutcome outcome) {
  static constexpr const char* kNames[] = {
      "pending",         "ok",           "not_tls", "no_version", "no_h2",
      "bad_certificate", "peer_refused", "timeout", "abandoned",  "failed"};
  static_assert(std::size(kNames) == static_cast<size_t>(TlsOutcome::count));
  return kNames[static_cast<size_t>(outcome)];
}

TlsContext::TlsContext() : context_(SSL_CTX_new(TLS_method())) {
  if (context_ == nullptr) std::abort();  // out of memory
  SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context_, kCiphers);
  SSL_CTX_set_options(context_, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Idle connections hold no record buffers: 34 KB each would be most of what they cost.
  SSL_CTX_set_mode(context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
                                 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);  // tickets need none
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

std::string TlsContext::use_certificates(const TlsFiles& files, int64_t now_s) {
  std::vector<Certificate> chain;
  if (!read_certificates(files.certificates, &chain)) {
    return reason("the certificate chain cannot be read");
  }
  if (chain.empty()) return "the certificate chain holds no certificate";
  X509* leaf = chain.front().get();
  expires_s_ = unix_time(X509_get0_notAfter(leaf));
  if (expires_s_ <= now_s) return "the certificate has expired";
  if (unix_time(X509_get0_notBefore(leaf)) > now_s) return "the certificate is not valid yet";
  const Source source = read_text(files.key);
  const Key key(PEM_read_bio_PrivateKey(source.get(), nullptr, no_password, nullptr));
  if (key == nullptr) return reason("the private key cannot be read");
  if (X509_check_private_key(leaf, key.get()) != 1) {
    return reason("the private key is not the certificate's");
  }
  if (SSL_CTX_use_certificate(context_, leaf) != 1) {
    return reason("the certificate cannot be used");
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context_, chain[i].get()) != 1) {
      return reason("the certificate chain cannot be used");
    }
  }
  if (SSL_CTX_use_PrivateKey(context_, key.get()) != 1) {
    return reason("the private key cannot be used");
  }
  return {};
}

std::string TlsContext::use_authorities(ByteView pem, bool tells_clients) {
  std::vector<Certificate> authorities;
  if (!read_certificates(pem, &authorities)) return reason("the authorities cannot be read");
  if (authorities.empty()) return "the authorities hold no certificate";
  X509_STORE* store = SSL_CTX_get_cert_store(context_);
  // What is listed is trusted, also when it is not a root itself.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  for (const Certificate& authority : authorities) {
    if (X509_STORE_add_cert(store, authority.get()) != 1 ||
        (tells_clients && SSL_CTX_add_client_CA(context_, authority.get()) != 1)) {
      return reason("an authority cannot be used");
    }
  }
  return {};
}

std::string TlsContext::make_server(const TlsFiles& files, bool requires_client,
                                    int64_t now_s, TlsContextRef* made) {
  ERR_clear_error();
  const std::shared_ptr<TlsContext> context(new TlsContext());
  std::string problem = context->use_certificates(files, now_s);
  if (!problem.empty()) return problem;
  SSL_CTX_set_alpn_select_cb(context->context_, select_alpn, nullptr);
  if (!files.authorities.empty()) {
    problem = context->use_authorities(files.authorities, true);
    if (!problem.empty()) return problem;
    SSL_CTX_set_verify(context->context_,
                       SSL_VERIFY_PEER |
                           (requires_client ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       nullptr);
    SSL_CTX_set_session_id_context(context->context_, kSessionContext,
                                   sizeof kSessionContext);
    // A ticket would let a client in after its certificate has expired.
    SSL_CTX_set_options(context->context_, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context->context_, 0);
  } else if (requires_client) {
    return "client certificates are required, and there are no authorities to check them";
  }
  *made = context;
  return {};
}

std::string TlsContext::make_client(const TlsFiles& files, int64_t now_s,
                                    TlsContextRef* made) {
  ERR_clear_error();
  const std::shared_ptr<TlsContext> context(new TlsContext());
  std::string problem;
  if (!files.certificates.empty()) problem = context->use_certificates(files, now_s);
  if (problem.empty() && !files.authorities.empty()) {
    problem = context->use_authorities(files.authorities, false);
  } else if (problem.empty() && SSL_CTX_set_default_verify_paths(context->context_) != 1) {
    problem = reason("the system's authorities cannot be read");
  }
  if (!problem.empty()) return problem;
  SSL_CTX_set_verify(context->context_, SSL_VERIFY_PEER, nullptr);
  if (SSL_CTX_set_alpn_protos(context->context_, kAlpn, sizeof kAlpn) != 0) std::abort();
  *made = context;
  return {};
}

// OpenSSL's own memory BIO copies every byte once more and keeps its largest size.
const void* TlsStream::io_method() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (made == nullptr) std::abort();
    BIO_meth_set_read(made, on_read);
    BIO_meth_set_write(made, on_write);
    BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long {
      return command == BIO_CTRL_FLUSH ? 1 : 0;
    });
    return made;
  }();
  return method;
}

int TlsStream::on_read(BIO* bio, char* into, int count) {
  ByteView* input = &static_cast<TlsStream*>(BIO_get_data(bio))->input_;
  BIO_clear_retry_flags(bio);
  if (input->empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t taken = std::min(input->size(), static_cast<size_t>(count));
  std::memcpy(into, input->data(), taken);
  input->remove_prefix(taken);
  return static_cast<int>(taken);
}

int TlsStream::on_write(BIO* bio, const char* bytes, int count) {
  static_cast<TlsStream*>(BIO_get_data(bio))->out_->append(bytes, static_cast<size_t>(count));
  return count;
}

// Called at each step of a handshake, also of the small ones that may follow the first.
void TlsStream::on_step(const SSL* ssl, int where, int) {
  auto* self = static_cast<TlsStream*>(SSL_get_app_data(ssl));
  if ((where & SSL_CB_LOOP) == 0 || !self->is_established()) return;
  if (++self->idle_steps_ <= kIdleStepsMax) return;
  self->problem_ = "too many handshake messages";
  self->is_broken_ = true;
  self->input_ = {};  // OpenSSL finds nothing more to read
}

void TlsStream::attach(const TlsContext& context) {
  BIO* bio = BIO_new(static_cast<const BIO_METHOD*>(io_method()));
  ssl_ = SSL_new(context.get());  // holds a reference to the context
  if (bio == nullptr || ssl_ == nullptr) std::abort();  // out of memory
  SSL_set_app_data(ssl_, this);
  SSL_set_info_callback(ssl_, on_step);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);  // takes the one reference for both
}

TlsStream::TlsStream(const TlsContext& context, Buffer* out) : out_(out) {
  attach(context);
  SSL_set_accept_state(ssl_);
}

TlsStream::TlsStream(const TlsContext& context, Buffer* out, const std::string& name)
    : out_(out) {
  attach(context);
  SSL_set_connect_state(ssl_);
  X509_VERIFY_PARAM* expected = SSL_get0_param(ssl_);
  ERR_clear_error();
  if (X509_VERIFY_PARAM_set1_ip_asc(expected, name.c_str()) != 1) {
    X509_VERIFY_PARAM_set_hostflags(expected, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    // Without an expected name any certificate would do: better none at all.
    if (name.empty() || X509_VERIFY_PARAM_set1_host(expected, name.data(), name.size()) != 1 ||
        SSL_set_tlsext_host_name(ssl_, name.c_str()) != 1) {
      problem_ = "no server name to check";
      outcome_ = TlsOutcome::failed;
      is_broken_ = true;
      return;
    }
  }
  shake_hands();
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

bool TlsStream::shake_hands() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) return give_up(result);
  const unsigned char* protocol = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &protocol, &size);
  if (std::string_view(reinterpret_cast<const char*>(protocol), size) != "h2") {
    outcome_ = TlsOutcome::no_h2;
    problem_ = "the peer does not agree to HTTP/2 by ALPN";
    is_broken_ = true;
    return false;
  }
  outcome_ = TlsOutcome::ok;
  identity_ = read_identity(ssl_);
  return true;
}

// False when the stream is over; true when OpenSSL only wants more bytes.
bool TlsStream::give_up(int result) {
  const int kind = SSL_get_error(ssl_, result);
  if (kind == SSL_ERROR_WANT_READ) return true;
  is_broken_ = true;
  const unsigned long first = ERR_peek_error();
  if (outcome_ == TlsOutcome::pending) {
    outcome_ = kind == SSL_ERROR_ZERO_RETURN ? TlsOutcome::abandoned : classify(first);
  }
  const long verified = SSL_get_verify_result(ssl_);
  if (verified != X509_V_OK) {
    problem_ = X509_verify_cert_error_string(verified);
  } else if (const char* text = ERR_reason_error_string(first)) {
    problem_ = text;
  }
  ERR_clear_error();
  return false;
}

bool TlsStream::receive(const uint8_t* bytes, size_t count, Buffer* plain) {
  if (is_broken_) return false;
  input_ = {reinterpret_cast<const char*>(bytes), count};
  bool is_alive = is_established() || shake_hands();
  while (is_alive && is_established()) {
    // Until OpenSSL wants more: what it holds decrypted wakes nobody up.
    ERR_clear_error();
    const size_t before = plain->size();
    size_t got = 0;
    const int result = SSL_read_ex(ssl_, plain->extend(kRecordMax), kRecordMax, &got);
    plain->truncate(before + (result == 1 ? got : 0));
    if (result == 1) {
      idle_steps_ = 0;
      continue;
    }
    is_alive = give_up(result) && !is_broken_;
    break;
  }
  input_ = {};
  return is_alive;
}

bool TlsStream::send(ByteView plain) {
  while (!plain.empty() && !is_broken_) {
    ERR_clear_error();
    size_t sent = 0;
    const int result = SSL_write_ex(ssl_, plain.data(), plain.size(), &sent);
    if (result == 1) {
      plain.remove_prefix(sent);
    } else {
      is_broken_ = true;  // the output takes everything: this is no want
      problem_ = reason("cannot encrypt");
    }
  }
  return !is_broken_;
}

void TlsStream::close() {
  ERR_clear_error();
  if (is_established() && !is_broken_) SSL_shutdown(ssl_);
  is_broken_ = true;
}

}  // namespace router
