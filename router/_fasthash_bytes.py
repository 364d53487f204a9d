"""The routing table's layout in Python, and the frozen values in its bytes.

`_fasthash.h` is the contract; the structs here spell it for `plan/encode.py`, which
writes it, and for `_fasthash_py.py`, which routes by it. `read_models` trusts its
input: it reads only tables that the kernel's `check` has accepted.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256

MAGIC = 0x31425452  # "RTB1"
FORMAT = 2
HEADER = struct.Struct("<IIQQ24III")
MODEL = struct.Struct("<2I8I4I2d4I5BxH2Id4I")
VARIANT = struct.Struct("<2II2H2I")
ATTRIBUTE = struct.Struct("<4I2I")
RULE = struct.Struct("<2IQ6I3I3Bx")
SHADOW = struct.Struct("<2IQ4I2dHB5x")
NODE = struct.Struct("<BBHHHIIdd")
TEXT = struct.Struct("<II")
KEY = struct.Struct("<B7x32s")
BUCKET_COUNT = 10_000
NONE = 0xFFFFFFFF  # no rule, no bucket map
CONTINUE = 0xFF  # bucket-map entry: the rule leaves this bucket to the next
ACCEPT, REJECT = 0xFFFF, 0xFFFE  # jump targets that end a program
OP_REGEX = 5  # its operands are regexes
SOURCE_REQUEST, SOURCE_UNIT, SOURCE_FEATURE = 0, 1, 2
VARIANT_DISABLED = 1


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value that rules read; `is_unit` when it is the unit key itself."""

    name: str
    is_unit: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One test of a program and where to go after it."""

    attribute: Attribute
    op: int
    operands: tuple[bytes, ...]  # of a REGEX: its pattern
    low: float
    high: float
    flags: int
    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One option of a model."""

    name: str
    version: int
    is_disabled: bool
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Who matches (`program`, empty: everyone) and what they get."""

    name: str
    index: int
    seed: int
    program: tuple[Node, ...]
    buckets: bytes | None  # None: `variant` for everyone
    shares: tuple[int, ...]
    variant: int
    reason: int
    cell_first: int
    rollout_revision: int
    scope: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """Who is taken (`program`, empty: everyone) and by which buckets or which share."""

    name: str
    seed: int
    program: tuple[Node, ...]
    buckets: bytes | None  # None: `sample_bp` of the requests
    sample_bp: int
    variant: int


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its variants, and its rules in order of precedence."""

    name: str
    variants: tuple[Variant, ...]
    rules: tuple[Rule, ...]
    stable: int
    cell_static: int
    cell_default: int
    on_missing: int
    pins: int
    shadows: tuple[Shadow, ...] = ()


def revision_of(data: bytes) -> int:
    """The revision these bytes must carry: a hash of all of them but the revision."""
    digest = sha256(data[:16] + bytes(8) + data[24:]).digest()
    return int.from_bytes(digest[:8], "little")


