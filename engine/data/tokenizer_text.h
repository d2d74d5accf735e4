/* tokenizer_text.h — a text on its way to the model: bytes cut into pieces, each byte knowing where
 * in the original text it came from; and the steps (normalizers and pre-tokenizers) that change it.
 */
#ifndef AM_TOKENIZER_TEXT_H
#define AM_TOKENIZER_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer_model.h"
#include "tokenizer_regex.h"

enum { AM_TEXT_MAX = INT32_MAX / 4 }; /* bytes of one text: positions are 32 bits wide */

/* A range of the text. Values of id below. */
typedef struct am_piece {
    uint32_t start, end;
    int32_t id;
} am_piece;
enum {
    AM_PIECE_TEXT = -1, /* valid UTF-8, to be normalized, cut and encoded */
    AM_PIECE_RAW = -2   /* bytes that are not UTF-8: never changed nor cut */
                        /* 0 and more: an added token */
};

typedef struct am_text {
    const char *original;
    const char *bytes; /* the original's until a step changes something, then own */
    size_t n;
    int track;             /* keep origins: set it before am_text_begin */
    const am_span *origin; /* of each byte; NULL: each character comes from itself, or untracked */
    am_piece *pieces;
    size_t piece_count;
    /* what is being built while a step runs, and storage */
    struct am_text_store {
        char *bytes;
        size_t n, byte_capacity;
        am_span *origin;
        size_t origin_capacity;
    } store[2];
    int current; /* store that holds `bytes` */
    am_piece *next;
    size_t next_count, next_capacity, piece_capacity;
    am_regex_scratch scratch;
} am_text;

/* Begin with a whole text: one piece for each run of valid and of invalid UTF-8. Borrows it. */
int am_text_begin(am_text *t, const char *bytes, size_t n);
void am_text_free(am_text *t);
/* Where the bytes [start, end) came from; whole characters. */
am_span am_text_origin(const am_text *t, size_t start, size_t end);

/* Give a new list of pieces while the bytes stay: begin, push each in order, end. */
void am_text_cut_begin(am_text *t);
int am_text_cut_push(am_text *t, size_t start, size_t end, int32_t id);
void am_text_cut_end(am_text *t);

/* ---- steps ------------------------------------------------------------------------------ */

enum {
    AM_STEP_NFC,
    AM_STEP_NFD,
    AM_STEP_NFKC,
    AM_STEP_NFKD,
    AM_STEP_LOWERCASE,
    AM_STEP_STRIP_ACCENTS, /* leave out marks */
    AM_STEP_BERT_ACCENTS,  /* leave out nonspacing marks */
    AM_STEP_CLEAN,         /* BERT's: leave out control characters, white space to spaces */
    AM_STEP_CHINESE,       /* BERT's: spaces around CJK ideographs */
    AM_STEP_NMT,           /* SentencePiece's: the same as clean, by a list of its own */
    AM_STEP_CHARSMAP,      /* SentencePiece's compiled replacements */
    AM_STEP_REPLACE,       /* pattern by content */
    AM_STEP_PREPEND,       /* content before each piece */
    AM_STEP_STRIP,         /* white space at the ends */
    AM_STEP_BYTES,         /* bytes in the byte alphabet's spelling */
    AM_STEP_PREFIX,        /* content before pieces that do not begin with it */
    AM_STEP_METASPACE,     /* spaces to content, and the same; `first`: only at byte 0 */
    AM_STEP_SPLIT,         /* by pattern */
    AM_STEP_SCRIPTS        /* where the script changes */
};

enum {
    AM_SPLIT_REMOVED,
    AM_SPLIT_ISOLATED,
    AM_SPLIT_MERGED_WITH_PREVIOUS,
    AM_SPLIT_MERGED_WITH_NEXT,
    AM_SPLIT_CONTIGUOUS
};

/* What a character class stands for in a pattern. */
enum { AM_CLASS_NONE, AM_CLASS_NUMERIC, AM_CLASS_SPACE, AM_CLASS_PUNCTUATION };

typedef struct am_charsmap am_charsmap;
/* From its base64; AM_EFORMAT when it is damaged. */
int am_charsmap_new(am_charsmap **out, const char *base64, size_t bytes);
void am_charsmap_free(am_charsmap *m);
/* What the shortest mapped beginning of the text becomes, or NULL. */
const char *am_charsmap_find(const am_charsmap *m, const char *text, size_t n, size_t *bytes);

/* One of: a regular expression, a literal, a class of single characters. */
typedef struct am_pattern {
    am_regex *regex;
    char *literal;
    size_t bytes;
    int class;
} am_pattern;

typedef struct am_step {
    int kind;
    am_pattern pattern;
    char *content;
    size_t content_bytes;
    int behavior, invert; /* AM_STEP_SPLIT */
    int left, right;      /* AM_STEP_STRIP */
    int prefix, first;    /* AM_STEP_METASPACE */
    am_charsmap *charsmap;
    uint8_t *ascii; /* of steps by character: what an ASCII one becomes, or AM_ASCII_* */
} am_step;
enum { AM_ASCII_DROPPED = 0x80, AM_ASCII_OTHER }; /* the latter: see am_step_char */

/* Fill `ascii` of a step that is set up. */
int am_step_prepare(am_step *step);
/* Run a step over all pieces of kind AM_PIECE_TEXT; pieces that become empty go. */
int am_step_run(const am_step *step, am_text *t);
void am_step_free(am_step *step);

/* Matches of a pattern in turn, as Hugging Face tokenizers finds them: begin with {0}, *found = 0
 * ends. Matches may be empty (regular expressions only), never twice at one place. */
typedef struct am_matcher {
    size_t from, last_end;
    int any;
} am_matcher;
int am_pattern_next(const am_pattern *p, am_regex_scratch *scratch, am_matcher *m, const char *text,
                    size_t n, size_t *start, size_t *end, int *found);

int am_is_space(uint32_t c);       /* White_Space */
int am_is_punctuation(uint32_t c); /* P*, and all of ASCII's symbols */

#endif
