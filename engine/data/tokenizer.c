/* tokenizer.c — the public functions: load, encode, offsets, look-ups. Encoding goes through added
 * tokens, normalizers, normalized added tokens, pre-tokenizers, model and post-processor, in this
 * order; the parts are in tokenizer_*.c, many texts at once in tokenizer_batch.c. */
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

int am_tokenizer_take_json(am_tokenizer **out, am_buffer *json, const char *what)
{
    int rc = json->rc;
    if (rc)
        am_buffer_free(json);
    else
        rc = load(out, json->data, json->bytes);
    *json = (am_buffer){0};
    return rc ? am_fail_context(rc, "%s", what) : AM_OK;
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
    am_model_free(&t->model);
    am_vocab_free(&t->extra);
    am_encoder_free(&t->one);
    for (size_t i = 0; i < t->team_count; i++)
        am_encoder_free(&t->team[i]);
    am_regex_scratch_free(&t->scratch);
    am_free(t->team);
    am_free(t->batch_ids);
    am_free(t->json);
    am_free(t->added);
    am_free(t->added_by_id);
    am_free(t->steps);
    am_free(t->prefix);
    am_free(t->suffix);
    am_free(t->decoders);
    am_free(t->offsets);
    am_free(t);
}

/* ---- encoding --------------------------------------------------------------------------- */

void am_encoder_free(am_encoder *e)
{
    am_text_free(&e->text);
    am_work_free(&e->work);
    am_tokens_free(&e->tokens);
}

static int refuse_raw(const am_text *text)
{
    for (size_t i = 0; i < text->piece_count; i++)
        if (text->pieces[i].id == AM_PIECE_RAW)
            return am_fail(AM_EINVAL,
                           "the text is not UTF-8 (byte %u), and this tokenizer has no tokens for "
                           "single bytes",
                           text->pieces[i].start);
    return AM_OK;
}

/* Which of the spans are whole pieces (added tokens): above any text's length. */
enum { WHOLE_PIECE = 1 << 30 };

enum { AHEAD = 2 }; /* how many pieces ahead the cache is told what comes */

int am_encoder_run(am_encoder *e, const am_tokenizer *t, const char *text, size_t bytes, int flags)
{
    am_text *x = &e->text;
    x->track = (flags & AM_ENCODE_OFFSETS) || t->needs_origin;
    AM_TRY(am_text_begin(x, text, bytes));
    if (!t->byte_level)
        AM_TRY(refuse_raw(x));
    AM_TRY(am_tokenizer_cut_added(t, x, &t->raw_set));
    for (size_t i = 0; i < t->normalizer_count; i++)
        AM_TRY(am_step_run(&t->steps[i], x));
    AM_TRY(am_tokenizer_cut_added(t, x, &t->normalized_set));
    for (size_t i = t->normalizer_count; i < t->step_count; i++)
        AM_TRY(am_step_run(&t->steps[i], x));
    e->prefix = flags & AM_ENCODE_SPECIAL ? t->prefix_count : 0;
    e->suffix = flags & AM_ENCODE_SPECIAL ? t->suffix_count : 0;
    for (size_t i = 0; i < e->prefix; i++)
        AM_TRY(am_tokens_push(&e->tokens, t->prefix[i], 0, 0));
    for (size_t i = 0; i < x->piece_count; i++) {
        const am_piece *p = &x->pieces[i], *soon = p + AHEAD;
        if (i + AHEAD < x->piece_count)
            am_model_expect(&e->work, x->bytes + soon->start, soon->end - soon->start);
        if (p->id >= 0)
            AM_TRY(am_tokens_push(&e->tokens, p->id, p->start | WHOLE_PIECE, p->end));
        else
            AM_TRY(am_model_encode(&t->model, &e->work, x->bytes, p->start, p->end, &e->tokens));
    }
    for (size_t i = 0; i < e->suffix; i++)
        AM_TRY(am_tokens_push(&e->tokens, t->suffix[i], 0, 0));
    return AM_OK;
}

int am_tokenizer_encode(am_tokenizer *t, const char *text, size_t bytes, int flags,
                        const int32_t **ids, int64_t *n)
{
    t->one.tokens.count = 0;
    AM_TRY(am_encoder_run(&t->one, t, text, bytes, flags));
    *ids = t->one.tokens.ids;
    *n = (int64_t)t->one.tokens.count;
    return AM_OK;
}

/* ---- offsets ---------------------------------------------------------------------------- */

static int trimmed(uint32_t c)
{
    return c == 0x120 || am_is_space(c); /* U+0120 spells the space */
}

/* What trim_offsets does: leave white space at a token's ends out of its range, one character of
 * the text for each of the token, except the space that add_prefix_space may have put before. */
static am_span trim(const am_tokenizer *t, const char *token, size_t n, am_span s, int first)
{
    const char *text = t->one.text.original;
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

/* Where token i of the last text came from. */
static am_span origin(const am_tokenizer *t, size_t i, int first)
{
    const am_encoder *e = &t->one;
    const am_tokens *tokens = &e->tokens;
    am_span at = tokens->spans[i];
    int whole = (at.start & WHOLE_PIECE) != 0;
    at.start &= ~(uint32_t)WHOLE_PIECE;
    am_span from = am_text_origin(&e->text, at.start, at.end);
    if (!t->trim_offsets)
        return from;
    if (whole)
        return trim(t, e->text.bytes + at.start, at.end - at.start, from, first);
    const am_vocab_token *token = &t->model.vocab.tokens[tokens->ids[i]];
    return trim(t, token->text, token->bytes, from, first);
}

int am_tokenizer_offsets(am_tokenizer *t, const int64_t **offsets, int64_t *n)
{
    const am_encoder *e = &t->one;
    const size_t count = e->tokens.count;
    if (count && !e->text.track)
        return am_fail(AM_EINVAL, "the last text was encoded without AM_ENCODE_OFFSETS");
    void *p = t->offsets;
    int rc = am_grow(&p, &t->offsets_capacity, 2 * count + 1, sizeof *t->offsets);
    t->offsets = p;
    AM_TRY(rc);
    for (size_t i = 0; i < count; i++) {
        int around = i < e->prefix || i >= count - e->suffix;
        am_span s = around ? (am_span){0, 0} : origin(t, i, i == e->prefix);
        t->offsets[2 * i] = s.start;
        t->offsets[2 * i + 1] = s.end;
    }
    *offsets = t->offsets;
    *n = (int64_t)count;
    return AM_OK;
}

int am_tokenizer_limits_get(const am_tokenizer *t, am_tokenizer_limits *out)
{
    *out = t->limits;
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
    return id >= 0 ? id : am_vocab_find(&t->model.vocab, token, n);
}

const char *am_tokenizer_token_text(const am_tokenizer *t, int64_t id, size_t *bytes)
{
    const am_vocab *vocab = &t->model.vocab;
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
