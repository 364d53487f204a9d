"""OpenFeature's remote evaluation protocol: who would answer this unit, and why.

A flag is a model or a rollout, by its name; its value is the version that the table in
force gives the unit, so an application with a stock provider is told what the router
would do. Asking serves nothing and counts nothing: exposures are recorded where a
version answered.

Where the answer depends on a unit and none is given there is no answer: the router
would draw one for each request.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.control.controller import View
from router.errors import NotFoundError, RefusedError
from router.lab.live import LivePlan, Question

BODY_BYTES_MAX = 64 * 1024
PREFIX = "/ofrep/v1/evaluate/flags"
# Ours -> OpenFeature's, whose words are a closed set that providers look up.
REASONS = {
    "STATIC": "STATIC",
    "OVERRIDE": "TARGETING_MATCH",
    "HOLDOUT": "SPLIT",
    "TARGETING_MATCH": "TARGETING_MATCH",
    "SPLIT": "SPLIT",
    "DEFAULT": "DEFAULT",
    "FALLBACK": "DEFAULT",
    "DISABLED": "DISABLED",
}


class OfrepError(Exception):
    """What the protocol answers instead of a value."""

    def __init__(self, code: str, details: str, status: int = 400) -> None:
        self.code, self.details, self.status = code, details, status
        super().__init__(details)


@dataclass(frozen=True, slots=True)
class Context:
    """What an application says of the unit."""

    unit: str | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Flag:
    """A name that can be asked for: a model, or a rollout of it."""

    key: str
    model: str
    rollout: str | None = None
    is_off: bool = False


@dataclass(frozen=True, slots=True)
class Evaluator:
    """What answers come from: the table in force, and what there is to ask for."""

    live: LivePlan
    view: Callable[[], View]

    def flags(self) -> dict[str, Flag]:
        """Every flag by key. A rollout that is named like a model is not asked for:
        the model's answer is its answer."""
        view = self.view()
        found: dict[str, Flag] = {}
        for one in view.scopes:
            name = one.spec.rollout
            # Of a rollout with channels each has a switch of its own in the state; it
            # is off where all of them are.
            before = found.get(name)
            is_off = one.state.is_off and (before is None or before.is_off)
            found[name] = Flag(name, one.spec.model, name, is_off)
        for model in view.routing.plan.models:
            found[model.name] = Flag(model.name, model.name)
        return found

    def evaluate(self, flag: Flag, context: Context) -> dict[str, Any]:
        """The protocol's answer for one flag; OfrepError when there is none."""
        asked = Question(flag.model, context.unit, context.attributes)
        found = self.live.explain(asked)
        has_bucket = any(rule.bucket is not None for rule in found.tried)
        is_drawn = has_bucket and not found.has_unit
        if found.refusal or is_drawn:
            raise OfrepError(
                "TARGETING_KEY_MISSING",
                f"which version of '{flag.model}' answers depends on the targeting key",
            )
        reason = "DISABLED" if flag.is_off else REASONS[found.reason]
        # Metadata is flat; its keys are those that answers of the router carry.
        metadata: dict[str, Any] = {
            "route_model": flag.model,
            "route_reason": found.reason,
            "route_revision": found.revision,
            "route_propensity_bp": found.propensity_bp,
        }
        if found.rule is not None:
            metadata["route_rule"] = found.rule
        if found.bucket is not None:
            metadata["route_bucket"] = found.bucket
        return {
            "key": flag.key,
            "value": found.version,
            "variant": found.variant,
            "reason": reason,
            "metadata": metadata,
        }


def ofrep_routes(evaluator: Evaluator) -> tuple[Route, ...]:
    """Evaluation of one flag, and of all of them."""

    async def one(request: Request) -> Response:
        key = request.path_params["key"]
        return await _answering(request, key, lambda context: _one(key, context))

    def _one(key: str, context: Context) -> Response:
        flag = evaluator.flags().get(key)
        if flag is None:
            raise OfrepError("FLAG_NOT_FOUND", f"no model and no rollout '{key}'", 404)
        return _json(evaluator.evaluate(flag, context))

    async def every(request: Request) -> Response:
        asked = request.headers.get("if-none-match", "")
        return await _answering(
            request, None, lambda context: _bulk(evaluator, context, asked)
        )

    return (
        Route(PREFIX, every, methods=["POST"]),
        Route(PREFIX + "/{key:path}", one, methods=["POST"]),
    )


