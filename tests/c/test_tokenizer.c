/* test_tokenizer.c — the tokenizer against what Hugging Face `tokenizers` computed (tests/parity),
 * its parts alone, GGUF import, hostile files and failing memory. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "am.h"
#include "data/tokenizer_model.h"
#include "data/tokenizer_regex.h"
#include "io/json.h"
#include "io_helpers.h"

#define GOLDEN(name) AM_TEST_DIR "/parity/golden/tokenizers/" name

static am_json_doc *parse_file(const char *path)
{
    size_t bytes;
    char *text = slurp(path, &bytes);
    am_json_doc *doc;
    ck_ok(am_json_parse(&doc, text, bytes, 0));
    free(text);
    return doc;
}

static am_tokenizer *from_file(const char *path)
{
    size_t bytes;
    char *text = slurp(path, &bytes);
    am_tokenizer *t;
    ck_ok(am_tokenizer_from_json(&t, text, bytes));
    free(text);
    return t;
}

static am_tokenizer *from_value(const am_json *v)
{
    am_buffer b = {0};
    am_tokenizer *t;
    am_json_put_value(&b, v);
    ck_ok(am_tokenizer_from_json(&t, b.data, b.bytes));
    am_buffer_free(&b);
    return t;
}

/* ---- goldens ---------------------------------------------------------------------------- */

static void check_ids(const char *what, const am_json *want, const int32_t *ids, int64_t n)
{
    ck_assert_ptr_nonnull(want);
    int same = (int64_t)want->count == n;
    for (int64_t i = 0; same && i < n; i++)
        same = want->as.items[i].as.integer == ids[i];
    ck_assert_msg(same, "%s: other ids (%lld, expected %u)", what, (long long)n, want->count);
}

static void check_decoded(am_tokenizer *t, const char *what, const am_json *ids,
                          const am_json *want, int flags)
{
    int32_t *list = calloc(ids->count + 1, sizeof *list);
    for (uint32_t i = 0; i < ids->count; i++)
        list[i] = (int32_t)ids->as.items[i].as.integer;
    const char *text;
    size_t bytes;
    ck_ok(am_tokenizer_decode(t, list, ids->count, flags, &text, &bytes));
    ck_assert_msg(bytes == want->count && memcmp(text, want->as.text, bytes) == 0,
                  "%s: decoded '%.*s', expected '%s'", what, (int)bytes, text, want->as.text);
    free(list);
}

/* Encode out of memory of exact size, so that a sanitizer sees a read beyond the text. It stays
 * until the next call, for offsets. */
static void encode(am_tokenizer *t, const char *text, size_t bytes, int special,
                   const int32_t **ids, int64_t *n)
{
    static char *exact;
    free(exact);
    exact = malloc(bytes ? bytes : 1);
    memcpy(exact, text, bytes);
    ck_ok(am_tokenizer_encode(t, exact, bytes, special, ids, n));
}

static void check_case(am_tokenizer *t, const char *name, const am_json *c)
{
    const am_json *text = am_json_get(c, "text"), *offsets = am_json_get(c, "offsets");
    char what[200];
    snprintf(what, sizeof what, "%s: '%.100s'", name, text->as.text);
    const int32_t *ids;
    int64_t n;
    for (int repeat = 0; repeat < 2; repeat++) { /* the second time out of the cache */
        encode(t, text->as.text, text->count, 0, &ids, &n);
        check_ids(what, am_json_get(c, "ids_plain"), ids, n);
        encode(t, text->as.text, text->count, AM_ENCODE_SPECIAL | AM_ENCODE_OFFSETS, &ids, &n);
        check_ids(what, am_json_get(c, "ids"), ids, n);
    }
    const int64_t *got;
    ck_ok(am_tokenizer_offsets(t, &got, &n));
    for (int64_t i = 0; i < 2 * n; i++) {
        ck_assert(got[i] >= 0 && got[i] <= (int64_t)text->count);
        ck_assert_msg(!offsets || offsets->as.items[i].as.integer == got[i],
                      "%s: offset %lld is %lld", what, (long long)i, (long long)got[i]);
    }
    check_decoded(t, what, am_json_get(c, "ids"), am_json_get(c, "decoded"), 0);
    if (am_json_get(c, "decoded_skip"))
        check_decoded(t, what, am_json_get(c, "ids"), am_json_get(c, "decoded_skip"),
                      AM_DECODE_SKIP_SPECIAL);
}

