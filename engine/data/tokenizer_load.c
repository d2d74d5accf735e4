/* tokenizer_load.c — a parsed tokenizer.json turned into a tokenizer: model, added tokens, limits.
 * Its normalizers, pre-tokenizers, post-processors and decoders are in tokenizer_load_steps.c. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

/* ---- reading members -------------------------------------------------------------------- */

int am_tj_null(const am_json *v)
{
    return !v || v->kind == AM_JSON_NULL;
}

int am_tj_member(const am_json **out, const am_json *v, const char *key, int kind)
{
    *out = am_json_get_kind(v, key, kind);
    if (*out)
        return AM_OK;
    const am_json *there = am_json_get(v, key);
    if (!there)
        return am_fail(AM_EFORMAT, "'%s' is missing", key);
    return am_fail(AM_EFORMAT, "'%s' is %s, not %s", key, am_json_kind_name(there->kind),
                   am_json_kind_name(kind));
}

/* A boolean, or `absent` when it is missing or null. */
int am_tj_flag(int *out, const am_json *v, const char *key, int absent)
{
    const am_json *there = am_json_get(v, key);
    *out = absent;
    if (am_tj_null(there))
        return AM_OK;
    if (there->kind != AM_JSON_BOOL)
        return am_fail(AM_EFORMAT, "'%s' is %s, not a boolean", key,
                       am_json_kind_name(there->kind));
    *out = there->as.boolean;
    return AM_OK;
}

int am_tj_copy(char **out, size_t *bytes, const char *text, size_t n)
{
    void *p;
    AM_TRY(am_alloc(&p, n + 1));
    memcpy(p, text, n);
    am_free(*out);
    *out = p;
    *bytes = n;
    return AM_OK;
}

int am_tj_count(int64_t *out, const am_json *v, const char *key)
{
    const am_json *n;
    AM_TRY(am_tj_member(&n, v, key, AM_JSON_NUMBER));
    if (!am_json_is_int(n) || n->as.integer < 0 || n->as.integer > INT32_MAX)
        return am_fail(AM_EFORMAT, "'%s' is no count", key);
    *out = n->as.integer;
    return AM_OK;
}

int am_tj_unknown(const char *part, const char *type)
{
    return am_fail(AM_EUNSUP, "the %s '%.100s' is not supported", part, type);
}

/* ---- the model -------------------------------------------------------------------------- */

/* null, absent or (as some converters write it) empty. */
static int refuse_affix(const am_json *model, const char *key)
{
    const am_json *v = am_json_get(model, key);
    if (am_tj_null(v) || (v->kind == AM_JSON_STRING && v->count == 0))
        return AM_OK;
    return am_fail(AM_EUNSUP, "'%s' is not supported", key);
}

static int read_merge(am_model *m, const am_json *v)
{
    if (am_json_is(v, AM_JSON_ARRAY) && v->count == 2 &&
        am_json_is(&v->as.items[0], AM_JSON_STRING) && am_json_is(&v->as.items[1], AM_JSON_STRING))
        return am_bpe_merge(m, v->as.items[0].as.text, v->as.items[0].count, v->as.items[1].as.text,
                            v->as.items[1].count);
    if (!am_json_is(v, AM_JSON_STRING))
        return am_fail(AM_EFORMAT, "a merge is neither a string nor a pair of strings");
    const char *space = memchr(v->as.text, ' ', v->count);
    size_t left = space ? (size_t)(space - v->as.text) : 0;
    if (!space || memchr(space + 1, ' ', v->count - left - 1))
        return am_fail(AM_EFORMAT, "merge '%.100s' is not two parts with one space between",
                       v->as.text);
    return am_bpe_merge(m, v->as.text, left, space + 1, v->count - left - 1);
}

static int read_vocab(am_vocab *out, const am_json *model)
{
    const am_json *vocab;
    AM_TRY(am_tj_member(&vocab, model, "vocab", AM_JSON_OBJECT));
    for (uint32_t i = 0; i < vocab->count; i++) {
        const am_json_member *m = &vocab->as.members[i];
        if (!am_json_is_int(&m->value))
            return am_fail(AM_EFORMAT, "vocab: the id of '%.100s' is no integer", m->key);
        int rc = am_vocab_add(out, m->key, m->bytes, m->value.as.integer);
        if (rc)
            return am_fail_context(rc, "vocab");
    }
    return AM_OK;
}

/* The unk_token of BPE and WordPiece. */
static int read_unk(int64_t *out, const am_json *model, const am_vocab *vocab)
{
    const am_json *unk = am_json_get(model, "unk_token");
    *out = -1;
    if (am_tj_null(unk))
        return AM_OK;
    if (unk->kind != AM_JSON_STRING)
        return am_fail(AM_EFORMAT, "'unk_token' is %s, not a string", am_json_kind_name(unk->kind));
    *out = am_vocab_find(vocab, unk->as.text, unk->count);
    if (*out < 0)
        return am_fail(AM_EFORMAT, "'unk_token' '%.100s' is not in the vocabulary", unk->as.text);
    return AM_OK;
}

