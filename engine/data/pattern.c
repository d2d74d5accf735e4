/* pattern.c — regular expressions that a configuration may hold, for names of parameters: Python's
 * re.search by PCRE2, whose syntax is nearly Python's. The pattern is hostile input: its length,
 * and the steps and memory of a match, are bounded. Holds no tokenizer's patterns: those are
 * Oniguruma's, see tokenizer_regex.c. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>

#include "../am.h"
#include "../core/error.h"
#include "../core/mem.h"

enum { MAX_PATTERN = 4096, MAX_STEPS = 1000 * 1000, MAX_DEPTH = 10 * 1000, MAX_HEAP_KIB = 4096 };

struct am_pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

void am_pattern_release(am_pattern *p)
{
    if (!p)
        return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->data);
    pcre2_code_free(p->code);
    am_free(p);
}

static int fail(int number, const char *what)
{
    char why[160];
    pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
    return am_fail(AM_EFORMAT, "%s: %s", what, why);
}

int am_pattern_new(am_pattern **out, const char *text, size_t bytes)
{
    void *memory;
    int number;
    PCRE2_SIZE at;
    if (bytes > MAX_PATTERN)
        return am_fail(AM_EFORMAT, "a pattern of %zu bytes; at most %d are read", bytes,
                       MAX_PATTERN);
    AM_TRY(am_alloc(&memory, sizeof(am_pattern)));
    am_pattern *p = memory;
    p->code = pcre2_compile((PCRE2_SPTR)text, bytes,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
    if (!p->code) {
        char what[40];
        snprintf(what, sizeof what, "at character %zu", (size_t)at + 1);
        am_pattern_release(p);
        return fail(number, what);
    }
    p->data = pcre2_match_data_create(1, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (!p->data || !p->limits) {
        am_pattern_release(p);
        return am_fail(AM_ENOMEM, "no memory for a pattern");
    }
    pcre2_set_match_limit(p->limits, MAX_STEPS);
    pcre2_set_depth_limit(p->limits, MAX_DEPTH);
    pcre2_set_heap_limit(p->limits, MAX_HEAP_KIB);
    *out = p;
    return AM_OK;
}

int am_pattern_search(am_pattern *p, const char *text, size_t bytes, int *found)
{
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, bytes, 0, 0, p->data, p->limits);
    *found = rc >= 0;
    return rc >= 0 || rc == PCRE2_ERROR_NOMATCH ? AM_OK : fail(rc, "a pattern's search");
}
