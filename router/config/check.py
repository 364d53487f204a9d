"""Problems that no single key shows: names, weights, cycles, order, versions.

Every check yields findings and none stops another, because an operator repairs a file
once. Checks take a configuration that fits the schema, perhaps with the parts that do
not left out; `known` then holds the names those parts had, so that nobody is told that
a name points nowhere because its owner has a typing error elsewhere.

What exists on disk and which expressions compile is knowledge of others: both come in
as functions.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from router.config import audience as conditions
from router.config.alias import STABLE
from router.config.audience import AudienceRef, Condition, Test
from router.config.check_alerts import check_alerts, check_feedback
from router.config.check_rollouts import check_rollouts
from router.config.check_routes import check_routes
from router.config.config import Config
from router.config.features import ReadInputs, check_features
from router.config.model import Model, stable_of
from router.config.problems import Finding, Known, Path, nowhere
from router.config.served import ListVersions, Served, find_served, have
from router.config.server import Tls, parse_address

# The routing table's own limits (`_fasthash.h`), said here in the file's words.
VARIANTS_MAX = 64
KEYS_MAX = 64
TESTS_MAX = 4096
# No table's limit: nobody can read a chain of references this long.
REFERENCES_MAX = 20

Finder = Iterator[Finding]
FindRivals = Callable[[Config, Mapping[str, tuple[int, ...]], frozenset[int]], Finder]


@dataclass(frozen=True, slots=True)
class Checks:
    """What reading a file depends on beside it: what the checks may ask the outside
    world (None leaves that check out), and the environment that is meant."""

    list_versions: ListVersions | None = None
    """The versions in a repository; raises RouterError when it cannot be read."""
    regex_problem: Callable[[str], str | None] | None = None
    """Why an expression does not compile, or None."""
    tls_problem: Callable[[Tls], str | None] | None = None
    """Why these files cannot be used, or None."""
    read_inputs: ReadInputs | None = None
    """The inputs that a version's manifest names; None leaves them unnamed."""
    find_rivals: FindRivals | None = None
    """Rollouts that want the same units or are never reached: conditions are taken
    apart to find them, which is the plan's business."""
    environment: str = ""
    """Which of the file's `environments` is laid over the rest."""
    directory: str = ""
    """Where the files that it names beside itself are; its own folder if empty."""


def check_config(config: Config, checks: Checks, known: Known) -> Iterator[Finding]:
    """Every cross-reference problem of a configuration."""
    served = {
        model.name: find_served(model, ("models", i), checks.list_versions)
        for i, model in enumerate(config.models)
    }
    yield from _check_server(config, checks)
    yield from _check_names(config)
    yield from check_feedback(config)
    yield from check_alerts(config, known)
    for i, model in enumerate(config.models):
        yield from _check_model(config, model, ("models", i), served[model.name])
    found = [
        *_check_audiences(config, checks, known),
        *check_routes(config, served, known),
        *check_rollouts(config, served, known),
    ]
    yield from found
    yield from _check_attestations(config)
    if checks.find_rivals is not None:
        yield from _check_rivals(config, checks.find_rivals, served, found)


def _check_attestations(config: Config) -> Finder:
    if config.server.attestation is not None:
        return
    for i, rollout in enumerate(config.rollouts):
        for j, step in enumerate(rollout.steps):
            if step.preflight is not None and step.preflight.attestation is not None:
                yield Finding(
                    ("rollouts", i, "steps", j, "preflight", "attestation"),
                    "there is no key to check it with", step.preflight.attestation,
                    "add server.attestation: {key: FILE}",
                )  # fmt: skip


def _check_rivals(
    config: Config,
    find_rivals: FindRivals,
    served: Mapping[str, Served],
    found: list[Finding],
) -> Finder:
    """Looked for only where every name is known and every step makes sense."""
    if any(finding.path[0] in ("audiences", "routes", "policies") for finding in found):
        return
    skip = {at for _, at, *_ in (f.path for f in found if f.path[0] == "rollouts")}
    versions = {name: each.versions or () for name, each in served.items()}
    unknown = {m.name for m in config.models if not versions[m.name] and not m.stable}
    skip |= {i for i, r in enumerate(config.rollouts) if r.model in unknown}
    yield from find_rivals(config, versions, frozenset(map(int, skip)))


