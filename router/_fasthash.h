/* The routing table as bytes, and what the kernel reads and writes.
 *
 * Lives here: the layout of the routing table, the slot an attribute value is put in, the
 * decision, and the counter cell. `plan/encode.py` writes this layout, `_fasthash.pyx`
 * checks and routes by it, `_fasthash_py.py` specifies what routing means, the engine
 * includes it to read limits and names. Plain C so that all of them can.
 *
 * Every number is little-endian. Every offset counts bytes from the start of the table,
 * every struct array starts at a multiple of 8, `first` and `count` are indices into a
 * section's array. Nothing may be read from a table before `check` has accepted it: after
 * that every offset, index and jump in it is in range and every program terminates.
 *
 * Changing anything here is a new FH_FORMAT; changing digest or bucket re-deals every
 * user and is a major version.
 */
#ifndef ROUTER_FASTHASH_H
#define ROUTER_FASTHASH_H

#include <stdint.h>

#define FH_MAGIC 0x31425452u /* "RTB1" */
#define FH_FORMAT 2u
#define FH_BUCKETS 10000u
#define FH_VARIANTS_MAX 64u    /* a model's; one bitmask, and ordinals fit a byte */
#define FH_ATTRIBUTES_MAX 64u  /* a model's; the engine keeps that many slots a call */
#define FH_NODES_MAX 4096u     /* a rule's program; jumps are 16 bits */
#define FH_SHADOWS_MAX 16u     /* a model's; one bitmask */
#define FH_PIN_NONE (-1)
#define FH_NONE 0xFFFFFFFFu
#define FH_NO_BUCKET 0xFFFFu
#define FH_CONTINUE 0xFFu      /* bucket-map entry: the rule does not claim this bucket */
#define FH_ACCEPT 0xFFFFu      /* jump targets that end a program */
#define FH_REJECT 0xFFFEu

typedef struct fh_text { uint32_t offset, length; } fh_text;
typedef struct fh_section { uint32_t offset, count; } fh_section;

typedef struct fh_header {
  uint32_t magic, format;
  uint64_t size;              /* bytes of the whole table */
  uint64_t revision;          /* table_revision: first 8 bytes (little-endian) of the SHA-256
                                 of the table with this field zero */
  fh_section models;          /* fh_model, sorted by name bytes: looked up by bisection */
  fh_section variants;        /* fh_variant */
  fh_section attributes;      /* fh_attribute */
  fh_section unit_keys;       /* fh_text: metadata keys, lower case: of units in order of
                                 precedence, and of what recorded requests may hold */
  fh_section rules;           /* fh_rule */
  fh_section nodes;           /* fh_node */
  fh_section operands;        /* fh_text */
  fh_section regexes;         /* fh_text: RE2 patterns, compiled at publish */
  fh_section maps;            /* uint8_t[FH_BUCKETS] each; count is the number of maps */
  fh_section shares;          /* uint16_t: basis points, see fh_rule.share_first */
  fh_section keys;            /* fh_key: prediction-id keys; the first one mints */
  fh_section shadows;         /* fh_shadow */
  uint32_t cell_count;        /* counter cells a loop needs for this table */
  uint32_t reserved;
} fh_header;

typedef struct fh_key { uint8_t id; uint8_t reserved[7]; uint8_t secret[32]; } fh_key;

enum fh_on_missing { FH_MISSING_RANDOM = 0, FH_MISSING_STABLE = 1, FH_MISSING_REJECT = 2 };
enum fh_pins { FH_PINS_ALLOW = 0, FH_PINS_IGNORE = 1, FH_PINS_DENY = 2 };
enum fh_annotate { FH_ANNOTATE_PARAMETERS = 1, FH_ANNOTATE_TRAILERS = 2 }; /* bits */
enum fh_model_flags {
  FH_MODEL_FALLBACK = 1,      /* stable answers for a candidate that fails */
  FH_MODEL_PREDICTION_ID = 2, /* mint one per answer */
  FH_MODEL_FINITE = 4,        /* the judged output must be finite */
  FH_MODEL_EXPOSURES = 8      /* each answer leaves an exposure on the tape */
};
enum fh_output_kind {
  FH_OUTPUT_NONE = 0, FH_OUTPUT_PROBABILITY = 1, FH_OUTPUT_CLASS = 2, FH_OUTPUT_VALUE = 3,
  FH_OUTPUT_EMBEDDING = 4, FH_OUTPUT_RANKING = 5
};

