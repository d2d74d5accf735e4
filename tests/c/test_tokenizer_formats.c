/* test_tokenizer_formats.c — vocabularies that are no tokenizer.json against the programs whose
 * formats they are (tests/parity/tokenizer_formats.py), many texts at once, and damaged files. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "am.h"
#include "data/tokenizer_tables.h"
#include "io/json.h"
#include "io_helpers.h"

#define FORMATS AM_TEST_DIR "/parity/golden/tokenizers/formats/"

static int open_bytes(am_tokenizer **t, const char *format, const char *bytes, size_t n)
{
    if (strcmp(format, "sentencepiece") == 0)
        return am_tokenizer_from_sentencepiece(t, bytes, n);
    if (strcmp(format, "tiktoken") == 0)
        return am_tokenizer_from_tiktoken(t, bytes, n, "cl100k_base");
    if (strcmp(format, "tekken") == 0)
        return am_tokenizer_from_tekken(t, bytes, n);
    return am_tokenizer_from_json(t, bytes, n);
}

static am_tokenizer *open_file(const char *name, const char *format)
{
    char path[512];
    am_tokenizer *t;
    snprintf(path, sizeof path, "%s%s", FORMATS, name);
    if (strcmp(format, "gguf") == 0) {
        am_archive *gguf;
        ck_ok(am_archive_open(&gguf, path));
        ck_ok(am_tokenizer_from_gguf(&t, gguf));
        am_archive_release(gguf);
        return t;
    }
    size_t n;
    char *bytes = slurp(path, &n);
    ck_ok(open_bytes(&t, format, bytes, n));
    free(bytes);
    return t;
}

static void check_cases(am_tokenizer *t, const char *name, const am_json *cases)
{
    for (uint32_t i = 0; i < cases->count; i++) {
        const am_json *text = am_json_get(&cases->as.items[i], "text");
        const am_json *want = am_json_get(&cases->as.items[i], "ids");
        const int32_t *ids;
        int64_t n;
        ck_ok(am_tokenizer_encode(t, text->as.text, text->count, 0, &ids, &n));
        int same = n == (int64_t)want->count;
        for (int64_t k = 0; same && k < n; k++)
            same = ids[k] == want->as.items[k].as.integer;
        ck_assert_msg(same, "%s: '%s': %lld ids, expected %u", name, text->as.text, (long long)n,
                      want->count);
    }
}

/* As read, and from the tokenizer.json that is saved of it. */
START_TEST(test_formats)
{
    size_t n;
    char *text = slurp(FORMATS "formats.json", &n);
    am_json_doc *doc;
    ck_ok(am_json_parse(&doc, text, n, 0));
    free(text);
    const am_json *files = am_json_root(doc);
    ck_assert_uint_eq(files->count, 7);
    for (uint32_t i = 0; i < files->count; i++) {
        const char *name = am_json_get(&files->as.items[i], "file")->as.text;
        const char *format = am_json_get(&files->as.items[i], "format")->as.text;
        const am_json *cases = am_json_get(&files->as.items[i], "cases");
        am_tokenizer *t = open_file(name, format), *again;
        check_cases(t, name, cases);
        const char *json;
        ck_ok(am_tokenizer_to_json(t, &json, &n));
        ck_ok(am_tokenizer_from_json(&again, json, n));
        check_cases(again, name, cases);
        am_tokenizer_release(again);
        am_tokenizer_release(t);
    }
    am_json_free(doc);
}
END_TEST

/* White space at the text's end is one word for cl100k_base, for Llama 3 only up to its line break:
 * tiktoken 0.14's ids with the 256 bytes and one token more. */
START_TEST(test_space_at_the_end)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char file[256 * 16], *end = file;
    for (int i = 0; i < 256; i++)
        end += sprintf(end, "%c%c== %d\n", letters[i >> 2], letters[(i & 3) << 4], i);
    end += sprintf(end, "CiA= 256\n"); /* "\n " */
    static const struct {
        const char *cut, *text;
        int32_t ids[4];
        int64_t count;
    } cases[] = {{"cl100k_base", "x\n ", {'x', 256}, 2},
                 {"cl100k_base", "x\n y", {'x', '\n', ' ', 'y'}, 4},
                 {"llama-bpe", "x\n ", {'x', '\n', ' '}, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tokenizer *t;
        const int32_t *ids;
        int64_t n;
        ck_ok(am_tokenizer_from_tiktoken(&t, file, (size_t)(end - file), cases[i].cut));
        ck_ok(am_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 0, &ids, &n));
        ck_assert_int_eq(n, cases[i].count);
        ck_assert_int_eq(memcmp(ids, cases[i].ids, (size_t)n * sizeof *ids), 0);
        am_tokenizer_release(t);
    }
}
END_TEST