def _check_server(config: Config, checks: Checks) -> Finder:
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
    for exposed in () if server.insecure else server.exposures():
        message = f"other machines can reach this address, and {exposed.lacks}"
        yield Finding(exposed.path, message, exposed.address, exposed.remedy)
    yield from _check_tls(config, checks)
    limits = server.limits
    if limits.deadline_default_s > limits.deadline_max_s:
        yield Finding(
            ("server", "limits", "deadline_default_s"),
            "the default deadline is longer than the longest one allowed",
            str(limits.deadline_default_s),
            f"at most {limits.deadline_max_s}, or raise deadline_max_s",
        )


def _check_tls(config: Config, checks: Checks) -> Finder:
    server = config.server
    for name, tls in (("tls", server.tls), ("admin_tls", server.admin_tls)):
        if tls is None:
            continue
        if tls.requires_client and tls.client_ca is None:
            yield Finding(
                ("server", name, "require_client_cert"),
                "nothing to check client certificates with", "true",
                "name the file of their authorities in client_ca",
            )  # fmt: skip
        elif problem := checks.tls_problem and checks.tls_problem(tls):
            yield Finding(("server", name), problem)
    if server.admin_tls and not server.admin:
        yield Finding(("server", "admin_tls"), "there is no admin listener")


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


def _check_model(config: Config, model: Model, path: Path, served: Served) -> Finder:
    yield from served.findings
    if isinstance(model.versions, tuple):
        for version, count in Counter(model.versions).items():
            if count > 1:
                yield Finding((*path, "versions"), "listed twice", str(version))
    if model.aliases.get(STABLE, model.stable) != model.stable:
        yield Finding(
            (*path, "aliases", STABLE), f"but stable is {model.stable}",
            str(model.aliases[STABLE]), "say it once",
        )  # fmt: skip
    leaves = _tests_over(config, model)
    yield from check_features(model, iter(leaves))
    if model.record is not None and config.server.tape is None:
        yield Finding(
            (*path, "record"), "requests are recorded on the tape, and there is none",
            "", "add server.tape: {path: run/tape}",
        )  # fmt: skip
    keys = {test.key for _, test in leaves}
    keys |= {r.channel_key for r in config.rollouts if r.channels}
    keys |= {model.force.header} if model.force else set()
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
            have(versions),
        )  # fmt: skip
    for name, version in model.aliases.items():
        if version not in versions:
            yield Finding(
                (*path, "aliases", name), "an alias of a version that is not served",
                str(version), have(versions),
            )  # fmt: skip
    if isinstance(model.versions, dict):
        own = model.versions.get(stable)
        if own is not None and own.disabled:
            yield Finding(
                (*path, "versions", stable, "disabled"), "stable cannot be disabled",
                "true", "make another version stable first",
            )  # fmt: skip


def _tests_over(config: Config, model: Model) -> list[tuple[Path, Test]]:
    """Every test that routing this model's requests may ask, with its place."""
    places = {audience.name: i for i, audience in enumerate(config.audiences)}
    waiting = [
        r.audience for r in config.routes if r.model == model.name and r.audience
    ]
    for rollout in config.rollouts:
        if rollout.model == model.name:
            named = (rollout.audience, *rollout.waves, *rollout.slices)
            waiting += [name for name in named if name]
    tests: list[tuple[Path, Test]] = []
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in places:
            continue
        seen.add(name)
        at = places[name]
        for path, leaf in leaves_of(
            config.audiences[at].when, ("audiences", at, "when")
        ):
            if isinstance(leaf, Test):
                tests.append((path, leaf))
            else:
                waiting.append(leaf.audience)
    return tests


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
        case _:
            yield from leaves_of(condition.not_, (*path, "not"))


def _check_audiences(config: Config, checks: Checks, known: Known) -> Finder:
    names = {audience.name for audience in config.audiences} | known.audiences
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
            if leaf.audience not in names:
                yield nowhere((*path, "audience"), "audience", leaf.audience, names)
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
