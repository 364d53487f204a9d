"""Whether bytes are a routing table: everything `route` and the engine rely on.

Inline functions only, compiled into `_fasthash`. The rule: nothing is read before it is
known to lie inside the table, and after `check_table` every offset, index and jump is
in range, every enumeration has a known value, every program ends and every cell belongs
to one (model, rule, variant). Safe on arbitrary bytes. The revision is a SHA-256 and is
verified where hashlib is, in `_fasthash.Table`.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memset

from router._fasthash cimport *
from router._fasthash_values cimport Semver, is_utf8, parse_semver

cdef enum:
    NAME_LENGTH_MAX = 256
    UNIT_KEYS_MAX = 64  # as many as a request may have metadata keys


ctypedef struct Checker:
    fh_table *table
    uint64_t size
    char *why
    uint64_t why_size
    uint64_t cells  # laid out so far


cdef inline bint refuse(
    Checker *self, const char *what, int64_t index, const char *message
) noexcept nogil:
    """False, having said what is wrong with `what[index]` (-1: with `what`)."""
    if self.why_size and index < 0:
        snprintf(self.why, self.why_size, b"%s: %s", what, message)
    elif self.why_size:
        snprintf(
            self.why, self.why_size, b"%s[%lld]: %s", what, <long long>index, message
        )
    return False


cdef inline bint is_zero(const uint8_t *reserved, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if reserved[i]:
            return False
    return True


cdef inline bint is_inside(
    uint64_t first, uint64_t count, uint64_t total
) noexcept nogil:
    return first <= total and count <= total - first


cdef inline bint is_text(const Checker *self, fh_text text) noexcept nogil:
    return is_inside(text.offset, text.length, self.size)


cdef inline bint is_name(
    const Checker *self, fh_text text, uint32_t length_min
) noexcept nogil:
    return (
        is_text(self, text) and length_min <= text.length <= NAME_LENGTH_MAX
        and is_utf8(self.table.bytes + text.offset, text.length)
    )


cdef inline int compare_texts(
    const fh_table *table, fh_text a, fh_text b
) noexcept nogil:
    cdef int order = memcmp(
        table.bytes + a.offset, table.bytes + b.offset, min(a.length, b.length)
    )
    if order:
        return order
    return (a.length > b.length) - (a.length < b.length)


cdef inline bint check_section(
    Checker *self, fh_section section, const char *name, uint64_t element
) noexcept nogil:
    if section.offset % 8 or section.offset < sizeof(fh_header):
        return refuse(self, name, -1, b"the section is not aligned")
    if not is_inside(section.offset, section.count * element, self.size):
        return refuse(self, name, -1, b"the section ends outside the table")
    return True


cdef inline bint check_header(Checker *self) noexcept nogil:
    cdef const fh_header *header = self.table.header
    if <uintptr_t>self.table.bytes % 8:
        return refuse(self, b"table", -1, b"the bytes are not 8-aligned")
    if self.size < sizeof(fh_header):
        return refuse(self, b"table", -1, b"shorter than its header")
    if header.magic != FH_MAGIC:
        return refuse(self, b"header", -1, b"not a routing table")
    if header.format != FH_FORMAT:
        return refuse(self, b"header", -1, b"the format is unknown")
    if header.size != self.size or self.size >> 32:
        return refuse(self, b"header", -1, b"the size is not that of the table")
    if header.reserved:
        return refuse(self, b"header", -1, b"a reserved field is set")
    return (
        check_section(self, header.models, b"models", sizeof(fh_model))
        and check_section(self, header.variants, b"variants", sizeof(fh_variant))
        and check_section(self, header.attributes, b"attributes", sizeof(fh_attribute))
        and check_section(self, header.unit_keys, b"unit_keys", sizeof(fh_text))
        and check_section(self, header.rules, b"rules", sizeof(fh_rule))
        and check_section(self, header.nodes, b"nodes", sizeof(fh_node))
        and check_section(self, header.operands, b"operands", sizeof(fh_text))
        and check_section(self, header.regexes, b"regexes", sizeof(fh_text))
        and check_section(self, header.maps, b"maps", FH_BUCKETS)
        and check_section(self, header.shares, b"shares", sizeof(uint16_t))
        and check_section(self, header.keys, b"keys", sizeof(fh_key))
        and check_section(self, header.shadows, b"shadows", sizeof(fh_shadow))
    )


cdef inline void point(fh_table *table) noexcept nogil:
    """Set the section pointers; the header has been checked."""
    cdef const uint8_t *bytes = table.bytes
    cdef const fh_header *header = table.header
    table.models = <const fh_model *>(bytes + header.models.offset)
    table.variants = <const fh_variant *>(bytes + header.variants.offset)
    table.attributes = <const fh_attribute *>(bytes + header.attributes.offset)
    table.unit_keys = <const fh_text *>(bytes + header.unit_keys.offset)
    table.rules = <const fh_rule *>(bytes + header.rules.offset)
    table.nodes = <const fh_node *>(bytes + header.nodes.offset)
    table.operands = <const fh_text *>(bytes + header.operands.offset)
    table.regexes = <const fh_text *>(bytes + header.regexes.offset)
    table.maps = bytes + header.maps.offset
    table.shares = <const uint16_t *>(bytes + header.shares.offset)
    table.keys = <const fh_key *>(bytes + header.keys.offset)
    table.shadows = <const fh_shadow *>(bytes + header.shadows.offset)


cdef inline bint check_texts(Checker *self) noexcept nogil:
    """Everything that stands alone: texts, attributes, prediction-id keys."""
    cdef const fh_table *table = self.table
    cdef const fh_header *header = table.header
    cdef uint32_t i, k
    cdef uint8_t c
    for i in range(header.unit_keys.count):
        if not is_name(self, table.unit_keys[i], 1):
            return refuse(self, b"unit_keys", i, b"the name is not 1-256 bytes UTF-8")
        for k in range(table.unit_keys[i].length):
            c = table.bytes[table.unit_keys[i].offset + k]
            if c"A" <= c <= c"Z":
                return refuse(self, b"unit_keys", i, b"the name is not lower case")
    for i in range(header.operands.count):
        if not is_text(self, table.operands[i]):
            return refuse(self, b"operands", i, b"the text is outside the table")
    for i in range(header.regexes.count):
        if not is_text(self, table.regexes[i]):
            return refuse(self, b"regexes", i, b"the text is outside the table")
    for i in range(header.attributes.count):
        if not is_name(self, table.attributes[i].name, 1):
            return refuse(self, b"attributes", i, b"the name is not 1-256 bytes UTF-8")
        if table.attributes[i].source > <uint32_t>FH_SOURCE_FEATURE:
            return refuse(self, b"attributes", i, b"the source is unknown")
        if table.attributes[i].source == FH_SOURCE_FEATURE:
            if not is_name(self, table.attributes[i].tensor, 1):
                return refuse(self, b"attributes", i, b"the tensor has no name")
        elif table.attributes[i].tensor.length or table.attributes[i].index:
            return refuse(self, b"attributes", i, b"a reserved field is set")
    for i in range(header.keys.count):
        if not is_zero(table.keys[i].reserved, 7):
            return refuse(self, b"keys", i, b"a reserved field is set")
        for k in range(i):
            if table.keys[i].id == table.keys[k].id:
                return refuse(self, b"keys", i, b"the id is taken")
    return True


cdef inline bint check_variants(
    Checker *self, const fh_model *model
) noexcept nogil:
    cdef const fh_variant *variants = self.table.variants + model.variant_first
    cdef uint32_t i
    for i in range(model.variant_count):
        if not is_name(self, variants[i].name, 1):
            return refuse(
                self, b"variants", model.variant_first + i,
                b"the name is not 1-256 bytes UTF-8",
            )
        if variants[i].flags & ~FH_VARIANT_DISABLED or variants[i].reserved:
            return refuse(
                self, b"variants", model.variant_first + i,
                b"a flag is unknown or a reserved field is set",
            )
        # Sorted, so that the first of a version is the one a pin means.
        if i and (
            <uint64_t>variants[i].version << 16 | variants[i].ordinal
        ) <= (<uint64_t>variants[i - 1].version << 16 | variants[i - 1].ordinal):
            return refuse(
                self, b"variants", model.variant_first + i,
                b"not after the one before by version and ordinal",
            )
    return True


cdef inline bint check_operands(
    Checker *self, const fh_node *node, int64_t index
) noexcept nogil:
    cdef const fh_text *operands = self.table.operands + node.operand_first
    cdef uint32_t i
    cdef Semver version
    if node.op == FH_OP_REGEX:
        if node.operand_count != 1 or not is_inside(
            node.operand_first, 1, self.table.header.regexes.count
        ):
            return refuse(self, b"nodes", index, b"the pattern is out of range")
        return True
    if not is_inside(
        node.operand_first, node.operand_count, self.table.header.operands.count
    ):
        return refuse(self, b"nodes", index, b"the operands are out of range")
    if node.op == FH_OP_SEMVER and (
        node.operand_count != 1
        or not parse_semver(
            self.table.bytes + operands[0].offset, operands[0].length, &version
        )
    ):
        return refuse(self, b"nodes", index, b"the operand is not one semantic version")
    if node.op == FH_OP_IN:
        # By length, then bytes: `route` looks them up by bisection.
        for i in range(1, node.operand_count):
            if operands[i].length < operands[i - 1].length or (
                operands[i].length == operands[i - 1].length
                and compare_texts(self.table, operands[i], operands[i - 1]) <= 0
            ):
                return refuse(self, b"nodes", index, b"the operands are not sorted")
    return True


cdef inline bint check_node(
    Checker *self, const fh_model *model, uint32_t first, uint32_t count, uint32_t local
) noexcept nogil:
    cdef int64_t index = <int64_t>first + local
    cdef const fh_node *node = self.table.nodes + index
    if node.op > FH_OP_AFTER:
        return refuse(self, b"nodes", index, b"the test is unknown")
    if node.flags > (7 if node.op == FH_OP_SEMVER else 0):
        return refuse(self, b"nodes", index, b"a flag is unknown")
    if node.attribute >= model.attribute_count:
        return refuse(self, b"nodes", index, b"the attribute is out of range")
    if not (node.yes >= FH_REJECT or local < node.yes < count):
        return refuse(self, b"nodes", index, b"'yes' does not jump forward")
    if not (node.no >= FH_REJECT or local < node.no < count):
        return refuse(self, b"nodes", index, b"'no' does not jump forward")
    if node.low != node.low or node.high != node.high:
        return refuse(self, b"nodes", index, b"a bound is not a number")
    return check_operands(self, node, index)


cdef inline bint check_program(
    Checker *self, const fh_model *model, uint32_t first, uint32_t count,
    const char *what, int64_t index,
) noexcept nogil:
    cdef uint32_t local
    if count > FH_NODES_MAX or not is_inside(
        first, count, self.table.header.nodes.count
    ):
        return refuse(self, what, index, b"the program is out of range")
    for local in range(count):
        if not check_node(self, model, first, count, local):
            return False
    return True


cdef inline bint check_map(
    Checker *self, const fh_model *model, const fh_rule *rule, int64_t index
) noexcept nogil:
    """The map names variants the model has, each with a chance of being drawn."""
    cdef const uint8_t *map
    cdef const uint16_t *shares = self.table.shares + rule.share_first
    cdef const fh_variant *variants = self.table.variants + model.variant_first
    cdef uint64_t used = 0
    cdef uint32_t i, answers, total = 0
    if rule.map >= self.table.header.maps.count:
        return refuse(self, b"rules", index, b"the bucket map is out of range")
    map = self.table.maps + <uint64_t>rule.map * FH_BUCKETS
    for i in range(FH_BUCKETS):
        if map[i] == FH_CONTINUE:
            continue
        if map[i] >= model.variant_count:
            return refuse(self, b"rules", index, b"the bucket map names no variant")
        used |= <uint64_t>1 << map[i]
    if not is_inside(
        rule.share_first, model.variant_count, self.table.header.shares.count
    ):
        return refuse(self, b"rules", index, b"the shares are out of range")
    for i in range(model.variant_count):
        total += shares[i]
        answers = model.stable if variants[i].flags & FH_VARIANT_DISABLED else i
        if used >> i & 1 and shares[answers] == 0:
            return refuse(self, b"rules", index, b"a variant answers with a share of 0")
    if total > FH_BUCKETS:
        return refuse(self, b"rules", index, b"the shares add up to more than 10000")
    return True


cdef inline bint check_rule(
    Checker *self, const fh_model *model, int64_t index
) noexcept nogil:
    cdef const fh_rule *rule = self.table.rules + index
    if not is_name(self, rule.name, 1):
        return refuse(self, b"rules", index, b"the name is not 1-256 bytes UTF-8")
    if (
        rule.reason > FH_REASON_DISABLED or rule.reserved
        or rule.flags > FH_RULE_RECORDS
    ):
        return refuse(
            self, b"rules", index, b"the reason is unknown or a reserved field is set"
        )
    if not is_name(self, rule.scope, 0) or rule.scope.length and rule.map == FH_NONE:
        return refuse(self, b"rules", index, b"the scope has no name or no buckets")
    if rule.variant >= model.variant_count:
        return refuse(self, b"rules", index, b"the variant is out of range")
    if rule.cell_first != self.cells:
        return refuse(self, b"rules", index, b"the cells do not follow the ones before")
    self.cells += model.variant_count
    if rule.map != FH_NONE and not check_map(self, model, rule, index):
        return False
    return check_program(
        self, model, rule.node_first, rule.node_count, b"rules", index
    )


cdef inline bint check_shadow(
    Checker *self, const fh_model *model, int64_t index
) noexcept nogil:
    cdef const fh_shadow *shadow = self.table.shadows + index
    cdef const uint8_t *map
    cdef uint32_t i
    if not is_name(self, shadow.name, 1):
        return refuse(self, b"shadows", index, b"the name is not 1-256 bytes UTF-8")
    if shadow.variant >= model.variant_count:
        return refuse(self, b"shadows", index, b"the variant is out of range")
    if shadow.sample_bp > FH_BUCKETS or not is_zero(shadow.reserved, 5):
        return refuse(
            self, b"shadows", index, b"the share is too large or a reserved field is set"
        )
    if not shadow.tolerance_abs >= 0 or not shadow.tolerance_rel >= 0:
        return refuse(self, b"shadows", index, b"a tolerance is below 0")
    if shadow.map != FH_NONE:
        if shadow.map >= self.table.header.maps.count:
            return refuse(self, b"shadows", index, b"the bucket map is out of range")
        map = self.table.maps + <uint64_t>shadow.map * FH_BUCKETS
        for i in range(FH_BUCKETS):
            if map[i] > 1:
                return refuse(self, b"shadows", index, b"a bucket is not 0 or 1")
    return check_program(
        self, model, shadow.node_first, shadow.node_count, b"shadows", index
    )


cdef inline bint check_ranges(
    Checker *self, const fh_model *model, int64_t i
) noexcept nogil:
    cdef const fh_header *header = self.table.header
    if not 1 <= model.variant_count <= FH_VARIANTS_MAX or not is_inside(
        model.variant_first, model.variant_count, header.variants.count
    ):
        return refuse(self, b"models", i, b"the variants are out of range")
    if model.attribute_count > FH_ATTRIBUTES_MAX or not is_inside(
        model.attribute_first, model.attribute_count, header.attributes.count
    ):
        return refuse(self, b"models", i, b"the attributes are out of range")
    if not is_inside(model.rule_first, model.rule_count, header.rules.count):
        return refuse(self, b"models", i, b"the rules are out of range")
    if model.shadow_count > FH_SHADOWS_MAX or not is_inside(
        model.shadow_first, model.shadow_count, header.shadows.count
    ):
        return refuse(self, b"models", i, b"the shadows are out of range")
    if model.unit_count > UNIT_KEYS_MAX or not is_inside(
        model.unit_first, model.unit_count, header.unit_keys.count
    ):
        return refuse(self, b"models", i, b"the unit keys are out of range")
    if model.record_count > UNIT_KEYS_MAX or not is_inside(
        model.record_first, model.record_count, header.unit_keys.count
    ):
        return refuse(self, b"models", i, b"the recorded keys are out of range")
    if not is_name(self, model.unit_tensor, 0) or not is_name(
        self, model.output_tensor, 0
    ):
        return refuse(self, b"models", i, b"a tensor name is not 0-256 bytes of UTF-8")
    return True


cdef inline bint check_settings(
    Checker *self, const fh_model *model, int64_t i
) noexcept nogil:
    if (
        model.on_missing > FH_MISSING_REJECT or model.pins > FH_PINS_DENY
        or model.annotate > (FH_ANNOTATE_PARAMETERS | FH_ANNOTATE_TRAILERS)
        or model.flags > (
            FH_MODEL_FALLBACK | FH_MODEL_PREDICTION_ID | FH_MODEL_FINITE
            | FH_MODEL_EXPOSURES
        )
        or model.record_bp > FH_BUCKETS
        or model.output_kind > FH_OUTPUT_RANKING
    ):
        return refuse(self, b"models", i, b"a setting is unknown")
    if model.reserved:
        return refuse(self, b"models", i, b"a reserved field is set")
    if model.flags & FH_MODEL_PREDICTION_ID and not self.table.header.keys.count:
        return refuse(self, b"models", i, b"prediction ids need a key")
    if not model.output_min <= model.output_max:
        return refuse(self, b"models", i, b"the output range is empty")
    if model.output_threshold != model.output_threshold:
        return refuse(self, b"models", i, b"the output threshold is not a number")
    return True


cdef inline bint check_model(Checker *self, int64_t i) noexcept nogil:
    cdef const fh_table *table = self.table
    cdef const fh_model *model = table.models + i
    cdef uint64_t rule
    if not is_name(self, model.name, 1):
        return refuse(self, b"models", i, b"the name is not 1-256 bytes UTF-8")
    if i and compare_texts(table, table.models[i - 1].name, model.name) >= 0:
        return refuse(self, b"models", i, b"the name is not after the one before")
    if not check_ranges(self, model, i) or not check_settings(self, model, i):
        return False
    if not check_variants(self, model):
        return False
    if model.stable >= model.variant_count:
        return refuse(self, b"models", i, b"stable is not one of its variants")
    if table.variants[model.variant_first + model.stable].flags & FH_VARIANT_DISABLED:
        return refuse(self, b"models", i, b"stable is disabled")
    if (
        model.cell_static != self.cells
        or model.cell_default != self.cells + model.variant_count
    ):
        return refuse(self, b"models", i, b"the cells do not follow the ones before")
    self.cells += 2 * model.variant_count
    for rule in range(model.rule_first, <uint64_t>model.rule_first + model.rule_count):
        if not check_rule(self, model, rule):
            return False
    for rule in range(
        model.shadow_first, <uint64_t>model.shadow_first + model.shadow_count
    ):
        if not check_shadow(self, model, rule):
            return False
    return True


cdef inline int check_table(
    const uint8_t *bytes, uint64_t size, fh_table *out, char *why, uint64_t why_size
) noexcept nogil:
    """0, or -1 with a message in `why`; `out` is then all zero."""
    cdef Checker self
    cdef uint32_t i
    cdef bint is_good
    memset(out, 0, sizeof(fh_table))
    self.table, self.size, self.cells = out, size, 0
    self.why, self.why_size = why, why_size
    out.bytes = bytes
    out.header = <const fh_header *>bytes
    is_good = check_header(&self)
    if is_good:
        point(out)
        is_good = check_texts(&self)
    if is_good:
        for i in range(out.header.models.count):
            if not check_model(&self, i):
                is_good = False
                break
    if is_good and self.cells != out.header.cell_count:
        is_good = refuse(&self, b"header", -1, b"cell_count is not the sum of cells")
    if is_good:
        return 0
    memset(out, 0, sizeof(fh_table))
    return -1
