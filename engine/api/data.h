/* data.h — the part of am.h that makes ids of text: rows that are tokenised, tokenizers, patterns.
 * Include am.h. */
#ifndef AM_H
#error "include am.h, which this is a part of"
#endif

/* ---- token rows -------------------------------------------------------------------------
 * Rows of a data set once they are tokenised: a file that is written in one go and then mapped, so
 * that memory does not grow with the number of rows. */

typedef struct am_token_row {
    const int32_t *input_ids, *labels;            /* [n] */
    const int32_t *attention_mask, *position_ids; /* [n], or NULL */
    int64_t n;                                    /* 0 to 2^31 - 1 */
    int64_t label_tokens;                         /* labels that are learnt */
    int64_t file, number; /* where it came from, for messages: a file's number, a row's in it */
} am_token_row;

/* Begin a file. `key`, 32 bytes, stands for all that the rows depend on. It replaces `path` when it
 * is finished; `unnamed`: it never gets a name, and is gone with the rows (path names the folder:
 * "folder/rows"). */
typedef struct am_token_rows_writer am_token_rows_writer;
int am_token_rows_create(am_token_rows_writer **out, const char *path, const uint8_t *key,
                         int unnamed);
int am_token_rows_add(am_token_rows_writer *w, const am_token_row *row);
/* Write the rest with a text of the caller's, sync, put in place, and map. The writer is left
 * empty. After an error nothing is left, and `path` is as it was. */
typedef struct am_token_rows am_token_rows;
int am_token_rows_finish(am_token_rows **out, am_token_rows_writer *w, const char *metadata,
                         size_t bytes);
void am_token_rows_discard(am_token_rows_writer *w); /* also once finished */

/* Open a file. AM_EFORMAT when it is not whole, not of this version or not of this key: every byte
 * is compared with the checksum. */
int am_token_rows_open(am_token_rows **out, const char *path, const uint8_t *key);
void am_token_rows_release(am_token_rows *r);
int64_t am_token_rows_count(const am_token_rows *r);
const char *am_token_rows_metadata(const am_token_rows *r, size_t *bytes);
/* Row i from 0. Its arrays are the mapping's. */
int am_token_rows_get(am_token_row *row, am_token_rows *r, int64_t i);

/* ---- tokenizer --------------------------------------------------------------------------
 * Exact with Hugging Face `tokenizers` for what a file uses, or AM_EUNSUP naming the part. */

typedef struct am_tokenizer am_tokenizer;
/* JSON text of a tokenizer.json. */
int am_tokenizer_from_json(am_tokenizer **out, const char *text, size_t bytes);
/* The vocabulary in a GGUF file's metadata: models gpt2, llama, gemma4, t5 and bert. */
int am_tokenizer_from_gguf(am_tokenizer **out, am_archive *gguf);
/* The bytes of a SentencePiece model, of type BPE or Unigram. */
int am_tokenizer_from_sentencepiece(am_tokenizer **out, const void *bytes, size_t n);
/* The text of a tiktoken file (a line for each token: base64, space, rank). It does not say how a
 * text is cut: `cut` names the encoding (cl100k_base, o200k_base, qwen, llama3, …). */
int am_tokenizer_from_tiktoken(am_tokenizer **out, const char *text, size_t bytes, const char *cut);
/* The text of mistral's tekken.json. */
int am_tokenizer_from_tekken(am_tokenizer **out, const char *text, size_t bytes);
void am_tokenizer_release(am_tokenizer *t);
/* Ids of `text`, which should be UTF-8: in byte-level tokenizers other bytes pass through
 * unchanged, in others they are AM_EINVAL. SPECIAL: with what the file's post-processor puts around
 * a text. OFFSETS: so that am_tokenizer_offsets can be asked, which takes longer. Truncation and
 * padding of the file are not applied. *ids belongs to the tokenizer and is overwritten by the next
 * encode. */
enum { AM_ENCODE_SPECIAL = 1, AM_ENCODE_OFFSETS = 2 };
int am_tokenizer_encode(am_tokenizer *t, const char *text, size_t bytes, int flags,
                        const int32_t **ids, int64_t *n);
/* Byte range in `text` that each id of the last encode (with OFFSETS; its text must still be there)
 * came from: [2 n], start and end, whole characters, without white space where the file's
 * trim_offsets says so; 0, 0 for ids that the post-processor put. */
int am_tokenizer_offsets(am_tokenizer *t, const int64_t **offsets, int64_t *n);
/* Many texts, on am_threads() threads; the same ids as one by one. Those of text i are
 * (*ids)[(*rows)[i]] to (*ids)[(*rows)[i + 1] - 1]; both arrays belong to the tokenizer until the
 * next call with it. flags: AM_ENCODE_SPECIAL. An error names the first text (from 1) that has one.
 */
int am_tokenizer_encode_batch(am_tokenizer *t, const char *const *texts, const size_t *bytes,
                              int64_t n, int flags, const int32_t **ids, const int64_t **rows);
/* What the file says about truncation and padding; encoding does not apply it. */
typedef struct am_tokenizer_limits {
    int64_t max_length; /* ids of a text, those around it included; -1: no truncation */
    int truncate_left;
    int padding;        /* 0: none */
    int64_t pad_length; /* -1: to the longest of the batch */
    int64_t pad_to_multiple_of, pad_id;
    int pad_left;
} am_tokenizer_limits;
int am_tokenizer_limits_get(const am_tokenizer *t, am_tokenizer_limits *out);
/* Text of ids; owned by the tokenizer until the next decode. Unknown ids are AM_EINVAL. As in
 * Hugging Face tokenizers, bytes that are not UTF-8 become U+FFFD; with RAW a byte-level tokenizer
 * gives the bytes themselves. */
enum { AM_DECODE_SKIP_SPECIAL = 1, AM_DECODE_RAW = 2 };
int am_tokenizer_decode(am_tokenizer *t, const int32_t *ids, int64_t n, int flags,
                        const char **text, size_t *bytes);
int64_t am_tokenizer_size(const am_tokenizer *t); /* highest id + 1, added tokens included */
int64_t am_tokenizer_id(const am_tokenizer *t, const char *token); /* -1: absent */
const char *am_tokenizer_token(const am_tokenizer *t, int64_t id); /* NULL: absent */
int am_tokenizer_is_special(const am_tokenizer *t, int64_t id);
/* The equivalent tokenizer.json (what was loaded, or built from GGUF); owned by the tokenizer. */
int am_tokenizer_to_json(am_tokenizer *t, const char **text, size_t *bytes);

/* ---- patterns ---------------------------------------------------------------------------
 * Regular expressions of a configuration, searched as Python's re.search does, in PCRE2's syntax.
 * AM_EFORMAT: no regular expression, no UTF-8, or a search that took more steps than allowed. */

typedef struct am_pattern am_pattern;
int am_pattern_new(am_pattern **out, const char *text, size_t bytes);
void am_pattern_release(am_pattern *p);
int am_pattern_search(am_pattern *p, const char *text, size_t bytes, int *found);