static void check_golden(const char *tokenizer, const char *golden)
{
    am_json_doc *doc = parse_file(golden);
    am_tokenizer *t = from_file(tokenizer);
    const am_json *cases = am_json_get(am_json_root(doc), "encode");
    ck_assert_uint_gt(cases->count, 100);
    for (uint32_t i = 0; i < cases->count; i++)
        check_case(t, golden, &cases->as.items[i]);
    cases = am_json_get(am_json_root(doc), "decode");
    for (uint32_t i = 0; i < cases->count; i++) {
        const am_json *c = &cases->as.items[i], *ids = am_json_get(c, "ids");
        check_decoded(t, golden, ids, am_json_get(c, "decoded"), 0);
        check_decoded(t, golden, ids, am_json_get(c, "decoded_skip"), AM_DECODE_SKIP_SPECIAL);
    }
    am_tokenizer_release(t);
    am_json_free(doc);
}

START_TEST(test_smollm2)
{
    check_golden(GOLDEN("smollm2/tokenizer.json"), GOLDEN("smollm2.json"));
}
END_TEST

START_TEST(test_gpt2)
{
    check_golden(GOLDEN("gpt2/tokenizer.json"), GOLDEN("gpt2.json"));
}
END_TEST

START_TEST(test_llama3)
{
    check_golden(GOLDEN("llama3/tokenizer.json"), GOLDEN("llama3.json"));
}
END_TEST

START_TEST(test_qwen2)
{
    check_golden(GOLDEN("qwen2/tokenizer.json"), GOLDEN("qwen2.json"));
}
END_TEST

START_TEST(test_pipelines)
{
    am_json_doc *doc = parse_file(GOLDEN("pipelines.json"));
    const am_json *rows = am_json_root(doc);
    ck_assert_uint_gt(rows->count, 60);
    for (uint32_t i = 0; i < rows->count; i++) {
        const am_json *row = &rows->as.items[i], *cases = am_json_get(row, "cases");
        am_tokenizer *t = from_value(am_json_get(row, "tokenizer"));
        ck_assert_uint_gt(cases->count, 10);
        for (uint32_t k = 0; k < cases->count; k++)
            check_case(t, am_json_get(row, "name")->as.text, &cases->as.items[k]);
        am_tokenizer_release(t);
    }
    am_json_free(doc);
}
END_TEST

/* ---- the API ---------------------------------------------------------------------------- */

START_TEST(test_look_ups)
{
    am_tokenizer *t = from_file(GOLDEN("qwen2/tokenizer.json"));
    int64_t id = am_tokenizer_id(t, "<|im_start|>");
    ck_assert_int_ge((int)id, 0);
    ck_assert_str_eq(am_tokenizer_token(t, id), "<|im_start|>");
    ck_assert_int_eq(am_tokenizer_is_special(t, id), 1);
    ck_assert_int_eq(am_tokenizer_is_special(t, am_tokenizer_id(t, "<tool_call>")), 0);
    ck_assert_int_eq((int)am_tokenizer_size(t), (int)am_tokenizer_id(t, "Caf\xc3\xa9") + 1);
    ck_assert_ptr_null(am_tokenizer_token(t, am_tokenizer_size(t)));
    ck_assert_ptr_null(am_tokenizer_token(t, -1));
    ck_assert_int_eq(am_tokenizer_is_special(t, -1), 0);
    ck_assert_int_eq((int)am_tokenizer_id(t, "no such token"), -1);
    const char *text, *file;
    size_t bytes, file_bytes;
    ck_ok(am_tokenizer_to_json(t, &text, &bytes));
    file = slurp(GOLDEN("qwen2/tokenizer.json"), &file_bytes);
    ck_assert_uint_eq(bytes, file_bytes);
    ck_assert_mem_eq(text, file, bytes);
    free((char *)file);
    ck_assert_int_eq(am_tokenizer_decode(t, (int32_t[]){1, 1 << 20}, 2, 0, &text, &bytes),
                     AM_EINVAL);
    ck_message("number 2");
    ck_assert_int_eq(am_tokenizer_decode(t, (int32_t[]){-1}, 1, 0, &text, &bytes), AM_EINVAL);
    ck_ok(am_tokenizer_decode(t, NULL, 0, 0, &text, &bytes));
    ck_assert_uint_eq(bytes, 0);
    am_tokenizer_release(t);
    am_tokenizer_release(NULL);
}
END_TEST

