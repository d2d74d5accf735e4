/* tokenizer.h — the tokenizer's parts, for the files tokenizer_*.c. The public side is in am.h. */
#ifndef AM_TOKENIZER_H
#define AM_TOKENIZER_H

#include "../am.h"
#include "../io/json.h"
#include "tokenizer_bpe.h"
#include "tokenizer_text.h"

/* ---- added tokens ----------------------------------------------------------------------- */

typedef struct am_added {
    char *content;
    size_t bytes;
    char *shown; /* of normalized tokens: the normalized content, which stands for the id */
    size_t shown_bytes;
    int32_t id;
    int single_word, lstrip, rstrip, normalized, special;
} am_added;

/* What is looked for in a text: contents (normalized ones after the normalizer) in byte order. */
typedef struct am_added_pattern {
    char *text;
    size_t bytes;
    size_t token; /* index of the added token */
} am_added_pattern;

typedef struct am_added_set {
    am_added_pattern *patterns;
    size_t count, capacity;
    struct {
        uint32_t begin, end; /* patterns that begin with this byte */
    } by_byte[256];
} am_added_set;

/* Sort the patterns; of equal ones the first stays. */
int am_added_set_finish(am_added_set *set);
void am_added_set_free(am_added_set *set);

/* ---- decoders --------------------------------------------------------------------------- */

enum {
    AM_DECODER_BYTES,         /* the byte alphabet back to bytes, everything in one */
    AM_DECODER_REPLACE,       /* pattern by content, in each token */
    AM_DECODER_FUSE,          /* everything in one */
    AM_DECODER_BYTE_FALLBACK, /* runs of <0xNN> to text */
    AM_DECODER_STRIP,    /* up to `left` and `right` times content from the ends of each token */
    AM_DECODER_METASPACE /* content to a space; `first`: dropped from the first token */
};

/* ---- the whole -------------------------------------------------------------------------- */

struct am_tokenizer {
    char *json; /* as loaded */
    size_t json_bytes;

    am_bpe *bpe;
    am_vocab extra; /* added tokens that are not in the model's vocabulary */
    am_added *added;
    size_t added_count, added_capacity;
    int32_t *added_by_id; /* index + 1 into added */
    int64_t size;         /* highest id + 1 */
    am_added_set raw_set, normalized_set;
    am_regex *word; /* \w, when a token is single_word */

    am_step *steps; /* normalizers, then pre-tokenizers */
    size_t step_count, step_capacity, normalizer_count;
    int byte_level; /* bytes that are not UTF-8 can be encoded */

    int32_t *prefix, *suffix; /* ids the post-processor puts around */
    size_t prefix_count, prefix_capacity, suffix_count, suffix_capacity;
    int has_template, trim_offsets, trim_prefix_space;

    am_step *decoders; /* kind is AM_DECODER_* */
    size_t decoder_count, decoder_capacity;
    int has_decoder; /* else tokens are joined by spaces */

    /* of the last encode and decode */
    am_text text;
    int32_t *ids;
    int64_t *offsets;
    size_t count, ids_capacity, offsets_capacity;
    am_buffer decoded[2];
    size_t *ends[2]; /* of each token in decoded */
    size_t ends_capacity[2];
};

/* Fill an empty tokenizer from a parsed tokenizer.json. */
int am_tokenizer_load(am_tokenizer *t, const am_json *root);
/* The string of an id and its bytes (which may be 0 bytes too), or NULL. */
const char *am_tokenizer_token_text(const am_tokenizer *t, int64_t id, size_t *bytes);
/* tokenizer.json text equal to what a GGUF file says. */
int am_tokenizer_gguf_json(am_buffer *out, const am_archive *gguf);
/* Cut added tokens of a set out of all text pieces. */
int am_tokenizer_cut_added(am_tokenizer *t, const am_added_set *set);

#endif
