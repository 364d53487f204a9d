"""The kernel for Cython: the C contract of `_fasthash.h`, and the one door to it.

`_engine.pyx` cimports `kernel_api` and hands the pointer to the engine. The struct is
filled when `router._fasthash` is imported and lives as long as the process.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "_fasthash.h" nogil:
    const uint32_t FH_MAGIC
    const uint32_t FH_FORMAT
    const uint32_t FH_BUCKETS
    const uint32_t FH_VARIANTS_MAX
    const uint32_t FH_ATTRIBUTES_MAX
    const uint32_t FH_NODES_MAX
    const uint32_t FH_SHADOWS_MAX
    const int64_t FH_PIN_NONE
    const uint32_t FH_NONE
    const uint16_t FH_NO_BUCKET
    const uint8_t FH_CONTINUE
    const uint32_t FH_ACCEPT
    const uint32_t FH_REJECT

    enum:
        FH_MISSING_RANDOM
        FH_MISSING_STABLE
        FH_MISSING_REJECT
        FH_PINS_ALLOW
        FH_PINS_IGNORE
        FH_PINS_DENY
        FH_ANNOTATE_PARAMETERS
        FH_ANNOTATE_TRAILERS
        FH_MODEL_FALLBACK
        FH_MODEL_PREDICTION_ID
        FH_MODEL_FINITE
        FH_MODEL_EXPOSURES
        FH_OUTPUT_NONE
        FH_OUTPUT_RANKING
        FH_VARIANT_DISABLED
        FH_SOURCE_REQUEST
        FH_SOURCE_UNIT
        FH_SOURCE_FEATURE
        FH_RULE_RECORDS
        FH_REASON_STATIC
        FH_REASON_OVERRIDE
        FH_REASON_HOLDOUT
        FH_REASON_TARGETING_MATCH
        FH_REASON_SPLIT
        FH_REASON_DEFAULT
        FH_REASON_FALLBACK
        FH_REASON_DISABLED
        FH_OP_PRESENT
        FH_OP_IN
        FH_OP_PREFIX
        FH_OP_SUFFIX
        FH_OP_CONTAINS
        FH_OP_REGEX
        FH_OP_RANGE
        FH_OP_BETWEEN
        FH_OP_EQUAL
        FH_OP_SEMVER
        FH_OP_BEFORE
        FH_OP_AFTER
        FH_ABSENT
        FH_BYTES
        FH_INT
        FH_DOUBLE
        FH_BOOL
        FH_UNIT_PARAMETER
        FH_UNIT_METADATA
        FH_UNIT_TENSOR
        FH_UNIT_SEQUENCE
        FH_UNIT_NONE
        FH_ROUTED
        FH_REFUSED_UNIT
        FH_PIN_UNKNOWN
        FH_PIN_DENIED
        FH_PIN_DISABLED

    ctypedef struct fh_text:
        uint32_t offset
        uint32_t length

    ctypedef struct fh_section:
        uint32_t offset
        uint32_t count

    ctypedef struct fh_header:
        uint32_t magic
        uint32_t format
        uint64_t size
        uint64_t revision
        fh_section models
        fh_section variants
        fh_section attributes
        fh_section unit_keys
        fh_section rules
        fh_section nodes
        fh_section operands
        fh_section regexes
        fh_section maps
        fh_section shares
        fh_section keys
        fh_section shadows
        uint32_t cell_count
        uint32_t reserved

    ctypedef struct fh_key:
        uint8_t id
        uint8_t reserved[7]
        uint8_t secret[32]

    ctypedef struct fh_model:
        fh_text name
        uint32_t variant_first
        uint32_t variant_count
        uint32_t attribute_first
        uint32_t attribute_count
        uint32_t rule_first
        uint32_t rule_count
        uint32_t unit_first
        uint32_t unit_count
        fh_text unit_tensor
        fh_text output_tensor
        double output_min
        double output_max
        uint32_t output_index
        uint32_t stable
        uint32_t cell_static
        uint32_t cell_default
        uint8_t on_missing
        uint8_t pins
        uint8_t annotate
        uint8_t flags
        uint8_t output_kind
        uint8_t reserved
        uint16_t record_bp
        uint32_t queue_us_max
        uint32_t record_bytes_max
        double output_threshold
        uint32_t shadow_first
        uint32_t shadow_count
        uint32_t record_first
        uint32_t record_count

    ctypedef struct fh_variant:
        fh_text name
        uint32_t version
        uint16_t ordinal
        uint16_t flags
        uint32_t timeout_us
        uint32_t reserved

    ctypedef struct fh_attribute:
        fh_text name
        fh_text tensor
        uint32_t source
        uint32_t index

    ctypedef struct fh_rule:
        fh_text name
        uint64_t seed
        uint32_t node_first
        uint32_t node_count
        uint32_t map
        uint32_t share_first
        uint32_t cell_first
        uint32_t rollout_revision
        fh_text scope
        uint32_t attempt
        uint8_t variant
        uint8_t reason
        uint8_t flags
        uint8_t reserved

    ctypedef struct fh_shadow:
        fh_text name
        uint64_t seed
        uint32_t node_first
        uint32_t node_count
        uint32_t map
        uint32_t top_k
        double tolerance_abs
        double tolerance_rel
        uint16_t sample_bp
        uint8_t variant
        uint8_t reserved[5]

    ctypedef struct fh_node:
        uint8_t op
        uint8_t flags
        uint16_t attribute
        uint16_t yes
        uint16_t no
        uint32_t operand_first
        uint32_t operand_count
        double low
        double high

    ctypedef struct fh_slot:
        const uint8_t *data
        uint32_t length
        uint8_t kind
        uint8_t parsed
        uint16_t reserved
        int64_t integer
        double number

    ctypedef int (*fh_regex_fn)(
        const void *context, uint32_t regex, const uint8_t *data, uint32_t length
    ) noexcept nogil

    ctypedef struct fh_request:
        const uint8_t *unit
        uint64_t unit_length
        uint64_t random
        int64_t pin
        fh_slot *slots
        fh_regex_fn regex
        const void *regex_context
        uint32_t model
        uint8_t unit_source
        uint8_t reserved[3]

    ctypedef struct fh_decision:
        uint64_t digest
        uint32_t rule
        uint32_t cell
        uint32_t rollout_revision
        uint16_t bucket
        uint16_t propensity_bp
        uint8_t variant
        uint8_t reason
        uint8_t outcome
        uint8_t unit_source
        uint32_t reserved

    ctypedef struct fh_cell:
        uint64_t routed[8]

    ctypedef struct fh_table:
        const uint8_t *bytes
        const fh_header *header
        const fh_model *models
        const fh_variant *variants
        const fh_attribute *attributes
        const fh_text *unit_keys
        const fh_rule *rules
        const fh_node *nodes
        const fh_text *operands
        const fh_text *regexes
        const uint8_t *maps
        const uint16_t *shares
        const fh_key *keys
        const fh_shadow *shadows

    ctypedef struct fh_kernel_api:
        uint64_t (*xxh64)(
            const uint8_t *data, uint64_t length, uint64_t seed
        ) noexcept nogil
        int (*check)(
            const uint8_t *bytes, uint64_t size, fh_table *out, char *why,
            uint64_t why_size,
        ) noexcept nogil
        void (*route)(
            const fh_table *table, const fh_request *request, fh_decision *out
        ) noexcept nogil
        void (*count)(fh_cell *cell, const fh_decision *decision) noexcept nogil
        uint32_t (*shadows)(
            const fh_table *table, const fh_request *request,
            const fh_decision *decision,
        ) noexcept nogil


cdef fh_kernel_api* kernel_api() noexcept nogil
