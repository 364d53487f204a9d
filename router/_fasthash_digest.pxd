"""XXH64 and the bucket: who a unit is to a layer.

Inline functions only, compiled into `_fasthash`. Written from the public specification
of XXH64; changing anything here re-deals every user of every rollout and is a major
version. docs/decisions/0001-hash-and-buckets.md says why these two.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from router._fasthash cimport FH_BUCKETS


cdef extern from *:
    """
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the routing table is read in place and is little-endian"
    #endif
    #define FH_PRIME_1 0x9E3779B185EBCA87ull
    #define FH_PRIME_2 0xC2B2AE3D27D4EB4Full
    #define FH_PRIME_3 0x165667B19E3779F9ull
    #define FH_PRIME_4 0x85EBCA77C2B2AE63ull
    #define FH_PRIME_5 0x27D4EB2F165667C5ull
    """
    const uint64_t FH_PRIME_1
    const uint64_t FH_PRIME_2
    const uint64_t FH_PRIME_3
    const uint64_t FH_PRIME_4
    const uint64_t FH_PRIME_5


cdef inline uint64_t rotate(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))


cdef inline uint64_t read_u64(const uint8_t *data) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, data, 8)
    return value


cdef inline uint64_t read_u32(const uint8_t *data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return value


cdef inline uint64_t mix(uint64_t lane, uint64_t word) noexcept nogil:
    return rotate(lane + word * FH_PRIME_2, 31) * FH_PRIME_1


cdef inline uint64_t merge(uint64_t digest, uint64_t lane) noexcept nogil:
    return (digest ^ mix(0, lane)) * FH_PRIME_1 + FH_PRIME_4


cdef inline uint64_t digest_stripes(
    const uint8_t *data, uint64_t count, uint64_t seed
) noexcept nogil:
    """The four lanes over `count` stripes of 32 bytes, merged."""
    cdef uint64_t a = seed + FH_PRIME_1 + FH_PRIME_2
    cdef uint64_t b = seed + FH_PRIME_2
    cdef uint64_t c = seed
    cdef uint64_t d = seed - FH_PRIME_1
    cdef uint64_t digest
    while count:
        count -= 1
        a = mix(a, read_u64(data))
        b = mix(b, read_u64(data + 8))
        c = mix(c, read_u64(data + 16))
        d = mix(d, read_u64(data + 24))
        data += 32
    digest = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)
    return merge(merge(merge(merge(digest, a), b), c), d)


cdef inline uint64_t digest_of(
    const uint8_t *data, uint64_t length, uint64_t seed
) noexcept nogil:
    """XXH64, from its public specification; tests hold it to the xxhash package."""
    cdef uint64_t digest
    cdef const uint8_t *end = data + length
    if length >= 32:
        digest = digest_stripes(data, length >> 5, seed)
        data += length & ~<uint64_t>31
    else:
        digest = seed + FH_PRIME_5
    digest += length
    while data + 8 <= end:
        digest = rotate(digest ^ mix(0, read_u64(data)), 27) * FH_PRIME_1 + FH_PRIME_4
        data += 8
    if data + 4 <= end:
        digest ^= read_u32(data) * FH_PRIME_1
        digest = rotate(digest, 23) * FH_PRIME_2 + FH_PRIME_3
        data += 4
    while data < end:
        digest = rotate(digest ^ data[0] * FH_PRIME_5, 11) * FH_PRIME_1
        data += 1
    digest = (digest ^ digest >> 33) * FH_PRIME_2
    digest = (digest ^ digest >> 29) * FH_PRIME_3
    return digest ^ digest >> 32


cdef inline uint32_t bucket_of(uint64_t digest) noexcept nogil:
    # Scale rather than reduce: the top half of the product keeps neighbouring digests
    # in neighbouring buckets and spreads the leftover 2**32 % FH_BUCKETS evenly, where
    # a modulo would hand all of it to the low buckets. tests/golden/buckets.json pins
    # the result, because changing this line moves every unit of every experiment.
    return <uint32_t>(((digest >> 32) * FH_BUCKETS) >> 32)
