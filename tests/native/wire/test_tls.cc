// TLS as bytes to values: both ends in one process, and whatever may lie between them.
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <string>

#include "check.h"
#include "wire/tls.h"

namespace router {
namespace {

constexpr int64_t kNow = 1'700'000'000;
constexpr char kName[] = "router.test";

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

struct Made {
  std::string certificate, key;

  TlsFiles files() const { return {certificate, key, {}}; }
};

// Signed by itself. Valid from a day before kNow until far after the clock OpenSSL reads.
Made make_certificate(const char* names, int64_t until_s = int64_t{1} << 33) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* made = X509_new();
  X509_set_version(made, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  ASN1_TIME_set(X509_getm_notBefore(made), kNow - 86'400);
  ASN1_TIME_set(X509_getm_notAfter(made), until_s);
  X509_set_pubkey(made, key);
  X509_NAME* name = X509_get_subject_name(made);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("t"), -1, -1, 0);
  X509_set_issuer_name(made, name);
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names);
  X509_add_ext(made, extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(made, key, EVP_sha256());
  BIO* certificate = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(certificate, made);
  BIO* secret = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(secret, key, nullptr, nullptr, 0, nullptr, nullptr);
  X509_free(made);
  EVP_PKEY_free(key);
  return {text_of(certificate), text_of(secret)};
}

TlsContextRef server_of(const Made& own, const std::string& authorities = {},
                        bool requires_client = false) {
  TlsContextRef made;
  CHECK_EQ(TlsContext::make_server({own.certificate, own.key, authorities}, requires_client,
                                   kNow, &made),
           "");
  return made;
}

TlsContextRef client_of(const std::string& trusted, const Made& own = {}) {
  TlsContextRef made;
  CHECK_EQ(TlsContext::make_client({own.certificate, own.key, trusted}, kNow, &made), "");
  return made;
}

// Two streams, and the bytes between them.
struct Pair {
  Pair(const TlsContextRef& ours, const TlsContextRef& theirs, const std::string& name = kName)
      : server(*ours, &server_out), client(*theirs, &client_out, name) {}

  // Carries bytes, at most `step` at a time, until nothing moves.
  void carry(size_t step = SIZE_MAX) {
    while (move(&client_out, &server, &server_got, step) ||
           move(&server_out, &client, &client_got, step)) {
    }
  }
  static bool move(Buffer* from, TlsStream* to, Buffer* got, size_t step) {
    if (from->empty()) return false;
    const std::string bytes(from->view());
    from->clear();
    for (size_t at = 0; at < bytes.size(); at += std::min(step, bytes.size() - at)) {
      const size_t count = std::min(step, bytes.size() - at);
      to->receive(reinterpret_cast<const uint8_t*>(bytes.data()) + at, count, got);
    }
    return true;
  }