/* ---- many texts ------------------------------------------------------------------------- */

enum { TEXTS = 257 };

START_TEST(test_batch)
{
    am_tokenizer *t = open_file("bpe.model", "sentencepiece");
    static char texts[TEXTS][64];
    const char *pointers[TEXTS];
    size_t sizes[TEXTS];
    const int32_t *ids;
    const int64_t *rows;
    for (int i = 0; i < TEXTS; i++) {
        int n = snprintf(texts[i], sizeof texts[i], "the model no. %d \xc3\xa9%s", i,
                         i % 3 ? " and <mask>x" : "");
        pointers[i] = texts[i];
        sizes[i] = i % 50 ? (size_t)n : 0;
    }
    for (int team = 1; team <= 3; team++) {
        ck_ok(am_threads_set(team));
        ck_ok(am_tokenizer_encode_batch(t, pointers, sizes, TEXTS, AM_ENCODE_SPECIAL, &ids, &rows));
        for (int i = 0; i < TEXTS; i++) {
            const int32_t *one;
            int64_t n;
            ck_ok(am_tokenizer_encode(t, pointers[i], sizes[i], AM_ENCODE_SPECIAL, &one, &n));
            ck_assert_int_eq(rows[i + 1] - rows[i], n);
            ck_assert_int_eq(memcmp(ids + rows[i], one, (size_t)n * sizeof *one), 0);
        }
    }
    ck_ok(am_tokenizer_encode_batch(t, pointers, sizes, 0, 0, &ids, &rows));
    ck_assert_int_eq(rows[0], 0);
    strcpy(texts[200], "\xff");
    sizes[200] = 1;
    strcpy(texts[101], "a\xff");
    sizes[101] = 2;
    ck_assert_int_eq(am_tokenizer_encode_batch(t, pointers, sizes, TEXTS, 0, &ids, &rows),
                     AM_EINVAL);
    ck_message("text 102: the text is not UTF-8 (byte 1)");
    am_tokenizer_release(t);
}
END_TEST

START_TEST(test_offsets_on_demand)
{
    am_tokenizer *t = open_file("bert.gguf", "gguf");
    const int32_t *ids;
    const int64_t *offsets;
    int64_t n;
    ck_ok(am_tokenizer_encode(t, "the The", 7, AM_ENCODE_SPECIAL, &ids, &n));
    ck_assert_int_eq(am_tokenizer_offsets(t, &offsets, &n), AM_EINVAL);
    ck_message("AM_ENCODE_OFFSETS");
    const char *text = "the The";
    ck_ok(am_tokenizer_encode(t, text, 7, AM_ENCODE_SPECIAL | AM_ENCODE_OFFSETS, &ids, &n));
    ck_ok(am_tokenizer_offsets(t, &offsets, &n));
    ck_assert_int_eq(n, 4);
    static const int64_t want[8] = {0, 0, 0, 3, 4, 7, 0, 0};
    ck_assert_int_eq(memcmp(offsets, want, sizeof want), 0);
    am_tokenizer_release(t);
}
END_TEST

/* ---- truncation and padding ------------------------------------------------------------- */

#define WORDS                                                                                      \
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"continuing_subword_prefix\":\"##\","  \
    "\"vocab\":{\"u\":0}}"

