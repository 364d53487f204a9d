"""TLS to the servers of upstream versions: a stock gRPC server, a second router, and
servers that nobody should talk to.

Version 1 of the engine under test is local, version 2 lives behind TLS. What is
claimed: the server is who the file says, or no byte of a request reaches it; stable
answers meanwhile, and the reason is told.
"""

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Pair

from router.engine._engine import DATA
from router.testing import wait_until

sys.path.append(str(Path(__file__).resolve().parents[1] / "serve"))
from plane import INFER, Plane, Response, request, split

SIGNATURE = {"input.0": "x|FP32|-1,4", "output.0": "y|FP32|-1,4"}
TAG = 7.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def stranger() -> Authority:
    return Authority("stranger")


@dataclass
class Front:
    """The engine under test."""

    plane: Plane
    channel: grpc.Channel

    def ask(self, version: str = "") -> int:
        """The version that answered."""
        call = self.channel.unary_unary(INFER)
        answer = Response.FromString(call(request(version=version), timeout=10))
        return int(answer.model_version)

    def target(self) -> dict[str, Any]:
        (found,) = self.plane.snapshot()["upstreams"]
        return dict(found)

    def problem(self) -> str:
        """What the engine says of version 2's last failure."""
        versions = self.plane.snapshot()["versions"]
        (found,) = [each for each in versions if each["version"] == 2]
        return str(found["last_error"])


@contextlib.contextmanager
def front_of(target: str, ca: Authority | None, pair: Pair | None = None,
             **options: str) -> Iterator[Front]:  # fmt: skip
    files = {"tls_ca": ca.pem.decode()} if ca else {}
    if pair is not None:
        files |= {"tls_cert": pair.chain.decode(), "tls_key": pair.key.decode()}
    with Plane(loops=2) as plane:
        plane.load("m", 1, "echo")
        plane.engine.load("m", 2, b"", {
            "kind": "upstream", "targets": target, "upstream_model": "inner",
            "tls": "1", **SIGNATURE, **files, **options,
        })  # fmt: skip
        plane.tags["m", 2] = int(TAG)
        plane.publish(split("m", [1, 2], 10_000))
        plane.start()
        with grpc.insecure_channel(plane.address) as channel:
            yield Front(plane, channel)
        plane.wait_idle()


@contextlib.contextmanager
def grpcio_server(
    pair: Pair, clients: Authority | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """A stock server; its address, and the identities of those who called."""
    callers: list[Any] = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, _: Any) -> Any:
            def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
                callers.append(context.peer_identities())
                made = Response(model_name="inner", model_version="7")
                made.outputs.add(name="y", datatype="FP32").shape.extend((1, 4))
                made.raw_output_contents.append(bytes(16))
                data: bytes = made.SerializeToString()
                return data

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Handler(),))
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.chain)],
        root_certificates=clients.pem if clients else None,
        require_client_auth=clients is not None,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}", callers
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def router_server(pair: Pair, clients: Authority | None = None) -> Iterator[str]:
    with Plane(loops=1) as plane:
        plane.engine.tls(
            DATA, pair.chain, pair.key, clients.pem if clients else b"",
            requires_client=clients is not None,
        )  # fmt: skip
        plane.load("inner", 5, "echo")
        plane.publish(split("inner", [5], 0))
        plane.start()
        yield plane.address


@contextlib.contextmanager
def python_server(pair: Pair, tmp_path: Path, alpn: str | None) -> Iterator[str]:
    """TLS as Python speaks it, and nothing above."""
    cert, key = pair.write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    with plain_server(context) as address:
        yield address


