/* tokenizer_load_steps.c — the normalizers, pre-tokenizers, post-processors and decoders of a
 * parsed tokenizer.json turned into steps. What it does not know it refuses by name; the pair
 * template has no effect on encoding one text. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

/* GPT-2's pattern, which the ByteLevel pre-tokenizer applies when use_regex is set. */
static const char BYTE_LEVEL_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* The Whitespace pre-tokenizer's words and runs of other characters, in Rust's idea of a word. */
static const char WHITESPACE_PATTERN[] = "[\\w\\u200c\\u200d]+|[^\\w\\s\\u200c\\u200d]+";

static int copy_string(char **out, size_t *bytes, const am_json *v)
{
    return am_tj_copy(out, bytes, v->as.text, v->count);
}

/* The value of "type", for a table of names. */
static int type_of(const char **out, const am_json *v, const char *part)
{
    const am_json *type;
    if (!am_json_is(v, AM_JSON_OBJECT))
        return am_fail(AM_EFORMAT, "a %s is %s, not an object", part,
                       am_json_kind_name(v ? v->kind : AM_JSON_NULL));
    AM_TRY(am_tj_member(&type, v, "type", AM_JSON_STRING));
    *out = type->as.text;
    return AM_OK;
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
    AM_TRY(am_tj_member(&pattern, v, "pattern", AM_JSON_OBJECT));
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
    AM_TRY(am_tj_member(&list, v, key, AM_JSON_ARRAY));
    for (uint32_t i = 0; i < list->count; i++) {
        int rc = read(t, &list->as.items[i]);
        if (rc)
            return am_fail_context(rc, "%s[%u]", key, i);
    }
    return AM_OK;
}

static int add_plain(am_tokenizer *t, int kind)
{
    am_step *step;
    AM_TRY(add_step(&step, t, kind));
    return am_step_prepare(step);
}

/* Accents go where strip_accents says so, or where it is null and lowercase is set. */
static int read_bert_normalizer(am_tokenizer *t, const am_json *v)
{
    int cleans, chinese, lowercase, accents;
    AM_TRY(am_tj_flag(&cleans, v, "clean_text", 1));
    AM_TRY(am_tj_flag(&chinese, v, "handle_chinese_chars", 1));
    AM_TRY(am_tj_flag(&lowercase, v, "lowercase", 1));
    AM_TRY(am_tj_flag(&accents, v, "strip_accents", lowercase));
    if (cleans)
        AM_TRY(add_plain(t, AM_STEP_CLEAN));
    if (chinese)
        AM_TRY(add_plain(t, AM_STEP_CHINESE));
    if (accents) {
        AM_TRY(add_plain(t, AM_STEP_NFD));
        AM_TRY(add_plain(t, AM_STEP_BERT_ACCENTS));
    }
    return lowercase ? add_plain(t, AM_STEP_LOWERCASE) : AM_OK;
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
                 {"StripAccents", AM_STEP_STRIP_ACCENTS},
                 {"Nmt", AM_STEP_NMT},
                 {"ByteLevel", AM_STEP_BYTES}};
    const char *type;
    am_step *step;
    AM_TRY(type_of(&type, v, "normalizer"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "normalizers", read_normalizer);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].name) == 0)
            return add_plain(t, plain[i].kind);
    if (strcmp(type, "BertNormalizer") == 0)
        return read_bert_normalizer(t, v);
    const am_json *text;
    if (strcmp(type, "Replace") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_REPLACE));
        AM_TRY(read_pattern(&step->pattern, v));
        AM_TRY(am_tj_member(&text, v, "content", AM_JSON_STRING));
        return copy_string(&step->content, &step->content_bytes, text);
    }
    if (strcmp(type, "Precompiled") == 0) {
        AM_TRY(am_tj_member(&text, v, "precompiled_charsmap", AM_JSON_STRING));
        if (!text->count)
            return AM_OK;
        AM_TRY(add_step(&step, t, AM_STEP_CHARSMAP));
        AM_TRY(am_charsmap_new(&step->charsmap, text->as.text, text->count));
        return am_step_prepare(step);
    }
    if (strcmp(type, "Prepend") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_PREPEND));
        AM_TRY(am_tj_member(&text, v, "prepend", AM_JSON_STRING));
        return copy_string(&step->content, &step->content_bytes, text);
    }
    if (strcmp(type, "Strip") == 0) {
        AM_TRY(add_step(&step, t, AM_STEP_STRIP));
        AM_TRY(am_tj_flag(&step->left, v, "strip_left", 1));
        return am_tj_flag(&step->right, v, "strip_right", 1);
    }
    return am_tj_unknown("normalizer", type);
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

