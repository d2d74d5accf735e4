/* tokenizer_model.h — models: what turns one word into tokens. BPE is in tokenizer_bpe.c, Unigram
 * and WordPiece in tokenizer_lattice.c; tokenizer_model.c has what they share. Knows nothing of
 * texts, normalizers or added tokens. */
#ifndef AM_TOKENIZER_MODEL_H
#define AM_TOKENIZER_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer_vocab.h"

/* A range of bytes. */
typedef struct am_span {
    uint32_t start, end;
} am_span;

/* A growing list of tokens: ids, and the bytes of the text that each stands for. */
typedef struct am_tokens {
    int32_t *ids;
    am_span *spans;
    size_t count, capacity;
} am_tokens;

int am_tokens_reserve(am_tokens *t, size_t more);
static inline int am_tokens_push(am_tokens *t, int32_t id, size_t start, size_t end)
{
    if (t->count == t->capacity) {
        int rc = am_tokens_reserve(t, 1);
        if (rc)
            return rc;
    }
    t->ids[t->count] = id;
    t->spans[t->count++] = (am_span){(uint32_t)start, (uint32_t)end};
    return 0;
}
void am_tokens_free(am_tokens *t);

/* ---- working memory ---------------------------------------------------------------------
 * What encoding a word needs beside the model, for one thread: words seen before, and room. */

enum { AM_CACHE_SLOTS = 1 << 15, AM_CACHE_WORD = 23, AM_CACHE_IDS = 8 };

typedef struct am_cached {
    uint8_t bytes, count;           /* count 0: empty */
    uint8_t ends[AM_CACHE_IDS - 1]; /* of each token but the last */
    char word[AM_CACHE_WORD];
    int32_t ids[AM_CACHE_IDS];
} am_cached;

/* A word's symbol. `rank` and `merged` belong to the pair of this symbol and the next. */
typedef struct am_symbol {
    int32_t id;
    uint32_t start, end;
    uint32_t rank;
    int32_t merged;
    int32_t prev, next; /* long words only */
} am_symbol;

typedef struct am_candidate {
    uint32_t rank;
    int32_t at;
    int32_t left, right, id; /* the pair when it was queued, and what it becomes */
} am_candidate;

/* Where the best way to a byte of the word comes from. */
typedef struct am_way {
    double score;
    int32_t id; /* -1: no way known */
    uint32_t start;
} am_way;

typedef struct am_work {
    am_cached *cache;
    void *cache_memory; /* what `cache` lies in, aligned */
    am_symbol *symbols;
    size_t symbol_count, symbol_capacity;
    am_candidate *heap;
    size_t heap_count, heap_capacity;
    char *spelling;
    size_t spelling_capacity;
    am_way *ways;
    size_t way_capacity;
} am_work;

void am_work_free(am_work *w);

/* ---- models ----------------------------------------------------------------------------- */

enum { AM_MODEL_BPE, AM_MODEL_UNIGRAM, AM_MODEL_WORDPIECE };

enum { AM_CHAR_PAGE = 256, AM_CHAR_PAGES = 0x110000 / AM_CHAR_PAGE };

typedef struct am_merge {
    int32_t left, right; /* left -1: an empty slot */
    uint32_t rank;
    int32_t id;
} am_merge;

/* Set up once: fill the options, am_vocab_add every token, am_model_begin, am_bpe_merge every
 * merge, am_model_finish. Then only read, by any number of threads. */
typedef struct am_model {
    int kind;
    am_vocab vocab;
    int64_t unk; /* id for what has no token, or -1 */
    int fuse_unk;
    int byte_fallback;         /* what has no token becomes the tokens <0x00> to <0xFF> */
    int32_t fallback_ids[256]; /* -1: absent */

    /* BPE */
    int spelled;           /* words are raw bytes, looked up in the byte alphabet's spelling */
    int ignore_merges;     /* a word that is a token is that token */
    int32_t byte_ids[256]; /* of the byte's spelling; -1: absent */
    am_merge *merges;      /* open addressing */
    size_t merge_slots, merge_count;
    uint32_t next_rank;
    uint64_t *filter; /* a bit for each hash of a pair with a merge: most pairs have none */
    uint16_t char_pages[AM_CHAR_PAGES]; /* which page of char_ids a character's id is in */
    int32_t *char_ids;                  /* of characters; -1: absent */
    int cut;            /* words may be cut before U+2581 without another result, … */
    uint8_t joins[256]; /* … unless the byte before is one of these */

    /* Unigram */
    double *scores; /* by id */
    double unk_score;
    am_trie trie; /* of WordPiece: tokens that begin a word */

    /* WordPiece */
    char *prefix; /* of tokens inside a word */
    size_t prefix_bytes;
    am_trie tails; /* tokens inside a word, without the prefix */
    int64_t max_chars;
} am_model;

int am_model_begin(am_model *m);
/* Add the next merge; of equal pairs the last counts. AM_EFORMAT when a part or the whole is not in
 * the vocabulary. */
int am_bpe_merge(am_model *m, const char *left, size_t left_bytes, const char *right,
                 size_t right_bytes);
int am_model_finish(am_model *m);
int am_bpe_filter(am_model *m); /* of finish */
void am_model_free(am_model *m);

/* Append the tokens of the word text[start, end). Not `spelled`: it is valid UTF-8. */
int am_model_encode(const am_model *m, am_work *w, const char *text, size_t start, size_t end,
                    am_tokens *out);

/* The word is one of the next: fetch its slot of the cache. */
void am_model_expect(const am_work *w, const char *word, size_t bytes);

/* The models' own ways, without cache. */
int am_bpe_encode(const am_model *m, am_work *w, const char *word, size_t bytes, size_t base,
                  am_tokens *out);
int am_unigram_encode(const am_model *m, am_work *w, const char *word, size_t bytes, size_t base,
                      am_tokens *out);
int am_wordpiece_encode(const am_model *m, const char *word, size_t bytes, size_t base,
                        am_tokens *out);

#endif
