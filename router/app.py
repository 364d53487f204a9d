"""The composition root: what the server is made of, and in which order it comes up.

The only place that constructs and wires, and the only one that reads the environment.
The process never imports ONNX Runtime's Python module or a gRPC server: the engine is
both.

Sockets are bound first, so that a taken address is an early error; the ops listener
answers from then on ("starting"). Clients are let in last, when a table serves.
"""

import logging
import os
import platform
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from router import __version__
from router.admin.methods import Operators, Sources, operator_methods
from router.admin.trials import Trials
from router.clock import Clock, SystemClock
from router.config.check import Checks
from router.config.config import Config
from router.config.load import load_config
from router.config.server import MIB
from router.control.alerts import Alarms, open_outbox, outbox_metrics
from router.control.checkpoint import Checkpoint
from router.control.controller import Controller
from router.control.events import events
from router.control.guard import Guard, Guards
from router.control.labels import label_metrics, open_desk
from router.control.lifecycle import Actions, Lifecycle
from router.control.listeners import (
    UNIX_MODE_ADMIN,
    UNIX_MODE_DATA,
    Listener,
    inherited_listeners,
    open_listeners,
)
from router.control.observe import Observer
from router.control.options import engine_options, find_runtime_library
from router.control.preflights import LatePreflights, Replays
from router.control.publication import Publication, Routing
from router.control.reload import Means, Reloader
from router.control.renewals import Renewals
from router.control.rollout_metrics import rollout_metrics
from router.control.rundir import RunDirectory
from router.control.series import Series
from router.control.serving import Serving
from router.control.sources import ExternalSources
from router.control.tell import teller
from router.control.tick import Around, Ticker
from router.control.tls import Certificates
from router.control.truth import Truth
from router.control.versions import Versions
from router.control.workers import Workers
from router.engine._engine import (
    ADMIN,
    DATA,
    Engine,
    regex_match,
    regex_problem,
)
from router.feedback.desk import FeedbackDesk
from router.lab.live import LivePlan
from router.lab.trial import diff_text, problems_of
from router.models.manifest import read_inputs
from router.models.probe import Prober
from router.models.repository import list_versions
from router.ops.feedback import feedback_methods
from router.ops.health import Watchers, health_methods
from router.ops.methods import Method, MethodPool, StreamMethod
from router.ops.oip import oip_methods
from router.ops.reflection import CLIENT_SERVICES, reflection_methods
from router.ops.repository import repository_methods
from router.plan.check_shares import check_shares
from router.plan.plan import Plan
from router.store.sqlite import SqliteLog
from router.telemetry.counted import Counted
from router.telemetry.evidence import evidence_metrics
from router.telemetry.logs import configure_logs
from router.telemetry.tape import TapeFiles, TapeReader

log = logging.getLogger(__name__)

# None waits for another.
DATA_POOL, ADMIN_POOL, FEEDBACK_POOL, APPLY_POOL = range(4)
POOLS = ("methods", "admin", "feedback", "apply")

Metrics = Callable[[], tuple[Counted, ...]]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where the server listens, by purpose."""

    data: tuple[Listener, ...]
    admin: tuple[Listener, ...]
    ops: tuple[Listener, ...]

    def addresses(self) -> dict[str, list[str]]:
        return {
            name: [one.address for one in getattr(self, name)]
            for name in ("data", "admin", "ops")
        }


@dataclass(frozen=True, slots=True)
class Watched:
    """What the ops pages show beside the engine's snapshot."""

    certificates: Certificates
    renewals: Renewals
    counted: Sequence[Metrics]
    controller: Controller
    live: LivePlan


