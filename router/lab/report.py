"""A rollout's report as text, and where its state file is."""

from collections.abc import Sequence
from time import gmtime, strftime

from router.clock import SystemClock
from router.config.load import load_config
from router.config.server import Server
from router.control.reports import Report, read_reports


def read(state: str | None, config: str | None, rollout: str) -> tuple[Report, ...]:
    """The reports of a rollout's scopes, from the state file that is meant."""
    path = state
    if path is None:
        path = load_config(config).server.state if config else Server().state
    return read_reports(path, rollout, SystemClock())


def text_of(reports: Sequence[Report]) -> str:
    """The reports as plain text, the decision first."""
    return "\n".join(line for report in reports for line in _lines(report)) + "\n"


def _lines(report: Report) -> list[str]:
    about, last = report.about, report.moves[-1]
    versions = ", ".join(str(v) for v in about.get("candidates", ()))
    lines = [
        f"{report.scope}: {last.after}",
        f"  {about.get('model', '')}: {about.get('strategy', '')} of version"
        f" {versions} against {about.get('stable', '')}",
        f"  {last.event}: {last.reason or 'no reason given'}",
    ]
    if report.points:
        point = report.points[-1]
        lines += ["", "traffic since the attempt began"]
        for version, requests in sorted(point["requests"].items(), key=_by_number):
            failed = point["failures"].get(version, 0)
            rate = f"{100 * failed / requests:.3g} %" if requests else "-"
            lines.append(
                f"  version {version}: {requests} requests, {failed} failed ({rate}),"
                f" {point['rates'].get(version, 0):g} a second"
            )
    if report.judged:
        each = about.get("alpha_each", 0.0)
        lines += ["", f"verdicts (alpha {about.get('alpha', 0):g}, {each:.3g} a test)"]
        lines += [f"  {one['verdict']:<12} {one['reason']}" for one in report.judged]
    lines += ["", "moves (UTC)"]
    for move in report.moves:
        when = strftime("%Y-%m-%d %H:%M:%S", gmtime(move.at_s))
        shares = " ".join(f"{v}:{bp / 100:g}%" for v, bp in move.shares_bp.items())
        said = f"  {when}  {move.event:<10} {move.before} -> {move.after}  {shares}"
        lines.append(f"{said.rstrip()}  {move.reason}".rstrip())
    return lines


def _by_number(item: tuple[str, int]) -> int:
    return int(item[0])
