"""Problems that no single key shows, and the limits of the routing table."""

from typing import Any

import pytest

from router.config.check import Checks, check_config
from router.config.config import Config
from router.config.problems import Known, path_text


def found(list_versions: Any = None, **sections: Any) -> list[tuple[str, str]]:
    config = Config.model_validate(
        {
            "api_version": "router/v1",
            "models": [{"name": "credit", "repository": "r"}],
            **sections,
        }
    )
    checks = Checks(list_versions)
    return [
        (path_text(finding.path), finding.message)
        for finding in check_config(config, checks, Known())
    ]


def present(key: str) -> dict[str, Any]:
    return {"key": key, "present": True}


def test_two_listeners_may_not_share_an_address() -> None:
    assert found(server={"listen": ["127.0.0.1:1", "127.0.0.1:1"]}) == [
        ("server.listen[1]", "two listeners have this address")
    ]
    assert found(server={"listen": ["unix:a"], "admin": "unix:a"}) == [
        ("server.admin", "two listeners have this address")
    ]
    assert found(server={"listen": ["127.0.0.1:0", "127.0.0.1:0"], "ops": None}) == []


def test_other_machines_are_let_in_only_knowingly() -> None:
    message = "other machines can reach this address, and it has no TLS"
    assert found(server={"ops": "[::]:80"}) == [("server.ops", message)]
    assert found(server={"ops": "[::]:80", "insecure": True}) == []


def test_tls_protects_the_listener_it_is_for() -> None:
    files = {"cert": "c", "key": "k"}
    asking = {**files, "client_ca": "a"}
    lacks = (
        "other machines can reach this address, and it asks for no client certificates"
    )
    assert found(server={"listen": "0.0.0.0:1", "tls": files}) == []
    admin = {"admin": "0.0.0.0:2"}
    assert found(server={**admin, "admin_tls": asking}) == []
    assert found(server={**admin, "admin_tls": files}) == [("server.admin", lacks)]
    optional = {**asking, "require_client_cert": False}
    assert found(server={**admin, "admin_tls": optional}) == [("server.admin", lacks)]


def test_tls_is_complete_and_has_a_listener() -> None:
    tls = {"cert": "c", "key": "k", "require_client_cert": True}
    assert found(server={"tls": tls}) == [
        ("server.tls.require_client_cert", "nothing to check client certificates with")
    ]
    files = {"cert": "c", "key": "k"}
    assert found(server={"admin": None, "admin_tls": files}) == [
        ("server.admin_tls", "there is no admin listener")
    ]


def test_the_default_deadline_is_not_above_the_longest() -> None:
    limits = {"deadline_default_s": 10, "deadline_max_s": 5}
    assert [path for path, _ in found(server={"limits": limits})] == [
        "server.limits.deadline_default_s"
    ]


def test_there_is_something_to_serve() -> None:
    assert found(models=[]) == [("models", "nothing to serve")]


def test_names_are_taken_once() -> None:
    twice = [{"name": "credit", "repository": "r"}] * 2
    assert found(models=twice) == [("models[1].name", "this name is taken")]
    audiences = [{"name": "a", "when": present("k")}] * 2
    assert found(audiences=audiences) == [("audiences[1].name", "this name is taken")]


def test_stable_cannot_be_disabled() -> None:
    model = {"name": "credit", "repository": "r", "versions": {1: {"disabled": True}}}
    assert found(lambda _: (1, 2), models=[model]) == [
        ("models[0].versions[1].disabled", "stable cannot be disabled")
    ]
    other = {"name": "credit", "repository": "r", "versions": {2: {"disabled": True}}}
    assert found(lambda _: (1, 2), models=[other]) == []


def test_listed_versions_are_known_without_a_repository() -> None:
    model = {"name": "credit", "repository": "r", "versions": [1, 2], "stable": 3}
    assert found(models=[model]) == [
        ("models[0].stable", "stable is not among the versions served")
    ]


def test_at_most_64_versions_of_a_model_are_served() -> None:
    assert found(lambda _: tuple(range(1, 66))) == [
        ("models[0].versions", "65 versions would be served")
    ]


