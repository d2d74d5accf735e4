/* tokenizer_load.c — a parsed tokenizer.json turned into the tokenizer's parts. What it does not
 * know it refuses by name; what it ignores (truncation, padding, the pair template) has no effect
 * on encoding one text. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

/* GPT-2's pattern, which the ByteLevel pre-tokenizer applies when use_regex is set. */
static const char BYTE_LEVEL_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* The Whitespace pre-tokenizer's words and runs of other characters, in Rust's idea of a word. */
static const char WHITESPACE_PATTERN[] = "[\\w\\u200c\\u200d]+|[^\\w\\s\\u200c\\u200d]+";

/* ---- reading members -------------------------------------------------------------------- */

static int is_null(const am_json *v)
{
    return !v || v->kind == AM_JSON_NULL;
}

static int member(const am_json **out, const am_json *v, const char *key, int kind)
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
static int flag(int *out, const am_json *v, const char *key, int absent)
{
    const am_json *there = am_json_get(v, key);
    *out = absent;
    if (is_null(there))
        return AM_OK;
    if (there->kind != AM_JSON_BOOL)
        return am_fail(AM_EFORMAT, "'%s' is %s, not a boolean", key,
                       am_json_kind_name(there->kind));
    *out = there->as.boolean;
    return AM_OK;
}

static int copy_text(char **out, size_t *bytes, const char *text, size_t n)
{
    void *p;
    AM_TRY(am_alloc(&p, n + 1));
    memcpy(p, text, n);
    am_free(*out);
    *out = p;
    *bytes = n;
    return AM_OK;
}

static int copy_string(char **out, size_t *bytes, const am_json *v)
{
    return copy_text(out, bytes, v->as.text, v->count);
}

/* The value of "type", for a table of names. */
static int type_of(const char **out, const am_json *v, const char *part)
{
    const am_json *type;
    if (!am_json_is(v, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "a %s is %s, not an object", part,
                       am_json_kind_name(v ? v->kind : AM_JSON_NULL));
    AM_TRY(member(&type, v, "type", AM_JSON_STRING));
    *out = type->as.text;
    return AM_OK;
}

static int unknown(const char *part, const char *type)
{
    return am_fail(AM_EUNSUP, "the %s '%.100s' is not supported", part, type);
}

/* ---- steps ------------------------------------------------------------------------------ */

static int new_step(am_step **out, am_step **steps, size_t *count, size_t *capacity, int kind)
{
    void *p = *steps;
    int rc = am_grow(&p, capacity, *count + 1, sizeof **steps);
    *steps = p;
    AM_TRY(rc);
    *out = &(*steps)[(*count)++];
    memset(*out, 0, sizeof **out);
    (*out)->kind = kind;
    return AM_OK;
}

static int add_step(am_step **out, am_tokenizer *t, int kind)
{
    return new_step(out, &t->steps, &t->step_count, &t->step_capacity, kind);
}

/* {"String": …} or {"Regex": …}. */
static int read_pattern(am_pattern *out, const am_json *v)
{
    const am_json *pattern;
    AM_TRY(member(&pattern, v, "pattern", AM_JSON_OBJECT));
    const am_json *text = am_json_get_kind(pattern, "String", AM_JSON_STRING);
    if (text && text->count)
        return copy_string(&out->literal, &out->bytes, text);
    if (text)
        return am_fail(AM_EUNSUP, "an empty pattern is not supported");
    text = am_json_get_kind(pattern, "Regex", AM_JSON_STRING);
    if (!text)
        return am_fail(AM_EFORMAT, "'pattern' has neither a string 'String' nor a string 'Regex'");
    return am_regex_compile(&out->regex, text->as.text, text->count);
}

static int read_behavior(int *out, const am_json *v, int absent)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const am_json *behavior = am_json_get(v, "behavior");
    *out = absent;
    if (!behavior && absent >= 0)
        return AM_OK;
    for (int i = 0; i < 5; i++)
        if (am_json_equals(behavior, names[i])) {
            *out = i;
            return AM_OK;
        }
    return am_fail(AM_EFORMAT, "'behavior' is none of Removed, Isolated, MergedWithPrevious, "
                               "MergedWithNext and Contiguous");
}

