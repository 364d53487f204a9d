"""Plots as inline SVG: lines, bands and intervals on a plain grid.

No library and no script: a report is opened years later, from a mail or an archive, on
a machine without a network. Everything that came from elsewhere is escaped. Sizes are
in SVG units; the page scales them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from time import gmtime, strftime

WIDTH, HEIGHT = 760, 230
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 34
# Readable on white, in print, and apart for most who are colour-blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
TICKS_X, TICKS_Y = 6, 5
LEGEND_PER_ROW_PX, LEGEND_ROW = 740, 18
CHARACTER_PX = 6.6

At = Callable[[float, float], tuple[float, float]]
"""Where a point of the plot is on the page."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series; None is a gap. `lower` and `upper` draw a band around it."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    lower: Sequence[float | None] = ()
    upper: Sequence[float | None] = ()
    is_step: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment, drawn as a dashed line with a number that a table explains."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Axes:
    """What a plot shows: unit of y, levels drawn across, least height."""

    unit: str = ""
    levels: tuple[tuple[float, str], ...] = ()
    low: float | None = None
    high: float | None = None
    scale: float = 1.0  # values are shown multiplied by this


@dataclass(frozen=True, slots=True)
class Interval:
    """A row of a forest plot."""

    name: str
    estimate: float
    lower: float
    upper: float


def plot(lines: Sequence[Line], marks: Sequence[Mark], axes: Axes, title: str) -> str:
    """Lines over time."""
    xs = [x for line in lines for x in line.x]
    if not xs:
        return '<p class="none">Nothing was recorded.</p>'
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1.0)
    y_low, y_high = _range(lines, axes)
    legend = _legend([line.name for line in lines])
    top = TOP + LEGEND_ROW * legend.count("<g")
    height = HEIGHT + top - TOP

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (min(max(y, y_low), y_high) - y_low) / (y_high - y_low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            height - BOTTOM - up * (height - top - BOTTOM),
        )

    parts = [_grid(at, (x_low, x_high), (y_low, y_high), axes)]
    parts += [_marks(marks, at, (x_low, x_high), (y_low, y_high))]
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        parts += [_band(line, at, colour), _path(line, at, colour)]
    parts += [_level(value, text, at, (x_low, x_high)) for value, text in axes.levels]
    return _svg(height, "".join((*parts, legend)), title)


def forest(rows: Sequence[Interval], axes: Axes, title: str) -> str:
    """Intervals one below the other, with a line at no effect."""
    rows = [r for r in rows if math.isfinite(r.lower) and math.isfinite(r.upper)]
    if not rows:
        return '<p class="none">No interval is known yet.</p>'
    low = min(0.0, *(row.lower for row in rows))
    high = max(0.0, *(row.upper for row in rows))
    pad = (high - low or 1.0) * 0.06
    low, high = low - pad, high + pad
    left, height = 220, TOP + 26 * len(rows) + BOTTOM

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    bottom = height - BOTTOM
    parts = []
    for tick in ticks(low, high, TICKS_Y):
        x = across(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{number(tick * axes.scale)}{escape(axes.unit)}</text>"
        )
    zero = across(0.0)
    parts.append(
        f'<line class="level" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP}"'
        f' y2="{bottom}"/>'
    )
    for i, row in enumerate(rows):
        y, colour = TOP + 26 * i + 13, COLOURS[0]
        name = row.name if len(row.name) <= 32 else f"{row.name[:31]}…"
        parts.append(
            f'<text class="tick" x="{left - 10}" y="{y + 4}" text-anchor="end">'
            f"{escape(name)}</text>"
            f'<line x1="{across(row.lower):.1f}" x2="{across(row.upper):.1f}" y1="{y}"'
            f' y2="{y}" stroke="{colour}" stroke-width="2.5"/>'
            f'<circle cx="{across(row.estimate):.1f}" cy="{y}" r="4.5"'
            f' fill="{colour}"/>'
        )
    return _svg(height, "".join(parts), title)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers within a range, about that many."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number as an axis says it."""
    if abs(value) < 1e-12:
        return "0"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.1e}"


def _range(lines: Sequence[Line], axes: Axes) -> tuple[float, float]:
    values = [
        value
        for line in lines
        for many in (line.y, line.lower, line.upper)
        for value in many
        if value is not None and math.isfinite(value)
    ] + [value for value, _ in axes.levels]
    low = min(values, default=0.0) if axes.low is None else axes.low
    high = max(values, default=1.0) if axes.high is None else axes.high
    if axes.low is None and axes.high is None and lines and lines[0].lower:
        low, high = _calm(lines, low, high)
    if high - low < 1e-12:
        low, high = (low if axes.low is not None else low - 0.5), high + 0.5
    pad = (high - low) * 0.06
    return (
        low if axes.low is not None else low - pad,
        high if axes.high is not None else high + pad,
    )


