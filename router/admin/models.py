"""Models as operators see them: what is loaded, what is ready, and why not."""

from typing import Any

from router.client.messages import message
from router.control.serving import ModelEntry, Serving
from router.errors import NotFoundError


def list_models(serving: Serving) -> Any:
    """Every model served, by name."""
    made = message("router.v1.ListModelsResponse")()
    for model in serving.catalogue.models.values():
        made.models.append(_entry(serving, model))
    return made


def describe_model(serving: Serving, asked: Any) -> Any:
    """One model; NotFoundError when there is none of that name."""
    model = serving.catalogue.models.get(asked.name)
    if model is None:
        raise NotFoundError(f"no model '{asked.name}'")
    return _entry(serving, model)


def _entry(serving: Serving, model: ModelEntry) -> Any:
    made = message("router.v1.ModelEntry")(name=model.name, stable=model.stable)
    for version in model.versions:
        entry = made.versions.add(
            version=version.version,
            is_loaded=version.is_loaded,
            is_ready=serving.is_version_ready(model.name, version.version),
            reason=version.reason,
            platform=version.platform,
        )
        for tensors, field in (
            (version.inputs, entry.inputs),
            (version.outputs, entry.outputs),
        ):
            for one in tensors:
                field.add(name=one.name, datatype=one.datatype, shape=one.shape)
    return made
