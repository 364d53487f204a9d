"""When traffic may grow: windows of the week, each in its own time zone.

A window is open from its first minute to the end of its last one. Clocks that jump in
spring and autumn are the time zone's business: a window that falls into the hour that
is left out does not open that day.
"""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from router.config.rollout import Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SEARCH_DAYS = 9  # a week, and a day on either side for zones


def next_open(windows: tuple[Window, ...], at_s: float) -> float:
    """The first moment from `at_s` (seconds since 1970) on when growth is allowed."""
    if not windows:
        return at_s
    return min(_next(window, at_s) for window in windows)


def is_open(windows: tuple[Window, ...], at_s: float) -> bool:
    """Whether growth is allowed now."""
    return next_open(windows, at_s) == at_s


def _next(window: Window, at_s: float) -> float:
    zone = ZoneInfo(window.tz)
    today = datetime.fromtimestamp(at_s, UTC).astimezone(zone).date()
    for offset in range(-1, _SEARCH_DAYS):
        day = today + timedelta(days=offset)
        if _DAYS[day.weekday()] not in window.days:
            continue
        opens = datetime.combine(day, _clock(window.from_), zone).timestamp()
        closes = datetime.combine(day, _clock(window.to), zone).timestamp() + 60
        if closes > at_s:
            return max(opens, at_s)
    raise AssertionError("a window without days was refused")


def _clock(text: str) -> time:
    hour, minute = text.split(":")
    return time(int(hour), int(minute))