static int add_prefix(am_tokenizer *t, const char *text, size_t bytes)
{
    am_step *step;
    AM_TRY(add_step(&step, t, AM_STEP_PREFIX));
    return am_tj_copy(&step->content, &step->content_bytes, text, bytes);
}

static int read_byte_level(am_tokenizer *t, const am_json *v)
{
    am_step *step;
    int add_prefix_space, use_regex;
    AM_TRY(am_tj_flag(&add_prefix_space, v, "add_prefix_space", 1));
    AM_TRY(am_tj_flag(&use_regex, v, "use_regex", 1));
    if (add_prefix_space)
        AM_TRY(add_prefix(t, " ", 1));
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
        return am_tj_flag(prepend, v, "add_prefix_space", 1);
    if (!*prepend && !am_json_equals(scheme, "never"))
        return am_fail(AM_EFORMAT, "'prepend_scheme' is none of always, first and never");
    return AM_OK;
}

static int read_metaspace(am_tokenizer *t, const am_json *v)
{
    const am_json *mark;
    am_step *step;
    int prepend, first, cut;
    AM_TRY(am_tj_member(&mark, v, "replacement", AM_JSON_STRING));
    AM_TRY(read_prepend_scheme(&prepend, &first, v));
    AM_TRY(am_tj_flag(&cut, v, "split", 1));
    if (!mark->count)
        return am_fail(AM_EFORMAT, "'replacement' is empty");
    AM_TRY(add_step(&step, t, AM_STEP_METASPACE));
    step->prefix = prepend;
    step->first = first;
    AM_TRY(copy_string(&step->content, &step->content_bytes, mark));
    if (!cut)
        return AM_OK;
    AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
    step->behavior = AM_SPLIT_MERGED_WITH_NEXT;
    return copy_string(&step->pattern.literal, &step->pattern.bytes, mark);
}