/* The tokenizer of this name among the small ones. */
static am_tokenizer *pipeline(const char *name)
{
    am_json_doc *doc = parse_file(GOLDEN("pipelines.json"));
    const am_json *rows = am_json_root(doc);
    am_tokenizer *t = NULL;
    for (uint32_t i = 0; i < rows->count; i++)
        if (am_json_equals(am_json_get(&rows->as.items[i], "name"), name))
            t = from_value(am_json_get(&rows->as.items[i], "tokenizer"));
    am_json_free(doc);
    ck_assert_msg(t != NULL, "no tokenizer %s", name);
    return t;
}

/* Bytes of any kind come back, added tokens among them are found, offsets point at them. */
START_TEST(test_raw_bytes)
{
    am_tokenizer *t = pipeline("digits");
    char text[3000];
    uint32_t seed = 1;
    for (int round = 0; round < 60; round++) {
        for (size_t i = 0; i < sizeof text; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = (char)(seed >> (round % 3 ? 24 : 25)); /* every third round is ASCII */
        }
        memcpy(text + 100, "<x>", 3);
        const size_t bytes = round ? sizeof text - (size_t)round : 0;
        const int32_t *ids;
        const int64_t *offsets;
        const char *back;
        int64_t n, m, end = 0;
        size_t back_bytes;
        int seen = 0;
        encode(t, text, bytes, AM_ENCODE_OFFSETS, &ids, &n);
        ck_ok(am_tokenizer_offsets(t, &offsets, &m));
        ck_assert_int_eq((int)m, (int)n);
        for (int64_t i = 0; i < n; i++) {
            /* Whole characters may be shared by tokens, but nothing is left out. */
            ck_assert(offsets[2 * i] <= end && end <= offsets[2 * i + 1]);
            end = offsets[2 * i + 1];
            seen += ids[i] == am_tokenizer_id(t, "<x>") && offsets[2 * i] == 100;
        }
        ck_assert_int_eq((int)end, (int)bytes);
        ck_assert_int_eq(seen, bytes > 0);
        ck_ok(am_tokenizer_decode(t, ids, n, AM_DECODE_RAW, &back, &back_bytes));
        ck_assert_uint_eq(back_bytes, bytes);
        ck_assert_mem_eq(back, text, bytes);
        ck_ok(am_tokenizer_decode(t, ids, n, 0, &back, &back_bytes));
        for (size_t i = 0; i < back_bytes;) {
            int length = am_utf8_length(back + i, back_bytes - i);
            ck_assert_int_gt(length, 0);
            i += (size_t)length;
        }
    }
    am_tokenizer_release(t);
    t = pipeline("metaspace_always");
    const int32_t *ids;
    int64_t n;
    ck_assert_int_eq(am_tokenizer_encode(t, "ab\xff", 3, 0, &ids, &n), AM_EINVAL);
    ck_message("byte 2");
    am_tokenizer_release(t);
}
END_TEST

/* ---- parts ------------------------------------------------------------------------------ */

START_TEST(test_byte_alphabet)
{
    int seen[0x144] = {0};
    for (int b = 0; b < 256; b++) {
        uint32_t c = am_byte_spelling((uint8_t)b);
        ck_assert_uint_lt(c, 0x144);
        ck_assert_int_eq(am_byte_spelled(c), b);
        ck_assert_int_eq(seen[c]++, 0);
    }
    for (uint32_t c = 0; c < 0x200; c++)
        ck_assert_int_eq(am_byte_spelled(c) >= 0, c < 0x144 && seen[c]);
    ck_assert_uint_eq(am_byte_spelling(' '), 0x120);
    ck_assert_uint_eq(am_byte_spelling('\n'), 0x10a);
}
END_TEST

/* Byte pair encoding as it is defined: join the pair of lowest rank, leftmost first, again and
 * again. Letters a to d; merges are pairs of token strings. */
enum { MERGES = 40 };
typedef struct toy {
    char merges[MERGES][2][64];
    int count;
} toy;

static int slow_encode(const toy *y, char parts[][64], int n)
{
    for (;;) {
        int best = y->count, at = 0;
        for (int i = 0; i + 1 < n; i++)
            for (int m = 0; m < best; m++)
                if (!strcmp(parts[i], y->merges[m][0]) && !strcmp(parts[i + 1], y->merges[m][1])) {
                    best = m;
                    at = i;
                }
        if (best == y->count)
            return n;
        memmove(parts[at] + strlen(parts[at]), parts[at + 1], strlen(parts[at + 1]) + 1);
        memmove(parts[at + 1], parts[at + 2], (size_t)(n - at - 2) * sizeof parts[0]);
        n--;
    }
}