/* Call `read` for each item of a Sequence's list. Nesting is bounded by the parser's depth. */
static int each(am_tokenizer *t, const am_json *v, const char *key,
                int (*read)(am_tokenizer *, const am_json *))
{
    const am_json *list;
    AM_TRY(member(&list, v, key, AM_JSON_ARRAY));
    for (uint32_t i = 0; i < list->count; i++) {
        int rc = read(t, &list->as.items[i]);
        if (rc)
            return am_fail_context(rc, "%s[%u]", key, i);
    }
    return AM_OK;
}

static int read_normalizer(am_tokenizer *t, const am_json *v)
{
    static const struct {
        const char *name;
        int kind;
    } plain[] = {{"NFC", AM_STEP_NFC},
                 {"NFD", AM_STEP_NFD},
                 {"NFKC", AM_STEP_NFKC},
                 {"NFKD", AM_STEP_NFKD},
                 {"Lowercase", AM_STEP_LOWERCASE},
                 {"ByteLevel", AM_STEP_BYTES}};
    const char *type;
    am_step *step;
    AM_TRY(type_of(&type, v, "normalizer"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "normalizers", read_normalizer);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].name) == 0)
            return add_step(&step, t, plain[i].kind);
    const am_json *text;
    if (strcmp(type, "Replace") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_REPLACE));
        AM_TRY(read_pattern(&step->pattern, v));
        AM_TRY(member(&text, v, "content", AM_JSON_STRING));
        return copy_string(&step->content, &step->content_bytes, text);
    }
    if (strcmp(type, "Prepend") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_PREPEND));
        AM_TRY(member(&text, v, "prepend", AM_JSON_STRING));
        return copy_string(&step->content, &step->content_bytes, text);
    }
    if (strcmp(type, "Strip") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_STRIP));
        AM_TRY(flag(&step->left, v, "strip_left", 1));
        return flag(&step->right, v, "strip_right", 1);
    }
    return unknown("normalizer", type);
}

/* ---- pre-tokenizers --------------------------------------------------------------------- */

static int add_regex_split(am_tokenizer *t, const char *pattern, int behavior, int invert)
{
    am_step *step;
    AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
    step->behavior = behavior;
    step->invert = invert;
    return am_regex_compile(&step->pattern.regex, pattern, strlen(pattern));
}

static int add_class_split(am_tokenizer *t, int class, int behavior)
{
    am_step *step;
    AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
    step->behavior = behavior;
    step->pattern.class = class;
    return AM_OK;
}

static int add_prefix(am_tokenizer *t, const char *text, size_t bytes, int first)
{
    am_step *step;
    AM_TRY(add_step(&step, t, AM_STEP_PREFIX));
    step->first = first;
    return copy_text(&step->content, &step->content_bytes, text, bytes);
}

static int read_byte_level(am_tokenizer *t, const am_json *v)
{
    am_step *step;
    int add_prefix_space, use_regex;
    AM_TRY(flag(&add_prefix_space, v, "add_prefix_space", 1));
    AM_TRY(flag(&use_regex, v, "use_regex", 1));
    if (add_prefix_space)
        AM_TRY(add_prefix(t, " ", 1, 0));
    if (use_regex)
        AM_TRY(add_regex_split(t, BYTE_LEVEL_PATTERN, AM_SPLIT_ISOLATED, 0));
    return add_step(&step, t, AM_STEP_BYTES);
}

/* "prepend_scheme", or of older files "add_prefix_space". */
static int read_prepend_scheme(int *prepend, int *first, const am_json *v)
{
    const am_json *scheme = am_json_get(v, "prepend_scheme");
    *first = am_json_equals(scheme, "first");
    *prepend = *first || am_json_equals(scheme, "always");
    if (!scheme)
        return flag(prepend, v, "add_prefix_space", 1);
    if (!*prepend && !am_json_equals(scheme, "never"))
        return am_fail(AM_EFORMAT, "'prepend_scheme' is none of always, first and never");
    return AM_OK;
}