  Buffer server_out, client_out, server_got, client_got;
  TlsStream server, client;
};

}  // namespace

TEST(both_ends_agree_and_what_is_sent_arrives) {
  const Made own = make_certificate("DNS:router.test");
  Pair pair(server_of(own), client_of(own.certificate));
  pair.carry();
  REQUIRE(pair.server.is_established() && pair.client.is_established());
  CHECK_EQ(pair.server.identity(), "");
  CHECK_EQ(pair.client.identity(), kName);
  CHECK(pair.client.send("question"));
  CHECK(pair.server.send("answer"));
  pair.carry();
  CHECK_EQ(pair.server_got.view(), "question");
  CHECK_EQ(pair.client_got.view(), "answer");
}

TEST(bytes_may_come_one_by_one) {
  const Made own = make_certificate("DNS:router.test");
  Pair pair(server_of(own), client_of(own.certificate));
  pair.carry(1);
  REQUIRE(pair.server.is_established() && pair.client.is_established());
  CHECK(pair.client.send("question"));
  pair.carry(1);
  CHECK_EQ(pair.server_got.view(), "question");
}

TEST(large_messages_arrive_whole_in_any_pieces) {
  const Made own = make_certificate("DNS:router.test");
  Pair pair(server_of(own), client_of(own.certificate));
  pair.carry();
  std::string large(3'000'001, 'x');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7919 >> 3);
  for (const size_t step : {size_t{1000}, size_t{16'385}, SIZE_MAX}) {
    pair.server_got.clear();
    pair.client_got.clear();
    CHECK(pair.client.send(large));
    CHECK(pair.server.send(large));
    pair.carry(step);
    CHECK(pair.server_got.view() == large);
    CHECK(pair.client_got.view() == large);
  }
}

TEST(a_goodbye_ends_the_stream_after_what_was_sent) {
  const Made own = make_certificate("DNS:router.test");
  Pair pair(server_of(own), client_of(own.certificate));
  pair.carry();
  CHECK(pair.client.send("last"));
  pair.client.close();
  const std::string bytes(pair.client_out.view());
  CHECK(!pair.server.receive(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                             &pair.server_got));
  CHECK_EQ(pair.server_got.view(), "last");
  CHECK(!pair.client.send("more"));
}

TEST(a_server_with_another_name_is_refused) {
  const Made own = make_certificate("DNS:other.test");
  Pair pair(server_of(own), client_of(own.certificate));
  pair.carry();
  CHECK_EQ(pair.client.outcome(), TlsOutcome::bad_certificate);
  CHECK_EQ(pair.client.problem(), "hostname mismatch");
  CHECK_EQ(pair.server.outcome(), TlsOutcome::peer_refused);
}

TEST(a_server_may_be_named_by_its_address) {
  const Made own = make_certificate("IP:127.0.0.1");
  Pair right(server_of(own), client_of(own.certificate), "127.0.0.1");
  right.carry();
  CHECK(right.client.is_established());
  Pair wrong(server_of(own), client_of(own.certificate), "127.0.0.2");
  wrong.carry();
  CHECK_EQ(wrong.client.outcome(), TlsOutcome::bad_certificate);
}

TEST(a_server_without_a_name_is_not_talked_to) {
  const Made own = make_certificate("DNS:router.test");
  Pair pair(server_of(own), client_of(own.certificate), "");
  CHECK(pair.client_out.empty());
  CHECK_EQ(pair.client.outcome(), TlsOutcome::failed);
}

TEST(a_client_is_known_by_its_first_uri_then_by_its_first_dns_name) {
  const Made own = make_certificate("DNS:router.test");
  const struct {
    const char* names;
    const char* identity;
  } cases[] = {
      {"DNS:a.test,URI:spiffe://x/y,URI:spiffe://x/z", "spiffe://x/y"},
      {"DNS:a.test,DNS:b.test", "a.test"},
      {"IP:127.0.0.1", ""},
      {"DNS:spiffe://x/forged", ""},  // no DNS name has a scheme
      {"URI:no-scheme", ""},
      {"URI:spiffe://x/with blank", ""},
  };
  for (const auto& expected : cases) {
    const Made client = make_certificate(expected.names);
    Pair pair(server_of(own, client.certificate, true), client_of(own.certificate, client));
    pair.carry();
    CHECK(pair.server.is_established());
    CHECK_EQ(pair.server.identity(), expected.identity);
  }
}

TEST(a_required_certificate_that_is_missing_or_not_trusted_is_refused) {
  const Made own = make_certificate("DNS:router.test");
  const Made known = make_certificate("DNS:known.test");
  const Made stranger = make_certificate("DNS:known.test");
  for (const Made& client : {Made(), stranger}) {
    Pair pair(server_of(own, known.certificate, true), client_of(own.certificate, client));
    pair.carry();
    CHECK_EQ(pair.server.outcome(), TlsOutcome::bad_certificate);
  }
}

TEST(what_is_not_tls_ends_at_once) {
  const Made own = make_certificate("DNS:router.test");
  const TlsContextRef context = server_of(own);
  for (const std::string_view first : {"PRI * HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"}) {
    Buffer out, got;
    TlsStream server(*context, &out);
    CHECK(!server.receive(reinterpret_cast<const uint8_t*>(first.data()), first.size(), &got));
    CHECK_EQ(server.outcome(), TlsOutcome::not_tls);
    CHECK(!server.receive(reinterpret_cast<const uint8_t*>(first.data()), first.size(), &got));
    CHECK(got.empty());
  }
}

TEST(a_changed_byte_breaks_the_stream_and_nothing_of_it_is_believed) {
  const Made own = make_certificate("DNS:router.test");
  const TlsContextRef server = server_of(own), client = client_of(own.certificate);
  for (size_t at = 0; at < 30; ++at) {
    Pair pair(server, client);
    pair.carry();
    CHECK(pair.client.send("question"));
    pair.client_out.data()[at] ^= 0x40;
    pair.carry();
    CHECK_EQ(pair.server_got.view(), "");
  }
}

// A client of OpenSSL's own, for what TlsStream never does.
struct RawClient {
  RawClient() : context(SSL_CTX_new(TLS_client_method())), ssl(SSL_new(context)) {
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>("\2h2"), 3);
    SSL_set_connect_state(ssl);
  }
  ~RawClient() {
    SSL_free(ssl);
    SSL_CTX_free(context);
  }
  // Gives the server what was written; what it answers can be read then.
  bool flush(TlsStream* server, Buffer* from_server, Buffer* got) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
    const std::string bytes(data, static_cast<size_t>(size));
    (void)BIO_reset(SSL_get_wbio(ssl));
    const bool is_alive = server->receive(reinterpret_cast<const uint8_t*>(bytes.data()),
                                          bytes.size(), got);
    BIO_write(SSL_get_rbio(ssl), from_server->data(), static_cast<int>(from_server->size()));
    from_server->clear();
    return is_alive;
  }
  void change_keys() {
    SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(ssl);
  }