START_TEST(test_merges_as_defined)
{
    uint32_t seed = 7;
#define NEXT(k) ((seed = seed * 1664525u + 1013904223u) >> 8) % (k)
    for (int round = 0; round < 40; round++) {
        am_model bpe = {.kind = AM_MODEL_BPE, .spelled = round % 2, .unk = -1};
        am_work work = {0};
        am_tokens got = {0};
        toy y = {.count = 0};
        char tokens[4 + MERGES][64] = {"a", "b", "c", "d"};
        int count = 4;
        while (y.count < MERGES) {
            const char *left = tokens[NEXT((uint32_t)count)],
                       *right = tokens[NEXT((uint32_t)count)];
            char both[128];
            int known = 0;
            snprintf(both, sizeof both, "%s%s", left, right);
            if (strlen(both) > 12)
                continue;
            for (int m = 0; m < y.count; m++)
                known |= !strcmp(y.merges[m][0], left) && !strcmp(y.merges[m][1], right);
            if (known)
                continue;
            strcpy(y.merges[y.count][0], left);
            strcpy(y.merges[y.count++][1], right);
            for (int i = 0; i < count; i++)
                known |= !strcmp(tokens[i], both);
            if (!known)
                strcpy(tokens[count++], both);
        }
        for (int i = 0; i < count; i++)
            ck_ok(am_vocab_add(&bpe.vocab, tokens[i], strlen(tokens[i]), i));
        ck_ok(am_model_begin(&bpe));
        for (int i = 0; i < y.count; i++)
            ck_ok(am_bpe_merge(&bpe, y.merges[i][0], strlen(y.merges[i][0]), y.merges[i][1],
                               strlen(y.merges[i][1])));
        ck_ok(am_model_finish(&bpe));
        for (int k = 0; k < 30; k++) {
            static char parts[300][64];
            char word[300];
            int n = 1 + (int)(NEXT(k < 20 ? 60u : 299u));
            for (int i = 0; i < n; i++) {
                word[i] = (char)('a' + NEXT(4u));
                parts[i][0] = word[i];
                parts[i][1] = 0;
            }
            size_t at = 0;
            for (int repeat = 0; repeat < 2; repeat++) { /* the second time out of the cache */
                got.count = 0;
                ck_ok(am_model_encode(&bpe, &work, word, 0, (size_t)n, &got));
            }
            n = slow_encode(&y, parts, n);
            ck_assert_int_eq((int)got.count, n);
            for (int i = 0; i < n; i++) {
                ck_assert_str_eq(bpe.vocab.tokens[got.ids[i]].text, parts[i]);
                ck_assert_uint_eq(got.spans[i].start, at);
                at += strlen(parts[i]);
                ck_assert_uint_eq(got.spans[i].end, at);
            }
        }
        am_tokens_free(&got);
        am_work_free(&work);
        am_model_free(&bpe);
    }
}
END_TEST

START_TEST(test_vocab)
{
    am_vocab v = {0};
    ck_ok(am_vocab_add(&v, "a\0b", 3, 5));
    ck_ok(am_vocab_add(&v, "", 0, 2));
    ck_ok(am_vocab_add(&v, "a\0b", 3, 5));
    ck_assert_int_eq((int)am_vocab_find(&v, "a\0b", 3), 5);
    ck_assert_int_eq((int)am_vocab_find(&v, "a", 1), -1);
    ck_assert_int_eq((int)am_vocab_find(&v, "", 0), 2);
    ck_assert_int_eq(am_vocab_add(&v, "c", 1, 5), AM_EFORMAT);
    ck_assert_int_eq(am_vocab_add(&v, "a\0b", 3, 6), AM_EFORMAT);
    ck_assert_int_eq(am_vocab_add(&v, "d", 1, -1), AM_EFORMAT);
    ck_assert_int_eq(am_vocab_add(&v, "d", 1, INT64_MAX), AM_EFORMAT);
    for (int i = 0; i < 5000; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        ck_ok(am_vocab_add(&v, name, strlen(name), 10 + i));
    }
    ck_assert_int_eq((int)am_vocab_find(&v, "t4999", 5), 5009);
    ck_assert_uint_eq(v.count, 5002);
    ck_assert_uint_eq(v.size, 5010);
    am_vocab_free(&v);
}
END_TEST