def _calm(lines: Sequence[Line], low: float, high: float) -> tuple[float, float]:
    """A range that the first, very wide intervals do not decide."""
    late = [
        value
        for line in lines
        for many in (line.lower, line.upper, line.y)
        for value in many[len(many) // 4 :]
        if value is not None
    ]
    if not late:
        return low, high
    middle, half = (min(late) + max(late)) / 2, (max(late) - min(late)) * 0.75 or 0.5
    return max(low, min(0.0, middle - half)), min(high, max(0.0, middle + half))


def _grid(at: At, x: tuple[float, float], y: tuple[float, float], axes: Axes) -> str:
    parts = []
    for value in ticks(*y, TICKS_Y):
        left, up = at(x[0], value)
        parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{up:.1f}"'
            f' y2="{up:.1f}"/><text class="tick" x="{left - 8:.1f}" y="{up + 4:.1f}"'
            f' text-anchor="end">{number(value * axes.scale)}{escape(axes.unit)}</text>'
        )
    pattern = "%H:%M:%S" if x[1] - x[0] < 900 else "%H:%M"
    pattern = "%m-%d %H:%M" if x[1] - x[0] > 86_400 else pattern
    for i in range(TICKS_X):
        when = x[0] + (x[1] - x[0]) * i / (TICKS_X - 1)
        across, bottom = at(when, y[0])
        anchor = "end" if i == TICKS_X - 1 else "middle" if i else "start"
        parts.append(
            f'<text class="tick" x="{across:.1f}" y="{bottom + 18:.1f}"'
            f' text-anchor="{anchor}">{strftime(pattern, gmtime(when))}</text>'
        )
    return "".join(parts)


def _marks(
    marks: Sequence[Mark], at: At, x: tuple[float, float], y: tuple[float, float]
) -> str:
    parts, last = [], -math.inf
    for mark in marks:
        if not x[0] <= mark.x <= x[1]:
            continue
        across, bottom = at(mark.x, y[0])
        _, top = at(mark.x, y[1])
        parts.append(
            f'<line class="mark" x1="{across:.1f}" x2="{across:.1f}" y1="{top:.1f}"'
            f' y2="{bottom:.1f}"/>'
        )
        if across - last >= CHARACTER_PX * (len(mark.text) + 1):
            last = across
            is_last = across > WIDTH - RIGHT - 4 * CHARACTER_PX
            place = (
                f'x="{across - 3:.1f}" text-anchor="end"'
                if is_last
                else f'x="{across + 3:.1f}"'
            )
            parts.append(
                f'<text class="marked" {place} y="{top + 9:.1f}">'
                f"{escape(mark.text)}</text>"
            )
    return "".join(parts)


def _band(line: Line, at: At, colour: str) -> str:
    edges = [
        (x, low, high)
        for x, low, high in zip(line.x, line.lower, line.upper, strict=False)
        if low is not None and high is not None
    ]
    if len(edges) < 2:
        return ""
    above = [at(x, high) for x, _, high in edges]
    below = [at(x, low) for x, low, _ in reversed(edges)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in above + below)
    return f'<polygon points="{points}" fill="{colour}" opacity="0.15"/>'


def _path(line: Line, at: At, colour: str) -> str:
    steps: list[str] = []
    is_down, last = False, 0.0
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            is_down = False
            continue
        across, up = at(x, y)
        if is_down and line.is_step:
            steps.append(f"L{across:.1f},{last:.1f}")
        steps.append(f"{'L' if is_down else 'M'}{across:.1f},{up:.1f}")
        is_down, last = True, up
    if len(steps) == 1:
        left, top = steps[0][1:].split(",")
        return f'<circle cx="{left}" cy="{top}" r="3" fill="{colour}"/>'
    return f'<path d="{"".join(steps)}" fill="none" stroke="{colour}"/>'


def _level(value: float, text: str, at: At, x: tuple[float, float]) -> str:
    left, up = at(x[0], value)
    return (
        f'<line class="level" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{up:.1f}"'
        f' y2="{up:.1f}"/><text class="marked" x="{WIDTH // 2}"'
        f' y="{up - 4:.1f}" text-anchor="middle">{escape(text)}</text>'
    )


def _legend(names: Sequence[str]) -> str:
    rows: list[list[str]] = [[]]
    across = float(LEFT)
    for i, name in enumerate(names):
        width = 26 + CHARACTER_PX * len(name) + 14
        if across + width > LEGEND_PER_ROW_PX and rows[-1]:
            rows.append([])
            across = float(LEFT)
        y = TOP + LEGEND_ROW * (len(rows) - 1)
        rows[-1].append(
            f'<line x1="{across:.1f}" x2="{across + 18:.1f}" y1="{y}" y2="{y}"'
            f' stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="3"/>'
            f'<text class="tick" x="{across + 24:.1f}" y="{y + 4}">'
            f"{escape(name)}</text>"
        )
        across += width
    return "".join(f"<g>{''.join(row)}</g>" for row in rows)


def _svg(height: int, body: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title, quote=True)}">{body}</svg>'
    )
