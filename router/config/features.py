"""Columns of inputs by name, so that a condition can say `input.amount`.

A model's `inputs` come from its stable version's manifest, or from the file where it
says so itself: routing goes before any version is chosen, so all versions of a model
read one layout. What was read becomes part of the configuration, so that the same
configuration means the same thing wherever its manifest is. A feature that several
inputs have is called `input.<tensor>.<feature>`; the long name works for every one.
"""

from collections.abc import Callable, Iterator, Mapping

from router.config.audience import Test
from router.config.config import Config
from router.config.manifest import Input
from router.config.model import Model, served_versions, stable_of
from router.config.problems import Finding, Path
from router.errors import RouterError

# The named inputs of a version in a repository, by its manifest.
ReadInputs = Callable[[str, int], Mapping[str, Input]]
ListVersions = Callable[[str], tuple[int, ...]]

PREFIX = "input."


def with_inputs(
    config: Config, list_versions: ListVersions | None, read_inputs: ReadInputs | None
) -> Config:
    """The configuration with the inputs that manifests name.

    A manifest that cannot be read is a problem of its version, said when that is
    loaded.
    """
    if list_versions is None or read_inputs is None:
        return config
    models = []
    for model in config.models:
        found = _read(model, list_versions, read_inputs)
        models.append(model.model_copy(update={"inputs": found}) if found else model)
    return config.model_copy(update={"models": tuple(models)})


def _read(
    model: Model, list_versions: ListVersions, read_inputs: ReadInputs
) -> dict[str, Input]:
    if model.inputs or model.repository is None:
        return {}
    try:
        served = served_versions(model, list_versions(model.repository))
        if not served:
            return {}
        found = read_inputs(model.repository, stable_of(model, served))
    except RouterError:
        return {}
    return {name: given for name, given in found.items() if given.features}


def columns_of(model: Model) -> dict[str, tuple[str, int]]:
    """Tensor and column of every key that names a feature of the model."""
    short: dict[str, list[tuple[str, int]]] = {}
    columns: dict[str, tuple[str, int]] = {}
    for tensor, given in model.inputs.items():
        for index, name in enumerate(given.features):
            short.setdefault(PREFIX + name, []).append((tensor, index))
            columns[f"{PREFIX}{tensor}.{name}"] = (tensor, index)
    columns |= {key: places[0] for key, places in short.items() if len(places) == 1}
    return columns


def check_features(
    model: Model, leaves: Iterator[tuple[Path, Test]]
) -> Iterator[Finding]:
    """Problems of the keys that conditions over this model's requests read."""
    columns = columns_of(model)
    if not columns:
        return
    known = columns.keys() | {PREFIX + tensor for tensor in model.inputs}
    for path, test in leaves:
        if test.key.startswith(PREFIX) and test.key not in known:
            names = ", ".join(sorted(columns))
            yield Finding(
                (*path, "key"), f"model '{model.name}' has no such input or feature",
                repr(test.key), f"it has {names}",
            )  # fmt: skip
