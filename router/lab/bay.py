"""An engine in this process with a few versions of a configuration in it.

Loaded exactly as `router serve` would load them: the same options, probes and
processes. What is left out is what would come between a question and a version's
answer: routes, rollouts, units, fallback, and the judging of outputs, because here the
answer is wanted as it is. Every version is asked by its number. Nobody else can reach
it: there is no socket.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from router.clock import SystemClock
from router.config.config import Config
from router.config.model import Model, served_versions, stable_of
from router.control.guard import Guard, Guards
from router.control.options import engine_options, find_runtime_library
from router.control.rundir import RunDirectory
from router.control.serving import Catalogue
from router.control.versions import Loading, Versions, catalogue_of
from router.control.workers import Workers
from router.engine._engine import CallResult, Engine
from router.errors import ConfigError, ModelError, NotFoundError
from router.models.probe import Prober
from router.models.repository import find_served, list_models
from router.plan.compile import States, compile_plan
from router.plan.encode import encode

INFER = "/inference.GRPCInferenceService/ModelInfer"
Wanted = Mapping[str, tuple[int, ...]]


class Call(Protocol):
    """`Engine.call`: the whole path of a request, in process."""

    def __call__(
        self,
        path: str,
        message: bytes,
        metadata: Iterable[tuple[str, bytes]] = (),
        timeout_s: float = 30.0,
    ) -> CallResult: ...


@dataclass(frozen=True, slots=True)
class Serve:
    """What a bay holds: versions by model; the first of each stands for stable."""

    config: Config
    wanted: Wanted


def everything(config: Config) -> Serve:
    """Every version that the configuration serves, stable first."""
    listed = list_models(config)
    wanted = {}
    for model in config.models:
        served = served_versions(model, listed[model.name])
        stable = stable_of(model, served)
        others = tuple(version for version in served if version != stable)
        wanted[model.name] = (stable, *others)
    return Serve(config, wanted)


def of_one(config: Config, model: str, versions: tuple[int, ...]) -> Serve:
    """Some versions of one model; NotFoundError when the configuration lacks one."""
    found = next((one for one in config.models if one.name == model), None)
    if found is None:
        known = ", ".join(one.name for one in config.models)
        raise NotFoundError(f"no model '{model}': the configuration has {known}")
    served = served_versions(found, list_models(config)[model])
    for version in versions:
        if version not in served:
            has = ", ".join(str(each) for each in served)
            raise NotFoundError(
                f"model '{model}' version {version} is not served: the configuration"
                f" serves {has}"
            )
    return Serve(config, {model: versions})


class Bay:
    """Owner of the engine and of what it takes to load into it."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._stack = ExitStack()
        self.catalogue = Catalogue()
        self.runtime_library = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def call(self) -> Call:
        return self._engine.call

    def _start(self) -> None:
        config, wanted = self._serve.config, self._serve.wanted
        probes = self._stack.enter_context(tempfile.TemporaryDirectory())
        options = engine_options(config.server, len(os.sched_getaffinity(0)))
        self._engine = Engine(options)
        self._stack.callback(self._engine.stop)
        clock = SystemClock()
        guard = Guard(
            self._engine,
            Guards(
                Prober(Path(probes)).probe,
                lambda: Workers(RunDirectory(), clock),
                options | {"loops": "1"},
            ),
        )
        self._stack.callback(guard.close)
        self.runtime_library = find_runtime_library()
        stables = {model: versions[0] for model, versions in wanted.items()}
        files = [
            file
            for file in find_served(config, list_models(config))
            if file.version in wanted.get(file.model, ())
        ]
        loading = Versions(guard, self.runtime_library).load(config, files, stables)
        self.catalogue = catalogue_of(loading, stables)
        self._refuse_absent(loading)
        guard.publish(encode(compile_plan(_plain(config, wanted), _states(wanted))))
        self._engine.start()

    def _refuse_absent(self, loading: Loading) -> None:
        """Whoever asks for a version wants an answer of it, so here all are needed."""
        if loading.problems:
            raise ConfigError(loading.problems)
        for model, version in sorted(loading.unavailable):
            entry = self.catalogue.models[model].find(version)
            raise ModelError(model, version, entry.reason if entry else "not loaded")


def _states(wanted: Wanted) -> States:
    return States({name: tuple(sorted(each)) for name, each in wanted.items()}, {}, ())


def _plain(config: Config, wanted: Wanted) -> Config:
    """The configuration without all that decides who is asked."""
    models = tuple(
        _bare(model, wanted[model.name])
        for model in config.models
        if model.name in wanted
    )
    nothing: dict[str, tuple[object, ...]] = {
        "routes": (), "rollouts": (), "audiences": (), "holdouts": (),
    }  # fmt: skip
    return config.model_copy(update={"models": models, **nothing})


def _bare(model: Model, versions: tuple[int, ...]) -> Model:
    given = model.versions
    kept = (
        {version: own.model_copy(update={"disabled": False})
         for version, own in given.items() if version in versions}
        if isinstance(given, dict)
        else tuple(sorted(versions))
    )  # fmt: skip
    bare = {
        "versions": kept, "stable": versions[0], "unit": type(model.unit)(),
        "output": None, "pins": "allow", "annotate": "none", "fallback": False,
        "force": None, "prediction_id": False, "exposures": False, "record": None,
    }  # fmt: skip
    return model.model_copy(update=bare)
