"""Every limit of the routing table that a plan can break, found in one run.

`compile_plan` has already said in the user's words what a configuration may not say; a
problem here is one that only shows when everything is put together, or a plan made by
hand. The kernel's check enforces the same limits on the bytes.
"""

from collections.abc import Iterable, Iterator

from router._fasthash import order_semver
from router.errors import ConfigError, Problem
from router.plan.plan import (
    BUCKET_COUNT,
    CONTINUE,
    Condition,
    Model,
    Op,
    Plan,
    Recording,
    Rule,
    Shadow,
    Test,
)
from router.plan.program import tests_of

NAME_LENGTH_MAX = 256
VARIANTS_MAX = 64
ATTRIBUTES_MAX = 64
NODES_MAX = 4096
SHADOWS_MAX = 16
UNIT_KEYS_MAX = 64
KEYS_MAX = 256
SECRET_LENGTH = 32
RESERVED_RULES = ("pin", "default")  # the names of cells that belong to no rule

Finding = tuple[str, str]  # path, message


def attributes_of(model: Model) -> tuple[tuple[str, bool], ...]:
    """The values its rules and shadows read, each once: (name, is it the unit key)."""
    readers: tuple[Rule | Shadow, ...] = (*model.rules, *model.shadows)
    tests = [test for reader in readers for test in tests_of(reader.condition)]
    return tuple(dict.fromkeys((test.key, test.on_unit) for test in tests))


def validate_plan(plan: Plan) -> None:
    """Raise ConfigError with everything that keeps the plan out of a table."""
    found = [*_plan_findings(plan)]
    for model in plan.models:
        path = f"models[{model.name}]"
        found += ((path + place, message) for place, message in _model_findings(model))
    if found:
        raise ConfigError(
            tuple(Problem("plan", 0, path, message) for path, message in found)
        )


def _plan_findings(plan: Plan) -> Iterator[Finding]:
    yield from _repeated("models", [model.name for model in plan.models])
    yield from _repeated("keys", [key.id for key in plan.keys])
    for key in plan.keys:
        if not 0 <= key.id < KEYS_MAX or len(key.secret) != SECRET_LENGTH:
            yield f"keys[{key.id}]", "an id is 0-255 and a secret 32 bytes"
    if not plan.keys and any(model.has_prediction_id for model in plan.models):
        yield "keys", "prediction ids need a key"


def _model_findings(model: Model) -> Iterator[Finding]:
    yield from _name(".name", model.name)
    yield from _variants(model)
    yield from _settings(model)
    if len(attributes_of(model)) > ATTRIBUTES_MAX:
        yield ".rules", f"they read more than {ATTRIBUTES_MAX} attributes"
    yield from _repeated(".rules", [rule.name for rule in model.rules])
    for rule in model.rules:
        path = f".rules[{rule.name}]"
        yield from ((path + place, text) for place, text in _rule(model, rule))
    if len(model.shadows) > SHADOWS_MAX:
        yield ".shadows", f"{len(model.shadows)}; a model has at most {SHADOWS_MAX}"
    yield from _repeated(".shadows", [shadow.name for shadow in model.shadows])
    for shadow in model.shadows:
        path = f".shadows[{shadow.name}]"
        yield from ((path + place, text) for place, text in _shadow(model, shadow))


def _variants(model: Model) -> Iterator[Finding]:
    count = len(model.variants)
    if not 1 <= count <= VARIANTS_MAX:
        yield ".variants", f"{count} variants; a model has 1 to {VARIANTS_MAX}"
    for variant in model.variants:
        yield from _name(".variants", variant.name)
        in_range = 0 <= variant.version < 2**32 and 0 <= variant.ordinal < 2**16
        if not in_range or not 0 <= variant.timeout_us < 2**32:
            yield f".variants[{variant.name}]", "a number is out of range"
    order = [(variant.version, variant.ordinal) for variant in model.variants]
    if order != sorted(set(order)):
        yield ".variants", "not sorted by (version, ordinal), or one is repeated"
    yield from _repeated(".variants", [(v.version, v.name) for v in model.variants])
    if not 0 <= model.stable < count:
        yield ".stable", f"{model.stable} is not the position of a variant"
    elif model.variants[model.stable].is_disabled:
        yield ".stable", "the variant is disabled and nothing could answer instead"