def serve(path: str | Path, environment: str = "") -> int:
    """Serve a configuration until told to stop; the exit code.

    Raises RouterError when it cannot begin.
    """
    clock = SystemClock()
    started_at = clock.monotonic()
    configure_logs(clock)
    checks = Checks(
        list_versions=list_versions,
        regex_problem=regex_problem,
        read_inputs=read_inputs,
        find_rivals=check_shares,
        environment=environment,
        directory=str(Path(path).parent),
    )
    config = load_config(path, checks)
    with ExitStack() as stack:
        listeners = _listen(config, stack)
        for exposed in config.server.exposures():
            log.warning("OTHER MACHINES CAN REACH THIS ADDRESS", extra={"fields": {
                "address": exposed.address, "but": exposed.lacks}})  # fmt: skip
        engine = Engine(engine_options(config.server, len(os.sched_getaffinity(0))))
        stack.callback(engine.stop)
        checkpoint = _checkpoint(engine, config)
        if Path(config.server.state).exists():
            checkpoint.read()  # whose units they were is told by the log beside them
        guard = _guard(engine, config, clock)
        stack.callback(guard.close)
        certificates = Certificates(engine, config.server)
        certificates.start()
        serving = Serving(guard.snapshot, clock)
        watchers = Watchers(serving, engine.send)
        store = SqliteLog(config.server.state, clock)
        stack.callback(store.close)
        observer = Observer()

        def published(routing: Routing) -> None:
            observer.learn(routing.plan)
            truth.learn(routing.plan)
            serving.put_revision(routing.table_revision)

        publication = Publication(guard, store, clock, secrets.token_bytes, published)
        versions = Versions(guard, find_runtime_library())
        reloader = Reloader(
            Path(path), Means(clock, checks), serving, versions, publication
        )
        sources = ExternalSources(clock)
        stack.callback(sources.close)
        outbox = open_outbox(config, os.environ, clock)
        stack.callback(outbox.close)
        desk = open_desk(config, reloader, clock)
        stack.callback(desk.close)
        truth = Truth(desk, store, clock)
        truth.restore()
        preflights = _preflights(engine, publication, environment, clock)
        stack.callback(preflights.close)
        series = Series(store, clock)
        stack.callback(series.save)
        ticker = Ticker(
            publication,
            guard,
            clock,
            Around(
                observer,
                store,
                sources,
                preflights,
                labels=truth,
                tell=teller(outbox.tell, clock),
                save_filters=checkpoint.write,
                each_tick=lambda *_: series.take(ticker.views()),
            ),
        )
        renewals = reloader.renewals
        stack.callback(renewals.close)
        alarms = Alarms(config.alerts, outbox.tell, desk, clock)
        counted = (
            lambda: label_metrics(desk),
            lambda: outbox_metrics(outbox),
            lambda: evidence_metrics(series.latest()),
            lambda: rollout_metrics(publication, ticker),
        )
        controller = Controller(publication, store, ticker, reloader.apply, checks)
        live = _live(publication)
        watched = Watched(certificates, renewals, counted, controller, live)
        _serve_ops(listeners, guard, serving, watched, clock, stack)
        reloader.start(config)
        desk.start()
        outbox.start()
        drain_first: list[Callable[[], None]] = []

        def tick() -> None:
            _tick(reloader, certificates, watchers)
            alarms.tick(guard.snapshot, serving.served)

        lifecycle = Lifecycle(
            Actions(
                reload=lambda: _reload(reloader, certificates, watchers),
                tick=tick,
                drain=lambda: _drain(engine, serving, watchers, config, drain_first),
                stop=stack.close,
            ),
            clock,
        )
        lifecycle.catch_signals()
        ticker.start()
        stack.callback(ticker.stop)
        tape = _tape_reader(engine, config, clock)
        stack.callback(tape.stop)  # after the engine, whose last records it reads
        tape.start()
        operators = _operators(controller, live, serving, checks, engine)
        drain_first.append(operators.lookout.end)
        operators.lookout.start()
        stack.callback(operators.lookout.join)
        loads = Group(APPLY_POOL, ADMIN, repository_methods(reloader))
        groups = (*_groups(engine, serving, watchers, desk, operators), loads)
        _serve_clients(engine, listeners, serving, groups, stack)
        _say_ready(listeners, clock, started_at)
        return lifecycle.run()


