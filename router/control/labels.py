"""What feedback needs to know of the plan that serves: keys, names, what a label means.

A prediction id names its model and rule by hash and its key by number. Keys that no
longer mint are read for as long as an id of theirs may still be in the window, and no
longer: an id that is too old is not worth a secret that is kept.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from router._fasthash import xxh64
from router.clock import Clock
from router.config.config import Config
from router.config.feedback import MIB
from router.config.model import Model
from router.control.state import ControlState, fold, key_record
from router.engine._engine import predictions_read
from router.errors import StoreError
from router.feedback.desk import FeedbackDesk, Settings
from router.feedback.join import Catalogue, ModelTruth, Terms
from router.feedback.writer import Place
from router.plan.plan import MintKey, Plan
from router.store.log import Conflict, Entry, Record
from router.store.sqlite import SqliteLog
from router.telemetry.counted import Counted

HASH_MASK = 0xFFFF_FFFF  # prediction ids keep the lower half
KEY_IDS = 16  # half a byte of a prediction id
THRESHOLD = 0.5


class AppendLog(Protocol):
    """The calls of the control log that rotating a key needs."""

    def append(
        self, expected_revision: int, records: tuple[Record, ...]
    ) -> int | Conflict: ...

    def read(self, since: int = 0) -> Iterable[Entry]: ...


def name_hash(name: str) -> int:
    """A model's or rule's name as prediction ids carry it."""
    return xxh64(name.encode(), 0) & HASH_MASK


def catalogue_of(config: Config, plan: Plan, now: float) -> Catalogue:
    """What labels can be about, now."""
    return Catalogue(
        readable_keys(plan.keys, config.feedback.window, now),
        {name_hash(model.name): _truth(model) for model in config.models},
        {name_hash(rule.name): rule.name for model in plan.models
         for rule in model.rules},
    )  # fmt: skip


def readable_keys(
    keys: tuple[MintKey, ...], window_s: float, now: float
) -> tuple[tuple[int, bytes], ...]:
    """The keys whose ids may still be in the window, newest first.

    A key stopped minting when the next newer one was made.
    """
    return tuple(
        (key.id, key.secret)
        for at, key in enumerate(keys)
        if at == 0 or not 0 < keys[at - 1].made_s < now - window_s
    )


def rotate_key(
    log: AppendLog, entropy: Callable[[int], bytes], actor: str, now: float
) -> MintKey:
    """A new key, stored; it mints once a router has read its configuration again."""
    state: ControlState = fold(log.read())
    newest = state.keys[0].id if state.keys else KEY_IDS - 1
    made = MintKey((newest + 1) % KEY_IDS, entropy(32), now)
    answer = log.append(state.revision, (key_record(made, actor, "rotated"),))
    if isinstance(answer, Conflict):
        raise StoreError("the control log has just changed: try again")
    return made


def rotate_key_in(path: str, entropy: Callable[[int], bytes], clock: Clock) -> int:
    """Make a key in the control log at a path; its number."""
    log = SqliteLog(path, clock)
    try:
        return rotate_key(log, entropy, "router key", clock.now()).id
    finally:
        log.close()


class Applied(Protocol):
    """Who knows what took effect; `Reloader`."""

    @property
    def applied(self) -> tuple[Config, Plan] | None: ...


class CatalogueBook:
    """Owner of the catalogue of what serves; made again when that changes.

    Also once a minute, because keys expire. Any thread may ask.
    """

    AGE_MAX_S = 60.0

    def __init__(self, source: Applied, clock: Clock) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._of: tuple[Config, Plan] | None = None
        self._made_at = 0.0
        self._made = Catalogue()

    def __call__(self) -> Catalogue:
        applied = self._source.applied
        if applied is None:
            return self._made
        now = self._clock.now()
        with self._lock:
            if applied is not self._of or now - self._made_at > self.AGE_MAX_S:
                self._made = catalogue_of(*applied, now)
                self._of, self._made_at = applied, now
            return self._made


def open_desk(config: Config, source: Applied, clock: Clock) -> FeedbackDesk:
    """The desk for a configuration; its settings are those of the start."""
    given = config.feedback
    path = given.store or str(Path(config.server.state).with_name("labels.db"))
    settings = Settings(
        Place(Path(path), given.mib_max * MIB),
        Terms(given.window, given.retention),
        given.maturity,
    )
    return FeedbackDesk(settings, CatalogueBook(source, clock), predictions_read, clock)


def label_metrics(desk: FeedbackDesk) -> tuple[Counted, ...]:
    """What became of reports and labels, for the metrics page."""
    written, folded = desk.writer.counts, desk.fold.counts
    lost = {
        "queue_full": written.refused,
        "store_full": written.full,
        "store_failed": written.failed,
    }
    left_out = {
        "fallback": folded.fallbacks,
        "keys_full": folded.keys_full,
        "units_full": folded.units_full,
        "model_gone": folded.unnamed,
    }
    return (
        _counted("router_feedback_reports", "Reports answered, by answer.", "outcome",
                 {name.lower(): n for name, n in desk.outcomes().items()}),
        _counted("router_feedback_refused", "Labels not taken, by cause.", "cause",
                 lost),
        _counted("router_feedback_left_out", "Labels stored and in no measure.",
                 "cause", left_out),
        _counted("router_feedback_stored", "Labels stored.", "", {"": written.stored}),
        _counted("router_feedback_commits", "Groups of labels committed.", "",
                 {"": written.commits}),
        _counted("router_feedback_pruned", "Labels deleted for their age.", "",
                 {"": written.pruned}),
        replace(
            _counted("router_feedback_queued", "Labels that wait to be stored.", "",
                     {"": desk.writer.rows_queued}),
            is_gauge=True,
        ),
    )  # fmt: skip


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> Counted:
    labels = (label,) if label else ()
    rows = tuple(((key,) if label else (), float(n)) for key, n in counts.items())
    return Counted(name, text, labels, rows)


def _truth(model: Model) -> ModelTruth:
    output = model.output
    if output is None:
        return ModelTruth(model.name)
    threshold = THRESHOLD if output.threshold is None else output.threshold
    return ModelTruth(model.name, output.kind, threshold)
