"""TLS as operators and clients see it: stock clients, and certificates replaced
beneath them.
"""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from certificates import Authority, Pair

from router import testing
from router.cli.main import main
from router.engine._engine import tls_check

ROTATIONS = 100
SUCCESSFUL = "router_tls_reload_successful"
EXPIRY = "router_tls_certificate_expiry_timestamp_seconds"
HANDSHAKES = "router_tls_handshakes_total"
INFER = "/inference.GRPCInferenceService/ModelInfer"

_message = testing.messages()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    files = {"cert": str(folder / "server.pem"), "key": str(folder / "server.key")}
    return {"tls": {**files, **more}, "drain_s": 2}


def models(folder: Path) -> dict[str, Any]:
    repository = folder / "models"
    testing.write_model(repository, "tag", {v: testing.tag(v) for v in (1, 2)})
    return {"models": [{"name": "tag", "repository": str(repository / "tag")}]}


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[testing.Server]:
    authority.issue().write(tmp_path)
    made = testing.Server(tmp_path, models(tmp_path), settings=settings(tmp_path))
    with made as started:
        yield started


def request(**params: str) -> bytes:
    made = _message("ModelInferRequest")(model_name="tag")
    for name, value in params.items():
        made.parameters[name.replace("_", "-")].string_param = value
    made.inputs.add(name="x", datatype="FP32").shape.extend((1, 2))
    made.raw_input_contents.append(bytes(8))
    data: bytes = made.SerializeToString()
    return data


def open_channel(
    server: testing.Server, authority: Authority, client: Pair | None = None
) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        authority.pem, client and client.key, client and client.chain
    )
    alone = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(server.address, credentials, alone)


def infer(channel: grpc.Channel, message: bytes = b"", **call: Any) -> int:
    """The version that answers."""
    reply = channel.unary_unary(INFER)(message or request(), timeout=20, **call)
    return int(_message("ModelInferResponse").FromString(reply).model_version)


def expiry(server: testing.Server) -> float:
    return server.metric(EXPIRY, listener="data")


def rotate(server: testing.Server, pair: Pair, folder: Path) -> None:
    """Replace the files, and wait until the server presents them."""
    expires_s = tls_check(pair.chain, pair.key)["expires_s"]
    pair.write(folder)
    server.hang_up()
    testing.wait_until(lambda: expiry(server) == expires_s, "the new certificate")


def test_a_stock_client_is_answered_over_tls(
    server: testing.Server, authority: Authority
) -> None:
    with open_channel(server, authority) as channel:
        assert infer(channel) == 1
    assert server.metric(HANDSHAKES, outcome="ok") == 1
    assert server.metric(SUCCESSFUL, listener="data") == 1


def test_tritonclient_is_answered_over_tls(
    server: testing.Server, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with triton.InferenceServerClient(
        server.address, ssl=True, root_certificates=str(tmp_path / "ca.pem")
    ) as client:
        assert client.is_model_ready("tag")


def test_a_plain_client_of_a_tls_port_is_refused(server: testing.Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_files_that_do_not_fit_keep_the_old_certificate(
    server: testing.Server, authority: Authority, tmp_path: Path
) -> None:
    before = expiry(server)
    renewed = authority.issue(valid_days=(-1, 60))
    # The certificate comes first and the key does not: no signal, the poll sees it.
    (tmp_path / "server.pem").write_bytes(renewed.chain)
    testing.wait_until(lambda: server.metric(SUCCESSFUL) == 0, "the refusal")
    assert expiry(server) == before
    assert "the private key is not the certificate's" in server.log.read_text()
    with open_channel(server, authority) as channel:
        assert infer(channel) == 1
    (tmp_path / "server.key").write_bytes(renewed.key)
    testing.wait_until(lambda: server.metric(SUCCESSFUL) == 1, "the recovery")
    assert expiry(server) > before


def test_a_swapped_directory_is_a_new_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    # The way Kubernetes replaces a Secret: a link to a link to a directory.
    other = Authority("other")
    for name, signer in (("first", authority), ("second", other)):
        (tmp_path / name).mkdir()
        signer.issue().write(tmp_path / name)
    (tmp_path / "data").symlink_to("first")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"data/{name}")
    made = testing.Server(tmp_path, models(tmp_path), settings=settings(tmp_path))
    with made as server:
        with open_channel(server, authority) as channel:
            assert infer(channel) == 1
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").rename(tmp_path / "data")

        def is_swapped() -> bool:
            with contextlib.suppress(OSError):
                return (
                    ssl.get_server_certificate(
                        ("127.0.0.1", int(server.address.rpartition(":")[2]))
                    )
                    in (tmp_path / "second" / "server.pem").read_text()
                )
            return False

        testing.wait_until(is_swapped, "the new certificate")
        with open_channel(server, other) as channel:
            assert infer(channel) == 1


@pytest.mark.slow
def test_a_hundred_rotations_under_load_fail_no_handshake_and_drop_no_call(
    server: testing.Server, authority: Authority, tmp_path: Path
) -> None:
    is_over = threading.Event()
    failures: list[BaseException] = []
    counts = {"kept": 0, "fresh": 0}

    def keep_calling() -> None:
        with open_channel(server, authority) as channel:
            while not is_over.is_set():
                infer(channel)
                counts["kept"] += 1

    def keep_connecting() -> None:
        while not is_over.is_set():
            with open_channel(server, authority) as channel:
                infer(channel)
                counts["fresh"] += 1

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=guarded, args=(work,), name=work.__name__)
        for work in (keep_calling, keep_connecting)
    ]
    for thread in threads:
        thread.start()
    try:
        for turn in range(ROTATIONS):
            rotate(server, authority.issue(valid_days=(-1, 30 + turn)), tmp_path)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(counts.values()) >= ROTATIONS / 2, counts
    page = server.get("/metrics")[1]
    ended = {
        labels["outcome"]: count
        for _, labels, count in testing.samples(page, HANDSHAKES)
    }
    assert ended.pop("ok") == counts["fresh"] + 1
    assert set(ended.values()) == {0}, ended


