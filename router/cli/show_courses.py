"""How played rollouts went, for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.lab.play import Course


def show_courses(courses: Sequence[Course]) -> None:
    """Every scope: the moves of the first run, how all ended, what harm would do."""
    console = Console(highlight=False, soft_wrap=True)
    for course in courses:
        first = course.first
        console.print(
            f"[bold]{escape(first.scope)}[/]: {first.phase} after"
            f" {_time(first.took_s)}, planned {_time(course.plan.total_s)}"
        )
        table = Table(box=None, padding=(0, 2, 0, 2))
        for name in ("at", "event", "phase", "share", "why"):
            table.add_column(name, overflow="fold")
        for move in first.moves:
            table.add_row(
                _time(move.at_s), move.event, str(move.after),
                f"{move.share_bp / 100:g} %", escape(move.reason),
            )  # fmt: skip
        console.print(table)
        if first.waits_for:
            console.print(f"  still waits: {escape(first.waits_for)}")
        console.print(f"  candidates answered {first.requests} requests")
        _show_runs(console, course)
        for note in course.notes:
            console.print(f"  assumed: {escape(note)}")


def _show_runs(console: Console, course: Course) -> None:
    runs = sum(course.outcomes.values())
    if runs > 1:
        ends = ", ".join(f"{n} {phase}" for phase, n in course.outcomes.items())
        took = _time(course.took_s_median)
        console.print(f"  {runs} runs: {ends}; half of them took {took} at most")
    odds = course.odds
    if odds is None:
        return
    soon = (
        f"half of the time within {_time(odds.detected_after_s)}"
        if odds.detected_after_s is not None
        else "mostly not before the last step"
    )
    console.print(
        f"  {odds.effect:g} times the errors: found out with a chance of"
        f" {odds.detected:.0%}, {soon}"
    )
    console.print(
        f"  as good as stable: thrown out with a chance of {odds.false_abort:.1%}"
    )


def _time(seconds: float) -> str:
    """1h 02m 03s, without what is zero in front."""
    whole = round(seconds)
    hours, minutes, left = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02}m {left:02}s"
    return f"{minutes}m {left:02}s" if minutes else f"{left}s"