static int read_metaspace(am_tokenizer *t, const am_json *v)
{
    const am_json *mark;
    am_step *step;
    int prepend, first, cut;
    AM_TRY(member(&mark, v, "replacement", AM_JSON_STRING));
    AM_TRY(read_prepend_scheme(&prepend, &first, v));
    AM_TRY(flag(&cut, v, "split", 1));
    if (!mark->count)
        return am_fail(AM_EFORMAT, "'replacement' is empty");
    AM_TRY(add_step(&step, t, AM_STEP_REPLACE));
    AM_TRY(copy_text(&step->pattern.literal, &step->pattern.bytes, " ", 1));
    AM_TRY(copy_string(&step->content, &step->content_bytes, mark));
    if (prepend)
        AM_TRY(add_prefix(t, mark->as.text, mark->count, first));
    if (!cut)
        return AM_OK;
    AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
    step->behavior = AM_SPLIT_MERGED_WITH_NEXT;
    return copy_string(&step->pattern.literal, &step->pattern.bytes, mark);
}

static int read_pre_tokenizer(am_tokenizer *t, const am_json *v)
{
    const char *type;
    am_step *step;
    int behavior;
    AM_TRY(type_of(&type, v, "pre-tokenizer"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "pretokenizers", read_pre_tokenizer);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(t, v);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, v);
    if (strcmp(type, "Split") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
        AM_TRY(read_pattern(&step->pattern, v));
        AM_TRY(read_behavior(&step->behavior, v, -1));
        return flag(&step->invert, v, "invert", 0);
    }
    if (strcmp(type, "Digits") == 0) {
        AM_TRY(flag(&behavior, v, "individual_digits", 0));
        return add_class_split(t, AM_CLASS_NUMERIC,
                               behavior ? AM_SPLIT_ISOLATED : AM_SPLIT_CONTIGUOUS);
    }
    if (strcmp(type, "Punctuation") == 0) {
        AM_TRY(read_behavior(&behavior, v, AM_SPLIT_ISOLATED));
        return add_class_split(t, AM_CLASS_PUNCTUATION, behavior);
    }
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_class_split(t, AM_CLASS_SPACE, AM_SPLIT_REMOVED);
    if (strcmp(type, "Whitespace") == 0)
        return add_regex_split(t, WHITESPACE_PATTERN, AM_SPLIT_REMOVED, 1);
    return unknown("pre-tokenizer", type);
}

/* ---- post-processors -------------------------------------------------------------------- */

static int add_id(int32_t **ids, size_t *count, size_t *capacity, size_t at, int32_t id)
{
    void *p = *ids;
    int rc = am_grow(&p, capacity, *count + 1, sizeof **ids);
    *ids = p;
    AM_TRY(rc);
    memmove(*ids + at + 1, *ids + at, (*count - at) * sizeof **ids);
    (*ids)[at] = id;
    ++*count;
    return AM_OK;
}

/* Ids of one special token of a template, put before or behind what is there. */
static int add_template_token(am_tokenizer *t, const am_json *table, const am_json *piece,
                              int after, size_t *at)
{
    const am_json *name, *token, *ids;
    AM_TRY(member(&name, piece, "id", AM_JSON_STRING));
    token = am_json_get_bytes(table, name->as.text, name->count);
    if (!token)
        return am_fail(AM_EFORMAT, "'special_tokens' lacks the template's token '%.100s'",
                       name->as.text);
    AM_TRY(member(&ids, token, "ids", AM_JSON_ARRAY));
    for (uint32_t i = 0; i < ids->count; i++) {
        const am_json *id = &ids->as.items[i];
        if (!am_json_is_int(id) || id->as.integer < 0 || id->as.integer > AM_VOCAB_MAX_ID)
            return am_fail(AM_EFORMAT, "the template's token '%.100s' has an id that is none",
                           name->as.text);
        if (after)
            AM_TRY(add_id(&t->suffix, &t->suffix_count, &t->suffix_capacity, t->suffix_count,
                          (int32_t)id->as.integer));
        else
            AM_TRY(add_id(&t->prefix, &t->prefix_count, &t->prefix_capacity, (*at)++,
                          (int32_t)id->as.integer));
    }
    return AM_OK;
}