@pytest.mark.parametrize("which", ["missing", "other", "expired"])
def test_only_clients_with_a_certificate_get_in_where_it_is_required(
    tmp_path: Path, authority: Authority, which: str
) -> None:
    authority.issue().write(tmp_path)
    (tmp_path / "clients.pem").write_bytes(authority.pem)
    required = settings(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    client = {
        "missing": None,
        "other": Authority("other").issue(),
        "expired": authority.issue(valid_days=(-2, -1)),
    }[which]
    with testing.Server(tmp_path, models(tmp_path), settings=required) as server:
        with open_channel(server, authority, authority.issue("client")) as channel:
            assert infer(channel) == 1
        with (
            open_channel(server, authority, client) as channel,
            pytest.raises(grpc.RpcError),
        ):
            infer(channel)
        assert server.metric(HANDSHAKES, outcome="bad_certificate") > 0


def test_who_the_certificate_is_for_may_decide_the_version_and_cannot_be_forged(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue().write(tmp_path)
    (tmp_path / "clients.pem").write_bytes(authority.pem)
    asked = settings(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    uri = "spiffe://example.org/payments"
    config = {
        **models(tmp_path),
        "audiences": [
            {"name": "payments", "when": {"key": "x-peer-identity", "exact": uri}}
        ],
        "routes": [{"model": "tag", "audience": "payments", "version": 2}],
    }
    known, other = authority.issue(uris=(uri,)), authority.issue(dns=("other",))
    with testing.Server(tmp_path, config, settings=asked) as server:
        with open_channel(server, authority, known) as channel:
            assert infer(channel) == 2
            assert infer(channel, request(x_peer_identity="other")) == 2
        with open_channel(server, authority, other) as channel:
            assert infer(channel) == 1
            assert infer(channel, request(x_peer_identity=uri)) == 1
            assert infer(channel, metadata=(("x-peer-identity", uri),)) == 1


def test_predict_asks_over_tls(
    server: testing.Server,
    authority: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    asked = ["predict", server.address, "tag", "--input", "x=1,2"]
    with pytest.raises(SystemExit) as done:
        main([*asked, "--tls-ca", str(tmp_path / "ca.pem")])
    assert done.value.code == 0, capsys.readouterr().err
    assert "version 1" in capsys.readouterr().out


def test_the_admin_listener_has_a_certificate_of_its_own(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue().write(tmp_path)
    (port,) = testing.free_ports(1)
    own = settings(tmp_path)["tls"]
    given = {"admin": f"127.0.0.1:{port}", "admin_tls": own, "drain_s": 2}
    with testing.Server(tmp_path, models(tmp_path), settings=given) as server:
        with grpc.insecure_channel(server.address) as channel:
            assert infer(channel) == 1  # the data listener has none
        credentials = grpc.ssl_channel_credentials(authority.pem)
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=20)
        assert server.metric(SUCCESSFUL, listener="admin") == 1


def test_a_server_without_its_certificate_does_not_start(tmp_path: Path) -> None:
    server = testing.Server(tmp_path, models(tmp_path), settings=settings(tmp_path))
    with pytest.raises(RuntimeError, match=r"server\.pem: No such file"):
        server.start()


def test_an_exposed_server_says_so_loudly(tmp_path: Path) -> None:
    (port,) = testing.free_ports(1)
    exposed = {"listen": f"0.0.0.0:{port}", "insecure": True, "drain_s": 2}
    with testing.Server(tmp_path, models(tmp_path), settings=exposed) as server:
        assert "OTHER MACHINES CAN REACH THIS ADDRESS" in server.log.read_text()
