/* tokenizer_tiktoken.c — files of tokens by rank: tiktoken's (a line for each token: its bytes in
 * base64, a space, its rank) and mistral's tekken.json. The rank is the id and the order of merges;
 * neither has the merges, which are found from the ranks. */
#include <stdio.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer_import.h"

typedef struct source {
    am_import im;
    size_t capacity;
    am_buffer bytes; /* the tokens', one behind the other */
} source;

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Add the token of a rank. Its text is an offset until finish(), as the buffer moves. */
static int add_token(source *s, const char *base64, size_t n, int64_t rank, size_t line)
{
    void *p = s->im.tokens;
    while (n && base64[n - 1] == '=')
        n--;
    if (rank != (int64_t)s->im.count)
        return am_fail(AM_EFORMAT, "token %zu has the rank %lld, not %zu", line, (long long)rank,
                       s->im.count);
    if (rank > AM_VOCAB_MAX_ID)
        return am_fail(AM_EFORMAT, "there are more than %d tokens", AM_VOCAB_MAX_ID);
    int rc = am_grow(&p, &s->capacity, s->im.count + 1, sizeof *s->im.tokens);
    s->im.tokens = p;
    AM_TRY(rc);
    size_t begin = s->bytes.bytes;
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = base64_digit(base64[i]);
        if (digit < 0)
            return am_fail(AM_EFORMAT, "token %zu is not base64", line);
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4)
            am_buffer_put(&s->bytes, &(char){(char)(bits >> (6 - i % 4 * 2))}, 1);
    }
    if (s->bytes.bytes == begin && !s->bytes.rc)
        return am_fail(AM_EFORMAT, "token %zu is empty", line);
    s->im.tokens[s->im.count++] = (am_import_token){
        .bytes = s->bytes.bytes - begin, .score = -(double)rank, .kind = AM_TOKEN_NORMAL};
    return s->bytes.rc;
}

static void finish(source *s)
{
    size_t at = 0;
    for (size_t i = 0; i < s->im.count; i++) {
        if (s->im.tokens[i].text)
            continue; /* a special token's own */
        s->im.tokens[i].text = s->bytes.data + at;
        at += s->im.tokens[i].bytes;
    }
}

static int build(am_tokenizer **out, source *s, int rc, const char *what)
{
    am_buffer json = {0};
    if (!rc) {
        finish(s);
        rc = am_import_json(&json, &s->im);
    }
    am_free(s->im.tokens);
    am_buffer_free(&s->bytes);
    if (rc) {
        am_buffer_free(&json);
        return am_fail_context(rc, "%s", what);
    }
    return am_tokenizer_take_json(out, &json, what);
}

/* ---- tiktoken --------------------------------------------------------------------------- */

static int read_lines(source *s, const char *text, size_t bytes)
{
    size_t line = 0;
    for (const char *at = text, *end = text + bytes, *next; at < end; at = next) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > at && stop[-1] == '\r')
            stop--;
        if (stop == at)
            continue;
        line++;
        const char *space = memchr(at, ' ', (size_t)(stop - at));
        int64_t rank = 0;
        const char *p = space ? space + 1 : stop;
        for (; space && p < stop && *p >= '0' && *p <= '9' && rank <= AM_VOCAB_MAX_ID; p++)
            rank = rank * 10 + (*p - '0');
        if (!space || p == space + 1 || p != stop)
            return am_fail(AM_EFORMAT, "line %zu is not a token in base64, a space and a rank",
                           line);
        AM_TRY(add_token(s, at, (size_t)(space - at), rank, line));
    }
    return line ? AM_OK : am_fail(AM_EFORMAT, "there are no tokens");
}

int am_tokenizer_from_tiktoken(am_tokenizer **out, const char *text, size_t bytes, const char *cut)
{
    source s = {.im = {.unk = -1, .before = -1, .after = -1, .raw_bytes = 1, .ignore_merges = 1}};
    s.im.cut = am_cut_find(cut, strlen(cut));
    if (!s.im.cut)
        return am_fail(AM_EUNSUP, "tiktoken file: the encoding '%s' is not known", cut);
    return build(out, &s, read_lines(&s, text, bytes), "tiktoken file");
}

/* ---- tekken ----------------------------------------------------------------------------- */