/* Patterns that are refused rather than understood otherwise than Oniguruma does. */
START_TEST(test_regex_refused)
{
    static const struct {
        const char *pattern, *message;
        int rc;
    } cases[] = {
        {"a{1,2}+", "{n,m}+", AM_EUNSUP},
        {"a{2}?", "{n}?", AM_EUNSUP},
        {"[a[b]]", "within a class", AM_EUNSUP},
        {"[a&&b]", "intersection", AM_EUNSUP},
        {"(*ACCEPT)", "verb", AM_EUNSUP},
        {"(?R)", "group", AM_EUNSUP},
        {"(?<n>a)", "group", AM_EUNSUP},
        {"a(?i)b", "group", AM_EUNSUP},
        {"(?x: a)", "group", AM_EUNSUP},
        {"\\G", "\\G", AM_EUNSUP},
        {"(a)\\1", "\\1", AM_EUNSUP},
        {"\\Qa", "\\Q", AM_EUNSUP},
        {"\\x85", "raw byte", AM_EUNSUP},
        {"\\pL", "braces", AM_EUNSUP},
        {"\\p{Nonsense}", "compiled", AM_EUNSUP},
        {"[\\W]", "inside a class", AM_EUNSUP},
        {"[]a]", "begins with ]", AM_EUNSUP},
        {"(a", "compiled", AM_EUNSUP},
        {"(?<=a+)b", "compiled", AM_EUNSUP},
        {"a\\", "backslash", AM_EFORMAT},
        {"[a", "without end", AM_EFORMAT},
        {"\xff", "UTF-8", AM_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_regex *re;
        int rc = am_regex_compile(&re, cases[i].pattern, strlen(cases[i].pattern));
        ck_assert_msg(rc == cases[i].rc, "%s: %d %s", cases[i].pattern, rc, am_error_message());
        ck_message(cases[i].message);
    }
    char *big = malloc(1 << 17);
    memset(big, 'a', 1 << 17);
    am_regex *re;
    ck_assert_int_eq(am_regex_compile(&re, big, 1 << 17), AM_EUNSUP);
    free(big);
}
END_TEST

/* A pattern that takes exponential time ends in an error, not in an endless run. */
START_TEST(test_regex_limit)
{
    am_regex *re;
    char text[64];
    size_t start, end;
    int found;
    memset(text, 'a', sizeof text);
    text[sizeof text - 2] = 'b';
    text[sizeof text - 1] = 'c';
    ck_ok(am_regex_compile(&re, "(?:a|aa)+c", 10));
    am_regex_scratch scratch = {0};
    ck_assert_int_eq(am_regex_find(re, &scratch, text, sizeof text, 0, &start, &end, &found),
                     AM_EFORMAT);
    ck_message("limit");
    am_regex_scratch_free(&scratch);
    am_regex_free(re);
}
END_TEST

/* ---- bad files -------------------------------------------------------------------------- */

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"

START_TEST(test_refused)
{
    static const struct {
        const char *json, *message;
        int rc;
    } cases[] = {
        {"", "", AM_EFORMAT},
        {"[]", "an array, not an object", AM_EFORMAT},
        {"{}", "'model' is missing", AM_EFORMAT},
        {"{\"model\":null}", "'model' is null", AM_EFORMAT},
        {"{\"model\":{\"type\":\"WordLevel\"}}", "WordLevel", AM_EUNSUP},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "'vocab' is missing", AM_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "'vocab' is missing", AM_EFORMAT},
        {"{\"model\":{\"type\":\"BPE\"," VOCAB "}}", "'merges' is missing", AM_EFORMAT},
        {"{\"model\":{\"vocab\":[],\"merges\":[]}}", "'vocab' is an array", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":\"x\"},\"merges\":[]}}", "no integer", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "-1", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":1e3},\"merges\":[]}}", "no integer", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":4294967296},\"merges\":[]}}", "4294967296", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "one to one", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[\"ab\"]}}", "merges[0]", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[\"a b\",\"a  b\"]}}", "merges[1]", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[\"a c\"]}}", "the second", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[\"b a\"]}}", "the whole", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[[\"a\"]]}}", "neither", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[[\"a\",1]]}}", "neither", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"dropout\":0.1}}", "dropout", AM_EUNSUP},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         "end_of_word_suffix", AM_EUNSUP},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"continuing_subword_prefix\":\"##\"}}",
         "continuing_subword_prefix", AM_EUNSUP},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"unk_token\":\"u\"}}", "'u'", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"unk_token\":1}}", "unk_token", AM_EFORMAT},
        {"{\"model\":{" VOCAB ",\"merges\":[],\"fuse_unk\":1}}", "fuse_unk", AM_EFORMAT},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\"}}",
         "'precompiled_charsmap' is missing", AM_EFORMAT},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Magic\"}}", "normalizer 'Magic'", AM_EUNSUP},
        {"{" MODEL
         ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},3]}}",
         "normalizers[1]", AM_EFORMAT},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},"
         "\"content\":\"\"}}",
         "compiled", AM_EUNSUP},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}}",
         "neither", AM_EFORMAT},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},"
         "\"content\":\"\"}}",
         "empty pattern", AM_EUNSUP},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"FixedLength\"}}", "pre-tokenizer 'FixedLength'",
         AM_EUNSUP},
        {"{" MODEL ",\"pre_tokenizer\":[]}", "pre_tokenizer", AM_EFORMAT},
        {"{" MODEL ",\"pre_tokenizer\":{}}", "'type' is missing", AM_EFORMAT},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
         "\"behavior\":\"Odd\"}}",
         "behavior", AM_EFORMAT},
        {"{" MODEL ",\"post_processor\":{\"type\":\"Magic\"}}", "post-processor 'Magic'",
         AM_EUNSUP},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
         "{\"SpecialToken\":{\"id\":\"q\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{}}}",
         "'q'", AM_EFORMAT},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
         "{\"SpecialToken\":{\"id\":\"q\"}},{\"Sequence\":{\"id\":\"A\"}}],"
         "\"special_tokens\":{\"q\":{\"ids\":[77]}}}}",
         "77", AM_EFORMAT},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}",
         "0 sequences", AM_EUNSUP},
        {"{" MODEL ",\"decoder\":{\"type\":\"CTC\"}}", "decoder 'CTC'", AM_EUNSUP},
        {"{" MODEL ",\"decoder\":{\"type\":\"Strip\",\"content\":\"\",\"start\":0,\"stop\":0}}",
         "empty", AM_EFORMAT},
        {"{" MODEL ",\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}}",
         "'start'", AM_EFORMAT},
        {"{" MODEL ",\"added_tokens\":{}}", "added_tokens", AM_EFORMAT},
        {"{" MODEL ",\"added_tokens\":[3]}", "added_tokens[0]", AM_EFORMAT},
        {"{" MODEL ",\"added_tokens\":[{\"id\":9}]}", "'content' is missing", AM_EFORMAT},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]},"
         "\"added_tokens\":[{\"content\":\"x\"}]}",
         "would get the id 2", AM_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tokenizer *t = NULL;
        size_t bytes = strlen(cases[i].json);
        char *exact = malloc(bytes ? bytes : 1);
        memcpy(exact, cases[i].json, bytes);
        int rc = am_tokenizer_from_json(&t, exact, bytes);
        free(exact);
        ck_assert_msg(rc == cases[i].rc, "%s: %d %s", cases[i].json, rc, am_error_message());
        ck_message(cases[i].message);
        ck_message("tokenizer.json");
        ck_assert_ptr_null(t);
    }
}
END_TEST