START_TEST(test_limits)
{
    am_tokenizer *t;
    am_tokenizer_limits l;
    static const char json[] =
        "{\"truncation\":{\"direction\":\"Left\",\"max_length\":12,\"strategy\":\"LongestFirst\","
        "\"stride\":0},\"padding\":{\"strategy\":{\"Fixed\":7},\"direction\":\"Left\","
        "\"pad_to_multiple_of\":8,\"pad_id\":3,\"pad_type_id\":0,\"pad_token\":\"p\"}," WORDS "}";
    ck_ok(am_tokenizer_from_json(&t, json, sizeof json - 1));
    ck_ok(am_tokenizer_limits_get(t, &l));
    ck_assert(l.max_length == 12 && l.truncate_left && l.padding && l.pad_length == 7);
    ck_assert(l.pad_to_multiple_of == 8 && l.pad_id == 3 && l.pad_left);
    am_tokenizer_release(t);
    ck_ok(am_tokenizer_from_json(&t, "{" WORDS "}", sizeof WORDS + 1));
    ck_ok(am_tokenizer_limits_get(t, &l));
    ck_assert(l.max_length == -1 && !l.padding && l.pad_length == -1 && !l.truncate_left);
    am_tokenizer_release(t);
}
END_TEST

/* ---- bad files -------------------------------------------------------------------------- */

START_TEST(test_refused)
{
    static const struct {
        const char *format, *bytes, *message;
        int n; /* 0: the string's length */
        int rc;
    } cases[] = {
        {"sentencepiece", "", "no SentencePiece model", 0, AM_EFORMAT},
        {"sentencepiece", "\x0a", "cut off", 0, AM_EFORMAT},
        {"sentencepiece", "\x0a\x7fx", "a field of 127 bytes where 1", 0, AM_EFORMAT},
        {"sentencepiece", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a field of", 0,
         AM_EFORMAT},
        {"sentencepiece", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", "ten bytes", 0,
         AM_EFORMAT},
        {"sentencepiece", "\x0b", "unknown type 3", 0, AM_EFORMAT},
        {"sentencepiece", "\x0a\x03\x0a\x01x\x12\x02\x18\x04", "type 4", 0, AM_EUNSUP},
        {"sentencepiece", "\x0a\x03\x0a\x01x\x0a\x03\x0a\x01x", "one to one", 0, AM_EFORMAT},
        {"sentencepiece", "\x0a\x08\x0a\x01x\x15\x00\x00\xc0\x7f", "score that is no number", 10,
         AM_EFORMAT},
        {"sentencepiece", "\x0a\x03\x0a\x01x\x1a\x02\x28\x00", "escape_whitespaces", 9, AM_EUNSUP},
        {"sentencepiece", "\x0a\x03\x0a\x01x\x1a\x05\x12\x03zzz", "charsmap is damaged", 0,
         AM_EFORMAT},
        {"tiktoken", "", "no tokens", 0, AM_EFORMAT},
        {"tiktoken", "YQ== 0\nYg==\n", "line 2", 0, AM_EFORMAT},
        {"tiktoken", "YQ== 0\nYg== 2\n", "rank 2, not 1", 0, AM_EFORMAT},
        {"tiktoken", "Y*== 0\n", "not base64", 0, AM_EFORMAT},
        {"tiktoken", "YQ== 99999999999999999999\n", "line 1", 0, AM_EFORMAT},
        {"tiktoken", "Q== 0\n", "token 1 is empty", 0, AM_EFORMAT},
        {"tiktoken", "YQ== 0\nYQ== 1\n", "one to one", 0, AM_EFORMAT},
        {"tekken", "[]", "no object", 0, AM_EFORMAT},
        {"tekken", "{}", "'vocab' is missing", 0, AM_EFORMAT},
        {"tekken",
         "{\"vocab\":[],\"config\":{\"default_vocab_size\":1,"
         "\"default_num_special_tokens\":2}}",
         "contradict", 0, AM_EFORMAT},
        {"tekken",
         "{\"vocab\":[{}],\"config\":{\"default_vocab_size\":3,"
         "\"default_num_special_tokens\":2}}",
         "vocab[0]", 0, AM_EFORMAT},
        {"json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "vocab[0]", 0,
         AM_EFORMAT},
        {"json", "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}",
         "'unk_id' 1", 0, AM_EFORMAT},
        {"json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",1]]}}", "one to one",
         0, AM_EFORMAT},
        {"json",
         "{\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"##\","
         "\"vocab\":{\"a\":0}}}",
         "'unk_token' is missing", 0, AM_EFORMAT},
        {"json", "{\"truncation\":{\"max_length\":-1}," WORDS "}", "truncation", 0, AM_EFORMAT},
        {"json", "{\"padding\":{\"strategy\":\"All\"}," WORDS "}", "strategy", 0, AM_EFORMAT},
        {"json",
         "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}," WORDS "}",
         "not base64", 0, AM_EFORMAT},
        {"json",
         "{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"u\",0],\"sep\":[1]}," WORDS
         "}",
         "'sep'", 0, AM_EFORMAT},
        {"json",
         "{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"u\",0],"
         "\"sep\":[\"u\",9]}," WORDS "}",
         "id 9", 0, AM_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tokenizer *t;
        size_t n = cases[i].n ? (size_t)cases[i].n : strlen(cases[i].bytes);
        int rc = open_bytes(&t, cases[i].format, cases[i].bytes, n);
        ck_assert_msg(rc == cases[i].rc, "%s %zu: %d %s", cases[i].format, i, rc,
                      am_error_message());
        ck_message(cases[i].message);
    }
    am_tokenizer *t;
    ck_assert_int_eq(am_tokenizer_from_tiktoken(&t, "YQ== 0\n", 7, "none"), AM_EUNSUP);
    ck_message("'none'");
}
END_TEST