/* Special tokens stand before all others: by rank, and fillers up to their number. */
static int add_specials(source *s, const am_json *root, int64_t count)
{
    static const char *const first[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    const am_json *list = am_json_get(root, "special_tokens");
    void *p;
    AM_TRY(am_alloc(&p, (size_t)count * sizeof *s->im.tokens));
    s->im.tokens = p;
    s->capacity = s->im.count = (size_t)count;
    for (int64_t i = 0; i < count; i++)
        s->im.tokens[i].kind = AM_TOKEN_CONTROL;
    for (uint32_t i = 0; am_json_is(list, AM_JSON_ARRAY) && i < list->count; i++) {
        const am_json *rank = am_json_get(&list->as.items[i], "rank");
        const am_json *token = am_json_get_kind(&list->as.items[i], "token_str", AM_JSON_STRING);
        if (!am_json_is_int(rank) || rank->as.integer < 0 || rank->as.integer >= count || !token)
            return am_fail(AM_EFORMAT, "special_tokens[%u] has no rank below %lld or no token_str",
                           i, (long long)count);
        s->im.tokens[rank->as.integer].text = token->as.text;
        s->im.tokens[rank->as.integer].bytes = token->count;
    }
    if (!am_json_is(list, AM_JSON_ARRAY))
        for (int64_t i = 0; i < count && i < 20; i++) {
            s->im.tokens[i].text = first[i];
            s->im.tokens[i].bytes = strlen(first[i]);
        }
    for (int64_t i = 0; i < count; i++) {
        am_import_token *t = &s->im.tokens[i];
        if (t->text)
            continue;
        char name[32];
        int n = snprintf(name, sizeof name, "<SPECIAL_%lld>", (long long)i);
        am_buffer_put(&s->bytes, name, (size_t)n); /* finish() finds it there */
        t->bytes = (size_t)n;
    }
    return s->bytes.rc;
}

static int read_tekken(source *s, const am_json *root)
{
    const am_json *config = am_json_get(root, "config"), *vocab, *n, *regex;
    int64_t specials = 0, size = 0;
    AM_TRY(am_tj_member(&vocab, root, "vocab", AM_JSON_ARRAY));
    AM_TRY(am_tj_count(&size, config, "default_vocab_size"));
    AM_TRY(am_tj_count(&specials, config, "default_num_special_tokens"));
    if (size > AM_VOCAB_MAX_ID || specials > size)
        return am_fail(AM_EFORMAT,
                       "default_vocab_size %lld and default_num_special_tokens %lld "
                       "contradict each other",
                       (long long)size, (long long)specials);
    AM_TRY(add_specials(s, root, specials));
    for (uint32_t i = 0; i < vocab->count && (int64_t)s->im.count < size; i++) {
        const am_json *entry = &vocab->as.items[i];
        const am_json *bytes = am_json_get_kind(entry, "token_bytes", AM_JSON_STRING);
        n = am_json_get(entry, "rank");
        if (!bytes || !am_json_is_int(n) || n->as.integer < 0 || n->as.integer > AM_VOCAB_MAX_ID)
            return am_fail(AM_EFORMAT, "vocab[%u] has no rank or no token_bytes", i);
        AM_TRY(add_token(s, bytes->as.text, bytes->count, n->as.integer + specials, i));
    }
    regex = am_json_get_kind(config, "pattern", AM_JSON_STRING);
    s->im.cut = am_cut_find("tekken", 6);
    if (regex && !am_json_equals(regex, s->im.cut->patterns[0]))
        return am_fail(AM_EUNSUP, "config.pattern is not that of the known tekken files");
    s->im.before = specials > 1 ? 1 : -1;
    return AM_OK;
}

int am_tokenizer_from_tekken(am_tokenizer **out, const char *text, size_t bytes)
{
    source s = {.im = {.unk = -1, .before = -1, .after = -1, .raw_bytes = 1, .ignore_merges = 1}};
    am_json_doc *doc = NULL;
    int rc = am_json_parse(&doc, text, bytes, 0);
    if (!rc)
        rc = am_json_is(am_json_root(doc), AM_JSON_OBJECT) ? read_tekken(&s, am_json_root(doc))
                                                           : am_fail(AM_EFORMAT, "is no object");
    rc = build(out, &s, rc, "tekken.json");
    am_json_free(doc);
    return rc;
}