async def _answering(
    request: Request, key: str | None, answer: Callable[[Context], Response]
) -> Response:
    """The answer, or the protocol's words for why there is none."""
    try:
        context = read_context(await _body(request))
        # Deciding in Python takes a while when there are hundreds of flags; the probes
        # must not wait for it.
        return await run_in_threadpool(answer, context)
    except OfrepError as error:
        return _json(_refusal(error, key), error.status)
    except NotFoundError as error:
        # The model left with a configuration while the request was being read.
        return _json(_refusal(OfrepError("FLAG_NOT_FOUND", str(error)), key), 404)
    except RefusedError as error:
        starting = OfrepError("PROVIDER_NOT_READY", str(error), 503)
        return _json(_refusal(starting, key), 503)


async def _body(request: Request) -> bytes:
    """The request's body; what is too much is not read."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise OfrepError(
                "PARSE_ERROR", f"the body is larger than {BODY_BYTES_MAX} bytes", 413
            )
    return body


def read_context(body: bytes) -> Context:
    """The context of a request's body; OfrepError says what is wrong with it.

    Objects, lists and nulls among the attributes are left out: no rule can read one,
    and applications share one context among all their providers.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise OfrepError("PARSE_ERROR", "the body is not JSON") from None
    context = value.get("context", {}) if isinstance(value, dict) else None
    if not isinstance(context, dict):
        raise OfrepError("INVALID_CONTEXT", "expected an object with 'context'")
    unit = context.pop("targetingKey", None)
    if not isinstance(unit, str | None):
        raise OfrepError("INVALID_CONTEXT", "targetingKey: expected text")
    attributes = dict(_texts(context))
    try:
        json.dumps([unit, attributes], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise OfrepError("INVALID_CONTEXT", "half of a surrogate pair") from None
    return Context(unit or None, attributes)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities are not JSON


def _texts(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Attributes as a request's metadata would carry them."""
    for key, value in context.items():
        if isinstance(value, bool):
            yield key, "true" if value else "false"
        elif isinstance(value, str):
            yield key, value
        elif isinstance(value, int | float):
            yield key, str(value)


def _bulk(evaluator: Evaluator, context: Context, asked: str) -> Response:
    flags: list[dict[str, Any]] = []
    known: dict[str, dict[str, Any] | OfrepError] = {}  # a model is decided once
    for key, flag in sorted(evaluator.flags().items()):
        if flag.model not in known:
            known[flag.model] = _try(evaluator, flag, context)
        found = known[flag.model]
        if isinstance(found, OfrepError):
            flags.append(_refusal(found, key))
        else:
            reason = REASONS[found["metadata"]["route_reason"]]
            flags.append(
                {**found, "key": key, "reason": "DISABLED" if flag.is_off else reason}
            )
    body = json.dumps({"flags": flags}).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if _is_known(asked, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers={**headers, "content-type": "application/json"})


def _try(
    evaluator: Evaluator, flag: Flag, context: Context
) -> dict[str, Any] | OfrepError:
    try:
        return evaluator.evaluate(flag, context)
    except OfrepError as error:
        return error


def _is_known(asked: str, tag: str) -> bool:
    """Whether `If-None-Match` names the tag, weakly compared."""
    given = [one.strip().removeprefix("W/") for one in asked.split(",")]
    return "*" in given or tag in given


def _refusal(error: OfrepError, key: str | None) -> dict[str, str]:
    named = {} if key is None else {"key": key}
    return {**named, "errorCode": error.code, "errorDetails": error.details}


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value), status, headers={"content-type": "application/json"}
    )
