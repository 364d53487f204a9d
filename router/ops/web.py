"""The ops listener: metrics, liveness, readiness and other pages over HTTP.

One small application on a thread of its own. It reads and never changes anything; it is
meant for loopback or a cluster's own network, and knows no credentials.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

INDEX = """inference router

/metrics  Prometheus metrics
/healthz  200 while the process lives
/readyz   200 when it may be sent requests, else 503 and the reasons
"""
STOP_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class OpsSources:
    """What the pages are made of: a scrape, and the reasons not to be ready."""

    metrics: Callable[[], tuple[bytes, str]]
    unready_reasons: Callable[[], tuple[str, ...]]


def ops_application(sources: OpsSources, pages: Sequence[Route] = ()) -> Starlette:
    """The pages as an ASGI application; one of `pages` may be the index."""

    def index(_: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def metrics(_: Request) -> Response:
        # Thousands of versions make a long page; the probes must not wait for it.
        body, content_type = await run_in_threadpool(sources.metrics)
        return Response(body, headers={"content-type": content_type})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reasons = sources.unready_reasons()
        if reasons:
            return PlainTextResponse("\n".join(reasons) + "\n", status_code=503)
        return PlainTextResponse("ready\n")

    return Starlette(
        routes=[
            *pages,
            Route("/", index),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


class OpsServer:
    """Owner of the ops thread. The socket is bound and listening and stays the
    caller's."""

    def __init__(self, application: Starlette, listener: socket.socket) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            loop="asyncio",
            limit_concurrency=64,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        if listener.family != socket.AF_UNIX:
            # Connections inherit it. Head and body of an answer are two writes: without
            # it the second waits 40 ms for the client's delayed acknowledgement, since
            # asyncio sets it only where a socket's protocol is named.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(target=self._run, name="ops", daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close and join; a page that hangs is left behind with the process."""
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])