class _Reader:
    """The bytes of a table and the sections its header names."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        _, _, _, self.revision, *pairs = HEADER.unpack_from(data)
        sections = list(zip(pairs[0:24:2], pairs[1:24:2], strict=True))
        self.models, self.variants, self.attributes, _, self.rules = sections[:5]
        self.nodes, self.operands, self.regexes, self.maps, self.shares = sections[5:10]
        self.shadows = sections[11]

    def text(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def texts(
        self, section: tuple[int, int], first: int, count: int
    ) -> tuple[bytes, ...]:
        start = section[0] + first * TEXT.size
        pairs = TEXT.iter_unpack(self.data[start : start + count * TEXT.size])
        return tuple(self.text(*pair) for pair in pairs)

    def variant(self, index: int) -> Variant:
        at = self.variants[0] + index * VARIANT.size
        entry = VARIANT.unpack_from(self.data, at)
        offset, length, version, ordinal, flags, _, _ = entry
        name = self.text(offset, length).decode()
        return Variant(name, version, bool(flags & VARIANT_DISABLED), ordinal)

    def attribute(self, index: int) -> Attribute:
        at = self.attributes[0] + index * ATTRIBUTE.size
        offset, length, _, _, source, _ = ATTRIBUTE.unpack_from(self.data, at)
        return Attribute(self.text(offset, length).decode(), source == SOURCE_UNIT)

    def node(self, index: int, attributes: tuple[Attribute, ...]) -> Node:
        at = self.nodes[0] + index * NODE.size
        op, flags, attribute, yes, no, first, count, low, high = NODE.unpack_from(
            self.data, at
        )
        section = self.regexes if op == OP_REGEX else self.operands
        operands = self.texts(section, first, count)
        return Node(attributes[attribute], op, operands, low, high, flags, yes, no)

    def rule(
        self, index: int, attributes: tuple[Attribute, ...], variant_count: int
    ) -> Rule:
        at = self.rules[0] + index * RULE.size
        (offset, length, seed, node_first, node_count, map_index, share_first) = (
            RULE.unpack_from(self.data, at)[:7]
        )
        field = RULE.unpack_from(self.data, at)
        cell_first, rollout_revision, *scope, attempt, variant, reason, _ = field[7:]
        buckets, shares = None, ()
        if map_index != NONE:
            buckets = self.text(self.maps[0] + map_index * BUCKET_COUNT, BUCKET_COUNT)
            shares = struct.unpack_from(
                f"<{variant_count}H", self.data, self.shares[0] + share_first * 2
            )
        program = tuple(
            self.node(node_first + i, attributes) for i in range(node_count)
        )
        return Rule(
            name=self.text(offset, length).decode(),
            index=index,
            seed=seed,
            program=program,
            buckets=buckets,
            shares=shares,
            variant=variant,
            reason=reason,
            cell_first=cell_first,
            rollout_revision=rollout_revision,
            scope=self.text(*scope).decode(),
            attempt=attempt,
        )

    def shadow(self, index: int, attributes: tuple[Attribute, ...]) -> Shadow:
        at = self.shadows[0] + index * SHADOW.size
        offset, length, seed, first, count, map_index, _, _, _, sample_bp, variant = (
            SHADOW.unpack_from(self.data, at)
        )
        buckets = None
        if map_index != NONE:
            buckets = self.text(self.maps[0] + map_index * BUCKET_COUNT, BUCKET_COUNT)
        return Shadow(
            name=self.text(offset, length).decode(),
            seed=seed,
            program=tuple(self.node(first + i, attributes) for i in range(count)),
            buckets=buckets,
            sample_bp=sample_bp,
            variant=variant,
        )

    def model(self, index: int) -> Model:
        at = self.models[0] + index * MODEL.size
        field = MODEL.unpack_from(self.data, at)
        variant_first, variant_count, attribute_first, attribute_count = field[2:6]
        rule_first, rule_count = field[6:8]
        shadow_first, shadow_count = field[29:31]
        attributes = tuple(
            self.attribute(attribute_first + i) for i in range(attribute_count)
        )
        return Model(
            name=self.text(*field[:2]).decode(),
            variants=tuple(
                self.variant(variant_first + i) for i in range(variant_count)
            ),
            rules=tuple(
                self.rule(rule_first + i, attributes, variant_count)
                for i in range(rule_count)
            ),
            stable=field[17],
            cell_static=field[18],
            cell_default=field[19],
            on_missing=field[20],
            pins=field[21],
            shadows=tuple(
                self.shadow(shadow_first + i, attributes) for i in range(shadow_count)
            ),
        )


def read_models(data: bytes) -> dict[str, Model]:
    """The models of a table that `check` has accepted, by name, in table order."""
    reader = _Reader(data)
    models = [reader.model(index) for index in range(reader.models[1])]
    return {model.name: model for model in models}
