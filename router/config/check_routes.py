"""Problems of routes: where they lead, what their weights come to, who comes first."""

from collections.abc import Iterator

from router.config.config import Config
from router.config.problems import Finding, Known, Path, nowhere
from router.config.route import Route, route_name
from router.config.served import Served, have
from router.config.values import BASIS_POINTS

Finder = Iterator[Finding]


def check_routes(config: Config, served: dict[str, Served], known: Known) -> Finder:
    models = served.keys() | known.models
    audiences = {audience.name for audience in config.audiences} | known.audiences
    layers = {layer.name for layer in config.layers} | known.layers
    yield from _check_variant_names(config)
    names: dict[str, int] = {}
    closed: dict[tuple[str, str | None], int] = {}
    for i, route in enumerate(config.routes):
        path: Path = ("routes", i)
        if route.model not in models:
            yield nowhere((*path, "model"), "model", route.model, models)
        if route.audience and route.audience not in audiences:
            yield nowhere((*path, "audience"), "audience", route.audience, audiences)
        if route.layer and route.layer not in layers | {route.model}:
            yield nowhere((*path, "layer"), "layer", route.layer, layers)
        yield from _check_split(route, path, served)
        earlier = closed.get(
            (route.model, None), closed.get((route.model, route.audience))
        )
        name = route_name(route)
        if earlier is not None:
            yield Finding(
                path, f"never reached: routes[{earlier}] answers before it", "",
                "routes are tried in order; put this one first or remove it",
            )  # fmt: skip
        elif name in names:
            yield Finding(
                path, f"routes[{names[name]}] has this name too", repr(name),
                "give one of them a name of its own",
            )  # fmt: skip
        closed.setdefault((route.model, route.audience), i)
        names.setdefault(name, i)


def _check_split(route: Route, path: Path, served: dict[str, Served]) -> Finder:
    versions = served[route.model].versions if route.model in served else None
    named: list[tuple[Path, int]] = []
    if route.version is not None:
        named = [((*path, "version"), route.version)]
    else:
        shares = route.split or ()
        named = [((*path, "split", i), s.version) for i, s in enumerate(shares)]
        total = sum(share.weight for share in shares)
        if total != BASIS_POINTS:
            yield Finding(
                (*path, "split"), "weights add up to 100 percent", f"{total / 100:g}"
            )
    for i, (place, version) in enumerate(named):
        if version in [v for _, v in named[:i]]:
            yield Finding(place, "this version has a share already", str(version))
        if versions is not None and version not in versions:
            yield Finding(
                place, f"model '{route.model}' does not serve this version",
                str(version), have(versions),
            )  # fmt: skip


def _check_variant_names(config: Config) -> Finder:
    """A version has one name and a name one version, across all routes of a model."""
    given: dict[tuple[str, int], str] = {}
    for path, model, version, name in _variant_names(config):
        first = given.setdefault((model, version), name)
        owner = next(v for (m, v), n in given.items() if m == model and n == first)
        if first != name:
            yield Finding(path, f"this version is named '{first}' already", repr(name))
        elif owner != version:
            yield Finding(path, f"version {owner} has this name already", repr(name))


def _variant_names(config: Config) -> Iterator[tuple[Path, str, int, str]]:
    for i, model in enumerate(config.models):
        if isinstance(model.versions, dict):
            for version, own in model.versions.items():
                if own.name is not None:
                    path: Path = ("models", i, "versions", version, "name")
                    yield path, model.name, version, own.name
    for i, route in enumerate(config.routes):
        for j, share in enumerate(route.split or ()):
            if share.name is not None:
                place: Path = ("routes", i, "split", j, "name")
                yield place, route.model, share.version, share.name
