"""`router simulate`: a rollout played out before anybody is exposed to it."""

from typing import Any

import click

EXIT_OK, EXIT_ENDED_EARLY, EXIT_HELD = 0, 2, 3


@click.command()
@click.option(
    "-f", "--file", "file", default="router.yaml", show_default=True,
    type=click.Path(dir_okay=False), help="The configuration.",
)  # fmt: skip
@click.option(
    "--environment", envvar="ROUTER_ENVIRONMENT", default="", metavar="NAME",
    help="Which of the file's environments is meant.",
)  # fmt: skip
@click.option("--rollout", help="Only this one.")
@click.option("--rate", default=20.0, type=click.FloatRange(min=0.001),
              show_default=True, help="Requests a second.")  # fmt: skip
@click.option("--units", default=0, type=click.IntRange(0, 1_000_000),
              help="From so many users; without, each request is one.")  # fmt: skip
@click.option("--error-rate", default=0.005, type=click.FloatRange(0, 1),
              show_default=True, help="Stable's.")  # fmt: skip
@click.option("--candidate-error-rate", type=click.FloatRange(0, 1),
              help="The candidate's; stable's if left out.")  # fmt: skip
@click.option("--candidate-invalid-rate", default=0.0, type=click.FloatRange(0, 1),
              help="How often it answers nonsense.")  # fmt: skip
@click.option("--latency-ms", default=5.0, type=click.FloatRange(min=0.001),
              show_default=True, help="Stable's median.")  # fmt: skip
@click.option("--candidate-latency-ms", type=click.FloatRange(min=0.001),
              help="The candidate's; stable's if left out.")  # fmt: skip
@click.option("--effect", default=2.0, type=click.FloatRange(min=0), show_default=True,
              help="Times the errors, when asking how soon that shows.")  # fmt: skip
@click.option("--runs", default=1, type=click.IntRange(1, 10_000), show_default=True)
@click.option("--seed", default=0, help="Other chances, the same rollout.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def simulate(file: str, environment: str, output: str, **asked: Any) -> int:
    """Play the rollouts of a configuration against imagined traffic.

    The controller is the real one; approvals are given at once, queries and feedback
    pass. Exit codes: 0 promoted, 2 rolled back or failed, 3 still held after three
    times the planned time; with several runs, in any of them.
    """
    from router.cli.show import show_json
    from router.cli.show_courses import show_courses
    from router.lab.play import Question, has_promoted, play, was_ended_early
    from router.lab.preview import read_file

    courses = play(read_file(file, environment=environment), Question(**asked))
    if output == "json":
        show_json(courses)
    else:
        show_courses(courses)
    if has_promoted(courses):
        return EXIT_OK
    return EXIT_ENDED_EARLY if was_ended_early(courses) else EXIT_HELD