static int read_template(am_tokenizer *t, const am_json *v)
{
    const am_json *single, *table, *piece;
    int sequences = 0;
    size_t at = 0;
    AM_TRY(member(&single, v, "single", AM_JSON_ARRAY));
    table = am_json_get(v, "special_tokens");
    for (uint32_t i = 0; i < single->count; i++) {
        if (am_json_get(&single->as.items[i], "Sequence"))
            sequences++;
        else if ((piece = am_json_get(&single->as.items[i], "SpecialToken")))
            AM_TRY(add_template_token(t, table, piece, sequences, &at));
        else
            return am_fail(AM_EFORMAT,
                           "'single' has a piece that is neither Sequence nor SpecialToken");
    }
    if (sequences != 1)
        return am_fail(AM_EUNSUP, "a template with %d sequences is not supported", sequences);
    return AM_OK;
}

static int read_post_processor(am_tokenizer *t, const am_json *v)
{
    const char *type;
    AM_TRY(type_of(&type, v, "post-processor"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "processors", read_post_processor);
    if (strcmp(type, "TemplateProcessing") == 0) {
        if (t->has_template)
            return am_fail(AM_EUNSUP, "two templates in one sequence are not supported");
        t->has_template = 1;
        return read_template(t, v);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        int trim;
        AM_TRY(flag(&trim, v, "trim_offsets", 1));
        t->trim_offsets |= trim;
        return trim ? flag(&t->trim_prefix_space, v, "add_prefix_space", 1) : AM_OK;
    }
    return unknown("post-processor", type);
}

/* ---- decoders --------------------------------------------------------------------------- */

static int count_of(int *out, const am_json *v, const char *key)
{
    const am_json *n;
    AM_TRY(member(&n, v, key, AM_JSON_NUMBER));
    if (!am_json_is_int(n) || n->as.integer < 0 || n->as.integer > INT32_MAX)
        return am_fail(AM_EFORMAT, "'%s' is no count", key);
    *out = (int)n->as.integer;
    return AM_OK;
}

static int read_decoder(am_tokenizer *t, const am_json *v)
{
    static const struct {
        const char *name;
        int kind;
    } kinds[] = {{"ByteLevel", AM_DECODER_BYTES}, {"Replace", AM_DECODER_REPLACE},
                 {"Fuse", AM_DECODER_FUSE},       {"ByteFallback", AM_DECODER_BYTE_FALLBACK},
                 {"Strip", AM_DECODER_STRIP},     {"Metaspace", AM_DECODER_METASPACE}};
    const char *type;
    AM_TRY(type_of(&type, v, "decoder"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "decoders", read_decoder);
    int kind = -1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].name) == 0)
            kind = kinds[i].kind;
    if (kind < 0)
        return unknown("decoder", type);
    am_step *step;
    const am_json *text;
    AM_TRY(new_step(&step, &t->decoders, &t->decoder_count, &t->decoder_capacity, kind));
    if (kind == AM_DECODER_REPLACE)
        AM_TRY(read_pattern(&step->pattern, v));
    if (kind == AM_DECODER_STRIP) {
        AM_TRY(count_of(&step->left, v, "start"));
        AM_TRY(count_of(&step->right, v, "stop"));
    }
    if (kind == AM_DECODER_METASPACE) {
        int first;
        AM_TRY(read_prepend_scheme(&step->first, &first, v));
    }
    if (kind != AM_DECODER_REPLACE && kind != AM_DECODER_STRIP && kind != AM_DECODER_METASPACE)
        return AM_OK;
    AM_TRY(
        member(&text, v, kind == AM_DECODER_METASPACE ? "replacement" : "content", AM_JSON_STRING));
    if (!text->count && kind != AM_DECODER_REPLACE)
        return am_fail(AM_EFORMAT, "the %s decoder's content is empty", type);
    return copy_string(&step->content, &step->content_bytes, text);
}

/* ---- the model -------------------------------------------------------------------------- */

/* null, absent or (as some converters write it) empty. */
static int refuse_affix(const am_json *model, const char *key)
{
    const am_json *v = am_json_get(model, key);
    if (is_null(v) || (v->kind == AM_JSON_STRING && v->count == 0))
        return AM_OK;
    return am_fail(AM_EUNSUP, "'%s' is not supported", key);
}

