/* tokenizer_normalize.h — the steps that rewrite a text's bytes, and what they write with. */
#ifndef AM_TOKENIZER_NORMALIZE_H
#define AM_TOKENIZER_NORMALIZE_H

#include "tokenizer_text.h"

/* Every step but those that cut. A text that no piece of changes is left as it is, without a copy.
 */
int am_normalize(const am_step *step, am_text *t);

/* ---- writing the next text -------------------------------------------------------------- */

typedef struct am_text_store am_store;

/* Append bytes that all come from one place. */
int am_store_put(am_store *out, const am_text *t, const char *bytes, size_t n, am_span from);
int am_store_char(am_store *out, const am_text *t, uint32_t c, am_span from);
/* Append bytes [start, end) of the text as they are, each character with its own origin. */
int am_store_copy(am_store *out, const am_text *t, size_t start, size_t end);
int am_store_reserve(am_store *out, const am_text *t, size_t more);

/* ---- steps by character, in tokenizer_unicode.c ------------------------------------------
 * Append to `out` what becomes of a piece, or with out NULL only tell whether it changes. */

typedef struct am_code_points {
    int32_t *c;
    size_t n, capacity;
} am_code_points;

/* Room for normal forms. */
typedef struct am_normalizer {
    am_code_points now, scratch;
} am_normalizer;

/* AM_STEP_NFC to AM_STEP_NFKD. */
int am_normal_form(const am_step *step, am_normalizer *z, const am_text *t, const am_piece *piece,
                   am_store *out, int *changed);
/* AM_STEP_LOWERCASE to AM_STEP_NMT: each character alone. */
int am_map_chars(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                 int *changed);
/* AM_STEP_CHARSMAP. */
int am_map_graphemes(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                     int *changed);

#endif
