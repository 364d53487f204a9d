"""The command line.

Every command says here what it takes, and imports what it needs when it is called:
`router version` should not pay for a web library. Exit codes are for scripts: 0 is done
(for `plan`: nothing would change), 1 an error, 2 `plan` found changes, 64 a command
that was not understood. Errors go to standard error, one a line, `file:line: path:
message`.
"""

import sys
from collections.abc import Callable
from typing import Any

import click

from router import __version__
from router.cli import lab, look, operate, parity, resources, shadow
from router.cli.alerts import alerts
from router.cli.bench import bench
from router.cli.connect import connected
from router.cli.feedback import feedback, key
from router.cli.look import explain_running
from router.cli.model import model
from router.cli.report import report
from router.cli.selftest import selftest
from router.cli.simulate import simulate
from router.errors import RouterError

EXIT_OK, EXIT_ERROR, EXIT_CHANGES, EXIT_USAGE = 0, 1, 2, 64

FILE = click.argument("file", type=click.Path(dir_okay=False))
STATE = click.option(
    "--state", metavar="PATH", help="Control log; the file's server.state if left out."
)
ENVIRONMENT = click.option(
    "--environment", envvar="ROUTER_ENVIRONMENT", default="", metavar="NAME",
    help="Which of the file's environments is meant.",
)  # fmt: skip
OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def router() -> None:
    """A gRPC inference router: every version of a model, and who gets which.

    Exit codes: 0 done, 1 error, 2 changes found (plan) or not ended in time (status),
    64 wrong usage.
    """


@router.command()
@FILE
@ENVIRONMENT
def serve(file: str, environment: str) -> int:
    """Serve the models of FILE until told to stop."""
    from router.app import serve as run

    return run(file, environment) or EXIT_OK


@router.command()
@FILE
@ENVIRONMENT
@click.option("--no-models", is_flag=True, help="Do not look into repositories.")
def validate(file: str, environment: str, no_models: bool) -> int:
    """Check FILE and report every problem in it."""
    from router.cli.show import show_valid
    from router.lab.preview import read_file

    config = read_file(file, has_models=not no_models, environment=environment)
    show_valid(file, config)
    return EXIT_OK


@router.command()
@FILE
@STATE
@ENVIRONMENT
@OUTPUT
def plan(file: str, state: str | None, environment: str, output: str) -> int:
    """Show who would move if FILE took effect. Exits with 2 when anything changes."""
    from router.cli.show import show_diff, show_json
    from router.lab.preview import diff_file

    found = diff_file(file, state, environment)
    if output == "json":
        show_json(found)
    else:
        show_diff(found)
    return EXIT_CHANGES if found.has_changes else EXIT_OK


@router.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@STATE
@ENVIRONMENT
@OUTPUT
@connected
@click.option("--model", help="Needed when there are several.")
@click.option("--unit", help="Unit key; without one each request draws its own.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Attribute.")
@click.option("--pin", type=int, metavar="VERSION", help="Version the request names.")
def explain(
    file: str | None, state: str | None, environment: str, output: str, **asked: Any
) -> int:
    """Say which version a request would get, and why.

    By FILE and its control log; without FILE, by the table of the running router.
    """
    from router.cli.show import show_explanation, show_json
    from router.lab.preview import explain_request

    attributes = dict(_pair(text) for text in asked.pop("pairs"))
    if file is None:
        found = explain_running(attributes, asked)
    else:
        found = explain_request(
            file,
            model=asked["model"],
            unit=asked["unit"],
            attributes=attributes,
            pin=asked["pin"],
            state_path=state,
            environment=environment,
        )
    if output == "json":
        show_json(found)
    else:
        show_explanation(found)
    return EXIT_OK


@router.command()
@FILE
@ENVIRONMENT
def render(file: str, environment: str) -> int:
    """Print FILE as it is in an environment, as JSON (which is YAML as well)."""
    from router.cli.show import show_json
    from router.config.load import read_bytes
    from router.config.load import render as merged

    show_json(merged(read_bytes(file), file, environment))
    return EXIT_OK


@router.command()
def schema() -> int:
    """Print the JSON Schema of the configuration."""
    from router.cli.show import show_json
    from router.config.config import config_schema

    show_json(config_schema())
    return EXIT_OK


@router.command("version")
def print_version() -> int:
    """Print the version of the router."""
    click.echo(__version__)
    return EXIT_OK


@router.command()
@click.argument("target")
@click.argument("model")
@click.option(
    "--input", "inputs", multiple=True, required=True, metavar="NAME=VALUES",
    help="Comma-separated values of one row, or JSON. Repeat for more inputs.",
)  # fmt: skip
@click.option("--unit", help="Unit key.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Parameter.")
@click.option("--pin", type=int, metavar="VERSION", help="Version to ask for.")
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds.")
@click.option("--tls-ca", metavar="PATH", help="Use TLS; PEM of whom to trust.")
@click.option("--tls-cert", metavar="PATH", help="PEM of the certificate to show.")
@click.option("--tls-key", metavar="PATH", help="PEM of its key.")
@OUTPUT
def predict(target: str, model: str, output: str, **asked: Any) -> int:
    """Ask the server at TARGET (host:port or unix:path) for one prediction of MODEL."""
    from router.cli.show import show_json, show_prediction
    from router.client.channel import TlsFiles
    from router.client.infer import Question
    from router.client.infer import predict as ask

    question = Question(
        model=model,
        inputs=tuple(_pair(text) for text in asked["inputs"]),
        unit=asked["unit"],
        parameters=tuple(_pair(text) for text in asked["pairs"]),
        version=asked["pin"],
    )
    ca, cert, key = asked["tls_ca"], asked["tls_cert"], asked["tls_key"]
    if ca is None and (cert or key):
        raise click.UsageError("--tls-cert and --tls-key need --tls-ca")
    tls = None if ca is None else TlsFiles(ca, cert, key)
    answer = ask(target, question, asked["timeout"], tls)
    if output == "json":
        show_json(answer)
    else:
        show_prediction(answer)
    return EXIT_OK


for command in (
    *operate.COMMANDS, *look.COMMANDS, *resources.COMMANDS, *lab.COMMANDS,
    *parity.COMMANDS, *shadow.COMMANDS,
    alerts, bench, feedback, key, model, report, selftest, simulate,
):  # fmt: skip
    router.add_command(command)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"'{text}' is not KEY=VALUE")
    return key, value


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(_guarded(lambda: router.main(arguments, "router", standalone_mode=False)))


def _guarded(call: Callable[[], Any]) -> int:
    try:
        return int(call() or EXIT_OK)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except RouterError as error:
        click.echo(str(error), err=True)
        return EXIT_ERROR
    except (click.Abort, KeyboardInterrupt):
        return 130  # 128 + SIGINT, as shells count
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter complains once more while it exits
        return EXIT_ERROR
