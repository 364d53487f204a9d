"""A plan as a routing table: one flat byte string, the same for the same plan.

The layout is `_fasthash.h`'s; this file is its only writer. `validate.py` has named
every limit a plan breaks before a byte is laid out, so nothing here can fail half-way.
Equal operands, maps, shares and strings are stored once. What the bytes mean is
specified by `_fasthash_py.py`, what makes them acceptable by the kernel's check.
"""

import struct
from dataclasses import dataclass

from router._fasthash import xxh64
from router._fasthash_bytes import (
    ATTRIBUTE,
    FORMAT,
    HEADER,
    KEY,
    MAGIC,
    MODEL,
    NODE,
    NONE,
    RULE,
    SHADOW,
    SOURCE_FEATURE,
    SOURCE_REQUEST,
    SOURCE_UNIT,
    TEXT,
    VARIANT,
    VARIANT_DISABLED,
    read_models,
    revision_of,
)
from router.plan.plan import (
    BUCKET_COUNT,
    CONTINUE,
    Model,
    Op,
    Output,
    Plan,
    Recording,
    Rule,
    Shadow,
    Test,
)
from router.plan.program import Step, compile_condition
from router.plan.validate import attributes_of, validate_plan

_FALLBACK, _PREDICTION_ID, _FINITE, _EXPOSURES = 1, 2, 4, 8
_RULE_RECORDS = 1
_NOBODY = bytes([CONTINUE]) * BUCKET_COUNT  # the map of a rule that nobody can match


@dataclass(frozen=True, slots=True)
class CellName:
    """What a counter cell counts: requests of a model that a rule gave this variant.

    `rule` is "pin" for requests that named a version and "default" for those that no
    rule answered.
    """

    model: str
    rule: str
    variant: str
    version: int
    ordinal: int = 0  # BASELINE_ORDINAL: stable's baseline slice


def encode(plan: Plan) -> bytes:
    """The routing table of a plan. Raises ConfigError with every limit it breaks."""
    validate_plan(plan)
    writer = _Writer()
    for model in sorted(plan.models, key=lambda model: model.name.encode()):
        writer.add_model(model)
    for key in plan.keys:
        writer.add_key(key.id, key.secret)
    return writer.table()


def cell_names(plan: Plan) -> tuple[CellName, ...]:
    """What each counter cell of the plan's table counts, by cell index."""
    return tuple(
        CellName(model.name, rule, variant.name, variant.version, variant.ordinal)
        for model in sorted(plan.models, key=lambda model: model.name.encode())
        for rule in ("pin", "default", *(rule.name for rule in model.rules))
        for variant in model.variants
    )


def names(table: bytes) -> tuple[CellName, ...]:
    """What each counter cell of a checked table counts, by cell index."""
    return tuple(
        CellName(model.name, rule, variant.name, variant.version, variant.ordinal)
        for model in read_models(table).values()
        for rule in ("pin", "default", *(rule.name for rule in model.rules))
        for variant in model.variants
    )


def shares_of(model: Model, buckets: bytes) -> tuple[int, ...]:
    """Each variant's propensity in basis points: of 10,000 buckets, those it answers.

    A disabled variant answers none; its buckets are stable's.
    """
    shares = [buckets.count(ordinal) for ordinal in range(len(model.variants))]
    for ordinal, variant in enumerate(model.variants):
        if variant.is_disabled:
            shares[model.stable] += shares[ordinal]
            shares[ordinal] = 0
    return tuple(shares)


