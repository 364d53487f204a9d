"""What keeps a file of Qwak's from being put, before anything is."""

import pytest

from router.cli.qwak import is_qwaks, refuse_order, refuse_shadowed
from router.config.config import Config
from router.config.qwak import Lines, Translated
from router.config.route import Route
from router.errors import RouterError

MADE = Translated(
    Lines("f", {}),
    routes=(
        Route(model="m", audience="a", version=1),
        Route(model="m", audience="b", version=2),
        Route(model="m", version=1),
    ),
)


def config(*routes: dict[str, object]) -> Config:
    names = [{"name": "m", "stable": 1}, {"name": "n", "stable": 1}]
    audiences = [{"name": "a", "when": {"key": "k", "exact": "v"}}]
    return Config.model_validate(
        {
            "api_version": "router/v1",
            "models": names,
            "audiences": audiences,
            "routes": routes,
        }
    )


def test_a_route_of_the_file_for_everyone_would_hide_what_is_put() -> None:
    with pytest.raises(RouterError, match="for everyone"):
        refuse_shadowed(config({"model": "m", "version": 1}), MADE, "f")
    refuse_shadowed(config({"model": "n", "version": 1}), MADE, "f")
    refuse_shadowed(config({"model": "m", "audience": "a", "version": 1}), MADE, "f")


@pytest.mark.parametrize(
    ("stored", "is_refused"),
    [
        ([], False),
        (["m/a"], False),
        (["m", "m/a", "m/b"], False),
        (["m/x", "m/a", "m/b"], False),
        (["m/b"], True),
        (["m/b", "m/a"], True),
    ],
)
def test_an_order_that_would_not_take_effect_is_refused(
    stored: list[str], is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(RouterError, match="order"):
            refuse_order(MADE, stored, "f")
    else:
        refuse_order(MADE, stored, "f")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"api_version": "v1", "spec": {}}, True),
        ({"realtime": {}}, True),
        ({"audiences": [{"name": "x", "conditions": {}}]}, True),
        ({"audiences": [{"name": "x", "when": {}}]}, False),
        ({"audiences": ["conditions", 1]}, False),
        ({"audiences": "conditions"}, False),
        ({"routes": []}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_file_is_qwaks_by_its_keys(value: object, expected: bool) -> None:
    assert is_qwaks(value) is expected