def _settings(model: Model) -> Iterator[Finding]:
    if len(model.unit.metadata) > UNIT_KEYS_MAX:
        yield ".unit.metadata", f"more than {UNIT_KEYS_MAX} keys"
    for key in model.unit.metadata:
        yield from _name(".unit.metadata", key)
        if key != key.lower():
            yield ".unit.metadata", f"'{key}' is not lower case"
    for feature in model.features:
        yield from _name(".features", feature.tensor)
        if not 0 <= feature.index < 2**32:
            yield f".features[{feature.key}]", "out of range"
    if model.recording is not None:
        yield from _recording(model.recording)
    if model.unit.tensor:
        yield from _name(".unit.tensor", model.unit.tensor)
    if not 0 <= model.queue_us_max < 2**32:
        yield ".queue_us_max", "out of range"
    if model.output is not None:
        yield from _name(".output.tensor", model.output.tensor)
        if not model.output.low <= model.output.high:
            yield ".output", "the range is empty"
        if not 0 <= model.output.index < 2**32:
            yield ".output.index", "out of range"
        if model.output.threshold != model.output.threshold:
            yield ".output.threshold", "not a number"


def _recording(recording: Recording) -> Iterator[Finding]:
    if not 0 <= recording.share_bp <= BUCKET_COUNT:
        yield ".recording.share_bp", "out of range"
    if not 0 <= recording.bytes_max < 2**32:
        yield ".recording.bytes_max", "out of range"
    if len(recording.metadata) > UNIT_KEYS_MAX:
        yield ".recording.metadata", f"more than {UNIT_KEYS_MAX} keys"
    for key in recording.metadata:
        yield from _name(".recording.metadata", key)
        if key != key.lower():
            yield ".recording.metadata", f"'{key}' is not lower case"


def _rule(model: Model, rule: Rule) -> Iterator[Finding]:
    yield from _name(".name", rule.name)
    if rule.name in RESERVED_RULES:
        yield ".name", "the name is taken by requests that no rule answers"
    if not 0 <= rule.variant < len(model.variants):
        yield ".variant", f"{rule.variant} is not the position of a variant"
    if rule.scope:
        yield from _name(".scope", rule.scope)
        if rule.buckets is None:
            yield ".scope", "counts first events, and draws no bucket"
    if not 0 <= rule.attempt < 2**32:
        yield ".attempt", "out of range"
    if not 0 <= rule.rollout_revision < 2**32:
        yield ".rollout_revision", "out of range"
    if rule.buckets is not None:
        if len(rule.buckets) != BUCKET_COUNT:
            yield ".buckets", f"{len(rule.buckets)} buckets instead of {BUCKET_COUNT}"
        elif not set(rule.buckets) <= {*range(len(model.variants)), CONTINUE}:
            yield ".buckets", "a bucket names no variant"
    yield from _condition(rule.condition)


def _shadow(model: Model, shadow: Shadow) -> Iterator[Finding]:
    yield from _name(".name", shadow.name)
    if not 0 <= shadow.variant < len(model.variants):
        yield ".variant", f"{shadow.variant} is not the position of a variant"
    if not 0 <= shadow.sample_bp <= BUCKET_COUNT:
        yield ".sample_bp", f"{shadow.sample_bp} of {BUCKET_COUNT}"
    if not 0 <= shadow.top_k < 2**32:
        yield ".top_k", "out of range"
    if not (shadow.tolerance_abs >= 0 and shadow.tolerance_rel >= 0):
        yield ".tolerance", "below 0"
    if shadow.buckets is not None:
        if len(shadow.buckets) != BUCKET_COUNT:
            yield ".buckets", f"{len(shadow.buckets)} buckets instead of {BUCKET_COUNT}"
        elif not set(shadow.buckets) <= {0, 1}:
            yield ".buckets", "a bucket is not 0 or 1"
    yield from _condition(shadow.condition)


def _condition(condition: Condition | None) -> Iterator[Finding]:
    tests = tests_of(condition)
    if len(tests) > NODES_MAX:
        yield ".condition", f"{len(tests)} tests; a rule has at most {NODES_MAX}"
    for test in tests:
        yield from _name(".condition", test.key)
        message = _test_problem(test)
        if message:
            yield f".condition.{test.key}", message


def _test_problem(test: Test) -> str:
    if test.low != test.low or test.high != test.high:
        return "a bound is not a number"
    if test.op == Op.REGEX and len(test.operands) != 1:
        return "REGEX takes one pattern"
    if test.op == Op.SEMVER:
        if len(test.operands) != 1 or order_semver(*test.operands * 2) is None:
            return "SEMVER takes one semantic version"
        return "" if 0 <= test.flags <= 7 else "a flag is unknown"
    return "a flag is unknown" if test.flags else ""


def _name(path: str, name: str) -> Iterator[Finding]:
    length = len(name.encode(errors="surrogatepass"))
    if not 1 <= length <= NAME_LENGTH_MAX:
        yield path, f"a name of {length} bytes; 1 to {NAME_LENGTH_MAX} are allowed"
    elif not _is_utf8(name):
        yield path, "the name is not valid Unicode"


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _repeated(path: str, names: Iterable[object]) -> Iterator[Finding]:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            yield f"{path}[{name}]", "the name is taken"
        seen.add(name)
