/* test_json.c — the JSON reader and writer: values, errors with their places, hostile text,
 * memory that fails. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "am.h"
#include "io/json.h"

static am_json_doc *doc;

static const am_json *parse(const char *text, int flags)
{
    am_json_free(doc);
    doc = NULL;
    int rc = am_json_parse(&doc, text, strlen(text), flags);
    ck_assert_msg(rc == AM_OK, "%s: %s", text, am_error_message());
    return am_json_root(doc);
}

static void teardown(void)
{
    am_json_free(doc);
    doc = NULL;
}

/* What a text is refused for. */
static void refuse(const char *text, size_t bytes, int flags, const char *message)
{
    am_json_doc *d = NULL;
    /* On the heap and of exact size, so that a sanitizer sees a read beyond it. */
    char *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, text, bytes);
    ck_assert_msg(am_json_parse(&d, copy, bytes, flags) == AM_EFORMAT, "accepted: %s", text);
    free(copy);
    ck_assert_ptr_null(d);
    ck_assert_msg(strstr(am_error_message(), message), "%s: \"%s\" lacks \"%s\"", text,
                  am_error_message(), message);
}

START_TEST(test_scalars)
{
    ck_assert_int_eq(parse("null", 0)->kind, AM_JSON_NULL);
    ck_assert_int_eq(am_json_bool(parse(" true ", 0), 0), 1);
    ck_assert_int_eq(am_json_bool(parse("\n\tfalse\r\n", 0), 1), 0);
    ck_assert_int_eq(am_json_bool(parse("null", 0), 7), 7);
    const am_json *v = parse("-12", 0);
    ck_assert(am_json_is_int(v));
    ck_assert_int_eq(v->as.integer, -12);
    ck_assert(am_json_double(v) == -12.0);
    v = parse("9223372036854775807", 0);
    ck_assert(am_json_is_int(v) && v->as.integer == INT64_MAX);
    v = parse("-9223372036854775808", 0);
    ck_assert(am_json_is_int(v) && v->as.integer == INT64_MIN);
    v = parse("9223372036854775808", 0);
    ck_assert(!am_json_is_int(v) && v->as.real == 9223372036854775808.0);
    v = parse("-0", 0);
    ck_assert(!am_json_is_int(v) && signbit(v->as.real));
    v = parse("1.0", 0);
    ck_assert(!am_json_is_int(v) && v->as.real == 1.0);
    ck_assert(am_json_double(parse("1e-05", 0)) == 1e-05);
    ck_assert(am_json_double(parse("0.1", 0)) == 0.1);
    ck_assert(am_json_double(parse("-2.5E+3", 0)) == -2500.0);
    ck_assert(am_json_double(parse("4.9406564584124654e-324", 0)) == 4.9406564584124654e-324);
    ck_assert(am_json_double(parse("0.1000000000000000055511151231257827021181583404541015625000000"
                                   "00000000000000000000000000000000",
                                   0)) == 0.1);
}
END_TEST

START_TEST(test_strings)
{
    const am_json *v = parse("\"a\\u0000b\\n\\\"\\\\\\/\\b\\f\\r\\t\"", 0);
    ck_assert_int_eq(v->count, 11);
    ck_assert_mem_eq(v->as.text, "a\0b\n\"\\/\b\f\r\t", 12);
    v = parse("\"\\u00e9\\u20ac\\uD83D\\uDE00 \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", 0);
    ck_assert_str_eq(v->as.text,
                     "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    ck_assert_int_eq(parse("\"\"", 0)->count, 0);
    ck_assert(am_json_equals(parse("\"word\"", 0), "word"));
    ck_assert(!am_json_equals(parse("\"word\\u0000\"", 0), "word"));
}
END_TEST

START_TEST(test_tree)
{
    const am_json *v = parse("{\"b\": [1, [], {}, \"x\"], \"a\": {\"c\": null}, \"\": 3}", 0);
    ck_assert_int_eq(v->count, 3);
    ck_assert_str_eq(v->as.members[0].key, "b"); /* the order of the text */
    ck_assert_str_eq(v->as.members[1].key, "a");
    const am_json *b = am_json_get(v, "b");
    ck_assert_int_eq(b->count, 4);
    ck_assert_int_eq(b->as.items[0].as.integer, 1);
    ck_assert_int_eq(b->as.items[1].kind, AM_JSON_ARRAY);
    ck_assert_int_eq(b->as.items[2].kind, AM_JSON_OBJECT);
    ck_assert(am_json_equals(&b->as.items[3], "x"));
    ck_assert_int_eq(am_json_get(am_json_get(v, "a"), "c")->kind, AM_JSON_NULL);
    ck_assert_ptr_null(am_json_get(am_json_get(v, "absent"), "c"));
    ck_assert_ptr_null(am_json_get(b, "c"));
    ck_assert_int_eq(am_json_get(v, "")->as.integer, 3);
    ck_assert_ptr_nonnull(am_json_get_kind(v, "b", AM_JSON_ARRAY));
    ck_assert_ptr_null(am_json_get_kind(v, "b", AM_JSON_OBJECT));
}
END_TEST

