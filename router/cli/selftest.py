"""`router selftest`: does it decide as it promises, on this machine?"""

import click

from router.errors import RouterError


@click.command()
@click.option("--minutes", type=click.FloatRange(0.2, 600), default=4.0,
              show_default=True, help="For all trials together.")  # fmt: skip
@click.option("--gpu", is_flag=True, help="Compare a model on CPU and GPU instead.")
def selftest(minutes: float, gpu: bool) -> int:
    """Run rollouts of tiny models through a real server and check what they come to.

    Two equal versions must not be told apart; injected faults must roll back within the
    stated number of requests. Exits with 1 when a trial did not end as it should.
    """
    from router.lab.selftest import gpu_problem, run_trials

    if gpu:
        raise RouterError(gpu_problem())
    found = run_trials(minutes, lambda said: click.echo(said))
    wrong = sum(not one.is_right for one in found)
    click.echo(f"{len(found) - wrong} of {len(found)} trials ended as they should")
    return 1 if wrong else 0
