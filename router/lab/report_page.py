"""A rollout's report as one HTML page that needs nothing but itself.

No script, no font, no picture from elsewhere, and a policy in the page that forbids
them. Plots are ours (`charts.py`). The page says what was decided first and why, then
shows what it was decided by.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from time import gmtime, strftime
from typing import Any

from router.control.reports import Report
from router.lab.charts import Axes, Interval, Line, Mark, forest, plot

ROWS_MAX = 200
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1b;background:#fff;margin:0 auto;
max-width:860px;padding:24px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:34px 0 6px}
h3{font-size:15px;margin:18px 0 2px}
p{margin:4px 0 8px}.sub,.none{color:#555}
svg{width:100%;height:auto;display:block}
table{border-collapse:collapse;width:100%;font-size:13px;table-layout:fixed}
th,td{text-align:left;vertical-align:top;padding:5px 8px;
border-bottom:1px solid #ddd;overflow-wrap:anywhere}
th{background:#f4f4f4}
.grid{stroke:#e4e4e4}.level{stroke:#b00020;stroke-dasharray:5 3}
.mark{stroke:#999;stroke-dasharray:2 3}
.tick{font:11px system-ui,sans-serif;fill:#444}
.marked{font:10px system-ui,sans-serif;fill:#777}
path{stroke-width:1.8}
.pass{color:#00693e}.fail,.error{color:#b00020;font-weight:600}.inconclusive{color:#555}
@media print{h2{break-after:avoid}svg,tr{break-inside:avoid}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page_of(reports: Sequence[Report]) -> str:
    """The page of a rollout: a section for each of its scopes."""
    name = str(reports[0].about.get("rollout", reports[0].scope))
    body = "".join(_section(report) for report in reports)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _section(report: Report) -> str:
    about, last = report.about, report.moves[-1]
    versions = ", ".join(str(v) for v in about.get("candidates", ()))
    line = (
        f"{about.get('model', '')}: {about.get('strategy', '')} of version {versions}"
        f" against {about.get('stable', '')}. Made {_time(report.made_at_s)} UTC."
    )
    # Without evidence a report must not look like one that found nothing.
    points = report.points
    parts = [
        f"<h1>{escape(report.scope)}: {escape(last.after)}</h1>",
        f'<p class="sub">{escape(line)}</p>',
        f"<p>{escape(last.event)}: {escape(last.reason or 'no reason given')}</p>",
        "<h2>Verdicts</h2>", _verdicts(report),
    ]  # fmt: skip
    if points:
        parts += [_traffic(report), _effects(report), _slices(report), _odds(report)]
    else:
        parts.append('<p class="none">No point in time was recorded.</p>')
    parts += ["<h2>Moves</h2>", _moves(report)]
    return "".join(parts)


def _verdicts(report: Report) -> str:
    rows = [
        (
            one["criterion"], one["role"],
            f"{one['version'] or ''} {one['slice']}".strip(),
            _Coloured(one["verdict"]), _spent(one), one["reason"],
        )
        for one in report.judged[:ROWS_MAX]
    ]  # fmt: skip
    if not rows:
        return '<p class="none">None was recorded.</p>'
    about = report.about
    note = (
        f"Alpha of the whole rollout: {about.get('alpha', 0):g}, of each test"
        f" {about.get('alpha_each', 0):.4g}. Odds are what a gambler against the"
        " candidate has won; the bar is 1/alpha, at whatever look."
    )
    heads = ("criterion", "role", "version", "verdict", "odds of bar", "why")
    return f'<p class="sub">{escape(note)}</p>' + _table(
        heads, rows, (15, 10, 9, 13, 11, 42)
    )


def _spent(one: Mapping[str, Any]) -> str:
    """How near the evidence is to its bar."""
    numbers = one["numbers"]
    log_e, alpha = numbers.get("log_e"), numbers.get("alpha")
    if not isinstance(log_e, int | float) or not isinstance(alpha, int | float):
        return ""
    return f"{math.exp(min(log_e, 20)):.3g} of {1 / alpha:.4g}"


def _traffic(report: Report) -> str:
    points, marks = report.points, _marks(report)
    x = [point["at"] for point in points]
    shares = [
        Line(
            f"version {v}", x, [p["shares"].get(v, 0) / 100 for p in points],
            is_step=True,
        )
        for v in _keys(points, "shares")
    ]  # fmt: skip
    rates = [
        Line(f"version {v}", x, [p["rates"].get(v) for p in points])
        for v in _keys(points, "rates")
    ]
    failed = [
        Line(f"version {v}", x, _failing(points, v)) for v in _keys(points, "requests")
    ]
    return (
        "<h2>Share of units</h2>"
        + plot(shares, marks, Axes("%", low=0, high=100), "share over time")
        + "<h2>Requests a second</h2>"
        + plot(rates, marks, Axes(low=0), "requests a second")
        + "<h2>Requests that failed, since the attempt began</h2>"
        + '<p class="sub">All requests, pooled over steps: to be looked at, not to be'
        " compared.</p>" + plot(failed, marks, Axes("%", low=0), "share of failures")
    )


def _failing(points: Sequence[Mapping[str, Any]], version: str) -> list[float | None]:
    return [
        100 * p["failures"].get(version, 0) / p["requests"][version]
        if p["requests"].get(version)
        else None
        for p in points
    ]


def _effects(report: Report) -> str:
    """Effects over all units, each with its confidence sequence."""
    parts = ["<h2>Effects over time</h2>"]
    note = "The candidate minus stable; the band holds at every look."
    parts.append(f'<p class="sub">{note}</p>')
    for key, series in _tests(report.points):
        if key.endswith("|") and any(values[2] is not None for _, values in series):
            x = [at for at, _ in series]
            columns = list(zip(*(values for _, values in series), strict=True))
            line = Line(_said(key), x, columns[2], columns[3], columns[4])
            axes = Axes(levels=((0.0, "no effect"),))
            parts.append(f"<h3>{escape(_said(key))}</h3>")
            parts.append(plot([line], _marks(report), axes, _said(key)))
    if len(parts) == 2:
        parts.append('<p class="none">No effect has an interval yet.</p>')
    return "".join(parts)


def _slices(report: Report) -> str:
    if not report.about.get("slices"):
        return ""
    rows: dict[str, list[Interval]] = {}
    for key, (_, _, estimate, lower, upper) in report.points[-1]["tests"].items():
        criterion, version, _, within = key.split("|", 3)
        if estimate is not None and lower is not None and upper is not None:
            name = within or "everyone"
            rows.setdefault(f"{criterion}, version {version}", []).append(
                Interval(name, estimate, lower, upper)
            )
    parts = ["<h2>Effects by slice, now</h2>"]
    for title, found in sorted(rows.items()):
        parts += [f"<h3>{escape(title)}</h3>", forest(found, Axes(), title)]
    if len(parts) == 1:
        parts.append('<p class="none">No slice has an interval yet.</p>')
    return "".join(parts)


def _odds(report: Report) -> str:
    """How strong the evidence of harm was, as powers of ten, against its bar."""
    each = float(report.about.get("alpha_each", 0.05))
    lines: list[Line] = []
    splits: list[Line] = []
    for key, series in _tests(report.points):
        if all(values[1] is None for _, values in series):
            continue
        x = [at for at, _ in series]
        y = [None if v[1] is None else v[1] / math.log(10) for _, v in series]
        is_split = key.startswith("sample ratio")
        (splits if is_split else lines).append(Line(_said(key), x, y))
    bar = Axes(levels=((math.log10(1 / each), f"bar {1 / each:.4g}"),))
    srm = Axes(levels=((3.0, "bar 1000"),))
    note = "Powers of ten: 1 is ten to one. Beyond the bar the candidate is worse."
    return (
        f'<h2>Odds against the candidate</h2><p class="sub">{note}</p>'
        + plot(lines[:14], _marks(report), bar, "odds over time")
        + '<h2>Odds against the planned split</h2><p class="sub">Beyond the bar units'
        " are lost somewhere, and nothing else can be believed.</p>"
        + plot(splits, _marks(report), srm, "sample ratio over time")
    )


def _moves(report: Report) -> str:
    rows = []
    for at, move in enumerate(report.moves[-ROWS_MAX:], start=1):
        shares = ", ".join(f"{v}: {bp / 100:g}%" for v, bp in move.shares_bp.items())
        rows.append(
            (
                str(at), _time(move.at_s), move.event, f"{move.before} → {move.after}",
                shares, move.actor, move.reason,
            )
        )  # fmt: skip
    heads = ("", "UTC", "event", "phase", "shares", "by", "why")
    return _table(heads, rows, (5, 14, 11, 18, 11, 9, 32))


def _marks(report: Report) -> list[Mark]:
    moves = report.moves[-ROWS_MAX:]
    return [Mark(move.at_s, str(i)) for i, move in enumerate(moves, start=1)]


Series = list[tuple[float, list[Any]]]


def _tests(points: Iterable[Mapping[str, Any]]) -> list[tuple[str, Series]]:
    """Each test's numbers over time."""
    found: dict[str, Series] = {}
    for point in points:
        for key, values in point["tests"].items():
            found.setdefault(key, []).append((point["at"], values))
    return sorted(found.items())


def _keys(points: Iterable[Mapping[str, Any]], field: str) -> list[str]:
    return sorted({key for point in points for key in point[field]}, key=int)


def _said(key: str) -> str:
    criterion, version, _, within = key.split("|", 3)
    about = f", version {version}" if version != "0" else ""
    return f"{criterion}{about}{f', {within}' if within else ''}"


class _Coloured(str):
    """A verdict: its word and its colour."""

    __slots__ = ()


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]
) -> str:
    columns = "".join(f'<col style="width:{width}%">' for width in widths)
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows
    )
    return f"<table><colgroup>{columns}</colgroup><tr>{head}</tr>{body}</table>"


def _cell(cell: str) -> str:
    said = escape(str(cell))
    return (
        f'<td class="{said}">{said}</td>'
        if isinstance(cell, _Coloured)
        else f"<td>{said}</td>"
    )


def _time(at_s: float) -> str:
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(at_s))