def test_at_most_64_keys_are_read_for_a_model() -> None:
    audiences = [
        {"name": "many", "when": {"all": [present(f"k{i}") for i in range(64)]}},
        {
            "name": "more",
            "when": {"any": [{"not": present("x")}, {"audience": "many"}]},
        },
    ]
    routes = [
        {"model": "credit", "audience": "many", "version": 1},
        {"model": "credit", "audience": "more", "version": 1},
    ]
    assert found(audiences=audiences, routes=routes) == [
        ("models[0]", "its routes read 65 keys")
    ]
    assert found(audiences=audiences, routes=routes[:1]) == []


def test_references_that_double_are_counted_not_built() -> None:
    audiences = [{"name": "a0", "when": present("k")}] + [
        {"name": f"a{i}", "when": {"all": [{"audience": f"a{i - 1}"}] * 2}}
        for i in range(1, 14)
    ]
    assert found(audiences=audiences) == [("audiences[13].when", "comes to 8192 tests")]


def test_chains_of_references_end() -> None:
    audiences = [
        {"name": f"a{i}", "when": {"audience": f"a{i + 1}"}} for i in range(21)
    ] + [{"name": "a21", "when": present("k")}]
    assert found(audiences=audiences) == [
        ("audiences[0].when", "a chain of 21 references")
    ]


def test_a_ring_of_references_is_shown_and_its_users_are_not_blamed() -> None:
    audiences = [
        {"name": "user", "when": {"audience": "a"}},
        {"name": "a", "when": {"any": [present("k"), {"audience": "b"}]}},
        {"name": "b", "when": {"not": {"audience": "c"}}},
        {"name": "c", "when": {"all": [{"audience": "a"}]}},
        {"name": "self", "when": {"audience": "self"}},
    ]
    assert found(audiences=audiences) == [
        ("audiences[1].when", "refers to itself: a -> b -> c -> a"),
        ("audiences[2].when", "refers to itself: b -> c -> a -> b"),
        ("audiences[3].when", "refers to itself: c -> a -> b -> c"),
        ("audiences[4].when", "refers to itself: self -> self"),
    ]


def test_routes_of_one_name_are_two_routes_in_one_place() -> None:
    audiences = [{"name": n, "when": present(n)} for n in ("a", "b")]
    routes = [
        {"model": "credit", "audience": "a", "version": 1, "name": "r"},
        {"model": "credit", "audience": "b", "version": 1, "name": "r"},
    ]
    assert found(audiences=audiences, routes=routes) == [
        ("routes[1]", "routes[0] has this name too")
    ]


def test_a_route_behind_one_for_the_same_audience_is_never_reached() -> None:
    audiences = [{"name": "a", "when": present("a")}]
    routes = [{"model": "credit", "audience": "a", "version": 1}] * 2
    assert [path for path, _ in found(audiences=audiences, routes=routes)] == [
        "routes[1]"
    ]


def test_a_version_has_one_share() -> None:
    shares = [{"version": 1, "weight": 50}, {"version": 1, "weight": 50}]
    assert found(routes=[{"model": "credit", "split": shares}]) == [
        ("routes[0].split[1]", "this version has a share already")
    ]


def test_a_route_may_use_its_models_own_layer_undeclared() -> None:
    assert found(routes=[{"model": "credit", "version": 1, "layer": "credit"}]) == []


def named(version: int, name: str) -> dict[str, Any]:
    return {"version": version, "weight": 50, "name": name}


def test_a_version_has_one_name_and_a_name_one_version() -> None:
    model = {
        "name": "credit",
        "repository": "r",
        "versions": {1: {"name": "old"}, 3: {}},
    }
    audiences = [{"name": "a", "when": present("a")}]
    routes = [
        {
            "model": "credit",
            "audience": "a",
            "split": [named(1, "old"), named(2, "new")],
        },
        {"model": "credit", "split": [named(1, "other"), named(3, "new")]},
    ]
    assert found(models=[model], audiences=audiences, routes=routes) == [
        ("routes[1].split[0].name", "this version is named 'old' already"),
        ("routes[1].split[1].name", "version 2 has this name already"),
    ]


@pytest.mark.parametrize("model", ["credit", "fraud"])
def test_two_models_may_use_the_same_names(model: str) -> None:
    models = [{"name": n, "repository": "r"} for n in ("credit", "fraud")]
    routes = [
        {"model": "credit", "split": [named(1, "old"), named(2, "new")]},
        {"model": "fraud", "split": [named(2, "old"), named(1, "new")]},
    ]
    assert [m for m in found(models=models, routes=routes) if model in m[0]] == []
