"""Asks every question, one after the other, each with the options given here."""

from collections.abc import Sequence

from benchmarks import (
    feedback,
    large_tensor,
    publish,
    report,
    routing_cost,
    shadow,
    startup,
    throughput,
)

# `python -m benchmarks.upstream` is asked by itself: it needs servers of other kinds.
QUESTIONS = (
    throughput,
    routing_cost,
    publish,
    shadow,
    feedback,
    large_tensor,
    startup,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything with the options given."""
    chosen = report.options(__doc__, arguments)
    for question in QUESTIONS:
        name = question.__name__.rpartition(".")[2]
        print(question.__doc__.strip().splitlines()[0], flush=True)
        report.write(name, question.__doc__, chosen, question.rows(chosen))


if __name__ == "__main__":
    main()