/* A Unigram without unknown token says which character it cannot have. */
START_TEST(test_no_unknown)
{
    am_tokenizer *t;
    const int32_t *ids;
    int64_t n;
    static const char json[] = "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}";
    ck_ok(am_tokenizer_from_json(&t, json, sizeof json - 1));
    ck_ok(am_tokenizer_encode(t, "aa", 2, 0, &ids, &n));
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(am_tokenizer_encode(t, "ab", 2, 0, &ids, &n), AM_EINVAL);
    ck_message("'b'");
    am_tokenizer_release(t);
}
END_TEST

/* Bytes of whole files changed and cut: an error or a tokenizer, never a crash. */
START_TEST(test_damaged)
{
    static const char *const files[][2] = {{"bpe.model", "sentencepiece"},
                                           {"unigram.model", "sentencepiece"},
                                           {"small.tiktoken", "tiktoken"}};
    uint32_t seed = 3;
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char path[512];
        size_t n;
        snprintf(path, sizeof path, "%s%s", FORMATS, files[f][0]);
        char *bytes = slurp(path, &n);
        for (int round = 0; round < 60; round++) {
            size_t keep = round % 2 ? n : n * (size_t)round / 60;
            char *copy = malloc(keep + 1);
            memcpy(copy, bytes, keep);
            for (int k = 0; k < 3 && keep; k++) {
                seed = seed * 1664525u + 1013904223u;
                copy[(seed >> 8) % keep] = (char)(seed >> 3);
            }
            am_tokenizer *t;
            const int32_t *ids;
            int64_t count;
            if (open_bytes(&t, files[f][1], copy, keep) == AM_OK) {
                am_tokenizer_encode(t, "the e\xcc\x81 model", 12, 1, &ids, &count);
                am_tokenizer_release(t);
            }
            free(copy);
        }
        free(bytes);
    }
}
END_TEST

START_TEST(test_tables)
{
    ck_assert_int_eq(AM_CHAR_CLASS(AM_PUNCTUATION, '!'), 1);
    ck_assert_int_eq(AM_CHAR_CLASS(AM_PUNCTUATION, 'a'), 0);
    ck_assert_int_eq(AM_CHAR_CLASS(AM_MARKS, 0x301), 1);
    ck_assert_int_eq(AM_CHAR_CLASS(AM_BERT_MARKS, 0x903), 0); /* spacing */
    ck_assert_int_eq(AM_CHAR_CLASS(AM_BERT_CONTROL, 0x200d), 1);
    ck_assert_int_eq(AM_CHAR_CLASS(AM_SCRIPTS, 0x3042), AM_CHAR_CLASS(AM_SCRIPTS, 0x4e2d));
    ck_assert_int_ne(AM_CHAR_CLASS(AM_SCRIPTS, 'a'), AM_CHAR_CLASS(AM_SCRIPTS, 0x430));
    ck_assert_int_eq(AM_CHAR_CLASS(AM_SCRIPTS, 0x10ffff), 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_formats,           test_space_at_the_end, test_batch,
                                  test_offsets_on_demand, test_limits,           test_refused,
                                  test_no_unknown,        test_damaged,          test_tables};
    return run_suite("tokenizer_formats", tests, sizeof tests / sizeof *tests);
}
