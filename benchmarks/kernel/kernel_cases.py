"""What the kernel benchmarks route: one sticky split, ten audiences, 1,024 users."""

from router._fasthash import claim_order
from router.plan.encode import encode
from router.plan.plan import CONTINUE, All, Model, Op, Plan, Reason, Rule, Test, Variant

VARIANTS = (Variant("one", 1), Variant("two", 2))
USERS = [b"user-%012d" % number for number in range(1024)]  # 17 bytes, as ids are


def _split() -> Rule:
    buckets = bytearray([CONTINUE]) * 10_000
    for place, bucket in enumerate(claim_order("credit-2")):
        buckets[bucket] = 1 if place < 1000 else 0
    return Rule("split", None, "credit", bytes(buckets), 1, Reason.SPLIT)


def _audience(number: int) -> Rule:
    here = Test("location", Op.IN, (b"new-york",))
    aged = Test("age", Op.RANGE, low=10.0 * number, high=10.0 * number + 9)
    both = All((here, aged))
    return Rule(f"aged-{number}", both, "credit", None, 1, Reason.TARGETING_MATCH)


def table_bytes() -> bytes:
    """A table of two models: "split", and "audiences" before the same split."""
    audiences = tuple(_audience(number) for number in range(10))
    split = Model("split", VARIANTS, 0, (_split(),))
    return encode(
        Plan("bench", (split, Model("audiences", VARIANTS, 0, (*audiences, _split()))))
    )


SPLIT_CALLS = [({}, user) for user in USERS]
# Every first test passes and every second fails: the longest way through ten audiences.
AUDIENCE_CALLS = [({"location": b"new-york", "age": b"142"}, user) for user in USERS]