static int read_bpe(am_model *m, const am_json *model)
{
    const am_json *dropout = am_json_get(model, "dropout"), *merges;
    AM_TRY(am_tj_member(&merges, model, "merges", AM_JSON_ARRAY));
    AM_TRY(read_vocab(&m->vocab, model));
    if (!am_tj_null(dropout) && am_json_double(dropout) != 0)
        return am_fail(AM_EUNSUP, "BPE 'dropout' is not supported");
    AM_TRY(refuse_affix(model, "continuing_subword_prefix"));
    AM_TRY(refuse_affix(model, "end_of_word_suffix"));
    AM_TRY(am_tj_flag(&m->fuse_unk, model, "fuse_unk", 0));
    AM_TRY(am_tj_flag(&m->byte_fallback, model, "byte_fallback", 0));
    AM_TRY(am_tj_flag(&m->ignore_merges, model, "ignore_merges", 0));
    AM_TRY(read_unk(&m->unk, model, &m->vocab));
    AM_TRY(am_model_begin(m));
    for (uint32_t i = 0; i < merges->count; i++) {
        int rc = read_merge(m, &merges->as.items[i]);
        if (rc)
            return am_fail_context(rc, "merges[%u]", i);
    }
    return AM_OK;
}

/* vocab: [["piece", score], …], the place in the list being the id. */
static int read_unigram(am_model *m, const am_json *model)
{
    const am_json *vocab, *unk = am_json_get(model, "unk_id");
    double lowest = 0;
    void *p;
    m->kind = AM_MODEL_UNIGRAM;
    m->fuse_unk = 1;
    m->unk = -1;
    AM_TRY(am_tj_member(&vocab, model, "vocab", AM_JSON_ARRAY));
    AM_TRY(am_tj_flag(&m->byte_fallback, model, "byte_fallback", 0));
    AM_TRY(am_alloc(&p, (vocab->count + 1) * sizeof *m->scores));
    m->scores = p;
    for (uint32_t i = 0; i < vocab->count; i++) {
        const am_json *entry = &vocab->as.items[i];
        if (!am_json_is(entry, AM_JSON_ARRAY) || entry->count != 2 ||
            !am_json_is(&entry->as.items[0], AM_JSON_STRING) ||
            !am_json_is(&entry->as.items[1], AM_JSON_NUMBER))
            return am_fail(AM_EFORMAT, "vocab[%u] is no pair of a string and a score", i);
        int rc = am_vocab_add(&m->vocab, entry->as.items[0].as.text, entry->as.items[0].count, i);
        if (rc)
            return am_fail_context(rc, "vocab[%u]", i);
        m->scores[i] = am_json_double(&entry->as.items[1]);
        lowest = i == 0 || m->scores[i] < lowest ? m->scores[i] : lowest;
    }
    m->unk_score = lowest - 10;
    if (!am_tj_null(unk)) {
        AM_TRY(am_tj_count(&m->unk, model, "unk_id"));
        if (m->unk >= vocab->count)
            return am_fail(AM_EFORMAT, "'unk_id' %lld is not in the vocabulary of %u tokens",
                           (long long)m->unk, vocab->count);
    }
    return am_model_begin(m);
}

static int read_wordpiece(am_model *m, const am_json *model)
{
    const am_json *prefix;
    m->kind = AM_MODEL_WORDPIECE;
    AM_TRY(read_vocab(&m->vocab, model));
    AM_TRY(am_tj_member(&prefix, model, "continuing_subword_prefix", AM_JSON_STRING));
    AM_TRY(am_tj_copy(&m->prefix, &m->prefix_bytes, prefix->as.text, prefix->count));
    m->max_chars = 100;
    if (am_json_get(model, "max_input_chars_per_word"))
        AM_TRY(am_tj_count(&m->max_chars, model, "max_input_chars_per_word"));
    AM_TRY(read_unk(&m->unk, model, &m->vocab));
    if (m->unk < 0)
        return am_fail(AM_EFORMAT, "'unk_token' is missing");
    return am_model_begin(m);
}