/* Every prefix of a file is refused, and a file with any byte changed is survived. */
START_TEST(test_damaged)
{
    static const char good[] =
        "{" MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,"
        "\"normalized\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
        "{\"type\":\"NFKC\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},"
        "\"content\":\"b\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s+(?!\\\\S)|\\\\p{L}{1,3}\"},"
        "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\"}]},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}},{\"Sequence\":{}}],"
        "\"special_tokens\":{\"q\":{\"ids\":[3]}}},\"decoder\":{\"type\":\"ByteLevel\"}}";
    char text[sizeof good];
    am_tokenizer *t;
    ck_ok(am_tokenizer_from_json(&t, good, sizeof good - 1));
    am_tokenizer_release(t);
    for (size_t n = 0; n < sizeof good - 1; n++)
        ck_assert_int_eq(am_tokenizer_from_json(&t, good, n), AM_EFORMAT);
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (int flip = 1; flip < 256; flip *= 2) {
            const int32_t *ids;
            int64_t n;
            memcpy(text, good, sizeof good);
            text[i] = (char)(text[i] ^ flip);
            if (am_tokenizer_from_json(&t, text, sizeof good - 1) != AM_OK)
                continue;
            am_tokenizer_encode(t, "a b <s> ab\n\xff \xc3\xa9", 14,
                                AM_ENCODE_SPECIAL | AM_ENCODE_OFFSETS, &ids, &n);
            am_tokenizer_release(t);
        }
}
END_TEST

