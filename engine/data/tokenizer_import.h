/* tokenizer_import.h — vocabularies of other formats (GGUF, SentencePiece, tiktoken, tekken) on
 * their way to the tokenizer.json that says the same. A reader fills an am_import;
 * tokenizer_import.c writes it. */
#ifndef AM_TOKENIZER_IMPORT_H
#define AM_TOKENIZER_IMPORT_H

#include "tokenizer.h"

/* Kinds of tokens, numbered as in SentencePiece and GGUF. */
enum {
    AM_TOKEN_NORMAL = 1,
    AM_TOKEN_UNKNOWN,
    AM_TOKEN_CONTROL,
    AM_TOKEN_USER_DEFINED,
    AM_TOKEN_UNUSED,
    AM_TOKEN_BYTE
};

typedef struct am_import_token {
    const char *text; /* borrowed; UTF-8, or as `raw_bytes` says */
    size_t bytes;
    double score; /* of the model Unigram, and where merges are to be found */
    int kind;
} am_import_token;

/* How a text is cut before byte-level BPE: patterns in turn, each isolating its matches. */
typedef struct am_cut {
    const char *names;       /* tokenizer.ggml.pre, and names of tiktoken files, spaced */
    const char *patterns[5]; /* up to the first NULL; none: GPT-2's */
    int digits;              /* each digit alone, before (1) or behind (2) the patterns */
    int falcon;              /* Falcon's own chain instead */
    int ignore_merges, nfc;
    int bos; /* the text begins with the bos token even if nothing says so */
} am_cut;
/* NULL: not known. */
const am_cut *am_cut_find(const char *name, size_t bytes);
/* The names of all, for messages. */
const char *am_cut_names(void);

typedef struct am_import {
    int model; /* AM_MODEL_* */
    am_import_token *tokens;
    size_t count;
    int64_t unk; /* id, or -1 */

    /* BPE by bytes */
    const am_cut *cut; /* NULL: BPE by characters, spaces as U+2581 */
    int raw_bytes;     /* tokens are bytes, not spelled in the byte alphabet */
    int ignore_merges;

    /* merges: those of a list, or (neither) found from the scores */
    const char *(*merge)(const void *list, int64_t i, size_t *bytes);
    const void *merge_list;
    int64_t merge_count;

    /* by characters */
    const char *charsmap; /* bytes, or NULL */
    size_t charsmap_bytes;
    int remove_extra_whitespaces, add_prefix, byte_fallback;

    /* WordPiece */
    int lowercase;

    int64_t before, after; /* ids around a text, -1: none */
} am_import;

/* The tokenizer.json text. */
int am_import_json(am_buffer *out, const am_import *im);

/* ---- merges from scores ----------------------------------------------------------------- */

typedef struct am_found_merge {
    uint32_t token;      /* what it makes */
    uint32_t left_bytes; /* where it is cut */
    int32_t left, right;
    uint32_t left_chars;
} am_found_merge;

/* All ways to put a normal token together from two others, those of higher scores first. With
 * `longest` of one token's ways those with the longer first part come first (SentencePiece's
 * converter), else those with the lower ids (tiktoken's). *out is am_alloc's. */
int am_find_merges(am_found_merge **out, size_t *count, const am_import *im, int longest);

#endif