/* Every size around the switch from scanning to a hash table, and a large one. */
START_TEST(test_object_lookup)
{
    static const int sizes[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 100, 5000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        am_buffer text = {0};
        char key[32];
        am_json_put_open(&text, '{');
        for (int i = 0; i < sizes[s]; i++) {
            snprintf(key, sizeof key, "key number %d", i);
            am_json_put_key(&text, key, strlen(key));
            am_json_put_int(&text, i);
        }
        am_json_put_close(&text, '}');
        ck_assert_int_eq(text.rc, AM_OK);
        const am_json *v = parse(text.data, AM_JSON_UNIQUE_KEYS);
        am_buffer_free(&text);
        ck_assert_int_eq((int)v->count, sizes[s]);
        for (int i = 0; i < sizes[s]; i++) {
            snprintf(key, sizeof key, "key number %d", i);
            const am_json *found = am_json_get(v, key);
            ck_assert_ptr_nonnull(found);
            ck_assert_int_eq(found->as.integer, i);
        }
        ck_assert_ptr_null(am_json_get(v, "key number"));
        ck_assert_ptr_null(am_json_get(v, "key number 5000"));
    }
}
END_TEST

START_TEST(test_duplicate_keys)
{
    const char *small = "{\"a\":1,\"b\":2,\"a\":3}";
    const char *large = "{\"a\":1,\"b\":2,\"c\":2,\"d\":2,\"e\":2,\"f\":2,\"g\":2,\"h\":2,"
                        "\"i\":2,\"a\":3}";
    ck_assert_int_eq(am_json_get(parse(small, 0), "a")->as.integer, 3);
    ck_assert_int_eq(am_json_get(parse(large, 0), "a")->as.integer, 3);
    ck_assert_int_eq(parse(large, 0)->count, 10);
    refuse(small, strlen(small), AM_JSON_UNIQUE_KEYS, "key \"a\" occurs twice");
    refuse(large, strlen(large), AM_JSON_UNIQUE_KEYS, "key \"a\" occurs twice");
    parse("{\"a\":{\"a\":1},\"b\":{\"a\":1}}", AM_JSON_UNIQUE_KEYS);
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[][2] = {
        {"", "line 1, column 1: the text ends too early"},
        {"  ", "ends too early"},
        {"nul", "expected a value"},
        {"nulll", "text after the value"},
        {"[1,]", "line 1, column 4: expected a value"},
        {"[1 2]", "column 4: expected ',' or ']'"},
        {"[1", "ends too early"},
        {"{\"a\":1,}", "expected a key in double quotes"},
        {"{a:1}", "expected a key in double quotes"},
        {"{\"a\" 1}", "expected ':'"},
        {"{\"a\":1]", "expected ',' or '}'"},
        {"{\n \"\xc3\xa9\": x}", "line 2, column 7: expected a value"},
        {"\"abc", "column 1: this string does not end"},
        {"\"\\", "ends too early"},
        {"\"\\x\"", "unknown escape"},
        {"\"\\u12", "ends too early"},
        {"\"\\u12g4\"", "four hexadecimal digits"},
        {"\"\\ud800\"", "half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "half of a surrogate pair"},
        {"\"\\udc00\\ud800\"", "half of a surrogate pair"},
        {"\"\\ud800\\", "half of a surrogate pair"},
        {"\"\\ud800\\u", "ends too early"},
        {"\"a\nb\"", "control character"},
        {"\"\x80\"", "not valid UTF-8"},
        {"\"\xc0\x80\"", "not valid UTF-8"},
        {"\"\xc3\"", "not valid UTF-8"},
        {"\"\xc3", "not valid UTF-8"},
        {"\"\xe0\x80\x80\"", "not valid UTF-8"},
        {"\"\xed\xa0\x80\"", "not valid UTF-8"},
        {"\"\xe2\x82", "not valid UTF-8"},
        {"\"\xf0\x80\x80\x80\"", "not valid UTF-8"},
        {"\"\xf4\x90\x80\x80\"", "not valid UTF-8"},
        {"\"\xf0\x9f\x98\"", "not valid UTF-8"},
        {"\"\xff\"", "not valid UTF-8"},
        {"01", "leading zero"},
        {"-", "ends too early"},
        {"-a", "expected a digit"},
        {"+1", "expected a value"},
        {"1.", "ends too early"},
        {".5", "expected a value"},
        {"1e", "ends too early"},
        {"1e+x", "digit in the exponent"},
        {"1e999", "out of range"},
        {"NaN", "expected a value"},
        {"Infinity", "expected a value"},
        {"'a'", "expected a value"},
        {"1 // one", "text after the value"},
        {"\xef\xbb\xbf{}", "expected a value"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse(bad[i][0], strlen(bad[i][0]), 0, bad[i][1]);
    refuse("1\0", 2, 0, "text after the value");
    refuse("\"a\0b\"", 5, 0, "control character");
}
END_TEST

START_TEST(test_depth)
{
    char text[2 * AM_JSON_MAX_DEPTH + 3];
    memset(text, '[', AM_JSON_MAX_DEPTH);
    memset(text + AM_JSON_MAX_DEPTH, ']', AM_JSON_MAX_DEPTH);
    text[2 * AM_JSON_MAX_DEPTH] = 0;
    parse(text, 0);
    memset(text, '[', AM_JSON_MAX_DEPTH + 1);
    refuse(text, strlen(text), 0, "nested too deeply");
}
END_TEST

/* No prefix of a document is a document, and none is read beyond its end. */
START_TEST(test_truncated)
{
    const char *text = "{\"a\":[1.5e3,true,\"\\ud83d\\ude00\xf0\x9f\x98\x80\"],\"b\":null}";
    for (size_t n = 0; n < strlen(text); n++)
        refuse(text, n, 0, "JSON line");
}
END_TEST

START_TEST(test_no_memory)
{
    const char *text = "{\"a\":[[1],[2,{\"b\":\"c\"}]],\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,"
                       "\"i\":1,\"j\":1,\"k\":1,\"l\":0.10000000000000000000000000000000000000000"
                       "000000000000000000000000000001}";
    int failures = 0;
    for (int64_t k = 1;; k++) {
        am_json_doc *d = NULL;
        am_mem_fail_at(k);
        int rc = am_json_parse(&d, text, strlen(text), 0);
        am_mem_fail_at(0);
        if (rc == AM_OK) {
            am_json_free(d);
            break;
        }
        ck_assert_int_eq(rc, AM_ENOMEM);
        failures++;
    }
    ck_assert_int_ge(failures, 5);
}
END_TEST

START_TEST(test_write)
{
    am_buffer b = {0};
    am_json_put_open(&b, '{');
    am_json_put_key(&b, "a\"\\", 3);
    am_json_put_open(&b, '[');
    am_json_put_int(&b, INT64_MIN);
    am_json_put_uint(&b, UINT64_MAX);
    am_json_put_bool(&b, 1);
    am_json_put_null(&b);
    am_json_put_open(&b, '[');
    am_json_put_close(&b, ']');
    am_json_put_close(&b, ']');
    am_json_put_key(&b, "s", 1);
    am_json_put_string(&b, "\0\x1f\n\t\r\b\f\x0b\x7f\xc3\xa9\xff\xc3", 13);
    am_json_put_close(&b, '}');
    ck_assert_int_eq(b.rc, AM_OK);
    ck_assert_str_eq(b.data, "{\"a\\\"\\\\\":[-9223372036854775808,18446744073709551615,true,null,"
                             "[]],\"s\":\"\\u0000\\u001f\\n\\t\\r\\b\\f\\u000b\x7f\xc3\xa9"
                             "\xef\xbf\xbd\xef\xbf\xbd\"}");
    am_buffer_free(&b);
}
END_TEST

START_TEST(test_write_doubles)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0.1, "0.1"},
        {1.0, "1.0"},
        {-0.0, "-0.0"},
        {1e-5, "1e-05"},
        {5e-324, "5e-324"},
        {1.0 / 3, "0.3333333333333333"},
        {1e300, "1e+300"},
        {NAN, "null"},
        {INFINITY, "null"},
        {123456789.25, "123456789.25"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {0.30000000000000004, "0.30000000000000004"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_buffer b = {0};
        am_json_put_double(&b, cases[i].value);
        ck_assert_str_eq(b.data, cases[i].text);
        am_buffer_free(&b);
    }
    /* All exponents: what is written reads back as the same bits and as a double. */
    for (int e = -1074; e < 1024; e++) {
        double value = ldexp(1.0 + 0.37 * (e & 1), e);
        am_buffer b = {0};
        am_json_put_double(&b, value);
        const am_json *v = parse(b.data, 0);
        ck_assert(!am_json_is_int(v) && v->as.real == value);
        am_buffer_free(&b);
    }
}
END_TEST

START_TEST(test_round_trip)
{
    const char *text = "{\"b\":[1,2.5,\"x\\u0000y\",{}],\"a\":{\"c\":null,\"d\":false},\"a\":[]}";
    am_buffer b = {0};
    am_json_put_value(&b, parse(text, 0));
    ck_assert_int_eq(b.rc, AM_OK);
    ck_assert_str_eq(b.data, text);
    am_buffer_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tcase = tcase_create("json");
    tcase_add_checked_fixture(tcase, NULL, teardown);
    tcase_add_test(tcase, test_scalars);
    tcase_add_test(tcase, test_strings);
    tcase_add_test(tcase, test_tree);
    tcase_add_test(tcase, test_object_lookup);
    tcase_add_test(tcase, test_duplicate_keys);
    tcase_add_test(tcase, test_refused);
    tcase_add_test(tcase, test_depth);
    tcase_add_test(tcase, test_truncated);
    tcase_add_test(tcase, test_no_memory);
    tcase_add_test(tcase, test_write);
    tcase_add_test(tcase, test_write_doubles);
    tcase_add_test(tcase, test_round_trip);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