typedef struct fh_model {
  fh_text name;
  uint32_t variant_first, variant_count;
  uint32_t attribute_first, attribute_count;
  uint32_t rule_first, rule_count;
  uint32_t unit_first, unit_count;
  fh_text unit_tensor;        /* input whose first element is the unit; length 0: none */
  fh_text output_tensor;      /* output judged and scored; length 0: none */
  double output_min, output_max; /* inclusive declared range; -inf/+inf when open */
  uint32_t output_index;      /* element of a row that is the score */
  uint32_t stable;            /* variant ordinal */
  uint32_t cell_static, cell_default; /* first cell of pinned and of unruled requests */
  uint8_t on_missing, pins, annotate, flags;
  uint8_t output_kind, reserved;
  uint16_t record_bp;         /* of 10,000 requests, those that go on the tape */
  uint32_t queue_us_max;      /* predicted wait above which a request is shed */
  uint32_t record_bytes_max;  /* a larger body is left out of its record */
  double output_threshold;    /* a probability from here on is the second class */
  uint32_t shadow_first, shadow_count;
  uint32_t record_first, record_count; /* metadata keys of a record, in unit_keys */
} fh_model;

enum fh_variant_flags { FH_VARIANT_DISABLED = 1 };

typedef struct fh_variant {
  fh_text name;
  uint32_t version;           /* the integer on the wire */
  uint16_t ordinal;           /* tells apart two variants of one version */
  uint16_t flags;
  uint32_t timeout_us;        /* a candidate's share of a deadline; 0: none of its own */
  uint32_t reserved;
} fh_variant;

enum fh_attribute_source {
  FH_SOURCE_REQUEST = 0, /* parameter, else metadata key, else input.<name> element 0 */
  FH_SOURCE_UNIT = 1,    /* the unit key itself: overrides and lists of units */
  FH_SOURCE_FEATURE = 2  /* element `index` of the first row of input `tensor` */
};

typedef struct fh_attribute {
  fh_text name;
  fh_text tensor;             /* of FH_SOURCE_FEATURE; else length 0 */
  uint32_t source, index;
} fh_attribute;

enum fh_reason {
  FH_REASON_STATIC = 0, FH_REASON_OVERRIDE = 1, FH_REASON_HOLDOUT = 2,
  FH_REASON_TARGETING_MATCH = 3, FH_REASON_SPLIT = 4, FH_REASON_DEFAULT = 5,
  FH_REASON_FALLBACK = 6, FH_REASON_DISABLED = 7
};

/* A rule answers when its program accepts and its bucket map does not say FH_CONTINUE.
 * Overrides, holdouts, standing routes and rollouts are all rules, in that order. */
enum fh_rule_flags { FH_RULE_RECORDS = 1 }; /* its first events go on the tape */

typedef struct fh_rule {
  fh_text name;
  uint64_t seed;              /* XXH64(layer salt, 0) */
  uint32_t node_first, node_count; /* count 0: everyone */
  uint32_t map;               /* index of the bucket map; FH_NONE: `variant` for everyone */
  uint32_t share_first;       /* one uint16 per variant ordinal of the model: propensity */
  uint32_t cell_first;        /* plus variant ordinal */
  uint32_t rollout_revision;
  fh_text scope;              /* whose first events its requests count for; length 0: none */
  uint32_t attempt;           /* of the scope: each begins with empty filters */
  uint8_t variant, reason;    /* reason when it answers */
  uint8_t flags, reserved;
} fh_rule;

/* A version that also runs a request that another one answers. It never changes the
 * decision. It takes a request when its program accepts, and then by bucket (`map` of 0 and
 * 1, sticky) or, with map FH_NONE, by drawing for each request. */
typedef struct fh_shadow {
  fh_text name;
  uint64_t seed;              /* XXH64(salt, 0) */
  uint32_t node_first, node_count; /* count 0: everyone */
  uint32_t map;
  uint32_t top_k;             /* places of a ranking that are compared */
  double tolerance_abs, tolerance_rel;
  uint16_t sample_bp;         /* of 10,000 requests, when there is no map */
  uint8_t variant;            /* ordinal of the version that runs */
  uint8_t reserved[5];
} fh_shadow;

enum fh_op {
  FH_OP_PRESENT = 0,          /* any value; its `no` branch is `absent` */
  FH_OP_IN = 1,               /* bytes equal one of the operands (exact is one operand);
                                 sorted by length, then bytes, because they are searched */
  FH_OP_PREFIX = 2, FH_OP_SUFFIX = 3, FH_OP_CONTAINS = 4, /* any of the operands */
  FH_OP_REGEX = 5,            /* operand_first indexes regexes; full match */
  FH_OP_RANGE = 6,            /* low <= number <= high; one-sided with infinities */
  FH_OP_BETWEEN = 7,          /* low < number < high: gt and lt */
  FH_OP_EQUAL = 8,            /* number == low */
  FH_OP_SEMVER = 9,           /* flags: bit 0 less, bit 1 equal, bit 2 greater allowed */
  FH_OP_BEFORE = 10, FH_OP_AFTER = 11 /* time < low, time > low; low: seconds since 1970 */
};

