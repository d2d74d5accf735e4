/* test_pattern.c — regular expressions of a configuration: what is found, what is no pattern, and
 * patterns that would run for ever. */
#include "engine_helpers.h"

static int finds(const char *pattern, const char *text)
{
    am_pattern *p;
    int found;
    OK(am_pattern_new(&p, pattern, strlen(pattern)));
    OK(am_pattern_search(p, text, strlen(text), &found));
    am_pattern_release(p);
    return found;
}

START_TEST(search)
{
    static const struct {
        const char *pattern, *text;
        int found;
    } cases[] = {
        {"router", "model.layers.3.mlp.router.weight", 1},
        {"^router", "model.router", 0},
        {"layers\\.[0-3]\\.", "model.layers.2.mlp", 1},
        {"layers\\.[0-3]\\.", "model.layers.12.mlp", 0},
        {"(?i)NORM|bias$", "model.norm.weight", 1},
        {"(?i)NORM|bias$", "q_proj.bias", 1},
        {"(?i)NORM|bias$", "bias.q_proj", 0},
        {"(?P<n>a)(?P=n)", "baab", 1},
        {"^(?!.*lm_head)", "lm_head.weight", 0},
        {"\\d+\\w", "x12y", 1},
        {"", "anything", 1},
        {"ü.", "grün", 1},
        {"a\\Z", "ba", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(finds(cases[i].pattern, cases[i].text) == cases[i].found, "%s in %s",
                      cases[i].pattern, cases[i].text);
}
END_TEST

START_TEST(refused)
{
    static const char *const bad[] = {"(", "[a", "a{2,1}", "*", "\\", "(?P<n>a)(?P=m)", "\xff"};
    am_pattern *p;
    int found;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(am_pattern_new(&p, bad[i], strlen(bad[i])), AM_EFORMAT, "at character");
    char *endless = malloc(5000);
    memset(endless, 'a', 5000);
    FAILS(am_pattern_new(&p, endless, 5000), AM_EFORMAT, "5000");
    /* steps that grow with 2^n */
    OK(am_pattern_new(&p, "(a+)+$", 6));
    endless[60] = 'b';
    FAILS(am_pattern_search(p, endless, 61, &found), AM_EFORMAT, "limit");
    FAILS(am_pattern_search(p, "\xff", 1, &found), AM_EFORMAT, "UTF-8");
    am_pattern_release(p);
    am_pattern_release(NULL);
    free(endless);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pattern");
    TCase *t = tcase_create("pattern");
    tcase_add_test(t, search);
    tcase_add_test(t, refused);
    suite_add_tcase(s, t);
    return run_suite(s);
}
