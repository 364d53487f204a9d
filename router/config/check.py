"""Problems that no single key shows: names, weights, cycles, order, versions.

Every check yields findings and none stops another, because an operator repairs a file
once. Checks take a configuration that fits the schema, perhaps with the parts that do
not left out; `known` then holds the names those parts had, so that nobody is told that
a name points nowhere because its owner has a typing error elsewhere.

What exists on disk and which expressions compile is knowledge of others: both come in
as functions.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from router.config import audience as conditions
from router.config.audience import AudienceRef, Condition, Test
from router.config.config import Config
from router.config.model import Model, served_versions, stable_of
from router.config.problems import Finding, Path, did_you_mean
from router.config.route import Route, route_name
from router.config.server import parse_address
from router.config.values import BASIS_POINTS
from router.errors import RouterError

# The routing table's own limits (`_fasthash.h`), said here in the file's words.
VARIANTS_MAX = 64
KEYS_MAX = 64
TESTS_MAX = 4096
# No table's limit: nobody can read a chain of references this long.
REFERENCES_MAX = 20

Finder = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class Checks:
    """What the checks may ask the outside world; None leaves that check out."""

    list_versions: Callable[[str], tuple[int, ...]] | None = None
    """The versions in a repository; raises RouterError when it cannot be read."""
    regex_problem: Callable[[str], str | None] | None = None
    """Why an expression does not compile, or None."""


@dataclass(frozen=True, slots=True)
class Known:
    """Names whose owners could not be read."""

    models: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Served:
    """What is known about a model's versions."""

    versions: tuple[int, ...] | None
    """None when nobody listed them."""
    findings: tuple[Finding, ...] = field(default=())


def check_config(config: Config, checks: Checks, known: Known) -> Iterator[Finding]:
    """Every cross-reference problem of a configuration."""
    served = {
        model.name: _served(model, ("models", i), checks)
        for i, model in enumerate(config.models)
    }
    yield from _check_server(config)
    yield from _check_names(config)
    for i, model in enumerate(config.models):
        yield from _check_model(config, model, ("models", i), served[model.name])
    yield from _check_audiences(config, checks, known)
    yield from _check_routes(config, served, known)
    yield from _check_variant_names(config)


def _check_server(config: Config) -> Finder:
    server = config.server
    places: list[tuple[Path, str]] = [
        (("server", "listen", i), text) for i, text in enumerate(server.listen)
    ]
    places += [
        (("server", name), text)
        for name, text in (("admin", server.admin), ("ops", server.ops))
        if text is not None
    ]
    seen: set[str] = set()
    for path, text in places:
        address = parse_address(text)
        if text in seen and (address.port or address.path):
            yield Finding(path, "two listeners have this address", text)
        seen.add(text)
        if not address.is_local and not server.insecure:
            yield Finding(
                path, "other machines can reach this address, and it has no TLS", text,
                "listen on 127.0.0.1 or a socket, or set server.insecure: true",
            )  # fmt: skip
    limits = server.limits
    if limits.deadline_default_s > limits.deadline_max_s:
        yield Finding(
            ("server", "limits", "deadline_default_s"),
            "the default deadline is longer than the longest one allowed",
            str(limits.deadline_default_s),
            f"at most {limits.deadline_max_s}, or raise deadline_max_s",
        )


def _check_names(config: Config) -> Finder:
    sections = (
        ("models", [model.name for model in config.models]),
        ("audiences", [audience.name for audience in config.audiences]),
        ("layers", [layer.name for layer in config.layers]),
    )
    for section, names in sections:
        for i, name in enumerate(names):
            if name in names[:i]:
                yield Finding((section, i, "name"), "this name is taken", repr(name))
    if not config.models:
        yield Finding(("models",), "nothing to serve", "", "name at least one model")


