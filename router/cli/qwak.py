"""Qwak's files, put into a running router as they are.

An audience file becomes audiences and the routes in it; a deployment becomes routes:
its audiences in the order of the file, and whoever is in none. What would change who
answers and cannot be honoured is an error, and then nothing is put; keys about another
platform's machines are named on standard error and change nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from router.cli.connect import OUTPUT, asked_by, changing, connected, operator_of
from router.cli.operate import read_text
from router.errors import ConfigError, RouterError

if TYPE_CHECKING:  # grpc takes longer to import than most commands to run
    from router.client.operator import Operator
    from router.config.config import Config
    from router.config.qwak import Translated

MODEL = click.option("--model", help="Whose variations are meant, if it does not say.")


@dataclass(frozen=True, slots=True)
class Put:
    """How to put what a file comes to."""

    method: str
    """Create, Update, or "" for whichever is right."""
    asked: dict[str, str]
    output: str


def read_value(path: str) -> Any:
    """A file's value; ConfigError with every problem of its YAML."""
    from router.config.load import parse_document

    document = parse_document(read_text(path), path)
    if document.findings:
        raise ConfigError(document.problems())
    return document.value


def is_qwaks(value: Any) -> bool:
    """Whether a file is one of Qwak's rather than ours."""
    if not isinstance(value, dict):
        return False
    listed = value.get("audiences")
    return (
        "spec" in value
        or "realtime" in value
        or (isinstance(listed, list) and _has_conditions(listed))
    )


def _has_conditions(listed: list[Any]) -> bool:
    return any(isinstance(one, dict) and "conditions" in one for one in listed)


def put_file(operator: "Operator", path: str, model: str | None, put: Put) -> None:
    """Put what a file of Qwak's comes to; RouterError when it cannot be honoured."""
    config = _applied(operator)
    value = read_value(path)
    name = _model_name(config, value, model, path)
    made = _translated(config, name, path)
    entries = operator.call("VariationService/List").variations
    stored = {
        one.name: json.loads(one.body_json) for one in entries if not one.is_of_file
    }
    mine = [key for key, body in stored.items() if body["model"] == name]
    refuse_shadowed(config, made, path)
    refuse_order(made, mine, path)
    for key in made.ignored:
        click.echo(
            f"{path}: {key}: is about another platform and does nothing", err=True
        )
    for audience in made.audiences:
        body = audience.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        _put(operator, "AudienceService", audience.name, body, put)
    wanted = _put_routes(operator, made, put)
    if "realtime" in value and "audiences" in value["realtime"]:
        # The deployment lists all its audiences: those it does not name have left.
        for left in mine:
            if left not in wanted and stored[left].get("audience"):
                _call(operator, "VariationService/Delete", left, put, {})


def _put_routes(operator: "Operator", made: "Translated", put: Put) -> list[str]:
    from router.config.route import route_name

    names = []
    for route in made.routes:
        body = route.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        names.append(route_name(route))
        # A file that is updated may have routes that it had not before.
        either = Put(
            "" if put.method == "Update" else put.method, put.asked, put.output
        )
        _put(operator, "VariationService", names[-1], body, either)
    return names


def refuse_shadowed(config: "Config", made: "Translated", path: str) -> None:
    """RouterError when the router's own file answers before what would be put."""
    models = {route.model for route in made.routes}
    for route in config.routes:
        if route.model in models and route.audience is None:
            raise RouterError(
                f"{path}: the router's own file has a route of '{route.model}' for"
                " everyone, which answers before these: remove it there"
            )


def refuse_order(made: "Translated", stored: Iterable[str], path: str) -> None:
    """RouterError when what is stored already would be tried in another order.

    What is put keeps its place, so an order that changed would not take effect.
    """
    from router.config.route import route_name

    wanted = [route_name(route) for route in made.routes if route.audience]
    kept = [name for name in stored if name in wanted]
    new = [name for name in wanted if name not in kept]
    if kept + new != wanted:
        raise RouterError(
            f"{path}: audiences are tried in the order they were put"
            f" ({', '.join(kept + new)}), not in that of the file: delete the"
            f" variations that come too early and put them again"
        )


def _applied(operator: "Operator") -> "Config":
    from router.config.config import Config

    # Not read as a file is: what it names beside itself is in it by now.
    return Config.model_validate_json(operator.call("ConfigService/Get").config_json)


def _model_name(config: "Config", value: Any, given: str | None, path: str) -> str:
    names = [model.name for model in config.models]
    said = value.get("model_id") if isinstance(value, dict) else None
    name = said or given or (names[0] if len(names) == 1 else None)
    if name not in names:
        wrong = f"no model '{name}'" if name else "name a model with --model"
        raise RouterError(f"{path}: {wrong}: known: {', '.join(names)}")
    if given and given != name:
        raise RouterError(f"{path}: is about model '{name}', not '{given}'")
    return str(name)


def _translated(config: "Config", name: str, path: str) -> "Translated":
    from router.config.load import read_qwak
    from router.config.qwak import variations_of

    (model,) = (one for one in config.models if one.name == name)
    return read_qwak(read_text(path), path, name, variations_of(model))


def _put(
    operator: "Operator", service: str, name: str, body: dict[str, Any], put: Put
) -> None:
    from router.client.prediction import CallError

    body = {key: value for key, value in body.items() if key != "name"}
    fields = {"body_json": json.dumps(body)}
    if put.method:
        _call(operator, f"{service}/{put.method}", name, put, fields)
        return
    try:
        _call(operator, f"{service}/Update", name, put, fields)
    except CallError as error:
        if error.code != "NOT_FOUND":
            raise
        _call(operator, f"{service}/Create", name, put, fields)


def _call(
    operator: "Operator", method: str, name: str, put: Put, fields: dict[str, str]
) -> None:
    from router.cli.tables import show_done

    # An id for each, so that the whole file can be sent again.
    asked = {**put.asked, "request_id": f"{put.asked['request_id']}/{method}/{name}"}
    show_done(operator.call(method, name=name, asked=asked, **fields), put.output)


@click.command()
@click.option("-f", "--file", "path", required=True, type=click.Path(dir_okay=False))
@MODEL
@connected
@changing
@OUTPUT
def deploy(path: str, model: str | None, output: str, **given: Any) -> int:
    """Route users as a deployment file of Qwak's says."""
    if not is_qwaks(read_value(path)):
        raise RouterError(
            f"{path}: no deployment of Qwak's (realtime: ...): a configuration of the"
            " router's own is applied with `router apply`"
        )
    asked = asked_by(given)
    with operator_of(given) as operator:
        put_file(operator, path, model, Put("", asked, output))
    return 0
