/* tokenizer.c — the public functions: load, encode, offsets, look-ups. Encoding goes through added
 * tokens, normalizers, normalized added tokens, pre-tokenizers, model and post-processor, in this
 * order; the parts are in tokenizer_*.c. */
#include "tokenizer.h"

#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"

/* ---- life ------------------------------------------------------------------------------- */

/* Takes over `json`. */
static int load(am_tokenizer **out, char *json, size_t bytes)
{
    am_json_doc *doc = NULL;
    void *p = NULL;
    int rc;
    AM_TRY_OUT(am_alloc(&p, sizeof(am_tokenizer)));
    ((am_tokenizer *)p)->json = json;
    ((am_tokenizer *)p)->json_bytes = bytes;
    json = NULL;
    AM_TRY_OUT(am_json_parse(&doc, ((am_tokenizer *)p)->json, bytes, 0));
    AM_TRY_OUT(am_tokenizer_load(p, am_json_root(doc)));
    *out = p;
    p = NULL;
out:
    am_json_free(doc);
    am_tokenizer_release(p);
    am_free(json);
    return rc;
}

int am_tokenizer_from_json(am_tokenizer **out, const char *text, size_t bytes)
{
    void *json;
    AM_TRY(am_alloc(&json, bytes + 1));
    memcpy(json, text, bytes);
    int rc = load(out, json, bytes);
    return rc ? am_fail_context(rc, "tokenizer.json") : AM_OK;
}

int am_tokenizer_from_gguf(am_tokenizer **out, am_archive *gguf)
{
    am_buffer json = {0};
    int rc = am_tokenizer_gguf_json(&json, gguf);
    if (rc)
        am_buffer_free(&json);
    else
        rc = load(out, json.data, json.bytes);
    return rc ? am_fail_context(rc, "tokenizer of the GGUF file") : AM_OK;
}

void am_tokenizer_release(am_tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->added_count; i++) {
        am_free(t->added[i].content);
        am_free(t->added[i].shown);
    }
    for (size_t i = 0; i < t->step_count; i++)
        am_step_free(&t->steps[i]);
    for (size_t i = 0; i < t->decoder_count; i++)
        am_step_free(&t->decoders[i]);
    for (int i = 0; i < 2; i++) {
        am_buffer_free(&t->decoded[i]);
        am_free(t->ends[i]);
    }
    am_added_set_free(&t->raw_set);
    am_added_set_free(&t->normalized_set);
    am_regex_free(t->word);
    am_bpe_free(t->bpe);
    am_vocab_free(&t->extra);
    am_text_free(&t->text);
    am_free(t->json);
    am_free(t->added);
    am_free(t->added_by_id);
    am_free(t->steps);
    am_free(t->prefix);
    am_free(t->suffix);
    am_free(t->decoders);
    am_free(t->ids);
    am_free(t->offsets);
    am_free(t);
}

/* ---- encoding --------------------------------------------------------------------------- */

static int push(am_tokenizer *t, int32_t id, am_span from)
{
    void *p = t->ids;
    int rc = am_grow(&p, &t->ids_capacity, t->count + 1, sizeof *t->ids);
    t->ids = p;
    AM_TRY(rc);
    p = t->offsets;
    rc = am_grow(&p, &t->offsets_capacity, 2 * (t->count + 1), sizeof *t->offsets);
    t->offsets = p;
    AM_TRY(rc);
    t->offsets[2 * t->count] = from.start;
    t->offsets[2 * t->count + 1] = from.end;
    t->ids[t->count++] = id;
    return AM_OK;
}

static int trimmed(uint32_t c)
{
    return c == 0x120 || am_is_space(c); /* U+0120 spells the space */
}

/* What trim_offsets does: leave white space at a token's ends out of its range, one character of
 * the text for each of the token, except the space that add_prefix_space may have put before. */
static am_span trim(const am_tokenizer *t, const char *token, size_t n, am_span s, int first)
{
    const char *text = t->text.original;
    size_t length, leading = 0, trailing = 0;
    for (size_t i = 0; i < n && trimmed(am_utf8_get(token + i, n - i, &length)); i += length)
        leading++;
    for (size_t end = n, i = n; end > 0; end = i) {
        do
            i--;
        while (i && ((unsigned char)token[i] & 0xc0) == 0x80);
        if (!trimmed(am_utf8_get(token + i, end - i, &length)))
            break;
        trailing++;
    }
    if ((first || s.start == 0) && t->trim_prefix_space && leading == 1)
        leading = 0;
    for (; leading && s.start < s.end; leading--) {
        am_utf8_get(text + s.start, s.end - s.start, &length);
        s.start += (uint32_t)length;
    }
    for (; trailing && s.end > s.start; trailing--)
        do
            s.end--;
        while (s.end > s.start && ((unsigned char)text[s.end] & 0xc0) == 0x80);
    return s;
}

