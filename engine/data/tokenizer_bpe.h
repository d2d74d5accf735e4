/* tokenizer_bpe.h — vocabularies (string <-> id) and byte pair encoding of one word. Knows nothing
 * of texts, normalizers or added tokens. */
#ifndef AM_TOKENIZER_BPE_H
#define AM_TOKENIZER_BPE_H

#include <stddef.h>
#include <stdint.h>

/* ---- the byte alphabet ------------------------------------------------------------------
 * Byte-level vocabularies spell each byte as one printable character: 0x21-0x7e, 0xa1-0xac and
 * 0xae-0xff as the code point of the same number, the 68 others from U+0100 on, in order. */

uint32_t am_byte_spelling(uint8_t byte);
int am_byte_spelled(uint32_t code_point); /* -1: not in the alphabet */

/* ---- vocabulary ------------------------------------------------------------------------- */

enum { AM_VOCAB_MAX_ID = (1 << 22) - 1 }; /* so that a small file cannot ask for gigabytes */

typedef struct am_vocab_token {
    const char *text; /* NUL-terminated; NULL: no such id */
    uint32_t bytes;
    uint32_t chars;
} am_vocab_token;

/* Both directions. Zeroed is empty. */
typedef struct am_vocab {
    am_vocab_token *tokens; /* by id */
    size_t size, capacity;  /* highest id + 1 */
    size_t count;
    size_t longest;  /* token, in bytes */
    uint32_t *slots; /* open addressing, id + 1 */
    size_t slot_count;
} am_vocab;

/* Copies the text. AM_EFORMAT when the id is out of range or taken by another string; the same
 * string again moves it to the new id's entry only if the id is equal, else AM_EFORMAT. */
int am_vocab_add(am_vocab *v, const char *text, size_t bytes, int64_t id);
int64_t am_vocab_find(const am_vocab *v, const char *text, size_t bytes); /* -1: absent */
void am_vocab_free(am_vocab *v);

/* ---- the model -------------------------------------------------------------------------- */

/* A token of a word: its id and the bytes of the word it stands for. */
typedef struct am_bpe_token {
    int32_t id;
    uint32_t start, end;
} am_bpe_token;

typedef struct am_bpe_options {
    int spelled;       /* words are raw bytes, to be looked up in the byte alphabet's spelling */
    int ignore_merges; /* a word that is a token is that token */
    int64_t unk;       /* id for unknown characters, or -1: they are left out */
    int fuse_unk;
    int byte_fallback; /* unknown characters become the tokens <0x00> to <0xFF> */
} am_bpe_options;

typedef struct am_bpe am_bpe;
int am_bpe_new(am_bpe **out, am_vocab *vocab, const am_bpe_options *options); /* takes vocab over */
void am_bpe_free(am_bpe *b);
const am_vocab *am_bpe_vocab(const am_bpe *b);
/* Add the next merge; of equal pairs the last counts. AM_EFORMAT when a part or the whole is not in
 * the vocabulary. */
int am_bpe_merge(am_bpe *b, const char *left, size_t left_bytes, const char *right,
                 size_t right_bytes);
/* Tokens of a word, borrowed until the next call. Not `spelled`: the word is valid UTF-8. */
int am_bpe_encode(am_bpe *b, const char *word, size_t bytes, const am_bpe_token **tokens,
                  size_t *n);

#endif
