/* test_pattern.c — regular expressions over names: what matches, and that no pattern runs away. */
#include "engine_helpers.h"

static int match(const char *pattern, const char *text)
{
    int matched = -1;
    OK(am_pattern_match(&matched, pattern, strlen(pattern), text, strlen(text)));
    return matched;
}

static void refused(const char *pattern, const char *text, const char *why)
{
    int matched = -1;
    FAILS(am_pattern_match(&matched, pattern, strlen(pattern), text, strlen(text)), AM_EFORMAT,
          why);
    ck_assert_int_eq(matched, -1);
}

START_TEST(test_matches_from_the_first_byte)
{
    ck_assert_int_eq(match("a.c", "abcd"), 1);
    ck_assert_int_eq(match("a.c$", "abcd"), 0);
    ck_assert_int_eq(match("b", "abcd"), 0);
    ck_assert_int_eq(match("^a|b$", "xb"), 0);
    ck_assert_int_eq(match("^(.*)_proj$", "model.layers.0.q_proj"), 1);
    ck_assert_int_eq(match("", ""), 1);
    ck_assert_int_eq(match("x", "x\xff"), 1); /* a text need not be UTF-8 */
}
END_TEST

START_TEST(test_bounds)
{
    char a[64], *large = calloc(1, 5000);
    memset(a, 'a', 40);
    a[40] = 0;
    memset(large, '(', 4999);
    refused("(", "x", "parenthesis");
    refused("x\xff?", "x", "UTF-8");
    refused("^(a+)+[xz]$", a, "match limit");
    refused("((a{1,1000}){1,1000}){1,1000}", "a", "too large");
    refused(large + 4000, "a", "nested");
    refused(large, "a", "4096");
    refused("a", large, "4096");
    free(large);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pattern");
    TCase *t = tcase_create("patterns");
    tcase_add_test(t, test_matches_from_the_first_byte);
    tcase_add_test(t, test_bounds);
    suite_add_tcase(s, t);
    return run_suite(s);
}
