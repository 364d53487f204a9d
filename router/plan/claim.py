"""Who holds which bucket: the one place where a weight becomes buckets.

A scope of a rollout claims by `claim_scope`: its candidates take buckets that are
stable's, and the *baseline slice* (version 0 in the map) as many from the far end of
the order, where it is the last thing that a growing candidate meets.

A route's bucket map is state. Each version of the split except stable *claims* buckets
in the fixed order of the route's salt, and keeps them in the order in which it claimed
them; stable holds what nobody claimed. Growth claims more, shrinking returns the last
claimed first, so a ramp up and down again ends where it began and nobody flips on the
way.

Growth takes buckets that were stable's, and only when those run out one that another
version gave up in the same edit. A bucket therefore never passes between two candidates
while stable has one to give. When stable is not in the split there is nobody to hold
the rest: every version claims, every bucket is owned, and what one version gains
another has to lose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from router._fasthash import claim_order
from router.errors import ClaimError
from router.plan.plan import BUCKET_COUNT

ORDERS_MAX = 64  # 80 KB each; `order_of.cache_info()` counts those made again
BASELINE = 0  # stands in a scope's map for stable buckets that are measured apart
_NUMBERS = tuple(range(BUCKET_COUNT))  # one object a number, however many salts

Owned = dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class BucketMap:
    """Which version holds each bucket, and in which order it was claimed.

    `claims` is sorted by version; `rest` is the version that holds the unclaimed
    buckets, None when every bucket is claimed.
    """

    rest: int | None
    claims: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def owners(self) -> tuple[int, ...]:
        """The version of each bucket."""
        owners = [self.rest or 0] * BUCKET_COUNT
        for version, buckets in self.claims:
            for bucket in buckets:
                owners[bucket] = version
        return tuple(owners)

    def dealt(self, ordinals: Mapping[int, int]) -> bytes:
        """The same with an ordinal for each version, a byte a bucket."""
        dealt = bytearray([ordinals[self.rest] if self.rest else 0]) * BUCKET_COUNT
        for version, buckets in self.claims:
            ordinal = ordinals[version]
            for bucket in buckets:
                dealt[bucket] = ordinal
        return bytes(dealt)


@lru_cache(maxsize=ORDERS_MAX)
def order_of(salt: str) -> tuple[int, ...]:
    """The buckets in the order in which this salt claims them.

    Kept, because hashing and sorting 10,000 numbers is most of what compiling a split
    would cost, and what a salt comes to never changes.
    """
    return tuple(map(_NUMBERS.__getitem__, claim_order(salt)))


def claim(
    previous: BucketMap | None,
    order: Sequence[int],
    target_bp: Mapping[int, int],
    stable: int,
) -> BucketMap:
    """The next bucket map: the weights reached with as few moves as possible.

    `order` is the claim order of the route's salt, `target_bp` the basis points of each
    version, adding up to BUCKET_COUNT.
    """
    assert sum(target_bp.values()) == BUCKET_COUNT
    rest = stable if stable in target_bp else None
    claimers = sorted(version for version in target_bp if version != rest)
    if previous is not None and _is_there(previous, rest, claimers, target_bp):
        return previous
    owned = _owned(previous, order, claimers)
    kept = {v: owned.get(v, ())[: target_bp[v]] for v in claimers}
    wants = any(len(kept[version]) < target_bp[version] for version in claimers)
    free = _free(previous, owned, kept, rest, order) if wants else []
    claims = []
    for version in claimers:
        wanted = target_bp[version] - len(kept[version])
        claims.append((version, kept[version] + tuple(free[:wanted])))
        free = free[wanted:]
    return BucketMap(rest, tuple(claims))


def claim_scope(
    previous: BucketMap | None,
    order: Sequence[int],
    weights_bp: Mapping[int, int],
    baseline_bp: int,
    blocked: frozenset[int],
    stable: int,
) -> BucketMap:
    """The next bucket map of a scope; ClaimError when there are too few buckets.

    Every candidate keeps the first of what it holds and takes the rest in order, among
    buckets that are neither `blocked` nor another candidate's; those of the baseline
    slice it may take, and one that another candidate gives up now comes last. Blocked
    buckets that it holds are lost to it.
    """
    held = _held(previous, blocked)
    wanted = {v: bp for v, bp in sorted(weights_bp.items()) if bp}
    kept = {v: held.get(v, ())[:bp] for v, bp in wanted.items()}
    taken = {bucket for buckets in kept.values() for bucket in buckets}
    others = {b for v, buckets in held.items() if v != BASELINE for b in buckets}
    free = [b for b in order if b not in taken and b not in blocked]
    missing = sum(wanted.values()) - len(taken)
    if missing > len(free):
        raise ClaimError(
            f"{(missing - len(free)) / 100:g} % more is asked for than is free"
        )
    free.sort(key=lambda bucket: bucket in others)
    claims: Owned = {}
    for version, buckets in kept.items():
        count = wanted[version] - len(buckets)
        claims[version] = buckets + tuple(free[:count])
        free = free[count:]
    left = set(free)
    baseline = [b for b in held.get(BASELINE, ()) if b in left]
    # Measured apart since before, so apart they stay; the others join from the far end.
    apart = left.difference(baseline)
    baseline += [b for b in reversed(order) if b in apart]
    if baseline_bp and baseline:
        claims[BASELINE] = tuple(baseline[:baseline_bp])
    return BucketMap(stable, tuple(sorted(claims.items())))


def _held(previous: BucketMap | None, blocked: frozenset[int]) -> Owned:
    return {
        version: tuple(bucket for bucket in buckets if bucket not in blocked)
        for version, buckets in (previous.claims if previous else ())
    }


def _is_there(
    previous: BucketMap,
    rest: int | None,
    claimers: Sequence[int],
    target_bp: Mapping[int, int],
) -> bool:
    """Whether the map has these weights: then everybody keeps what they hold."""
    wanted = [(version, target_bp[version]) for version in claimers]
    held = [(version, len(buckets)) for version, buckets in previous.claims]
    return previous.rest == rest and held == wanted


def _owned(
    previous: BucketMap | None, order: Sequence[int], claimers: Sequence[int]
) -> Owned:
    """What each version held, in the order of claiming.

    The old rest, when it becomes a claimer because another version becomes stable,
    holds its buckets in claim order, as if it had claimed them.
    """
    if previous is None:
        return {}
    owned = dict(previous.claims)
    if previous.rest is not None and previous.rest in claimers:
        taken = {bucket for buckets in owned.values() for bucket in buckets}
        owned[previous.rest] = tuple(b for b in order if b not in taken)
    return owned


def _free(
    previous: BucketMap | None,
    owned: Owned,
    kept: Owned,
    rest: int | None,
    order: Sequence[int],
) -> list[int]:
    """Buckets to claim, in order: first those of a stable, then those given up now."""
    held = {bucket for buckets in kept.values() for bucket in buckets}
    before = None if previous is None else previous.rest
    stables = {rest, before} - set(kept)
    given_up = {b for v, buckets in owned.items() if v not in stables for b in buckets}
    first = [b for b in order if b not in held and b not in given_up]
    return first + [b for b in order if b in given_up and b not in held]
