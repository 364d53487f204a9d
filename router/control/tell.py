"""Every move of a rollout as an event for those who should know.

A hold, an approval that is waited for and a silence are troubles that end: what ends
them is told as their end, under the same key.
"""

from collections.abc import Callable

from router.clock import Clock
from router.control.tick import Happened
from router.notify.event import Event, Severity
from router.plan.rollout import Phase

_KINDS = {
    Phase.ROLLED_BACK: ("rollback", Severity.PAGE),
    Phase.FAILED: ("rollback", Severity.PAGE),
    Phase.HOLDING: ("hold", Severity.TICKET),
    Phase.AWAITING_APPROVAL: ("approval_needed", Severity.TICKET),
    Phase.PROMOTED: ("promotion", Severity.INFO),
}


def events_of(happened: Happened, now_s: float) -> tuple[Event, ...]:
    """What a move is to others: the end of a trouble, and the news."""
    found = []
    if happened.before != happened.after:
        ended = _KINDS.get(happened.before)
        if ended is not None and ended[1] == Severity.TICKET:
            found.append(_event(happened, *ended, now_s, is_resolved=True))
    kind, severity = _KINDS.get(happened.after, ("rollout_moved", Severity.INFO))
    if happened.event == "silence":
        kind, severity = "silence", Severity.TICKET
    found.append(_event(happened, kind, severity, now_s))
    return tuple(found)


def teller(tell: Callable[[Event], None], clock: Clock) -> Callable[[Happened], None]:
    """A listener of moves that tells others of them."""

    def on_move(happened: Happened) -> None:
        for event in events_of(happened, clock.now()):
            tell(event)

    return on_move


def _event(
    happened: Happened,
    kind: str,
    severity: Severity,
    now_s: float,
    *,
    is_resolved: bool = False,
) -> Event:
    numbers = tuple(
        (f"{one.name} (version {one.version})", one.verdict.reason)
        for one in happened.judged
    )
    # A move is news each time; a trouble is one until it ends.
    key = f"{kind}/{happened.scope}"
    if severity != Severity.TICKET:
        key = f"{key}/{happened.revision}"
    return Event(
        kind=kind,
        severity=severity,
        subject=happened.scope,
        summary=f"{happened.scope}: {happened.event}: {happened.reason}",
        fields=(
            ("model", happened.model),
            ("from", str(happened.before)),
            ("to", str(happened.after)),
            ("actor", happened.actor),
            ("revision", str(happened.revision)),
            *numbers,
        ),
        dedupe_key=key,
        time=now_s,
        is_resolved=is_resolved,
    )
