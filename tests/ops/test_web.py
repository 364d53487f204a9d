"""The ops pages, over a real socket."""

import socket
import urllib.error
import urllib.request

import pytest

from router.ops.web import OpsServer, OpsSources, ops_application

PAGE = b"router_up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture(scope="module")
def reasons():
    return []


@pytest.fixture(scope="module")
def get(reasons):
    """A function from a path to status, content type and body."""
    application = ops_application(OpsSources(lambda: PAGE, lambda: tuple(reasons)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        server = OpsServer(application, listener)
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.start()

        def got(path, data=None):
            url = f"http://{host}:{port}{path}"
            try:
                with urllib.request.urlopen(url, data, timeout=10) as answer:
                    return answer.status, answer.headers["content-type"], answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers["content-type"], error.read()

        yield got
        server.stop()
        assert not server.is_running


def test_metrics_are_what_the_source_says(get):
    assert get("/metrics") == (200, PAGE[1], PAGE[0])


def test_ready_is_503_with_reasons_until_there_are_none(get, reasons):
    reasons.append("model 'm': no version is ready")
    status, _, body = get("/readyz")
    assert (status, body) == (503, b"model 'm': no version is ready\n")
    assert get("/healthz")[0] == 200
    reasons.clear()
    assert get("/readyz")[0] == 200


@pytest.mark.parametrize("path", ["/nothing", "/metrics/x", "//", "/../etc/passwd"])
def test_other_paths_are_not_found(get, path):
    assert get(path)[0] == 404


def test_pages_are_for_reading(get):
    assert get("/readyz", b"x")[0] == 405


def test_the_index_says_what_there_is(get):
    assert b"/metrics" in get("/")[2]
