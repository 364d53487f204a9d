"""A recording against a file's versions, from the command line's words to a verdict."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from router.analysis.answers import Tolerance
from router.analysis.verdict import Verdict
from router.clock import SystemClock
from router.config.config import Config
from router.config.model import resolve_version, served_versions
from router.errors import NotFoundError
from router.lab.bay import Bay, of_one
from router.lab.preview import read_file
from router.lab.recording import Recorded, RecordingError, read_replay
from router.lab.replay import (
    Limits,
    Question,
    Replayed,
    expected_of,
    judge_replay,
    replay,
)
from router.models.repository import list_models


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be tried. Versions are numbers or aliases; `against` None: stable."""

    recording: str
    config: str
    candidate: str
    against: str | None = None
    model: str | None = None
    environment: str = ""
    tolerance_absolute: float = 1e-5
    tolerance: float = 1e-3  # relative
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict and what it rests on."""

    verdict: Verdict
    replayed: Replayed


def try_recording(trial: Trial) -> Outcome:
    """Ask a recording of two versions; RouterError when that cannot be done."""
    config = read_file(trial.config, environment=trial.environment)
    requests = read_replay(trial.recording)
    first = next(requests, None)
    if first is None:
        raise RecordingError(f"{trial.recording}: it holds no request")
    name = trial.model or first.model
    stable = _version(config, name, trial.against or "stable")
    candidate = _version(config, name, trial.candidate)
    if stable == candidate:
        raise NotFoundError(f"version {stable} cannot be compared with itself")
    serve = of_one(config, name, (stable, candidate))
    model = next(one for one in config.models if one.name == name)
    tolerance = Tolerance(trial.tolerance_absolute, trial.tolerance)
    question = Question(name, stable, candidate, expected_of(model), tolerance)
    with Bay(serve) as bay:
        found = replay(question, _again(first, requests), bay.call, SystemClock())
    return Outcome(judge_replay(found, trial.limits), found)


def _again(first: Recorded, rest: Iterator[Recorded]) -> Iterator[Recorded]:
    yield first
    yield from rest


def _version(config: Config, name: str, wanted: str) -> int:
    model = next((one for one in config.models if one.name == name), None)
    if model is None:
        known = ", ".join(one.name for one in config.models)
        raise NotFoundError(
            f"no model '{name}': the configuration has {known}; name one with --model"
        )
    served = served_versions(model, list_models(config)[name])
    number = int(wanted) if wanted.isdecimal() else wanted
    version = resolve_version(model, number, served)
    if version is None:
        raise NotFoundError(f"model '{name}' has no version called '{wanted}'")
    return version