def _served(model: Model, path: Path, checks: Checks) -> Served:
    if checks.list_versions is None:
        is_listed = isinstance(model.versions, tuple)
        return Served(served_versions(model, ()) if is_listed else None)
    try:
        listed = checks.list_versions(model.repository)
    except RouterError as error:
        return Served(
            None, (Finding((*path, "repository"), str(error), repr(model.repository)),)
        )
    if not listed:
        return Served(
            None,
            (
                Finding(
                    (*path, "repository"), "no version in this repository",
                    repr(model.repository), "it needs <version>/model.onnx",
                ),
            ),
        )  # fmt: skip
    findings = tuple(
        Finding(place, "no such version in the repository", str(version), _have(listed))
        for place, version in _named_versions(model, path)
        if version not in listed
    )
    return Served(served_versions(model, listed), findings)


def _named_versions(model: Model, path: Path) -> Iterator[tuple[Path, int]]:
    versions = model.versions
    if isinstance(versions, tuple):
        yield from (((*path, "versions", i), v) for i, v in enumerate(versions))
    elif isinstance(versions, dict):
        yield from (((*path, "versions", version), version) for version in versions)


def _have(versions: Iterable[int]) -> str:
    return f"it has {', '.join(str(version) for version in versions)}"


def _check_model(config: Config, model: Model, path: Path, served: Served) -> Finder:
    yield from served.findings
    if isinstance(model.versions, tuple):
        for version, count in Counter(model.versions).items():
            if count > 1:
                yield Finding((*path, "versions"), "listed twice", str(version))
    keys = _keys_of(config, model)
    if len(keys) > KEYS_MAX:
        yield Finding(
            path, f"its routes read {len(keys)} keys", "", f"at most {KEYS_MAX}"
        )
    versions = served.versions
    if versions is None:
        return
    if len(versions) > VARIANTS_MAX:
        yield Finding(
            (*path, "versions"), f"{len(versions)} versions would be served", "",
            f"list at most {VARIANTS_MAX}",
        )  # fmt: skip
    stable = stable_of(model, versions)
    if stable not in versions:
        yield Finding(
            (*path, "stable"), "stable is not among the versions served", str(stable),
            _have(versions),
        )  # fmt: skip
    if isinstance(model.versions, dict):
        own = model.versions.get(stable)
        if own is not None and own.disabled:
            yield Finding(
                (*path, "versions", stable, "disabled"), "stable cannot be disabled",
                "true", "make another version stable first",
            )  # fmt: skip


def _keys_of(config: Config, model: Model) -> set[str]:
    audiences = {audience.name: audience.when for audience in config.audiences}
    waiting = [
        r.audience for r in config.routes if r.model == model.name and r.audience
    ]
    keys: set[str] = set()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in audiences:
            continue
        seen.add(name)
        for _, leaf in leaves_of(audiences[name], ()):
            if isinstance(leaf, Test):
                keys.add(leaf.key)
            else:
                waiting.append(leaf.audience)
    return keys


def leaves_of(
    condition: Condition, path: Path
) -> Iterator[tuple[Path, Test | AudienceRef]]:
    """Every test and reference of a condition, with its place."""
    match condition:
        case Test() | AudienceRef():
            yield path, condition
        case conditions.AllOf(all=members):
            for i, member in enumerate(members):
                yield from leaves_of(member, (*path, "all", i))
        case conditions.AnyOf(any=members):
            for i, member in enumerate(members):
                yield from leaves_of(member, (*path, "any", i))
        case conditions.NotOf(not_=member):
            yield from leaves_of(member, (*path, "not"))


