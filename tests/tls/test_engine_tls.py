"""TLS on a listener of the engine, as grpcio and Python's own `ssl` see it.

Certificates are made anew for each session; the engine runs in this process, with
scripted versions and one method that says who the engine takes the caller for.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from certificates import Authority, Pair

from router.engine._engine import DATA, Engine, EngineStopped, tls_check
from router.errors import EngineError
from router.testing import wait_until

WHOAMI = "/test.Method/WhoAmI"
ECHO = "/test.Method/Echo"
HANDSHAKE_S = 0.6
LARGE = 16 * 1024 * 1024 - 64


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue()


@dataclass
class Served:
    """A running engine, and where it listens."""

    engine: Engine
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def count(self, outcome: str) -> int:
        return int(self.engine.snapshot()["tls_handshakes"][outcome])

    def channel(
        self, authority: Authority, pair: Pair | None = None, **options: Any
    ) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            authority.pem, pair.key if pair else None, pair.chain if pair else None
        )
        whole = {
            "grpc.use_local_subchannel_pool": 1,
            "grpc.max_send_message_length": -1,
            "grpc.max_receive_message_length": -1,
            **options,
        }
        return grpc.secure_channel(self.address, credentials, list(whole.items()))

    def connect(self, **context: Any) -> ssl.SSLSocket:
        return client_context(**context).wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), 5)
        )


def client_context(
    version: ssl.TLSVersion | None = None,
    alpn: str | None = "h2",
    verifies: bool = False,
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    if not verifies:
        made.verify_mode = ssl.CERT_NONE
    if version is not None:
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = version
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    return made


@contextlib.contextmanager
def serve(pair: Pair, authorities: bytes = b"", **options: bool) -> Iterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    engine = Engine({"loops": "2", "handshake_ms": str(int(HANDSHAKE_S * 1000)),
                     "connections_per_peer_max": "10000"})  # fmt: skip
    who = engine.method(WHOAMI, streaming=False, pool=0, listeners=DATA)
    engine.method(ECHO, streaming=False, pool=0, listeners=DATA)
    engine.tls(DATA, pair.chain, pair.key, authorities, **options)
    engine.listen(listener.fileno(), DATA)
    engine.start()

    def answer() -> None:
        with contextlib.suppress(EngineStopped):
            while True:
                event = engine.next(0, 100)
                if event is None or event.kind != 0:
                    continue
                names = [v for k, v in event.metadata if k == "x-peer-identity"]
                said = b",".join(names) if event.method == who else event.message
                engine.send(event.stream, said, end=True)

    thread = threading.Thread(target=answer, name="methods")
    thread.start()
    try:
        yield Served(engine, listener.getsockname()[1])
    finally:
        engine.stop()
        thread.join()
        listener.close()


def ask(channel: grpc.Channel, path: str, message: bytes = b"", **call: Any) -> bytes:
    answer: bytes = channel.unary_unary(path)(message, timeout=20, **call)
    return answer


@pytest.fixture(scope="module")
def plain_tls(pair: Pair) -> Iterator[Served]:
    with serve(pair) as served:
        yield served


@pytest.fixture(scope="module")
def mutual(authority: Authority, pair: Pair) -> Iterator[Served]:
    with serve(pair, authority.pem, requires_client=True) as served:
        yield served


def test_a_stock_client_is_answered_over_tls(
    plain_tls: Served, authority: Authority
) -> None:
    with plain_tls.channel(authority) as channel:
        assert ask(channel, ECHO, b"hello") == b"hello"


def test_the_largest_message_goes_both_ways(
    plain_tls: Served, authority: Authority
) -> None:
    message = bytes(range(256)) * (LARGE // 256)
    with plain_tls.channel(authority) as channel:
        assert ask(channel, ECHO, message) == message


def test_a_client_that_sends_byte_by_byte_is_answered(plain_tls: Served) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", plain_tls.port), 5) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def flush() -> None:
            for byte in outgoing.read():
                peer.sendall(bytes([byte]))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                incoming.write(peer.recv(65_536))
        settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        tls.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        flush()
        received = b""
        while len(received) < 9:
            try:
                received += tls.read(65_536)
            except ssl.SSLWantReadError:
                incoming.write(peer.recv(65_536))
    assert received[3] == 4, "the server's first frame is SETTINGS"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_later_agree_on_http_2(
    plain_tls: Served, version: ssl.TLSVersion
) -> None:
    with plain_tls.connect(version=version) as tls:
        assert tls.selected_alpn_protocol() == "h2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_tls_1_1_is_refused(plain_tls: Served) -> None:
    before = plain_tls.count("no_version")
    with pytest.raises(ssl.SSLError):
        plain_tls.connect(version=ssl.TLSVersion.TLSv1_1)
    wait_until(lambda: plain_tls.count("no_version") == before + 1, "counted")


@pytest.mark.parametrize("alpn", ["http/1.1", None])
def test_a_client_that_does_not_offer_http_2_is_closed(
    plain_tls: Served, alpn: str | None
) -> None:
    before = plain_tls.count("no_h2")
    with contextlib.suppress(ssl.SSLError), plain_tls.connect(alpn=alpn) as tls:
        assert tls.recv(100) == b""
    wait_until(lambda: plain_tls.count("no_h2") == before + 1, "counted")


@pytest.mark.parametrize(
    "first",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64],
    ids=["http2", "http1", "zeros"],
)
def test_a_plain_client_is_closed_at_once(plain_tls: Served, first: bytes) -> None:
    before = plain_tls.count("not_tls") + plain_tls.count("failed")
    soon_s = HANDSHAKE_S / 2
    with socket.create_connection(("127.0.0.1", plain_tls.port), soon_s) as peer:
        peer.sendall(first)
        while peer.recv(1000):  # an alert may come before the end
            pass
    now = plain_tls.count("not_tls") + plain_tls.count("failed")
    assert now == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["silent", "partial"])
def test_a_handshake_that_stalls_is_closed(plain_tls: Served, first: bytes) -> None:
    before = plain_tls.count("timeout")
    with socket.create_connection(("127.0.0.1", plain_tls.port), 5) as peer:
        peer.sendall(first)
        assert peer.recv(100) == b""
    assert plain_tls.count("timeout") == before + 1


def test_a_client_that_leaves_amid_the_handshake_is_counted(plain_tls: Served) -> None:
    before = plain_tls.count("abandoned")
    socket.create_connection(("127.0.0.1", plain_tls.port)).close()
    wait_until(lambda: plain_tls.count("abandoned") == before + 1, "counted")


def test_a_client_that_does_not_trust_us_is_counted(plain_tls: Served) -> None:
    before = plain_tls.count("peer_refused")
    with pytest.raises(ssl.SSLCertVerificationError):
        plain_tls.connect(verifies=True)
    wait_until(lambda: plain_tls.count("peer_refused") == before + 1, "counted")


def test_an_end_is_announced(plain_tls: Served) -> None:
    with plain_tls.connect() as tls:
        tls.sendall(b"this is not HTTP/2 at all, but long enough to tell")
        while tls.recv(1000):  # an end without close_notify would raise
            pass


# -- client certificates ---------------------------------------------------------------


def test_a_client_is_known_by_the_uri_of_its_certificate(
    mutual: Served, authority: Authority
) -> None:
    uri = "spiffe://example.org/payments"
    client = authority.issue("client", dns=("payments",), uris=(uri,))
    with mutual.channel(authority, client) as channel:
        assert ask(channel, WHOAMI) == uri.encode()


def test_a_client_without_a_uri_is_known_by_its_dns_name(
    mutual: Served, authority: Authority
) -> None:
    with mutual.channel(authority, authority.issue(dns=("one", "two"))) as channel:
        assert ask(channel, WHOAMI) == b"one"


def test_an_identity_that_a_client_sends_is_removed(
    mutual: Served, plain_tls: Served, authority: Authority
) -> None:
    forged = {"metadata": (("x-peer-identity", "admin"), ("x-peer-identity", "root"))}
    with mutual.channel(authority, authority.issue(dns=("one",))) as channel:
        assert ask(channel, WHOAMI, **forged) == b"one"
    with plain_tls.channel(authority) as channel:
        assert ask(channel, WHOAMI, **forged) == b""


def test_an_intermediate_may_sign_clients(mutual: Served, authority: Authority) -> None:
    client = authority.intermediate().issue(dns=("far",))
    with mutual.channel(authority, client) as channel:
        assert ask(channel, WHOAMI) == b"far"


@pytest.mark.parametrize("which", ["missing", "expired", "other"])
def test_a_client_without_a_good_certificate_is_refused(
    mutual: Served, authority: Authority, which: str
) -> None:
    client = {
        "missing": None,
        "expired": authority.issue(valid_days=(-2, -1)),
        "other": Authority("another").issue(),
    }[which]
    before = mutual.count("bad_certificate")
    with (
        mutual.channel(authority, client) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        ask(channel, WHOAMI)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert mutual.count("bad_certificate") > before


def test_a_certificate_may_be_optional_but_not_bad(
    authority: Authority, pair: Pair
) -> None:
    with serve(pair, authority.pem) as served:
        with served.channel(authority) as channel:
            assert ask(channel, WHOAMI) == b""
        with served.channel(authority, authority.issue(dns=("one",))) as channel:
            assert ask(channel, WHOAMI) == b"one"
        with (
            served.channel(authority, Authority().issue()) as channel,
            pytest.raises(grpc.RpcError),
        ):
            ask(channel, WHOAMI)


# -- replacing -------------------------------------------------------------------------


def test_new_connections_get_the_new_certificate_and_old_ones_live_on(
    authority: Authority, pair: Pair
) -> None:
    renewed = Authority("renewed")
    with serve(pair) as served, served.channel(authority) as channel:
        assert ask(channel, ECHO, b"1") == b"1"
        new = renewed.issue()
        served.engine.tls(DATA, new.chain, new.key)
        assert ask(channel, ECHO, b"2") == b"2"
        with served.channel(renewed) as later:
            assert ask(later, ECHO, b"3") == b"3"


def wrong_files(authority: Authority, pair: Pair) -> dict[str, tuple[Any, ...]]:
    marks = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----\n"
    broken = pair.chain + b"\nAAAA\n".join(marks)
    past, future = (authority.issue(valid_days=d) for d in ((-2, -1), (1, 2)))
    return {
        "the private key is not the certificate's": (pair.chain, authority.issue().key),
        "the certificate chain cannot be read": (broken, pair.key),
        "the certificate chain holds no certificate": (b"", pair.key),
        "the private key cannot be read": (pair.chain, b"nothing"),
        "the certificate has expired": (past.chain, past.key),
        "the certificate is not valid yet": (future.chain, future.key),
        "the authorities hold no certificate": (pair.chain, pair.key, b"none"),
        "there are no authorities to check them": (pair.chain, pair.key, b"", True),
    }


def test_what_is_wrong_is_said_and_changes_nothing(
    plain_tls: Served, authority: Authority, pair: Pair
) -> None:
    said = {}
    for expected, given in wrong_files(authority, pair).items():
        files, requires = given[:3], len(given) > 3
        with pytest.raises(EngineError) as caught:
            plain_tls.engine.tls(DATA, *files, requires_client=requires)
        said[expected] = str(caught.value)
    assert all(expected in found for expected, found in said.items()), said
    with plain_tls.channel(authority) as channel:
        assert ask(channel, ECHO, b"still") == b"still"


def test_a_check_tells_when_the_certificate_expires(pair: Pair) -> None:
    left_days = (tls_check(pair.chain, pair.key)["expires_s"] - time.time()) / 86_400
    assert 29.9 < left_days <= 30
