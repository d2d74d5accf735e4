/* fuzz_tokenizer.h — what a tokenizer that was read from hostile bytes must do: encode with offsets
 * inside the text, decode what it encoded, and load again from its own JSON to the same ids. */
#ifndef FUZZ_TOKENIZER_H
#define FUZZ_TOKENIZER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "am.h"

static int32_t *encode(am_tokenizer *t, const char *text, size_t bytes, int64_t *n)
{
    const int32_t *ids;
    const int64_t *offsets;
    int64_t m;
    if (am_tokenizer_encode(t, text, bytes, AM_ENCODE_SPECIAL | AM_ENCODE_OFFSETS, &ids, n) !=
        AM_OK)
        return NULL;
    if (am_tokenizer_offsets(t, &offsets, &m) != AM_OK || m != *n)
        abort();
    for (int64_t i = 0; i < m; i++)
        if (offsets[2 * i] < 0 || offsets[2 * i] > offsets[2 * i + 1] ||
            offsets[2 * i + 1] > (int64_t)bytes)
            abort();
    int32_t *copy = malloc((size_t)*n * sizeof *ids + 1);
    if (*n > 0) /* of nothing, ids is NULL */
        memcpy(copy, ids, (size_t)*n * sizeof *ids);
    return copy;
}

/* Releases the tokenizer. */
static void use_tokenizer(am_tokenizer *t, const char *text, size_t bytes)
{
    am_tokenizer *again;
    const char *decoded, *json;
    const int32_t *bare;
    size_t n;
    int64_t count = 0, count_again = 0, count_bare = 0;
    int32_t *ids = encode(t, text, bytes, &count);
    if (ids)
        for (int flags = 0; flags < 4; flags++)
            if (am_tokenizer_decode(t, ids, count, flags, &decoded, &n) != AM_OK && flags == 0 &&
                strstr(am_error_message(), "no token's"))
                abort();
    if (am_tokenizer_to_json(t, &json, &n) != AM_OK ||
        am_tokenizer_from_json(&again, json, n) != AM_OK)
        abort();
    int32_t *ids_again = encode(again, text, bytes, &count_again);
    if (!ids != !ids_again ||
        (ids && (count != count_again || memcmp(ids, ids_again, (size_t)count * sizeof *ids) != 0)))
        abort();
    /* Without offsets the same ids. */
    if (ids &&
        (am_tokenizer_encode(t, text, bytes, AM_ENCODE_SPECIAL, &bare, &count_bare) != AM_OK ||
         count != count_bare || (count && memcmp(ids, bare, (size_t)count * sizeof *ids) != 0)))
        abort();
    free(ids);
    free(ids_again);
    am_tokenizer_release(again);
    am_tokenizer_release(t);
}

#endif