typedef struct fh_node {
  uint8_t op, flags;
  uint16_t attribute;         /* local to the model */
  uint16_t yes, no;           /* local to the program and greater than this node's own
                                 index, or FH_ACCEPT / FH_REJECT */
  uint32_t operand_first, operand_count;
  double low, high;
} fh_node;

/* -- what a call fills in ------------------------------------------------------------- */

enum fh_kind { FH_ABSENT = 0, FH_BYTES = 1, FH_INT = 2, FH_DOUBLE = 3, FH_BOOL = 4 };

/* `data`/`length` hold the bytes of FH_BYTES; `integer`/`number` the others (FH_BOOL uses
 * integer 0 or 1). `parsed` and `number` are the kernel's memo of a parsed FH_BYTES: the
 * engine sets parsed to 0 and never reads them. */
typedef struct fh_slot {
  const uint8_t *data;
  uint32_t length;
  uint8_t kind, parsed;
  uint16_t reserved;
  int64_t integer;
  double number;
} fh_slot;

enum fh_unit_source {
  FH_UNIT_PARAMETER = 0, FH_UNIT_METADATA = 1, FH_UNIT_TENSOR = 2, FH_UNIT_SEQUENCE = 3,
  FH_UNIT_NONE = 4            /* not sticky: `random` stands in for a unit */
};

typedef int (*fh_regex_fn)(const void *context, uint32_t regex, const uint8_t *data,
                           uint32_t length);

typedef struct fh_request {
  const uint8_t *unit;
  uint64_t unit_length;
  uint64_t random;            /* used when unit_source is FH_UNIT_NONE */
  int64_t pin;                /* a version, or FH_PIN_NONE */
  fh_slot *slots;             /* the model's attributes, in their order */
  fh_regex_fn regex;
  const void *regex_context;
  uint32_t model;
  uint8_t unit_source;
  uint8_t reserved[3];
} fh_request;

enum fh_outcome {
  FH_ROUTED = 0,
  FH_REFUSED_UNIT = 1,        /* on_missing: reject */
  FH_PIN_UNKNOWN = 2,         /* no variant of that version */
  FH_PIN_DENIED = 3,          /* pins: deny */
  FH_PIN_DISABLED = 4
};

typedef struct fh_decision {
  uint64_t digest;            /* of the rule that answered; 0 when it drew no bucket */
  uint32_t rule;              /* global index, or FH_NONE */
  uint32_t cell;
  uint32_t rollout_revision;
  uint16_t bucket;            /* or FH_NO_BUCKET */
  uint16_t propensity_bp;     /* 10000 when the variant was certain */
  uint8_t variant;            /* local ordinal */
  uint8_t reason, outcome, unit_source;
  uint32_t reserved;
} fh_decision;

/* One writer each, its loop: relaxed load and store. One cache line. */
typedef struct fh_cell {
  uint64_t routed[8];         /* by fh_unit_source */
} fh_cell;

/* Pointers into a checked table. */
typedef struct fh_table {
  const uint8_t *bytes;
  const fh_header *header;
  const fh_model *models;
  const fh_variant *variants;
  const fh_attribute *attributes;
  const fh_text *unit_keys;
  const fh_rule *rules;
  const fh_node *nodes;
  const fh_text *operands;
  const fh_text *regexes;
  const uint8_t *maps;
  const uint16_t *shares;
  const fh_key *keys;
  const fh_shadow *shadows;
} fh_table;

typedef struct fh_kernel_api {
  uint64_t (*xxh64)(const uint8_t *data, uint64_t length, uint64_t seed);
  /* 0, or -1 with a message in `why`. `bytes` must be 8-aligned and outlive `out`. */
  int (*check)(const uint8_t *bytes, uint64_t size, fh_table *out, char *why,
               uint64_t why_size);
  void (*route)(const fh_table *table, const fh_request *request, fh_decision *out);
  void (*count)(fh_cell *cell, const fh_decision *decision);
  /* Which of the model's shadows take a request that was decided so: bit i for the i-th.
   * The request's `random` has to be drawn, whether or not there is a unit. */
  uint32_t (*shadows)(const fh_table *table, const fh_request *request,
                      const fh_decision *decision);
} fh_kernel_api;

#endif
