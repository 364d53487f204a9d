"""`router audience` and `router variation`: what operators put beside the file.

A file has one resource or a list of them, as the configuration writes them:
`audiences: [...]`, `routes: [...]`, or one alone; or it is one of Qwak's. Those that
the configuration file owns are listed, and changed there.
"""

import json
from typing import Any

import click

from router.cli.connect import OUTPUT, asked_by, changing, connected, operator_of
from router.cli.qwak import MODEL, Put, deploy, is_qwaks, put_file, read_value
from router.errors import RouterError

FILE = click.option(
    "-f", "--file", "path", required=True, type=click.Path(dir_okay=False)
)
NAMED = {"audience": "audiences", "variation": "routes"}


def group_of(word: str, text: str) -> click.Group:
    """The five commands of one kind of resource."""
    service = f"{word.capitalize()}Service"

    @click.group(word, help=text)
    def group() -> None:
        """Replaced by `text`."""

    def put(verb: str, method: str, help_text: str) -> None:
        @group.command(verb, help=help_text)
        @FILE
        @MODEL
        @connected
        @changing
        @OUTPUT
        def command(path: str, model: str | None, output: str, **given: Any) -> int:
            from router.cli.tables import show_done

            asked = asked_by(given)
            if is_qwaks(read_value(path)):
                with operator_of(given) as operator:
                    put_file(operator, path, model, Put(method, asked, output))
                return 0
            found = bodies(word, path)
            with operator_of(given) as operator:
                for name, body in found:
                    # An id for each, so that the whole file can be sent again.
                    mine = {**asked, "request_id": f"{asked['request_id']}/{name}"}
                    answer = operator.call(
                        f"{service}/{method}",
                        name=name, body_json=json.dumps(body), asked=mine,
                    )  # fmt: skip
                    show_done(answer, output)
            return 0

    put("create", "Create", f"Store each {word} of FILE; refused when it exists.")
    put("update", "Update", f"Replace each {word} of FILE.")

    @group.command("list")
    @connected
    @OUTPUT
    def list_all(output: str, **given: Any) -> int:
        """List them, with who owns each."""
        from router.cli.tables import show_kind

        with operator_of(given) as operator:
            show_kind(f"{word}s", operator.call(f"{service}/List"), output)
        return 0

    @group.command("get")
    @click.argument("name")
    @connected
    @OUTPUT
    def get_one(name: str, output: str, **given: Any) -> int:
        """Show one."""
        from router.cli.tables import show_value

        with operator_of(given) as operator:
            found = operator.call(f"{service}/Get", name=name)
        body = {"name": found.name, **json.loads(found.body_json)}
        show_value(body, "json" if output == "json" else "yaml")
        return 0

    @group.command("delete")
    @click.argument("name", required=False)
    @click.option("-f", "--file", "path", type=click.Path(dir_okay=False))
    @connected
    @changing
    @OUTPUT
    def delete(name: str | None, path: str | None, output: str, **given: Any) -> int:
        """Remove what was put: NAME, or each one of FILE."""
        from router.cli.tables import show_done

        if (name is None) == (path is None):
            raise click.UsageError("give a NAME, or -f FILE")
        names = [name] if name else [one for one, _ in bodies(word, str(path))]
        asked = asked_by(given)
        with operator_of(given) as operator:
            for one in names:
                mine = {**asked, "request_id": f"{asked['request_id']}/{one}"}
                answer = operator.call(f"{service}/Delete", name=one, asked=mine)
                show_done(answer, output)
        return 0

    return group


def bodies(word: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and body of each resource in a file; RouterError when it has none."""
    value = read_value(path)
    key = NAMED[word]
    if is_qwaks(value):
        listed = value.get("spec", value).get("audiences", [])
        return [(str(one.get("name")), {}) for one in listed]
    listed = value.get(key, [value]) if isinstance(value, dict) else value
    if not isinstance(listed, list) or not listed:
        raise RouterError(f"{path}: no {word} in it: write {key}: [...]")
    found = []
    for one in listed:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not name:
            raise RouterError(f"{path}: each {word} needs a name")
        found.append((name, {k: v for k, v in one.items() if k != "name"}))
    return found


COMMANDS = [
    group_of("audience", "Audiences beside those of the file."),
    group_of("variation", "Routes beside those of the file: who gets which versions."),
    deploy,
]