static int read_pre_tokenizer(am_tokenizer *t, const am_json *v)
{
    const char *type;
    const am_json *text;
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
        return am_tj_flag(&step->invert, v, "invert", 0);
    }
    if (strcmp(type, "BertPreTokenizer") == 0) {
        AM_TRY(add_class_split(t, AM_CLASS_SPACE, AM_SPLIT_REMOVED));
        return add_class_split(t, AM_CLASS_PUNCTUATION, AM_SPLIT_ISOLATED);
    }
    if (strcmp(type, "UnicodeScripts") == 0)
        return add_step(&step, t, AM_STEP_SCRIPTS);
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        AM_TRY(am_tj_member(&text, v, "delimiter", AM_JSON_STRING));
        if (!text->count)
            return am_fail(AM_EFORMAT, "'delimiter' is empty");
        AM_TRY(add_step(&step, t, AM_STEP_SPLIT));
        step->behavior = AM_SPLIT_REMOVED;
        return copy_string(&step->pattern.literal, &step->pattern.bytes, text);
    }
    if (strcmp(type, "Digits") == 0) {
        AM_TRY(am_tj_flag(&behavior, v, "individual_digits", 0));
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
    return am_tj_unknown("pre-tokenizer", type);
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
    AM_TRY(am_tj_member(&name, piece, "id", AM_JSON_STRING));
    token = am_json_get_bytes(table, name->as.text, name->count);
    if (!token)
        return am_fail(AM_EFORMAT, "'special_tokens' lacks the template's token '%.100s'",
                       name->as.text);
    AM_TRY(am_tj_member(&ids, token, "ids", AM_JSON_ARRAY));
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
    AM_TRY(am_tj_member(&single, v, "single", AM_JSON_ARRAY));
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

/* ["[SEP]", 102] */
static int read_pair(int32_t *id, const am_json *v, const char *key)
{
    const am_json *pair;
    AM_TRY(am_tj_member(&pair, v, key, AM_JSON_ARRAY));
    if (pair->count != 2 || !am_json_is_int(&pair->as.items[1]) ||
        pair->as.items[1].as.integer < 0 || pair->as.items[1].as.integer > AM_VOCAB_MAX_ID)
        return am_fail(AM_EFORMAT, "'%s' is no pair of a token and its id", key);
    *id = (int32_t)pair->as.items[1].as.integer;
    return AM_OK;
}

/* BertProcessing and RobertaProcessing: cls before, sep behind. */
static int read_cls_sep(am_tokenizer *t, const am_json *v)
{
    int32_t cls, sep;
    AM_TRY(read_pair(&cls, v, "cls"));
    AM_TRY(read_pair(&sep, v, "sep"));
    AM_TRY(add_id(&t->prefix, &t->prefix_count, &t->prefix_capacity, 0, cls));
    return add_id(&t->suffix, &t->suffix_count, &t->suffix_capacity, 0, sep);
}

static int read_trim(am_tokenizer *t, const am_json *v)
{
    int trim;
    AM_TRY(am_tj_flag(&trim, v, "trim_offsets", 1));
    t->trim_offsets |= trim;
    return trim ? am_tj_flag(&t->trim_prefix_space, v, "add_prefix_space", 1) : AM_OK;
}

static int read_post_processor(am_tokenizer *t, const am_json *v)
{
    const char *type;
    AM_TRY(type_of(&type, v, "post-processor"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "processors", read_post_processor);
    if (strcmp(type, "ByteLevel") == 0)
        return read_trim(t, v);
    int template = strcmp(type, "TemplateProcessing") == 0;
    int roberta = strcmp(type, "RobertaProcessing") == 0;
    if (!template && !roberta && strcmp(type, "BertProcessing") != 0)
        return am_tj_unknown("post-processor", type);
    if (t->has_template)
        return am_fail(AM_EUNSUP, "two templates in one sequence are not supported");
    t->has_template = 1;
    if (template)
        return read_template(t, v);
    if (roberta)
        AM_TRY(read_trim(t, v));
    return read_cls_sep(t, v);
}

/* ---- decoders --------------------------------------------------------------------------- */

static int read_decoder(am_tokenizer *t, const am_json *v)
{
    static const struct {
        const char *name;
        int kind;
    } kinds[] = {{"ByteLevel", AM_DECODER_BYTES},    {"Replace", AM_DECODER_REPLACE},
                 {"Fuse", AM_DECODER_FUSE},          {"ByteFallback", AM_DECODER_BYTE_FALLBACK},
                 {"Strip", AM_DECODER_STRIP},        {"Metaspace", AM_DECODER_METASPACE},
                 {"WordPiece", AM_DECODER_WORDPIECE}};
    const char *type;
    AM_TRY(type_of(&type, v, "decoder"));
    if (strcmp(type, "Sequence") == 0)
        return each(t, v, "decoders", read_decoder);
    int kind = -1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].name) == 0)
            kind = kinds[i].kind;
    if (kind < 0)
        return am_tj_unknown("decoder", type);
    am_step *step;
    const am_json *text;
    AM_TRY(new_step(&step, &t->decoders, &t->decoder_count, &t->decoder_capacity, kind));
    if (kind == AM_DECODER_REPLACE)
        AM_TRY(read_pattern(&step->pattern, v));
    if (kind == AM_DECODER_STRIP) {
        int64_t left, right;
        AM_TRY(am_tj_count(&left, v, "start"));
        AM_TRY(am_tj_count(&right, v, "stop"));
        step->left = (int)left;
        step->right = (int)right;
    }
    if (kind == AM_DECODER_METASPACE) {
        int first;
        AM_TRY(read_prepend_scheme(&step->first, &first, v));
    }
    if (kind == AM_DECODER_WORDPIECE)
        AM_TRY(am_tj_flag(&step->left, v, "cleanup", 1));
    if (kind == AM_DECODER_BYTES || kind == AM_DECODER_FUSE || kind == AM_DECODER_BYTE_FALLBACK)
        return AM_OK;
    const char *key = kind == AM_DECODER_METASPACE   ? "replacement"
                      : kind == AM_DECODER_WORDPIECE ? "prefix"
                                                     : "content";
    AM_TRY(am_tj_member(&text, v, key, AM_JSON_STRING));
    if (!text->count && kind != AM_DECODER_REPLACE && kind != AM_DECODER_WORDPIECE)
        return am_fail(AM_EFORMAT, "the %s decoder's content is empty", type);
    return copy_string(&step->content, &step->content_bytes, text);
}

/* ---- the whole -------------------------------------------------------------------------- */

static int part(am_tokenizer *t, const am_json *root, const char *key,
                int (*read)(am_tokenizer *, const am_json *))
{
    const am_json *v = am_json_get(root, key);
    if (am_tj_null(v))
        return AM_OK;
    int rc = read(t, v);
    return rc ? am_fail_context(rc, "%s", key) : AM_OK;
}

int am_tokenizer_load_steps(am_tokenizer *t, const am_json *root)
{
    AM_TRY(part(t, root, "normalizer", read_normalizer));
    t->normalizer_count = t->step_count;
    AM_TRY(part(t, root, "pre_tokenizer", read_pre_tokenizer));
    AM_TRY(part(t, root, "post_processor", read_post_processor));
    AM_TRY(part(t, root, "decoder", read_decoder));
    t->has_decoder = !am_tj_null(am_json_get(root, "decoder"));
    for (size_t i = 0; i < t->step_count; i++) {
        t->byte_level |= t->steps[i].kind == AM_STEP_BYTES;
        t->needs_origin |= t->steps[i].first && t->normalizer_count;
    }
    return AM_OK;
}