static int encode_piece(am_tokenizer *t, const am_piece *piece, int *first)
{
    const char *text = t->text.bytes + piece->start;
    const am_bpe_token *tokens;
    const am_bpe_token whole = {piece->id, 0, piece->end - piece->start};
    size_t n = 1;
    if (piece->id >= 0)
        tokens = &whole;
    else
        AM_TRY(am_bpe_encode(t->bpe, text, piece->end - piece->start, &tokens, &n));
    const am_vocab *vocab = am_bpe_vocab(t->bpe);
    for (size_t i = 0; i < n; i++) {
        am_span s =
            am_text_origin(&t->text, piece->start + tokens[i].start, piece->start + tokens[i].end);
        if (t->trim_offsets && piece->id >= 0)
            s = trim(t, text, piece->end - piece->start, s, *first);
        else if (t->trim_offsets)
            s = trim(t, vocab->tokens[tokens[i].id].text, vocab->tokens[tokens[i].id].bytes, s,
                     *first);
        *first = 0;
        AM_TRY(push(t, tokens[i].id, s));
    }
    return AM_OK;
}

static int refuse_raw(const am_tokenizer *t)
{
    for (size_t i = 0; !t->byte_level && i < t->text.piece_count; i++)
        if (t->text.pieces[i].id == AM_PIECE_RAW)
            return am_fail(AM_EINVAL,
                           "the text is not UTF-8 (byte %u), and this tokenizer has no tokens for "
                           "single bytes",
                           t->text.pieces[i].start);
    return AM_OK;
}

int am_tokenizer_encode(am_tokenizer *t, const char *text, size_t bytes, int add_special_tokens,
                        const int32_t **ids, int64_t *n)
{
    const am_span nowhere = {0, 0};
    t->count = 0;
    AM_TRY(am_text_begin(&t->text, text, bytes));
    AM_TRY(refuse_raw(t));
    AM_TRY(am_tokenizer_cut_added(t, &t->raw_set));
    for (size_t i = 0; i < t->normalizer_count; i++)
        AM_TRY(am_step_run(&t->steps[i], &t->text));
    AM_TRY(am_tokenizer_cut_added(t, &t->normalized_set));
    for (size_t i = t->normalizer_count; i < t->step_count; i++)
        AM_TRY(am_step_run(&t->steps[i], &t->text));
    for (size_t i = 0; add_special_tokens && i < t->prefix_count; i++)
        AM_TRY(push(t, t->prefix[i], nowhere));
    int first = 1;
    for (size_t i = 0; i < t->text.piece_count; i++)
        AM_TRY(encode_piece(t, &t->text.pieces[i], &first));
    for (size_t i = 0; add_special_tokens && i < t->suffix_count; i++)
        AM_TRY(push(t, t->suffix[i], nowhere));
    *ids = t->ids;
    *n = (int64_t)t->count;
    return AM_OK;
}

int am_tokenizer_offsets(am_tokenizer *t, const int64_t **offsets, int64_t *n)
{
    *offsets = t->offsets;
    *n = (int64_t)t->count;
    return AM_OK;
}

/* ---- look-ups --------------------------------------------------------------------------- */

int64_t am_tokenizer_size(const am_tokenizer *t)
{
    return t->size;
}

int64_t am_tokenizer_id(const am_tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    int64_t id = am_vocab_find(&t->extra, token, n);
    return id >= 0 ? id : am_vocab_find(am_bpe_vocab(t->bpe), token, n);
}

const char *am_tokenizer_token_text(const am_tokenizer *t, int64_t id, size_t *bytes)
{
    const am_vocab *vocab = am_bpe_vocab(t->bpe);
    if (id < 0 || id >= t->size)
        return NULL;
    const am_added *added = t->added_by_id[id] ? &t->added[t->added_by_id[id] - 1] : NULL;
    if (added && added->shown) {
        *bytes = added->shown_bytes;
        return added->shown;
    }
    const am_vocab *v = (size_t)id < vocab->size && vocab->tokens[id].text ? vocab : &t->extra;
    if ((size_t)id >= v->size)
        return NULL;
    *bytes = v->tokens[id].bytes;
    return v->tokens[id].text;
}

const char *am_tokenizer_token(const am_tokenizer *t, int64_t id)
{
    size_t bytes;
    return am_tokenizer_token_text(t, id, &bytes);
}

int am_tokenizer_is_special(const am_tokenizer *t, int64_t id)
{
    return id >= 0 && id < t->size && t->added_by_id[id] &&
           t->added[t->added_by_id[id] - 1].special;
}

int am_tokenizer_to_json(am_tokenizer *t, const char **text, size_t *bytes)
{
    *text = t->json;
    *bytes = t->json_bytes;
    return AM_OK;
}