class _Runs:
    """A section in which equal runs of entries are stored once."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self._first: dict[tuple[bytes, ...], int] = {}

    def add(self, *run: bytes) -> int:
        """The index of the first entry of `run`."""
        if run not in self._first:
            self._first[run] = len(self.entries)
            self.entries.extend(run)
        return self._first[run]


class _Writer:
    """The sections of one table as they grow, in the order of `fh_header`."""

    def __init__(self) -> None:
        self._texts = bytearray()
        self._text_offsets: dict[bytes, int] = {}
        self._models: list[bytes] = []
        self._variants: list[bytes] = []
        self._attributes: list[bytes] = []
        self._unit_keys: list[bytes] = []
        self._rules: list[bytes] = []
        self._nodes: list[bytes] = []
        self._operands = _Runs()
        self._regexes = _Runs()
        self._maps = _Runs()
        self._shares = _Runs()
        self._keys: list[bytes] = []
        self._shadows: list[bytes] = []
        self._cell_count = 0

    def add_key(self, number: int, secret: bytes) -> None:
        self._keys.append(KEY.pack(number, secret))

    def add_model(self, model: Model) -> None:
        variant_count = len(model.variants)
        attributes = attributes_of(model)
        output = model.output or Output(tensor="", is_finite=False)
        flags = (
            _FALLBACK * model.has_fallback | _PREDICTION_ID * model.has_prediction_id
        )
        flags |= _FINITE * output.is_finite | _EXPOSURES * model.has_exposures
        record = model.recording or Recording(0)
        keys_at = len(self._unit_keys), len(self._unit_keys) + len(model.unit.metadata)
        cell_static = self._take_cells(variant_count)
        cell_default = self._take_cells(variant_count)
        self._models.append(
            MODEL.pack(
                *self._text(model.name),
                *(len(self._variants), variant_count),
                *(len(self._attributes), len(attributes)),
                *(len(self._rules), len(model.rules)),
                *(keys_at[0], len(model.unit.metadata)),
                *self._text(model.unit.tensor),
                *self._text(output.tensor),
                *(output.low, output.high, output.index),
                *(model.stable, cell_static, cell_default),
                *(model.unit.on_missing, model.pins, model.annotate, flags),
                *(output.kind if model.output else 0, record.share_bp),
                *(model.queue_us_max, record.bytes_max, output.threshold),
                *(len(self._shadows), len(model.shadows)),
                *(keys_at[1], len(record.metadata)),
            )
        )
        for variant in model.variants:
            number, disabled = variant.ordinal, VARIANT_DISABLED * variant.is_disabled
            settings = (variant.version, number, disabled, variant.timeout_us, 0)
            self._variants.append(VARIANT.pack(*self._text(variant.name), *settings))
        for name, is_unit in attributes:
            self._add_attribute(model, name, is_unit)
        for key in (*model.unit.metadata, *record.metadata):
            self._unit_keys.append(TEXT.pack(*self._text(key)))
        for rule in model.rules:
            self._add_rule(model, rule)
        for shadow in model.shadows:
            self._add_shadow(model, shadow)

    def _add_attribute(self, model: Model, name: str, is_unit: bool) -> None:
        source = SOURCE_UNIT if is_unit else SOURCE_REQUEST
        tensor, index = "", 0
        for feature in model.features:
            if feature.key == name and not is_unit:
                source, tensor, index = SOURCE_FEATURE, feature.tensor, feature.index
        texts = (*self._text(name), *self._text(tensor))
        self._attributes.append(ATTRIBUTE.pack(*texts, source, index))

    def _add_rule(self, model: Model, rule: Rule) -> None:
        program = compile_condition(rule.condition)
        buckets = _NOBODY if program is None else rule.buckets
        map_index, share_first = NONE, 0
        if buckets is not None:
            map_index = self._maps.add(buckets)
            shares = (struct.pack("<H", share) for share in shares_of(model, buckets))
            share_first = self._shares.add(*shares)
        self._rules.append(
            RULE.pack(
                *self._text(rule.name),
                xxh64(rule.salt.encode(), 0),
                *(len(self._nodes), len(program or ())),
                *(map_index, share_first, self._take_cells(len(model.variants))),
                *(rule.rollout_revision, *self._text(rule.scope), rule.attempt),
                *(rule.variant, rule.reason, _RULE_RECORDS * rule.has_records),
            )
        )
        for step in program or ():
            self._add_node(step, attributes_of(model))

    def _add_shadow(self, model: Model, shadow: Shadow) -> None:
        program = compile_condition(shadow.condition)
        buckets = bytes(BUCKET_COUNT) if program is None else shadow.buckets
        self._shadows.append(
            SHADOW.pack(
                *self._text(shadow.name),
                xxh64(shadow.salt.encode(), 0),
                *(len(self._nodes), len(program or ())),
                *(NONE if buckets is None else self._maps.add(buckets), shadow.top_k),
                *(shadow.tolerance_abs, shadow.tolerance_rel),
                *(shadow.sample_bp, shadow.variant),
            )
        )
        for step in program or ():
            self._add_node(step, attributes_of(model))

    def _add_node(self, step: Step, attributes: tuple[tuple[str, bool], ...]) -> None:
        test = step.test
        attribute = attributes.index((test.key, test.on_unit))
        self._nodes.append(
            NODE.pack(
                *(test.op, test.flags, attribute, step.yes, step.no),
                *self._add_operands(test),
                *(test.low, test.high),
            )
        )

    def _add_operands(self, test: Test) -> tuple[int, int]:
        """First operand and count; those of IN sorted, because they are searched."""
        operands = test.operands
        if test.op == Op.IN:
            operands = tuple(sorted(set(operands), key=lambda text: (len(text), text)))
        section = self._regexes if test.op == Op.REGEX else self._operands
        return section.add(*(TEXT.pack(*self._text(o)) for o in operands)), len(
            operands
        )

    def _text(self, text: str | bytes) -> tuple[int, int]:
        """Where the text stands and its length. Texts follow the header, unaligned."""
        data = text.encode() if isinstance(text, str) else text
        if data not in self._text_offsets:
            self._text_offsets[data] = HEADER.size + len(self._texts)
            self._texts += data
        return self._text_offsets[data], len(data)

    def _take_cells(self, count: int) -> int:
        first = self._cell_count
        self._cell_count += count
        return first

    def table(self) -> bytes:
        sections = (
            self._models, self._variants, self._attributes, self._unit_keys,
            self._rules, self._nodes, self._operands.entries, self._regexes.entries,
            self._maps.entries, self._shares.entries, self._keys, self._shadows,
        )  # fmt: skip
        body = bytearray(HEADER.size) + self._texts
        places: list[int] = []
        for entries in sections:
            body += bytes(-len(body) % 8)
            places += (len(body), len(entries))
            for entry in entries:
                body += entry
        cells = (self._cell_count, 0)
        body[: HEADER.size] = HEADER.pack(MAGIC, FORMAT, len(body), 0, *places, *cells)
        revision = revision_of(bytes(body))
        body[16:24] = revision.to_bytes(8, "little")
        return bytes(body)
