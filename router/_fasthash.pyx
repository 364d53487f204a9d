"""The kernel: digest, bucket, tests, decision, count.

Work is done by `cdef ... noexcept nogil` functions on the structs of `_fasthash.h`; the
engine calls them through `kernel_api` from threads Python does not know. The Python
face at the end validates once, converts once and calls once. What routing means is
specified by `_fasthash_py.py`, and every test of it runs on both. No policy lives here,
no wire format, no logging, and nothing that knows a model. How values are read is in
`_fasthash_values.pxd`, the hash in `_fasthash_digest.pxd`, what makes bytes a table in
`_fasthash_check.pxd`.
"""

from array import array

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from router._fasthash_check cimport check_table
from router._fasthash_digest cimport bucket_of, digest_of
from router._fasthash_values cimport (
    INTEGER_LENGTH_MAX,
    Semver,
    compare_semver,
    fh_locale_ready,
    parse_number,
    parse_semver,
    parse_time,
    slot_text,
)

from router._fasthash_bytes import revision_of
from router._fasthash_py import Decision
from router.errors import TableError


cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    #ifdef ROUTER_CHECKED
    #define FH_ASSERT(claim) \\
      do { \\
        if (!(claim)) { fprintf(stderr, "kernel: %s\\n", #claim); abort(); } \\
      } while (0)
    #else
    #define FH_ASSERT(claim) ((void)0)
    #endif
    /* One writer, nothing inferred from it: a plain add that a reader may see torn from
       other counters but never torn in itself. */
    static inline void fh_add_one(uint64_t *counter) {
      __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + 1,
                       __ATOMIC_RELAXED);
    }
    static inline void fh_keep(void *value) {
      __asm__ volatile("" : : "g"(value) : "memory");
    }
    /* Of this thread: a busy machine must not lengthen a measurement. */
    static double fh_cpu_s(void) {
      struct timespec now;
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
      return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    }
    """
    void FH_ASSERT(bint claim) noexcept nogil
    void fh_add_one(uint64_t *counter) noexcept nogil
    void fh_keep(void *value) noexcept nogil
    double fh_cpu_s() noexcept nogil
    void *memmem(
        const void *text, size_t length, const void *part, size_t part_length
    ) noexcept nogil


cdef enum:
    WHY_SIZE = 256
    SEEDS_KEPT = 4  # digests a request keeps; a model's rules share one layer as a rule
    BISECT_FROM = 8  # operands above which a search beats a scan


# -- tests ---------------------------------------------------------------------------


cdef inline bint is_among(
    const fh_table *table, const fh_node *node, const uint8_t *data, uint32_t length
) noexcept nogil:
    """Whether the text equals an operand; they are sorted by length, then bytes."""
    cdef const fh_text *operands = table.operands + node.operand_first
    cdef uint32_t low = 0, high = node.operand_count, middle, i
    cdef int order
    if high <= BISECT_FROM:
        for i in range(high):
            if operands[i].length == length and not memcmp(
                table.bytes + operands[i].offset, data, length
            ):
                return True
        return False
    while low < high:
        middle = low + (high - low >> 1)
        if operands[middle].length != length:
            order = -1 if operands[middle].length < length else 1
        else:
            order = memcmp(table.bytes + operands[middle].offset, data, length)
        if order == 0:
            return True
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return False


cdef inline bint has_part(
    const fh_table *table, const fh_node *node, const uint8_t *data, uint32_t length
) noexcept nogil:
    """Whether the text starts with, ends with or contains one of the operands."""
    cdef const fh_text *operand
    cdef const uint8_t *part
    cdef uint32_t i
    for i in range(node.operand_count):
        operand = table.operands + node.operand_first + i
        part = table.bytes + operand.offset
        if operand.length > length:
            continue
        if node.op == FH_OP_PREFIX:
            if not memcmp(data, part, operand.length):
                return True
        elif node.op == FH_OP_SUFFIX:
            if not memcmp(data + length - operand.length, part, operand.length):
                return True
        elif memmem(data, length, part, operand.length) != NULL:
            return True
    return False


cdef inline bint semver_passes(
    const fh_table *table, const fh_node *node, const uint8_t *data, uint32_t length
) noexcept nogil:
    cdef const fh_text *operand = table.operands + node.operand_first
    cdef Semver have, want
    cdef int order
    if not parse_semver(data, length, &have):
        return False
    if not parse_semver(table.bytes + operand.offset, operand.length, &want):
        return False
    order = compare_semver(&have, &want)
    return node.flags & (1 if order < 0 else 2 if order == 0 else 4) != 0


cdef bint text_passes(
    const fh_table *table, const fh_request *request, const fh_node *node,
    const fh_slot *slot,
) noexcept nogil:
    cdef uint8_t scratch[INTEGER_LENGTH_MAX]
    cdef const uint8_t *data = NULL
    cdef uint32_t length = 0
    if not slot_text(slot, scratch, &data, &length):
        return False
    if node.op == FH_OP_IN:
        return is_among(table, node, data, length)
    if node.op == FH_OP_SEMVER:
        return semver_passes(table, node, data, length)
    if node.op == FH_OP_REGEX:
        return request.regex != NULL and request.regex(
            request.regex_context, node.operand_first, data, length
        ) != 0
    return has_part(table, node, data, length)


cdef inline bint slot_number(fh_slot *slot, double *out) noexcept nogil:
    """The value as a number, remembered in the slot for the rules that follow."""
    if slot.kind == FH_BYTES:
        if slot.parsed == 0:
            slot.parsed = (
                1 if parse_number(slot.data, slot.length, &slot.number) else 2
            )
        out[0] = slot.number
        return slot.parsed == 1
    out[0] = slot.number if slot.kind == FH_DOUBLE else <double>slot.integer
    return True


cdef bint number_passes(const fh_node *node, fh_slot *slot) noexcept nogil:
    cdef double value = 0
    if not slot_number(slot, &value):
        if node.op < FH_OP_BEFORE or not parse_time(slot.data, slot.length, &value):
            return False
    if node.op == FH_OP_RANGE:
        return node.low <= value <= node.high
    if node.op == FH_OP_BETWEEN:
        return node.low < value < node.high
    if node.op == FH_OP_EQUAL:
        return value == node.low
    if node.op == FH_OP_BEFORE:
        return value < node.low
    return value > node.low


cdef inline bint passes(
    const fh_table *table, const fh_request *request, const fh_node *node
) noexcept nogil:
    cdef fh_slot *slot = request.slots + node.attribute
    if slot.kind == FH_ABSENT:
        return False
    if node.op == FH_OP_PRESENT:
        return True
    if node.op == FH_OP_IN and slot.kind == FH_BYTES:  # nearly every test there is
        return is_among(table, node, slot.data, slot.length)
    if node.op <= FH_OP_REGEX or node.op == FH_OP_SEMVER:
        return text_passes(table, request, node, slot)
    return number_passes(node, slot)


cdef inline bint accepts(
    const fh_table *table, const fh_request *request, uint32_t first, uint32_t count
) noexcept nogil:
    """Run the program of a rule or shadow. Every jump is forward, so it ends."""
    cdef const fh_node *program = table.nodes + first
    cdef uint32_t at = 0 if count else FH_ACCEPT
    while at < FH_REJECT:
        FH_ASSERT(at < count)
        at = program[at].yes if passes(table, request, program + at) else program[at].no
    return at == FH_ACCEPT


# -- decision ------------------------------------------------------------------------


ctypedef struct Digests:
    uint64_t seed[SEEDS_KEPT]
    uint64_t digest[SEEDS_KEPT]
    uint32_t count


cdef inline uint64_t digest_for(
    Digests *known, const fh_request *request, uint64_t seed
) noexcept nogil:
    """The unit's digest in one layer, computed once however many rules share it."""
    cdef uint64_t digest
    cdef uint32_t i
    for i in range(min(known.count, SEEDS_KEPT)):
        if known.seed[i] == seed:
            return known.digest[i]
    if request.unit_source == FH_UNIT_NONE:
        digest = digest_of(<const uint8_t *>&request.random, 8, seed)
    else:
        digest = digest_of(request.unit, request.unit_length, seed)
    i = known.count & (SEEDS_KEPT - 1)
    known.seed[i], known.digest[i] = seed, digest
    known.count += 1
    return digest


cdef inline void answer(
    const fh_request *request, fh_decision *out, uint32_t variant, uint32_t cell_first,
    uint8_t reason, uint8_t outcome,
) noexcept nogil:
    """The decision of no rule: `variant`, certain, counted from `cell_first`."""
    out.digest = 0
    out.rule = FH_NONE
    out.cell = cell_first + variant
    out.rollout_revision = 0
    out.bucket = FH_NO_BUCKET
    out.propensity_bp = FH_BUCKETS
    out.variant = <uint8_t>variant
    out.reason = reason
    out.outcome = outcome
    out.unit_source = request.unit_source
    out.reserved = 0


cdef bint route_pinned(
    const fh_table *table, const fh_model *model, const fh_request *request,
    fh_decision *out,
) noexcept nogil:
    """Answer a request that names a version; False when the model ignores pins."""
    cdef const fh_variant *variants = table.variants + model.variant_first
    cdef uint32_t i
    cdef uint8_t outcome = FH_PIN_UNKNOWN
    if model.pins == FH_PINS_IGNORE:
        return False
    if model.pins == FH_PINS_DENY:
        answer(
            request, out, model.stable, model.cell_static, FH_REASON_STATIC,
            FH_PIN_DENIED,
        )
        return True
    for i in range(model.variant_count):
        if variants[i].version == request.pin:
            outcome = (
                FH_PIN_DISABLED if variants[i].flags & FH_VARIANT_DISABLED
                else FH_ROUTED
            )
            break
    else:
        i = model.stable
    answer(request, out, i, model.cell_static, FH_REASON_STATIC, outcome)
    return True


cdef inline bint route_by_rule(
    const fh_table *table, const fh_model *model, const fh_request *request,
    uint32_t index, Digests *known, fh_decision *out,
) noexcept nogil:
    """Answer by this rule; False when it does not match or leaves the bucket alone."""
    cdef const fh_rule *rule = table.rules + index
    cdef uint64_t digest = 0
    cdef uint32_t bucket = FH_NO_BUCKET, variant = rule.variant
    cdef uint8_t reason = rule.reason
    if not accepts(table, request, rule.node_first, rule.node_count):
        return False
    if rule.map != FH_NONE:
        digest = digest_for(known, request, rule.seed)
        bucket = bucket_of(digest)
        variant = table.maps[<uint64_t>rule.map * FH_BUCKETS + bucket]
        if variant == FH_CONTINUE:
            return False
    FH_ASSERT(variant < model.variant_count)
    if table.variants[model.variant_first + variant].flags & FH_VARIANT_DISABLED:
        variant = model.stable
        reason = FH_REASON_DISABLED
    answer(request, out, variant, rule.cell_first, reason, FH_ROUTED)
    out.digest = digest
    out.rule = index
    out.rollout_revision = rule.rollout_revision
    out.bucket = <uint16_t>bucket
    if rule.map != FH_NONE:
        out.propensity_bp = table.shares[rule.share_first + variant]
    return True


cdef void route_request(
    const fh_table *table, const fh_request *request, fh_decision *out
) noexcept nogil:
    """Who serves this request: pin, then the model's rules in order, then stable."""
    FH_ASSERT(request.model < table.header.models.count)
    cdef const fh_model *model = table.models + request.model
    cdef Digests known
    cdef uint32_t index
    cdef bint has_unit = request.unit_source != FH_UNIT_NONE
    if request.pin >= 0 and route_pinned(table, model, request, out):
        return
    if has_unit or model.on_missing == FH_MISSING_RANDOM:
        known.count = 0
        for index in range(model.rule_first, model.rule_first + model.rule_count):
            if route_by_rule(table, model, request, index, &known, out):
                return
    answer(
        request, out, model.stable, model.cell_default, FH_REASON_DEFAULT,
        FH_REFUSED_UNIT if not has_unit and model.on_missing == FH_MISSING_REJECT
        else FH_ROUTED,
    )


cdef inline bint takes(
    const fh_table *table, const fh_request *request, const fh_shadow *shadow,
    Digests *known,
) noexcept nogil:
    """Whether a shadow takes the request."""
    cdef uint64_t digest
    if not accepts(table, request, shadow.node_first, shadow.node_count):
        return False
    if shadow.map != FH_NONE:
        digest = digest_for(known, request, shadow.seed)
        return table.maps[<uint64_t>shadow.map * FH_BUCKETS + bucket_of(digest)] != 0
    # Not the seed itself: without a unit a rule of that salt draws its bucket by it.
    digest = digest_of(<const uint8_t *>&request.random, 8, ~shadow.seed)
    return bucket_of(digest) < shadow.sample_bp


cdef uint32_t find_shadows(
    const fh_table *table, const fh_request *request, const fh_decision *decision
) noexcept nogil:
    """The shadows that take a decided request. None runs what answers anyway."""
    cdef const fh_model *model = table.models + request.model
    cdef const fh_shadow *shadow
    cdef Digests known
    cdef uint32_t i, found = 0
    known.count = 0
    for i in range(model.shadow_count):
        shadow = table.shadows + model.shadow_first + i
        if shadow.variant == decision.variant:
            continue
        if table.variants[model.variant_first + shadow.variant].flags & FH_VARIANT_DISABLED:
            continue
        if takes(table, request, shadow, &known):
            found |= <uint32_t>1 << i
    return found


cdef void count_decision(fh_cell *cell, const fh_decision *decision) noexcept nogil:
    """Count a decision in its cell. Only the loop that owns the cell may call this."""
    fh_add_one(&cell.routed[decision.unit_source & 7])


cdef int check(
    const uint8_t *bytes, uint64_t size, fh_table *out, char *why, uint64_t why_size
) noexcept nogil:
    return check_table(bytes, size, out, why, why_size)


cdef fh_kernel_api API
API.xxh64 = digest_of
API.check = check
API.route = route_request
API.count = count_decision
API.shadows = find_shadows


cdef fh_kernel_api* kernel_api() noexcept nogil:
    return &API


if not fh_locale_ready():
    raise MemoryError("no C locale")


# -- the Python face -----------------------------------------------------------------


def xxh64(data: bytes, seed: int) -> int:
    """The XXH64 digest of `data`."""
    cdef uint64_t number = seed
    return digest_of(<const uint8_t *>PyBytes_AS_STRING(data), len(data), number)


def bucket(unit: bytes, salt: str) -> int:
    """The slot of a unit in the layer of this salt, 0-9999."""
    return bucket_of(xxh64(unit, xxh64(salt.encode(), 0)))


def claim_order(salt: str) -> array:
    """The buckets in the order a rollout of this salt claims them: unsigned shorts."""
    cdef uint64_t seed = xxh64(salt.encode(), 0)
    cdef uint16_t number
    keys = [0] * FH_BUCKETS
    for number in range(FH_BUCKETS):
        keys[number] = digest_of(<const uint8_t *>&number, 2, seed)
    return array("H", sorted(range(FH_BUCKETS), key=keys.__getitem__))


def read_number(text: bytes) -> float | None:
    """The number a test compares for this value, None when it is not one."""
    cdef double value
    if parse_number(<const uint8_t *>PyBytes_AS_STRING(text), len(text), &value):
        return value
    return None


def read_time(text: bytes) -> float | None:
    """Seconds since 1970 of a date or date-time, None when it is neither."""
    cdef double value
    if parse_time(<const uint8_t *>PyBytes_AS_STRING(text), len(text), &value):
        return value
    return None


def order_semver(left: bytes, right: bytes) -> int | None:
    """-1, 0 or 1 by semantic-version precedence, None when either is not a version."""
    cdef Semver a, b
    cdef int order
    if not parse_semver(<const uint8_t *>PyBytes_AS_STRING(left), len(left), &a):
        return None
    if not parse_semver(<const uint8_t *>PyBytes_AS_STRING(right), len(right), &b):
        return None
    order = compare_semver(&a, &b)
    return (order > 0) - (order < 0)


@cython.auto_pickle(False)
@cython.final
cdef class _Matcher:
    """The regex callable of one request, and what it raised."""

    cdef object patterns, matches, error


cdef int call_regex(
    const void *context, uint32_t regex, const uint8_t *data, uint32_t length
) noexcept nogil:
    with gil:
        matcher = <_Matcher>context
        try:
            return bool(matcher.matches(matcher.patterns[regex], data[:length]))
        except BaseException as error:
            matcher.error = error
            return 0


@cython.auto_pickle(False)
@cython.final
cdef class _Filled:
    """One request with its slots, and the objects its pointers point into."""

    cdef fh_request request
    cdef fh_slot slots[64]  # FH_ATTRIBUTES_MAX
    cdef list kept

    cdef int keep_bytes(self, fh_slot *slot, value) except -1:
        cdef bytes data = value.encode() if isinstance(value, str) else value
        self.kept.append(data)
        slot.kind, slot.length = FH_BYTES, len(data)
        slot.data = <const uint8_t *>PyBytes_AS_STRING(data)
        return 0

    cdef int fill(self, fh_slot *slot, value) except -1:
        slot.kind = FH_ABSENT
        slot.parsed = 0
        if value is None:
            return 0
        if isinstance(value, (str, bytes)):
            return self.keep_bytes(slot, value)
        if isinstance(value, bool):
            slot.kind, slot.integer = FH_BOOL, value
        elif isinstance(value, int):
            slot.kind, slot.integer = FH_INT, value
        elif isinstance(value, float):
            slot.kind, slot.number = FH_DOUBLE, value
        else:
            raise TypeError(f"an attribute cannot be a {type(value).__name__}")
        return 0


@cython.auto_pickle(False)  # the bytes travel, not the object
@cython.final
cdef class Table:
    """A checked routing table. Immutable, safe to share between threads."""

    cdef uint8_t *memory
    cdef fh_table view
    cdef dict models
    cdef list names, patterns

    def __cinit__(self, data: bytes):
        cdef char why[WHY_SIZE]
        cdef uint64_t size = len(data)
        self.memory = <uint8_t *>PyMem_Malloc(size or 1)  # 16-aligned
        if self.memory == NULL:
            raise MemoryError("no room for the table")
        memcpy(self.memory, PyBytes_AS_STRING(data), size)
        if check(self.memory, size, &self.view, why, WHY_SIZE):
            raise TableError((<bytes>why).decode())
        if revision_of(data) != self.view.header.revision:
            raise TableError("header: the revision is not that of the bytes")
        self.models, self.names = {}, []
        for index in range(self.view.header.models.count):
            self.models[self.text(self.view.models[index].name).decode()] = index
        for index in range(self.view.header.attributes.count):
            self.names.append(self.text(self.view.attributes[index].name).decode())
        self.patterns = [
            self.text(self.view.regexes[index])
            for index in range(self.view.header.regexes.count)
        ]

    def __dealloc__(self):
        PyMem_Free(self.memory)

    cdef bytes text(self, fh_text text):
        return (<const char *>self.memory + text.offset)[:text.length]

    cdef _Filled filled(self, str model, attributes, unit, int unit_source):
        cdef _Filled filled = _Filled()
        cdef fh_request *request = &filled.request
        cdef uint32_t i, at
        if (unit is None) != (unit_source == FH_UNIT_NONE):
            raise ValueError("a unit and FH_UNIT_NONE exclude one another")
        if not 0 <= unit_source <= FH_UNIT_NONE:
            raise ValueError(f"unit_source {unit_source} is unknown")
        if model not in self.models:
            raise KeyError(model)
        filled.kept = [unit]
        memset(request, 0, sizeof(fh_request))
        request.model = self.models[model]
        request.slots = filled.slots
        request.unit_source = unit_source
        request.pin = FH_PIN_NONE
        if unit is not None:
            request.unit = <const uint8_t *>PyBytes_AS_STRING(unit)
            request.unit_length = len(unit)
        for i in range(self.view.models[request.model].attribute_count):
            at = self.view.models[request.model].attribute_first + i
            if self.view.attributes[at].source == FH_SOURCE_UNIT:
                filled.fill(&filled.slots[i], unit)
            else:
                filled.fill(&filled.slots[i], attributes.get(self.names[at]))
        return filled

    @property
    def revision(self) -> int:
        """The first 8 bytes of the SHA-256 of the table with this field zero."""
        return self.view.header.revision

    def route(
        self, model: str, attributes, unit, unit_source: int, pin: int = -1,
        random: int = 0, regex=None,
    ):
        """Decide one request; `_fasthash_py.Table.route` says what each field means."""
        cdef _Filled filled = self.filled(model, attributes, unit, unit_source)
        cdef _Matcher matcher
        cdef fh_decision out
        filled.request.pin = pin
        filled.request.random = random
        if regex is not None:
            matcher = _Matcher()
            matcher.patterns, matcher.matches = self.patterns, regex
            filled.request.regex = call_regex
            filled.request.regex_context = <const void *>matcher
        route_request(&self.view, &filled.request, &out)
        if regex is not None and matcher.error is not None:
            raise matcher.error
        return Decision(
            outcome=out.outcome,
            reason=out.reason,
            variant=out.variant,
            rule=None if out.rule == FH_NONE else out.rule,
            bucket=None if out.bucket == FH_NO_BUCKET else out.bucket,
            propensity_bp=out.propensity_bp,
            digest=out.digest,
            cell=out.cell,
            rollout_revision=out.rollout_revision,
            unit_source=out.unit_source,
        )

    def shadows(
        self, model: str, attributes, unit, unit_source: int, pin: int = -1,
        random: int = 0,
    ):
        """Positions of the shadows that take a request which `route` serves."""
        cdef _Filled filled = self.filled(model, attributes, unit, unit_source)
        cdef fh_decision out
        cdef uint32_t found = 0, i
        filled.request.pin = pin
        filled.request.random = random
        route_request(&self.view, &filled.request, &out)
        if out.outcome == FH_ROUTED:
            found = find_shadows(&self.view, &filled.request, &out)
        return tuple([i for i in range(FH_SHADOWS_MAX) if found >> i & 1])

    def time_route(self, n: int, model: str, contexts) -> float:
        """CPU seconds that `n` decisions take without the interpreter.

        `contexts` are (attributes, unit) pairs, a power of two and at most 1024, routed
        in turn. Each request starts with fresh slots, as a call does.
        """
        cdef uint64_t rounds = n, i
        cdef uint32_t mask = len(contexts) - 1, k, attributes
        cdef fh_request *requests[1024]
        cdef fh_decision out
        cdef double start
        if not 0 < len(contexts) <= 1024 or mask & (mask + 1):
            raise ValueError("contexts must be a power of two, at most 1024")
        kept = [self.filled(model, values, unit, 0) for values, unit in contexts]
        for k in range(mask + 1):
            requests[k] = &(<_Filled>kept[k]).request
        attributes = self.view.models[requests[0].model].attribute_count
        with nogil:
            start = fh_cpu_s()
            for i in range(rounds):
                for k in range(attributes):
                    requests[i & mask].slots[k].parsed = 0
                API.route(&self.view, requests[i & mask], &out)
                fh_keep(&out)
            start = fh_cpu_s() - start
        return start


def time_count(n: int) -> float:
    """CPU seconds that `n` updates of one cell take without the interpreter."""
    cdef uint64_t rounds = n, _
    cdef fh_cell cell
    cdef fh_decision decision
    cdef double start
    memset(&cell, 0, sizeof(cell))
    memset(&decision, 0, sizeof(decision))
    with nogil:
        start = fh_cpu_s()
        for _ in range(rounds):
            API.count(&cell, &decision)
            fh_keep(&cell)
        start = fh_cpu_s() - start
    if cell.routed[0] != rounds:
        raise AssertionError(f"{cell.routed[0]} counted of {rounds}")
    return start