/* Each allocation fails once: an error, no leak, and the tokenizer works afterwards. */
START_TEST(test_memory)
{
    am_json_doc *doc = parse_file(GOLDEN("pipelines.json"));
    const am_json *rows = am_json_root(doc);
    const char *const names[] = {"NFKC",       "added_flags", "byte_fallback",
                                 "processors", "unigram_nmt", "bert"};
    const char text[] = "the thing\xc3\xa9 <x> cafe\xcc\x81 WORLD 123";
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        am_buffer b = {0};
        for (uint32_t i = 0; i < rows->count; i++)
            if (am_json_equals(am_json_get(&rows->as.items[i], "name"), names[k]))
                am_json_put_value(&b, am_json_get(&rows->as.items[i], "tokenizer"));
        ck_assert_uint_gt(b.bytes, 0);
        am_tokenizer *t = NULL;
        int64_t at = 1;
        for (;; at += at < 40 ? 1 : 17) {
            am_mem_fail_at(at);
            int rc = am_tokenizer_from_json(&t, b.data, b.bytes);
            am_mem_fail_at(0);
            if (rc == AM_OK)
                break;
            ck_assert_int_eq(rc, AM_ENOMEM);
        }
        ck_assert_int_gt((int)at, 20);
        const int32_t *ids;
        const char *back;
        size_t bytes;
        int64_t n = 0;
        for (at = 1;; at++) {
            am_mem_fail_at(at);
            int rc = am_tokenizer_encode(t, text, sizeof text - 1,
                                         AM_ENCODE_SPECIAL | AM_ENCODE_OFFSETS, &ids, &n);
            if (rc == AM_OK)
                rc = am_tokenizer_decode(t, ids, n, 0, &back, &bytes);
            am_mem_fail_at(0);
            if (rc == AM_OK)
                break;
            ck_assert_int_eq(rc, AM_ENOMEM);
        }
        ck_assert_int_gt((int)n, 5);
        am_tokenizer_release(t);
        am_buffer_free(&b);
    }
    am_json_free(doc);
}
END_TEST

/* ---- GGUF ------------------------------------------------------------------------------- */

/* A GGUF file under construction: no tensors, only key-values. */
typedef struct gguf {
    am_buffer b;
    uint64_t count;
} gguf;

static void put_u32(gguf *g, uint32_t v)
{
    am_buffer_put(&g->b, &v, 4);
}
static void put_u64(gguf *g, uint64_t v)
{
    am_buffer_put(&g->b, &v, 8);
}
static void put_text(gguf *g, const char *s)
{
    put_u64(g, strlen(s));
    am_buffer_put(&g->b, s, strlen(s));
}
static void put_key(gguf *g, const char *key, uint32_t type)
{
    put_text(g, key);
    put_u32(g, type);
    g->count++;
}
static void put_strings(gguf *g, const char *key, const char *const *list, size_t n)
{
    put_key(g, key, 9);
    put_u32(g, 8);
    put_u64(g, n);
    for (size_t i = 0; i < n; i++)
        put_text(g, list[i]);
}

enum { WITH_KINDS = 1, SHORT_KINDS = 2, WITH_BOS = 4, BAD_BOS = 8, NO_MERGES = 16 };

static int from_gguf(am_tokenizer **t, const char *model, const char *pre, int with)
{
    static const char *const tokens[] = {"a",   "b",   "1",  "\xc4\xa0", "ab",      "abb",
                                         "<s>", "<t>", "1b", "\xc3\x83", "\xc2\xa9"};
    static const char *const merges[] = {"a b", "1 b"};
    static const uint32_t kinds[] = {1, 1, 1, 1, 1, 1, 3, 4, 1, 1, 1};
    gguf g = {0};
    if (model) {
        put_key(&g, "tokenizer.ggml.model", 8);
        put_text(&g, model);
    }
    if (pre) {
        put_key(&g, "tokenizer.ggml.pre", 8);
        put_text(&g, pre);
    }
    put_strings(&g, "tokenizer.ggml.tokens", tokens, 11);
    if (!(with & NO_MERGES))
        put_strings(&g, "tokenizer.ggml.merges", merges, 2);
    if (with & (WITH_KINDS | SHORT_KINDS)) {
        put_key(&g, "tokenizer.ggml.token_type", 9);
        put_u32(&g, 5);
        put_u64(&g, with & SHORT_KINDS ? 10 : 11);
        for (int i = 0; i < (with & SHORT_KINDS ? 10 : 11); i++)
            put_u32(&g, kinds[i]);
    }
    if (with & WITH_BOS) {
        put_key(&g, "tokenizer.ggml.bos_token_id", 4);
        put_u32(&g, with & BAD_BOS ? 11 : 6);
        put_key(&g, "tokenizer.ggml.add_bos_token", 7);
        am_buffer_put(&g.b, &(char){1}, 1);
    }
    gguf whole = {0};
    am_buffer_put(&whole.b, "GGUF", 4);
    put_u32(&whole, 3);
    put_u64(&whole, 0);
    put_u64(&whole, g.count);
    am_buffer_put(&whole.b, g.b.data, g.b.bytes);
    am_archive *a;
    serve(whole.b.data, whole.b.bytes);
    ck_ok(am_archive_open(&a, "served"));
    int rc = am_tokenizer_from_gguf(t, a);
    am_archive_release(a);
    am_buffer_free(&g.b);
    am_buffer_free(&whole.b);
    return rc;
}

