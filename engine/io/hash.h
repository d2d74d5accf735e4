/* hash.h — BLAKE2b (RFC 7693) with a digest of 32 bytes and no key, in pieces. */
#ifndef AM_HASH_H
#define AM_HASH_H

#include <stddef.h>
#include "../am.h"

typedef struct am_hash_state {
    uint64_t h[8];
    uint64_t bytes; /* compressed so far */
    uint8_t block[128];
    size_t fill;
} am_hash_state;

void am_hash_begin(am_hash_state *s);
void am_hash_update(am_hash_state *s, const void *data, size_t bytes);
void am_hash_end(am_hash_state *s, uint8_t digest[AM_HASH_BYTES]);

#endif
