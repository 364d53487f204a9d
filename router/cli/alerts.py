"""`router alerts`: what Prometheus needs to watch the same objectives."""

import click


@click.group()
def alerts() -> None:
    """Objectives and where alerts go."""


@alerts.command()
@click.argument("file", type=click.Path(dir_okay=False))
def rules(file: str) -> int:
    """Print the objectives of FILE as a Prometheus rule file."""
    from router.cli.show import show_json
    from router.lab.alert_rules import rules_of_file

    show_json(rules_of_file(file))
    return 0
