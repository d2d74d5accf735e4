/* hash.c — BLAKE2b (RFC 7693), for keys of caches and checksums of files. */
#include "hash.h"

#include <string.h>

#include "../core/error.h"
#include "file.h"

enum { BLOCK = 128, ROUNDS = 12 };

static const uint64_t initial[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                    0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                                    0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

static const uint8_t sigma[10][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                      {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                      {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                      {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                      {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                      {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                      {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                      {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                      {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                      {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline uint64_t rotate(uint64_t x, int n)
{
    return x >> n | x << (64 - n);
}

static inline void mix(uint64_t v[16], int a, int b, int c, int d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 63);
}

static void compress(am_hash_state *s, const uint8_t *block, size_t bytes, int last)
{
    uint64_t v[16], m[16];
    s->bytes += bytes;
    memcpy(m, block, BLOCK);
    memcpy(v, s->h, sizeof s->h);
    memcpy(v + 8, initial, sizeof initial);
    v[12] ^= s->bytes;
    v[14] ^= last ? UINT64_MAX : 0;
#pragma GCC unroll 12
    for (int r = 0; r < ROUNDS; r++) { /* unrolled, sigma is constants: twice as fast */
        const uint8_t *p = sigma[r % 10];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + i, 8 + i, 12 + i, m[p[2 * i]], m[p[2 * i + 1]]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[p[8 + 2 * i]],
                m[p[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++)
        s->h[i] ^= v[i] ^ v[8 + i];
}

void am_hash_begin(am_hash_state *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->h, initial, sizeof initial);
    s->h[0] ^= 0x01010000 ^ AM_HASH_BYTES;
}

/* The last block is compressed at the end, so a full one waits until more comes. */
void am_hash_update(am_hash_state *s, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        if (s->fill == BLOCK) {
            compress(s, s->block, BLOCK, 0);
            s->fill = 0;
        }
        for (; s->fill == 0 && bytes > BLOCK; at += BLOCK, bytes -= BLOCK)
            compress(s, at, BLOCK, 0);
        size_t part = bytes < BLOCK - s->fill ? bytes : BLOCK - s->fill;
        memcpy(s->block + s->fill, at, part);
        s->fill += part;
        at += part;
        bytes -= part;
    }
}

void am_hash_end(am_hash_state *s, uint8_t digest[AM_HASH_BYTES])
{
    memset(s->block + s->fill, 0, BLOCK - s->fill);
    compress(s, s->block, s->fill, 1);
    memcpy(digest, s->h, AM_HASH_BYTES);
}

void am_hash(uint8_t *digest, const void *data, size_t bytes)
{
    am_hash_state s;
    am_hash_begin(&s);
    am_hash_update(&s, data, bytes);
    am_hash_end(&s, digest);
}

static int update(void *state, const void *data, size_t bytes)
{
    am_hash_update(state, data, bytes);
    return AM_OK;
}

int am_hash_file(uint8_t *digest, const char *path)
{
    am_hash_state s;
    am_hash_begin(&s);
    AM_TRY(am_file_scan(path, update, &s));
    am_hash_end(&s, digest);
    return AM_OK;
}
