"""Routes and layers: who is split between which versions, and in whose buckets.

Routes of one model are tried in the order of the file and the first that matches
answers. A route's name is its identity: the buckets it has claimed are stored under it.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router.config.alias import VersionRef
from router.config.values import FROZEN, Name, Percent


class Share(BaseModel):
    """One version's part of a split."""

    model_config = FROZEN
    version: VersionRef
    weight: Percent
    """Percent, at most two decimals."""
    name: Name | None = None
    """The variant's name in annotations and metrics."""


def _shares(value: Any) -> Any:
    if isinstance(value, dict):
        return [{"version": v, "weight": w} for v, w in value.items()]
    return value


Split = Annotated[
    tuple[Share, ...],
    BeforeValidator(
        _shares, json_schema_input_type=list[Share] | dict[int | str, float]
    ),
    Field(min_length=1),
]


class Route(BaseModel):
    """A standing rule: everyone or an audience, to one version or a sticky split."""

    model_config = FROZEN
    model: Name
    audience: Name | None = None
    """Who; everyone if unset."""
    split: Split | None = None
    """A list of version and weight, or the short form `{1: 90, 2: 10}`."""
    version: VersionRef | None = None
    """All of them to one version."""
    layer: Name | None = None
    """Whose buckets are split; the model's own layer if unset."""
    name: Name | None = None
    """Identity of the route; the model and audience if unset."""

    @model_validator(mode="after")
    def _leads_somewhere(self) -> "Route":
        if (self.split is None) == (self.version is None):
            raise PydanticCustomError(
                "route", "a route has either a split or a version"
            )
        return self


class Layer(BaseModel):
    """A deal of all units into buckets; different salts are independent."""

    model_config = FROZEN
    name: Name
    salt: Name | None = None
    """What seeds the hash; the layer's name if unset. A new one re-deals every unit."""


def route_name(route: Route) -> str:
    """The identity of a route."""
    if route.name is not None:
        return route.name
    return f"{route.model}/{route.audience}" if route.audience else route.model


def salt_of(route: Route, layers: tuple[Layer, ...]) -> str:
    """The salt a route's buckets are drawn and claimed by."""
    return layer_salt(route.layer or route.model, layers)


def layer_salt(wanted: str, layers: tuple[Layer, ...]) -> str:
    """The salt of a layer.

    Routes and rollouts of a model share a layer named after the model unless told
    otherwise; declaring a layer of that name gives it another salt.
    """
    for layer in layers:
        if layer.name == wanted:
            return layer.salt or layer.name
    return wanted