@contextlib.contextmanager
def plain_server(
    context: ssl.SSLContext | None = None, asked: list[int] | None = None
) -> Iterator[str]:
    """Speaks when it is spoken to, but never HTTP/2."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if asked is not None:
                asked.append(connection.fileno())
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                if context is None:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                else:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(100)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_stock_server_answers_over_tls(authority: Authority) -> None:
    with (
        grpcio_server(authority.issue()) as (address, _),
        front_of(address, authority) as front,
    ):
        assert [front.ask() for _ in range(20)] == [2] * 20
        assert front.target()["sent"]["answered"] == 20


def test_a_stock_server_sees_our_certificate(authority: Authority) -> None:
    own = authority.issue("us", dns=["router.example"])
    with (
        grpcio_server(authority.issue(), authority) as (address, callers),
        front_of(address, authority, own) as front,
    ):
        assert front.ask() == 2
        assert b"router.example" in callers[0]


def test_a_second_router_answers_over_mutual_tls(authority: Authority) -> None:
    with (
        router_server(authority.issue(), authority) as address,
        front_of(address, authority, authority.issue("us")) as front,
    ):
        assert [front.ask() for _ in range(50)] == [2] * 50


def test_a_second_router_turns_us_away_without_a_certificate(
    authority: Authority,
) -> None:
    with (
        router_server(authority.issue(), authority) as address,
        front_of(address, authority) as front,
    ):
        assert [front.ask() for _ in range(5)] == [1] * 5
        assert "TLS" in front.problem()


def test_a_certificate_for_the_name_that_was_given_is_taken(
    authority: Authority,
) -> None:
    pair = authority.issue(dns=["models.example"])
    with (
        grpcio_server(pair) as (address, _),
        front_of(address, authority, tls_name="models.example") as front,
    ):
        assert front.ask() == 2


def refusals(authority: Authority, stranger: Authority) -> dict[str, tuple[Any, ...]]:
    """What the server shows, whom we trust, which name it must have."""
    return {
        "signed by a stranger": (stranger.issue(), authority, ""),
        "for another name": (authority.issue(), authority, "models.example"),
        "expired": (authority.issue(valid_days=(-9, -1)), authority, ""),
        "not valid yet": (authority.issue(valid_days=(1, 9)), authority, ""),
        "unknown to the system": (authority.issue(), None, ""),
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("signed by a stranger", "certificate"),
        ("for another name", "hostname mismatch"),
        ("expired", "certificate has expired"),
        ("not valid yet", "certificate is not yet valid"),
        ("unknown to the system", "certificate"),
    ],
)
def test_a_server_that_is_not_who_it_should_be_sees_no_request(
    authority: Authority, stranger: Authority, wrong: str, said: str
) -> None:
    pair, trusted, name = refusals(authority, stranger)[wrong]
    with (
        grpcio_server(pair) as (address, callers),
        front_of(address, trusted, tls_name=name) as front,
    ):
        assert [front.ask() for _ in range(5)] == [1] * 5
        assert callers == []
        assert said in front.problem()
        wait_until(lambda: front.target()["connections"] == 0, "closed")


@pytest.mark.parametrize("alpn", [None, "http/1.1"])
def test_a_server_that_does_not_agree_on_http_2_is_left(
    authority: Authority, tmp_path: Path, alpn: str | None
) -> None:
    with (
        python_server(authority.issue(), tmp_path, alpn) as address,
        front_of(address, authority) as front,
    ):
        assert [front.ask() for _ in range(5)] == [1] * 5
        assert "HTTP/2" in front.problem() or "alpn" in front.problem().lower()


def test_a_server_without_tls_is_left_and_not_asked_for_each_request(
    authority: Authority,
) -> None:
    asked: list[int] = []
    with plain_server(asked=asked) as address, front_of(address, authority) as front:
        assert [front.ask() for _ in range(20)] == [1] * 20
        assert "TLS" in front.problem()
        assert len(asked) < 10


def test_a_server_that_says_nothing_is_left_in_time(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with front_of(address, authority, connect_timeout_ms="300") as front:
            assert [front.ask() for _ in range(3)] == [1] * 3
            wait_until(lambda: front.target()["connections"] == 0, "closed")
