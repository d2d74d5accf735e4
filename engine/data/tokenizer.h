/* tokenizer.h — the tokenizer's parts, for the files tokenizer_*.c. The public side is in am.h. */
#ifndef AM_TOKENIZER_H
#define AM_TOKENIZER_H

#include "../am.h"
#include "../io/json.h"
#include "tokenizer_model.h"
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
    int first_bytes; /* how many begin a pattern, and if it is one, which */
    unsigned char only;
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
    AM_DECODER_STRIP,     /* up to `left` and `right` times content from the ends of each token */
    AM_DECODER_METASPACE, /* content to a space; `first`: dropped from the first token */
    AM_DECODER_WORDPIECE  /* content (the prefix) goes, else a space before; `left`: cleanup */
};

/* ---- the whole -------------------------------------------------------------------------- */

/* One thread's way from a text to ids. */
typedef struct am_encoder {
    am_text text;
    am_work work;
    am_tokens tokens; /* of the last text, then of the whole batch; spans in the normalized text */
    size_t prefix, suffix; /* of these, how many the post-processor put */
} am_encoder;

struct am_tokenizer {
    char *json; /* as loaded */
    size_t json_bytes;

    am_model model;
    am_vocab extra; /* added tokens that are not in the model's vocabulary */
    am_added *added;
    size_t added_count, added_capacity;
    int32_t *added_by_id; /* index + 1 into added */
    int64_t size;         /* highest id + 1 */
    am_added_set raw_set, normalized_set;
    am_regex *word; /* \w, when a token is single_word */

    am_step *steps; /* normalizers, then pre-tokenizers */
    size_t step_count, step_capacity, normalizer_count;
    int byte_level;   /* bytes that are not UTF-8 can be encoded */
    int needs_origin; /* a step asks where a piece came from */

    int32_t *prefix, *suffix; /* ids the post-processor puts around */
    size_t prefix_count, prefix_capacity, suffix_count, suffix_capacity;
    int has_template, trim_offsets, trim_prefix_space;
    am_tokenizer_limits limits;

    am_step *decoders; /* kind is AM_DECODER_* */
    size_t decoder_count, decoder_capacity;
    int has_decoder; /* else tokens are joined by spaces */

    am_encoder one;   /* of am_tokenizer_encode */
    am_encoder *team; /* of am_tokenizer_encode_batch, one a thread */
    size_t team_count;
    int64_t *offsets; /* of the last encode, or of the last batch's rows */
    size_t offsets_capacity;
    int32_t *batch_ids;
    size_t batch_capacity;

    /* of the last decode */
    am_regex_scratch scratch;
    am_buffer decoded[2];
    size_t *ends[2]; /* of each token in decoded */
    size_t ends_capacity[2];
};

/* Fill an empty tokenizer from a parsed tokenizer.json. */
int am_tokenizer_load(am_tokenizer *t, const am_json *root);
/* Its parts (normalizers, pre-tokenizers, post-processor, decoders), in tokenizer_load_steps.c. */
int am_tokenizer_load_steps(am_tokenizer *t, const am_json *root);
/* The string of an id and its bytes (which may be 0 bytes too), or NULL. */
const char *am_tokenizer_token_text(const am_tokenizer *t, int64_t id, size_t *bytes);
/* Cut added tokens of a set out of all text pieces. */
int am_tokenizer_cut_added(const am_tokenizer *t, am_text *text, const am_added_set *set);

/* Tokens of one text at the end of the encoder's, without and with what goes around. */
int am_encoder_run(am_encoder *e, const am_tokenizer *t, const char *text, size_t bytes, int flags);
void am_encoder_free(am_encoder *e);

/* Replace json, which must be am_alloc's, by a tokenizer made of it; `what` goes before errors. */
int am_tokenizer_take_json(am_tokenizer **out, am_buffer *json, const char *what);

/* ---- reading members of tokenizer.json -------------------------------------------------- */

int am_tj_null(const am_json *v); /* absent or null */
int am_tj_member(const am_json **out, const am_json *v, const char *key, int kind);
/* A boolean, or `absent` when it is missing or null. */
int am_tj_flag(int *out, const am_json *v, const char *key, int absent);
/* A whole number of at least 0. */
int am_tj_count(int64_t *out, const am_json *v, const char *key);
int am_tj_copy(char **out, size_t *bytes, const char *text, size_t n);
int am_tj_unknown(const char *part, const char *type);

#endif
