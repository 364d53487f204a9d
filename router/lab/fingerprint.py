"""A fingerprint: what an environment is made of and what it answers.

Flat: a name and a value for every point (`models/credit/2/sha256`), so that two can be
laid side by side and a difference has a name. Golden outputs are answers to inputs
drawn from a fixed seed, the same in every environment that has the same signature.
"""

import hashlib
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from router import __version__
from router.client.lines import read_arrays, read_outputs, read_request
from router.clock import Clock
from router.config.config import Config, config_revision
from router.config.model import Model, is_isolated, runtime_of
from router.control.serving import Catalogue, ModelEntry, VersionEntry
from router.engine._engine import runtime
from router.errors import RouterError
from router.lab.bay import INFER, Bay, Call, Serve
from router.lab.bench import Requests, make_messages
from router.lab.histogram import InputHistograms
from router.lab.machine import machine_points
from router.lab.recording import PREFLIGHT_ID, Recorded
from router.models.repository import ModelFile, find_served, list_models

FORMAT = 1
GOLDEN_SEED = 20_260_101
GOLDEN_MAX = 3  # messages a version
VALUES_MAX = 256  # of an output that are kept and compared
TIMED_RUNS = 30
REQUESTS_MAX = 100_000  # of a recording that make its histograms
Points = Mapping[str, Any]


class FingerprintError(RouterError):
    """A fingerprint that cannot be taken or read."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Every point of an environment, when it was taken, and of which."""

    environment: str
    made_s: float
    points: Points
    histograms: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """An environment that can be asked."""

    config: Config
    catalogue: Catalogue
    call: Call
    library: str
    environment: str = ""


def take_fingerprint(
    place: Place,
    clock: Clock,
    recorded: Iterable[Recorded] = (),
) -> Fingerprint:
    """Look at everything and ask every version that is loaded there."""
    library = runtime(place.library)
    points: dict[str, Any] = {
        "router/version": __version__,
        "router/config_revision": config_revision(place.config),
        "runtime/onnxruntime": library["version"],
        "runtime/providers": sorted(library["providers"]),
        "server/loops": place.config.server.loops,
        "server/executors": place.config.server.executors,
        **machine_points(),
    }
    models = place.catalogue.models.values()
    held = {(model.name, each.version) for model in models for each in model.versions}
    sums = dict(_checksums(place.config, held))
    for model in place.config.models:
        entry = place.catalogue.models.get(model.name)
        if entry is None:
            continue
        points[f"models/{model.name}/stable"] = entry.stable
        for version in entry.versions:
            found = _version_points(place, clock, model, entry, version)
            prefix = f"models/{model.name}/{version.version}"
            found["sha256"] = sums.get((model.name, version.version), "")
            points |= {f"{prefix}/{name}": value for name, value in found.items()}
    histograms = InputHistograms()
    for number, each in enumerate(recorded):
        if number == REQUESTS_MAX:
            break
        # What cannot be read was no request of a model's inputs.
        with suppress(ValueError):
            histograms.add(each.model, read_arrays(read_request(each.body)))
    return Fingerprint(place.environment, clock.now(), points, histograms.counts())


def fingerprint_of(
    serve: Serve,
    clock: Clock,
    environment: str = "",
    recorded: Iterable[Recorded] = (),
) -> Fingerprint:
    """Load the versions in this process as serving would, and look at everything."""
    with Bay(serve) as bay:
        place = Place(
            serve.config, bay.catalogue, bay.call, bay.runtime_library, environment
        )
        return take_fingerprint(place, clock, recorded)


def dump_fingerprint(made: Fingerprint) -> str:
    """The fingerprint as a file holds it: canonical, so that a digest can be taken."""
    whole = {
        "format": FORMAT, "environment": made.environment, "made_s": made.made_s,
        "points": dict(made.points), "histograms": dict(made.histograms),
    }  # fmt: skip
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False)


def load_fingerprint(text: str, name: str) -> Fingerprint:
    """The fingerprint in a text; FingerprintError names the file when it is none."""
    try:
        whole = json.loads(text)
        if whole["format"] != FORMAT:
            raise FingerprintError(
                f"{name}: format {whole['format']}, this router reads {FORMAT}"
            )
        return Fingerprint(
            str(whole["environment"]), float(whole["made_s"]), dict(whole["points"]),
            {key: tuple(counts) for key, counts in whole["histograms"].items()},
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FingerprintError(f"{name}: not a fingerprint") from error


def _checksums(
    config: Config, wanted: set[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], str]]:
    """SHA-256 of the bytes that are loaded. Other servers' versions have none."""
    for file in find_served(config, list_models(config)):
        if isinstance(file, ModelFile) and (file.model, file.version) in wanted:
            data = file.read()
            yield (file.model, file.version), hashlib.sha256(data).hexdigest()


def _version_points(
    place: Place, clock: Clock, model: Model, entry: ModelEntry, version: VersionEntry
) -> dict[str, Any]:
    settings = runtime_of(model, version.version)
    points: dict[str, Any] = {
        "loaded": version.is_loaded or version.reason,
        "platform": version.platform,
        "inputs": sorted(_tensors(version.inputs)),
        "outputs": sorted(_tensors(version.outputs)),
        "providers": [
            [one.name, dict(sorted(one.options.items()))] for one in settings.providers
        ],
        "threads": settings.intra_op_threads,
        "batching": settings.batching,
        "isolated": is_isolated(model, version.version, entry.stable),
    }
    if not version.is_loaded:
        return points
    declared = {each.name: (each.datatype, each.shape) for each in version.inputs}
    asked = Requests(model.name, version=version.version)
    golden = []
    took: list[float] = []
    for message in make_messages(asked, declared, GOLDEN_SEED)[:GOLDEN_MAX]:
        golden.append(_ask(place.call, message))
        if "failed" not in golden[-1]:
            took += _timed(place.call, clock, message, TIMED_RUNS // GOLDEN_MAX)
    points["golden"] = golden
    if took:
        points["probe_us"] = round(statistics.median(took) * 1e6, 1)
    return points


def _tensors(tensors: Any) -> Iterator[str]:
    for each in tensors:
        yield f"{each.name} {each.datatype} {list(each.shape)}"


def _ask(call: Call, message: bytes) -> dict[str, Any]:
    """A golden request's digest and what was answered."""
    digest = hashlib.sha256(message).hexdigest()
    request = read_request(message)
    request.id = PREFLIGHT_ID
    answer = call(INFER, request.SerializeToString())
    if answer.code != 0:
        return {"request": digest, "failed": answer.code}
    answered_by, outputs = read_outputs(answer.message)
    if answered_by != request.model_version:
        return {"request": digest, "failed": f"version {answered_by} answered"}
    return {
        "request": digest,
        "outputs": {
            name: {
                "datatype": str(array.dtype),
                "shape": list(array.shape),
                "values": [
                    _plain(value) for value in array.ravel()[:VALUES_MAX].tolist()
                ],
            }
            for name, array in outputs.items()
        },
    }


def _timed(call: Call, clock: Clock, message: bytes, runs: int) -> list[float]:
    took = []
    for _ in range(runs):
        begun = clock.monotonic()
        call(INFER, message)
        took.append(clock.monotonic() - begun)
    return took


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