def _check_audiences(config: Config, checks: Checks, known: Known) -> Finder:
    names = {audience.name for audience in config.audiences}
    references: dict[str, list[str]] = {}
    tests: dict[str, int] = {}
    for i, audience in enumerate(config.audiences):
        references.setdefault(audience.name, [])
        for path, leaf in leaves_of(audience.when, ("audiences", i, "when")):
            if isinstance(leaf, Test):
                tests[audience.name] = tests.get(audience.name, 0) + 1
                yield from _check_regex(leaf, path, checks)
                continue
            references[audience.name].append(leaf.audience)
            if leaf.audience not in names | known.audiences:
                yield _nowhere((*path, "audience"), "audience", leaf.audience, names)
    on_cycle = _cycles(references)
    sizes: dict[str, tuple[int, int]] = {}
    for i, audience in enumerate(config.audiences):
        if audience.name in on_cycle:
            ring = " -> ".join((*on_cycle[audience.name], audience.name))
            yield Finding(("audiences", i, "when"), f"refers to itself: {ring}")
        elif not on_cycle:
            size, depth = _size(audience.name, references, tests, sizes)
            if depth > REFERENCES_MAX:
                yield Finding(
                    ("audiences", i, "when"), f"a chain of {depth} references", "",
                    f"at most {REFERENCES_MAX}",
                )  # fmt: skip
            if size > TESTS_MAX:
                yield Finding(
                    ("audiences", i, "when"), f"comes to {size} tests", "",
                    f"at most {TESTS_MAX}, counting those it refers to",
                )  # fmt: skip


def _check_regex(leaf: Test, path: Path, checks: Checks) -> Finder:
    if leaf.regex is not None and checks.regex_problem is not None:
        problem = checks.regex_problem(leaf.regex)
        if problem is not None:
            yield Finding(
                (*path, "regex"), f"not an expression: {problem}", repr(leaf.regex),
                "RE2 syntax: no look-around, no back-references",
            )  # fmt: skip


def _cycles(references: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """The ring each audience is on, for those that can reach themselves."""
    rings: dict[str, tuple[str, ...]] = {}
    for start in references:
        previous: dict[str, str] = {}
        waiting = [start]
        while waiting and start not in previous:
            here = waiting.pop(0)
            for name in references.get(here, ()):
                if name not in previous:
                    previous[name] = here
                    waiting.append(name)
        if start in previous:
            ring = [previous[start]]
            while ring[-1] != start:
                ring.append(previous[ring[-1]])
            rings[start] = tuple(reversed(ring))
    return rings


def _size(
    start: str,
    references: dict[str, list[str]],
    tests: dict[str, int],
    sizes: dict[str, tuple[int, int]],
) -> tuple[int, int]:
    """How many tests an audience comes to, and its longest chain of references."""
    # Counted, never built: references that double at each of forty levels are a few
    # lines of YAML. On a stack of its own, because a chain may be as long as the file.
    waiting = [start]
    while waiting:
        name = waiting[-1]
        referred = references.get(name, ())
        missing = [n for n in referred if n not in sizes]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        size = tests.get(name, 0) + sum(sizes[n][0] for n in referred)
        depth = max((1 + sizes[n][1] for n in referred), default=0)
        sizes[name] = (size, depth)
    return sizes[start]


def _nowhere(path: Path, kind: str, name: str, names: Iterable[str]) -> Finding:
    return Finding(
        path, f"no {kind} of this name", repr(name), did_you_mean(name, names)
    )


def _check_routes(config: Config, served: dict[str, Served], known: Known) -> Finder:
    audiences = {audience.name for audience in config.audiences}
    layers = {layer.name for layer in config.layers}
    names: dict[str, int] = {}
    closed: dict[tuple[str, str | None], int] = {}
    for i, route in enumerate(config.routes):
        path: Path = ("routes", i)
        if route.model not in known.models | served.keys():
            yield _nowhere((*path, "model"), "model", route.model, served)
        if route.audience and route.audience not in audiences | known.audiences:
            yield _nowhere((*path, "audience"), "audience", route.audience, audiences)
        if route.layer and route.layer not in layers | known.layers | {route.model}:
            yield _nowhere((*path, "layer"), "layer", route.layer, layers)
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
    elif route.split is not None:
        named = [((*path, "split", i), s.version) for i, s in enumerate(route.split)]
        total = sum(share.weight for share in route.split)
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
                str(version), _have(versions),
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