/* Files of old have no type: the model is then known by its members, as serde does. */
static int read_model(am_model *m, const am_json *model)
{
    const am_json *type = am_json_get(model, "type");
    if (am_json_equals(type, "BPE") || (!type && am_json_get(model, "merges")))
        AM_TRY(read_bpe(m, model));
    else if (am_json_equals(type, "WordPiece") ||
             (!type && am_json_get(model, "continuing_subword_prefix")))
        AM_TRY(read_wordpiece(m, model));
    else if (am_json_equals(type, "Unigram") || (!type && am_json_get(model, "unk_id")))
        AM_TRY(read_unigram(m, model));
    else if (!type)
        return am_fail(AM_EFORMAT, "'type' is missing");
    else
        return am_tj_unknown("model", type->kind == AM_JSON_STRING ? type->as.text : "?");
    return AM_OK;
}

/* ---- added tokens ----------------------------------------------------------------------- */

/* The id a new added token gets: as Hugging Face tokenizers counts, whatever the file says. */
static int64_t next_added_id(const am_tokenizer *t, int64_t highest)
{
    int64_t model = (int64_t)t->model.vocab.count;
    return highest >= model ? highest + 1 : model;
}

static int read_added(am_tokenizer *t, const am_json *v, int64_t *highest)
{
    const am_vocab *vocab = &t->model.vocab;
    const am_json *content;
    am_added token = {0};
    if (!am_json_is(v, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "is %s, not an object", am_json_kind_name(v->kind));
    AM_TRY(am_tj_member(&content, v, "content", AM_JSON_STRING));
    AM_TRY(am_tj_flag(&token.single_word, v, "single_word", 0));
    AM_TRY(am_tj_flag(&token.lstrip, v, "lstrip", 0));
    AM_TRY(am_tj_flag(&token.rstrip, v, "rstrip", 0));
    AM_TRY(am_tj_flag(&token.special, v, "special", 0));
    AM_TRY(am_tj_flag(&token.normalized, v, "normalized", !token.special));
    if (!content->count)
        return AM_OK;
    int64_t id = am_vocab_find(&t->extra, content->as.text, content->count);
    if (id < 0)
        id = am_vocab_find(vocab, content->as.text, content->count);
    if (id < 0) {
        id = next_added_id(t, *highest);
        if ((size_t)id < vocab->size && vocab->tokens[id].text)
            return am_fail(AM_EFORMAT, "'%.100s' would get the id %lld of the token '%.100s'",
                           content->as.text, (long long)id, vocab->tokens[id].text);
        AM_TRY(am_vocab_add(&t->extra, content->as.text, content->count, id));
    }
    *highest = id > *highest ? id : *highest;
    token.id = (int32_t)id;
    if (t->added_by_id[id]) { /* listed twice: the last entry's options count */
        am_added *there = &t->added[t->added_by_id[id] - 1];
        token.content = there->content;
        token.bytes = there->bytes;
        token.special |= there->special;
        *there = token;
        return AM_OK;
    }
    void *p = t->added;
    int rc = am_grow(&p, &t->added_capacity, t->added_count + 1, sizeof *t->added);
    t->added = p;
    AM_TRY(rc);
    AM_TRY(am_tj_copy(&token.content, &token.bytes, content->as.text, content->count));
    t->added[t->added_count++] = token;
    t->added_by_id[id] = (int32_t)t->added_count;
    return AM_OK;
}

static int add_pattern(am_added_set *set, const char *text, size_t bytes, size_t token)
{
    void *p = set->patterns;
    int rc = am_grow(&p, &set->capacity, set->count + 1, sizeof *set->patterns);
    set->patterns = p;
    AM_TRY(rc);
    am_added_pattern *pattern = &set->patterns[set->count];
    *pattern = (am_added_pattern){.token = token};
    AM_TRY(am_tj_copy(&pattern->text, &pattern->bytes, text, bytes));
    set->count++;
    return AM_OK;
}

/* A normalized token is looked for by what the normalizers make of its content. */
static int add_normalized_pattern(am_tokenizer *t, size_t token)
{
    am_text text = {.track = t->needs_origin};
    int rc = am_text_begin(&text, t->added[token].content, t->added[token].bytes);
    for (size_t i = 0; !rc && i < t->normalizer_count; i++)
        rc = am_step_run(&t->steps[i], &text);
    if (!rc && text.n)
        rc = add_pattern(&t->normalized_set, text.bytes, text.n, token);
    if (!rc)
        rc = am_tj_copy(&t->added[token].shown, &t->added[token].shown_bytes, text.bytes, text.n);
    am_text_free(&text);
    return rc;
}

static int read_added_tokens(am_tokenizer *t, const am_json *list)
{
    /* A token not in the vocabulary gets an id at most one above all before it. */
    void *p;
    AM_TRY(am_alloc(&p,
                    (t->model.vocab.size + (list ? list->count : 0) + 1) * sizeof *t->added_by_id));
    t->added_by_id = p;
    int64_t highest = -1;
    for (uint32_t i = 0; list && i < list->count; i++) {
        int rc = read_added(t, &list->as.items[i], &highest);
        if (rc)
            return am_fail_context(rc, "added_tokens[%u]", i);
    }
    t->size = (int64_t)t->model.vocab.size;
    if (t->size <= highest)
        t->size = highest + 1;
    /* Specials come first, as of equal patterns the first counts. */
    int single_word = 0;
    for (int special = 1; special >= 0; special--)
        for (size_t i = 0; i < t->added_count; i++) {
            const am_added *a = &t->added[i];
            single_word |= a->single_word;
            if (a->special != special)
                continue;
            if (a->normalized)
                AM_TRY(add_normalized_pattern(t, i));
            else
                AM_TRY(add_pattern(&t->raw_set, a->content, a->bytes, i));
        }
    AM_TRY(am_added_set_finish(&t->raw_set));
    AM_TRY(am_added_set_finish(&t->normalized_set));
    static const char word[] = "[\\w\\u200c\\u200d]";
    return single_word ? am_regex_compile(&t->word, word, sizeof word - 1) : AM_OK;
}

static int check_template(const am_tokenizer *t)
{
    for (size_t i = 0; i < t->prefix_count + t->suffix_count; i++) {
        int32_t id = i < t->prefix_count ? t->prefix[i] : t->suffix[i - t->prefix_count];
        if (!am_tokenizer_token(t, id))
            return am_fail(AM_EFORMAT, "post_processor: the id %d is no token's", (int)id);
    }
    return AM_OK;
}

/* ---- truncation and padding ------------------------------------------------------------- */

static int read_side(int *left, const am_json *v)
{
    const am_json *side = am_json_get(v, "direction");
    *left = am_json_equals(side, "Left");
    if (!am_tj_null(side) && !*left && !am_json_equals(side, "Right"))
        return am_fail(AM_EFORMAT, "'direction' is neither Left nor Right");
    return AM_OK;
}

static int read_truncation(am_tokenizer_limits *out, const am_json *v)
{
    AM_TRY(am_tj_count(&out->max_length, v, "max_length"));
    return read_side(&out->truncate_left, v);
}

/* strategy: "BatchLongest" or {"Fixed": n}. */
static int read_padding(am_tokenizer_limits *out, const am_json *v)
{
    const am_json *strategy = am_json_get(v, "strategy");
    out->padding = 1;
    if (am_json_is(strategy, AM_JSON_OBJECT))
        AM_TRY(am_tj_count(&out->pad_length, strategy, "Fixed"));
    else if (!am_json_equals(strategy, "BatchLongest"))
        return am_fail(AM_EFORMAT, "'strategy' is neither BatchLongest nor {\"Fixed\": length}");
    if (!am_tj_null(am_json_get(v, "pad_to_multiple_of")))
        AM_TRY(am_tj_count(&out->pad_to_multiple_of, v, "pad_to_multiple_of"));
    AM_TRY(am_tj_count(&out->pad_id, v, "pad_id"));
    return read_side(&out->pad_left, v);
}

static int limit(am_tokenizer_limits *out, const am_json *root, const char *key,
                 int (*read)(am_tokenizer_limits *, const am_json *))
{
    const am_json *v = am_json_get(root, key);
    if (am_tj_null(v))
        return AM_OK;
    int rc = read(out, v);
    return rc ? am_fail_context(rc, "%s", key) : AM_OK;
}

/* ---- the whole -------------------------------------------------------------------------- */

int am_tokenizer_load(am_tokenizer *t, const am_json *root)
{
    const am_json *model, *added;
    if (!am_json_is(root, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "is %s, not an object", am_json_kind_name(root->kind));
    AM_TRY(am_tj_member(&model, root, "model", AM_JSON_OBJECT));
    t->limits = (am_tokenizer_limits){.max_length = -1, .pad_length = -1};
    AM_TRY(limit(&t->limits, root, "truncation", read_truncation));
    AM_TRY(limit(&t->limits, root, "padding", read_padding));
    AM_TRY(am_tokenizer_load_steps(t, root));
    int rc = read_model(&t->model, model);
    if (rc)
        return am_fail_context(rc, "model");
    /* A last step that spells bytes is left to BPE, which looks bytes up directly. */
    if (t->model.kind == AM_MODEL_BPE && t->step_count > t->normalizer_count &&
        t->steps[t->step_count - 1].kind == AM_STEP_BYTES) {
        t->step_count--;
        t->model.spelled = 1;
    }
    AM_TRY(am_model_finish(&t->model));
    added = am_json_get(root, "added_tokens");
    if (!am_tj_null(added) && added->kind != AM_JSON_ARRAY)
        return am_fail(AM_EFORMAT, "'added_tokens' is %s, not an array",
                       am_json_kind_name(added->kind));
    AM_TRY(read_added_tokens(t, am_tj_null(added) ? NULL : added));
    return check_template(t);
}