static void expect(am_tokenizer *t, const char *text, int special, const char *ids_json)
{
    am_json_doc *doc;
    const int32_t *ids;
    int64_t n;
    ck_ok(am_json_parse(&doc, ids_json, strlen(ids_json), 0));
    encode(t, text, strlen(text), special, &ids, &n);
    check_ids(text, am_json_root(doc), ids, n);
    am_json_free(doc);
}

START_TEST(test_gguf)
{
    am_tokenizer *t;
    ck_ok(from_gguf(&t, "gpt2", "smollm", WITH_KINDS));
    expect(t, "ab 11b<s><t>", 1, "[4,3,2,2,1,6,7]");
    ck_assert_int_eq(am_tokenizer_is_special(t, 6), 1);
    ck_assert_int_eq(am_tokenizer_is_special(t, 7), 0);
    am_tokenizer_release(t);

    ck_ok(from_gguf(&t, "gpt2", "gpt-2", WITH_BOS)); /* no kinds: <s> is no added token */
    expect(t, "abb1b", 1, "[6,4,1,2,1]");
    expect(t, "abb1b", 0, "[4,1,2,1]");
    am_tokenizer_release(t);

    ck_ok(from_gguf(&t, "gpt2", "llama-bpe", WITH_KINDS | WITH_BOS)); /* ignore_merges */
    expect(t, "abb", 1, "[6,5]");
    const char *json;
    size_t bytes;
    ck_ok(am_tokenizer_to_json(t, &json, &bytes));
    am_tokenizer *again;
    ck_ok(am_tokenizer_from_json(&again, json, bytes));
    expect(again, "abb <s>", 1, "[6,5,3,6]");
    am_tokenizer_release(again);
    am_tokenizer_release(t);

    ck_ok(from_gguf(&t, "gpt2", "qwen2", 0)); /* NFC */
    expect(t, "\xe2\x84\xab", 0, "[9]");      /* U+212B is U+00C5, whose second byte has no token */
    am_tokenizer_release(t);

    ck_ok(from_gguf(&t, "gpt2", NULL, 0));
    am_tokenizer_release(t);
    ck_assert_int_eq(from_gguf(&t, "rwkv", "default", 0), AM_EUNSUP);
    ck_message("'rwkv'");
    ck_assert_int_eq(from_gguf(&t, "gpt2", "kimi-k2", 0), AM_EUNSUP);
    ck_message("'kimi-k2'");
    ck_assert_int_eq(from_gguf(&t, NULL, NULL, 0), AM_EFORMAT);
    ck_message("tokenizer.ggml.model");
    ck_assert_int_eq(from_gguf(&t, "gpt2", NULL, NO_MERGES), AM_EFORMAT);
    ck_message("merges");
    ck_assert_int_eq(from_gguf(&t, "gpt2", NULL, SHORT_KINDS), AM_EFORMAT);
    ck_message("token_type");
    ck_assert_int_eq(from_gguf(&t, "gpt2", NULL, WITH_BOS | BAD_BOS), AM_EFORMAT);
    ck_message("bos_token_id");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_smollm2,           test_gpt2,     test_llama3,        test_qwen2,
        test_pipelines,         test_look_ups, test_raw_bytes,     test_byte_alphabet,
        test_merges_as_defined, test_vocab,    test_regex_refused, test_regex_limit,
        test_refused,           test_damaged,  test_memory,        test_gguf,
    };
    return run_suite("tokenizer", tests, sizeof tests / sizeof *tests);
}