def _preflights(
    engine: Engine, publication: Publication, environment: str, clock: Clock
) -> LatePreflights:
    def config() -> Config | None:
        current = publication.current
        return None if current is None else current.config

    def make() -> Replays:
        from router.lab.attest import verifier
        from router.lab.preflight import Preflights

        made = Preflights(config, engine.call, clock, verifier(clock, environment))
        made.start()
        return made

    return LatePreflights(make)


def _live(publication: Publication) -> LivePlan:
    def plan() -> Plan | None:
        current = publication.current
        return None if current is None else current.plan

    return LivePlan(plan, regex_match)


def _operators(
    controller: Controller,
    live: LivePlan,
    serving: Serving,
    checks: Checks,
    engine: Engine,
) -> Operators:
    trials = Trials(
        lambda text, name: problems_of(text, name, checks),
        lambda text, name, view: diff_text(text, name, checks, view),
    )
    return operator_methods(Sources(serving, live, controller, trials), engine.send)


def _checkpoint(engine: Engine, config: Config) -> Checkpoint:
    path = Path(config.server.state).with_suffix(".filters")
    return Checkpoint(path, engine.filters_save, engine.filters_restore)


def _guard(engine: Engine, config: Config, clock: Clock) -> Guard:
    state = Path(config.server.state)
    # A worker is one loop, and as many executors as the router would have used.
    options = engine_options(config.server, len(os.sched_getaffinity(0)))
    return Guard(
        engine,
        Guards(
            Prober(state.parent / "probes").probe,
            lambda: Workers(RunDirectory(), clock),
            options | {"loops": "1"},
        ),
    )


def _tape_reader(engine: Engine, config: Config, clock: Clock) -> TapeReader:
    kept = config.server.tape
    if kept is None:
        return TapeReader(engine.tape)
    files = TapeFiles(kept.path, kept.max_mb * MIB, kept.max_age, clock)
    return TapeReader(engine.tape, files)


def _listen(config: Config, stack: ExitStack) -> Listeners:
    inherited = inherited_listeners(os.environ, os.getpid())
    server = config.server

    def open_all(
        addresses: tuple[str, ...], name: str, mode: int
    ) -> tuple[Listener, ...]:
        opened = open_listeners(addresses, name, inherited, mode)
        for one in opened:
            stack.callback(one.close)
        return tuple(opened)

    listeners = Listeners(
        data=open_all(server.listen, "data", UNIX_MODE_DATA),
        admin=open_all(
            (server.admin,) if server.admin else (), "admin", UNIX_MODE_ADMIN
        ),
        ops=open_all((server.ops,) if server.ops else (), "ops", UNIX_MODE_ADMIN),
    )
    for unclaimed in inherited:
        log.warning("an inherited descriptor is not used", extra={"fields": {
            "name": unclaimed.name}})  # fmt: skip
        unclaimed.listener.close()
    return listeners


def _serve_ops(
    listeners: Listeners,
    guard: Guard,
    serving: Serving,
    watched: Watched,
    clock: Clock,
    stack: ExitStack,
) -> None:
    if not listeners.ops:
        return
    # A server without an ops listener does not pay for a web library.
    from router.ops import overview
    from router.ops.ofrep import Evaluator, ofrep_routes
    from router.ops.page import overview_routes
    from router.ops.web import OpsServer, OpsSources, ops_application
    from router.telemetry.prometheus import (
        ConfigStatus,
        SnapshotCollector,
        TlsStatus,
        exposition,
        registry_of,
    )

    def status() -> ConfigStatus:
        served = serving.served
        return ConfigStatus(
            served.config_revision,
            served.table_revision,
            served.was_last_successful,
            served.succeeded_at_s,
        )

    build = {"version": __version__, "python": platform.python_version()}

    def tls() -> list[TlsStatus]:
        return [
            TlsStatus(one.listener, one.was_last_successful, one.expires_at_s)
            for one in watched.certificates.statuses()
        ]

    def others() -> list[Counted]:
        return [family for metrics in watched.counted for family in metrics()]

    renewals = watched.renewals.statuses
    collector = SnapshotCollector(guard.snapshot, status, build, tls, renewals, others)
    registry = registry_of(collector)
    sources = OpsSources(lambda: exposition(registry), serving.unready_reasons)
    view = watched.controller.view
    seen = overview.Overview(
        overview.Sources(view, serving, guard.snapshot, clock.monotonic, __version__)
    )
    pages = (*overview_routes(seen.read), *ofrep_routes(Evaluator(watched.live, view)))
    for listener in listeners.ops:
        server = OpsServer(ops_application(sources, pages), listener.socket)
        server.start()
        stack.callback(server.stop)


