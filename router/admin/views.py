"""What there is to see, as messages. Reading changes nothing."""

from typing import Any

from router.client.messages import message
from router.control.controller import ScopeView, View
from router.control.describe import (
    ResourceView,
    config_json,
    entry_sentence,
    flags_of,
    next_step_in_s,
    resources_of,
    shares_of,
    shown_payload,
    step_words,
)
from router.errors import NotFoundError

HISTORY_DEFAULT = 100


def rollouts_message(view: View, rollout: str = "") -> Any:
    """Every scope, or those of one rollout; NotFoundError when there is none."""
    found = [
        one
        for one in view.scopes
        if not rollout or rollout in (one.spec.rollout, one.spec.scope)
    ]
    if rollout and not found:
        raise NotFoundError(f"no rollout '{rollout}'")
    made = message("router.v1.ListRolloutsResponse")(
        is_frozen=view.is_frozen,
        revision=view.routing.state.revision,
        is_stalled=view.is_stalled,
        waiting=view.waiting,
    )
    for one in found:
        _fill_scope(made.scopes.add(), one)
    return made


def _fill_scope(made: Any, one: ScopeView) -> None:
    spec, state = one.spec, one.state
    made.scope, made.rollout, made.model = spec.scope, spec.rollout, spec.model
    made.strategy, made.audience = spec.strategy, spec.audience or ""
    made.channel = spec.channel or ""
    made.candidates.extend(spec.candidates)
    made.stable, made.phase = spec.stable, str(state.phase)
    made.is_paused, made.is_off = state.is_paused, state.is_off
    made.is_approved, made.hold_reason = state.is_approved, state.hold_reason
    made.attempt, made.wave, made.step = state.attempt, state.wave, state.step
    made.waves.extend(spec.waves)
    made.steps.extend(step_words(step) for step in spec.steps)
    made.rollout_revision = state.revision
    made.elapsed_s, made.age_s = state.elapsed_s, state.age_s
    made.waits_for = one.waits_for
    left_s = next_step_in_s(one)
    if left_s is not None:
        made.next_step_in_s = left_s
    for share in shares_of(one):
        made.shares.add(
            version=share.version,
            asked_bp=share.asked_bp,
            claimed_bp=share.claimed_bp,
            requests_per_s=share.requests_per_s,
        )
    for judged in one.judged:
        made.verdicts.add(
            name=judged.name,
            role=judged.role,
            version=judged.version,
            verdict=judged.verdict.verdict,
            reason=judged.verdict.reason,
            action=judged.action,
            is_dry_run=judged.is_dry_run,
            slice=judged.within,
            numbers={k: str(v) for k, v in judged.verdict.numbers.items()},
        )


def state_message(view: View) -> Any:
    """The revisions in force."""
    return message("router.v1.ConfigState")(
        config_revision=view.routing.plan.config_revision,
        table_revision=view.routing.table_revision,
        is_frozen=view.is_frozen,
        revision=view.routing.state.revision,
    )


def config_message(view: View) -> Any:
    """What is applied."""
    return message("router.v1.GetConfigResponse")(
        state=state_message(view), config_json=config_json(view)
    )


def flags_message(view: View) -> Any:
    """Every switch there is, by name."""
    made = message("router.v1.ListFlagsResponse")()
    for name, is_on in flags_of(view).items():
        made.flags.add(name=name, is_on=is_on)
    return made


def history_message(entries: tuple[Any, ...]) -> Any:
    """What happened, the newest last; secrets left out."""
    made = message("router.v1.ListHistoryResponse")()
    for entry in entries:
        made.entries.add(
            revision=entry.revision,
            time_s=entry.time,
            kind=entry.record.kind,
            subject=entry.record.subject,
            actor=entry.record.actor,
            reason=entry.record.reason,
            payload_json=shown_payload(entry),
            sentence=entry_sentence(entry),
        )
    return made


def revisions_message(entries: tuple[Any, ...], limit: int) -> Any:
    """Every configuration that was applied, the newest last."""
    made = message("router.v1.ListRevisionsResponse")()
    applied = [one for one in entries if one.record.kind == "config_applied"]
    for entry in applied[-limit:]:
        made.revisions.add(
            revision=entry.revision,
            time_s=entry.time,
            config_revision=entry.record.subject,
            actor=entry.record.actor,
            reason=entry.record.reason,
        )
    return made


# Each service of resources: the kind, and the messages' own words for it.
RESOURCES = {
    "AudienceService": ("audience", "Audience", "audiences"),
    "VariationService": ("route", "Variation", "variations"),
}


def resources_message(view: View, service: str) -> Any:
    """All resources of a service's kind."""
    kind, word, field = RESOURCES[service]
    made = message(f"router.v1.List{word}sResponse")()
    for one in resources_of(view, kind):
        getattr(made, field).append(_entry(word, one))
    return made


def resource_message(view: View, service: str, name: str) -> Any:
    """One resource; NotFoundError when there is none of that name."""
    kind, word, _ = RESOURCES[service]
    for one in resources_of(view, kind):
        if one.name == name:
            return _entry(word, one)
    raise NotFoundError(f"no {kind} '{name}'")


def _entry(word: str, one: ResourceView) -> Any:
    return message(f"router.v1.{word}Entry")(
        name=one.name, body_json=one.body, is_of_file=one.is_of_file
    )