static int read_merge(am_bpe *bpe, const am_json *v)
{
    if (am_json_is(v, AM_JSON_ARRAY) && v->count == 2 &&
        am_json_is(&v->as.items[0], AM_JSON_STRING) && am_json_is(&v->as.items[1], AM_JSON_STRING))
        return am_bpe_merge(bpe, v->as.items[0].as.text, v->as.items[0].count,
                            v->as.items[1].as.text, v->as.items[1].count);
    if (!am_json_is(v, AM_JSON_STRING))
        return am_fail(AM_EFORMAT, "a merge is neither a string nor a pair of strings");
    const char *space = memchr(v->as.text, ' ', v->count);
    size_t left = space ? (size_t)(space - v->as.text) : 0;
    if (!space || memchr(space + 1, ' ', v->count - left - 1))
        return am_fail(AM_EFORMAT, "merge '%.100s' is not two parts with one space between",
                       v->as.text);
    return am_bpe_merge(bpe, v->as.text, left, space + 1, v->count - left - 1);
}

static int read_vocab(am_vocab *out, const am_json *model)
{
    const am_json *vocab;
    AM_TRY(member(&vocab, model, "vocab", AM_JSON_OBJECT));
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

static int read_options(am_bpe_options *out, const am_json *model, const am_vocab *vocab)
{
    const am_json *dropout = am_json_get(model, "dropout"), *unk = am_json_get(model, "unk_token");
    if (!is_null(dropout) && am_json_double(dropout) != 0)
        return am_fail(AM_EUNSUP, "BPE 'dropout' is not supported");
    AM_TRY(refuse_affix(model, "continuing_subword_prefix"));
    AM_TRY(refuse_affix(model, "end_of_word_suffix"));
    AM_TRY(flag(&out->fuse_unk, model, "fuse_unk", 0));
    AM_TRY(flag(&out->byte_fallback, model, "byte_fallback", 0));
    AM_TRY(flag(&out->ignore_merges, model, "ignore_merges", 0));
    out->unk = -1;
    if (is_null(unk))
        return AM_OK;
    if (unk->kind != AM_JSON_STRING)
        return am_fail(AM_EFORMAT, "'unk_token' is %s, not a string", am_json_kind_name(unk->kind));
    out->unk = am_vocab_find(vocab, unk->as.text, unk->count);
    if (out->unk < 0)
        return am_fail(AM_EFORMAT, "'unk_token' '%.100s' is not in the vocabulary", unk->as.text);
    return AM_OK;
}

static int read_model(am_tokenizer *t, const am_json *model, am_vocab *vocab, int spelled)
{
    am_bpe_options options = {.spelled = spelled};
    const am_json *type = am_json_get(model, "type"), *merges;
    if (type && !am_json_equals(type, "BPE"))
        return unknown("model", type->kind == AM_JSON_STRING ? type->as.text : "?");
    AM_TRY(member(&merges, model, "merges", AM_JSON_ARRAY));
    AM_TRY(read_vocab(vocab, model));
    AM_TRY(read_options(&options, model, vocab));
    AM_TRY(am_bpe_new(&t->bpe, vocab, &options));
    for (uint32_t i = 0; i < merges->count; i++) {
        int rc = read_merge(t->bpe, &merges->as.items[i]);
        if (rc)
            return am_fail_context(rc, "merges[%u]", i);
    }
    return AM_OK;
}

/* ---- added tokens ----------------------------------------------------------------------- */

/* The id a new added token gets: as Hugging Face tokenizers counts, whatever the file says. */
static int64_t next_added_id(const am_tokenizer *t, int64_t highest)
{
    int64_t model = (int64_t)am_bpe_vocab(t->bpe)->count;
    return highest >= model ? highest + 1 : model;
}

static int read_added(am_tokenizer *t, const am_json *v, int64_t *highest)
{
    const am_vocab *vocab = am_bpe_vocab(t->bpe);
    const am_json *content;
    am_added token = {0};
    if (!am_json_is(v, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "is %s, not an object", am_json_kind_name(v->kind));
    AM_TRY(member(&content, v, "content", AM_JSON_STRING));
    AM_TRY(flag(&token.single_word, v, "single_word", 0));
    AM_TRY(flag(&token.lstrip, v, "lstrip", 0));
    AM_TRY(flag(&token.rstrip, v, "rstrip", 0));
    AM_TRY(flag(&token.special, v, "special", 0));
    AM_TRY(flag(&token.normalized, v, "normalized", !token.special));
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
    AM_TRY(copy_string(&token.content, &token.bytes, content));
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
    AM_TRY(copy_text(&pattern->text, &pattern->bytes, text, bytes));
    set->count++;
    return AM_OK;
}

/* A normalized token is looked for by what the normalizers make of its content. */
static int add_normalized_pattern(am_tokenizer *t, size_t token)
{
    am_text text = {0};
    int rc = am_text_begin(&text, t->added[token].content, t->added[token].bytes);
    for (size_t i = 0; !rc && i < t->normalizer_count; i++)
        rc = am_step_run(&t->steps[i], &text);
    if (!rc && text.n)
        rc = add_pattern(&t->normalized_set, text.bytes, text.n, token);
    if (!rc)
        rc = copy_text(&t->added[token].shown, &t->added[token].shown_bytes, text.bytes, text.n);
    am_text_free(&text);
    return rc;
}

static int read_added_tokens(am_tokenizer *t, const am_json *list)
{
    /* A token not in the vocabulary gets an id at most one above all before it. */
    void *p;
    AM_TRY(am_alloc(&p, (am_bpe_vocab(t->bpe)->size + (list ? list->count : 0) + 1) *
                            sizeof *t->added_by_id));
    t->added_by_id = p;
    int64_t highest = -1;
    for (uint32_t i = 0; list && i < list->count; i++) {
        int rc = read_added(t, &list->as.items[i], &highest);
        if (rc)
            return am_fail_context(rc, "added_tokens[%u]", i);
    }
    t->size = (int64_t)am_bpe_vocab(t->bpe)->size;
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

/* ---- the whole -------------------------------------------------------------------------- */

static int part(am_tokenizer *t, const am_json *root, const char *key,
                int (*read)(am_tokenizer *, const am_json *))
{
    const am_json *v = am_json_get(root, key);
    if (is_null(v))
        return AM_OK;
    int rc = read(t, v);
    return rc ? am_fail_context(rc, "%s", key) : AM_OK;
}

int am_tokenizer_load(am_tokenizer *t, const am_json *root)
{
    const am_json *model, *added;
    if (!am_json_is(root, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "is %s, not an object", am_json_kind_name(root->kind));
    AM_TRY(member(&model, root, "model", AM_JSON_OBJECT));
    AM_TRY(part(t, root, "normalizer", read_normalizer));
    t->normalizer_count = t->step_count;
    AM_TRY(part(t, root, "pre_tokenizer", read_pre_tokenizer));
    AM_TRY(part(t, root, "post_processor", read_post_processor));
    AM_TRY(part(t, root, "decoder", read_decoder));
    t->has_decoder = !is_null(am_json_get(root, "decoder"));
    /* A last step that spells bytes is left to the model, which looks bytes up directly. */
    for (size_t i = 0; i < t->step_count; i++)
        t->byte_level |= t->steps[i].kind == AM_STEP_BYTES;
    int spelled =
        t->step_count > t->normalizer_count && t->steps[t->step_count - 1].kind == AM_STEP_BYTES;
    t->step_count -= (size_t)spelled;
    am_vocab vocab = {0};
    int rc = read_model(t, model, &vocab, spelled);
    am_vocab_free(&vocab);
    if (rc)
        return am_fail_context(rc, "model");
    added = am_json_get(root, "added_tokens");
    if (!is_null(added) && added->kind != AM_JSON_ARRAY)
        return am_fail(AM_EFORMAT, "'added_tokens' is %s, not an array",
                       am_json_kind_name(added->kind));
    AM_TRY(read_added_tokens(t, is_null(added) ? NULL : added));
    return check_template(t);
}