  SSL_CTX* context;
  SSL* ssl;
};

TEST(keys_may_change_now_and_then_and_a_flood_of_changes_ends_the_stream) {
  const Made own = make_certificate("DNS:router.test");
  Buffer out, got;
  TlsStream server(*server_of(own), &out);
  RawClient client;
  for (int i = 0; i < 3; ++i) {
    SSL_do_handshake(client.ssl);
    client.flush(&server, &out, &got);
  }
  REQUIRE(server.is_established());
  for (int i = 0; i < 100; ++i) {
    client.change_keys();
    SSL_write(client.ssl, "x", 1);
    REQUIRE(client.flush(&server, &out, &got));
  }
  CHECK_EQ(got.size(), 100u);
  for (int i = 0; i < 1000; ++i) client.change_keys();
  SSL_write(client.ssl, "y", 1);
  CHECK(!client.flush(&server, &out, &got));
  CHECK_EQ(server.problem(), "too many handshake messages");
  CHECK_EQ(got.size(), 100u);
  CHECK(out.size() < 2000u);
}

TEST(a_context_outlives_its_replacement_where_it_is_used) {
  const Made own = make_certificate("DNS:router.test");
  TlsContextRef server = server_of(own), client = client_of(own.certificate);
  Pair pair(server, client);
  server.reset();
  client.reset();
  pair.carry();
  CHECK(pair.client.send("question"));
  pair.carry();
  CHECK_EQ(pair.server_got.view(), "question");
}

TEST(files_that_do_not_fit_say_why) {
  const Made own = make_certificate("DNS:a"), other = make_certificate("DNS:a");
  const Made past = make_certificate("DNS:a", kNow - 1);
  TlsContextRef made;
  const auto problem = [&](const TlsFiles& files, int64_t now_s = kNow) {
    return TlsContext::make_server(files, false, now_s, &made);
  };
  CHECK_EQ(problem({own.certificate, other.key, {}}),
           "the private key is not the certificate's: key values mismatch");
  CHECK_EQ(problem(past.files()), "the certificate has expired");
  CHECK_EQ(problem(own.files(), kNow - 90'000), "the certificate is not valid yet");
  CHECK_EQ(problem({"text", own.key, {}}), "the certificate chain holds no certificate");
  CHECK_EQ(problem({own.certificate, own.key, "text"}),
           "the authorities hold no certificate");
  const std::string cut = own.certificate + own.certificate.substr(0, 200);
  CHECK_EQ(problem({cut, own.key, {}}).substr(0, 36), "the certificate chain cannot be read");
  CHECK(made == nullptr);
  CHECK_EQ(problem(own.files()), "");
  CHECK_EQ(made->expires_s(), int64_t{1} << 33);
}

}  // namespace router