@dataclass(frozen=True, slots=True)
class Group:
    """Methods that one thread serves, on these kinds of listeners."""

    pool: int
    listeners: int
    methods: tuple[Method, ...]


def _groups(
    engine: Engine,
    serving: Serving,
    watchers: Watchers,
    desk: FeedbackDesk,
    operators: Operators,
) -> tuple[Group, ...]:
    known = (*CLIENT_SERVICES, *operators.services)
    both = (*oip_methods(serving, engine.snapshot), *health_methods(serving, watchers))
    return (
        Group(DATA_POOL, DATA | ADMIN, both),
        Group(DATA_POOL, DATA, reflection_methods(engine.send)),
        Group(FEEDBACK_POOL, DATA, feedback_methods(desk, engine.send)),
        Group(ADMIN_POOL, ADMIN, reflection_methods(engine.send, known)),
        Group(ADMIN_POOL, ADMIN, operators.quick),
        Group(APPLY_POOL, ADMIN, operators.slow),
    )


def _pools(engine: Engine, groups: tuple[Group, ...]) -> list[MethodPool]:
    """A thread for each pool that has methods."""
    numbered: dict[int, dict[int, Method]] = {}
    for group in groups:
        for method in group.methods:
            number = engine.method(
                method.path,
                streaming=isinstance(method, StreamMethod),
                pool=group.pool,
                listeners=group.listeners,
            )
            numbered.setdefault(group.pool, {})[number] = method
    return [
        MethodPool(POOLS[pool], events(engine, pool), engine.send, methods)
        for pool, methods in numbered.items()
    ]


def _serve_clients(
    engine: Engine,
    listeners: Listeners,
    serving: Serving,
    groups: tuple[Group, ...],
    stack: ExitStack,
) -> None:
    pools = _pools(engine, groups)
    for kind, opened in ((DATA, listeners.data), (ADMIN, listeners.admin)):
        for listener in opened:
            listener.listen()
            engine.listen(listener.socket.fileno(), kind)
    engine.start()
    # Callbacks run last in, first out: the engine stops, then its pools can be joined.
    for pool in pools:
        pool.start()
        stack.callback(pool.join)
    stack.callback(engine.stop)
    serving.start()


def _say_ready(listeners: Listeners, clock: Clock, started_at: float) -> None:
    elapsed_ms = round((clock.monotonic() - started_at) * 1000)
    fields = {"version": __version__, "ready_ms": elapsed_ms, **listeners.addresses()}
    log.info("ready", extra={"fields": fields})


def _reload(reloader: Reloader, certificates: Certificates, watchers: Watchers) -> None:
    certificates.poll()
    reloader.reload("SIGHUP")
    watchers.refresh()


def _tick(reloader: Reloader, certificates: Certificates, watchers: Watchers) -> None:
    certificates.poll()  # first: a model may take minutes to load
    reloader.poll()
    watchers.refresh()


def _drain(
    engine: Engine,
    serving: Serving,
    watchers: Watchers,
    config: Config,
    first: list[Callable[[], None]],
) -> int:
    serving.drain()
    log.info("draining", extra={"fields": {"grace_s": config.server.drain_s}})
    watchers.end()
    for end in first:
        end()
    return engine.drain(config.server.drain_s)
