/* pattern.c — does a regular expression that a configuration gives match a name? PCRE2 as it is,
 * with bounds: patterns are compiled anew each time and names are short. Splitting text for a
 * tokenizer is tokenizer_regex.c's. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "../core/error.h"

enum { MAX_BYTES = 4096 };          /* of a pattern and of a text */
enum { STEPS = 200 * 1000 };        /* a match may take */
enum { HEAP_LIMIT_KIB = 4 * 1024 }; /* it may use */

static int failed(const char *pattern, size_t bytes, int number)
{
    PCRE2_UCHAR why[200];
    pcre2_get_error_message(number, why, sizeof why);
    return am_fail(AM_EFORMAT, "regular expression '%.*s': %s", (int)(bytes < 200 ? bytes : 200),
                   pattern, (const char *)why);
}

int am_pattern_match(int *matched, const char *pattern, size_t pattern_bytes, const char *text,
                     size_t text_bytes)
{
    if (pattern_bytes > MAX_BYTES || text_bytes > MAX_BYTES)
        return am_fail(AM_EFORMAT, "a pattern of %zu bytes over a text of %zu: the limit is %d",
                       pattern_bytes, text_bytes, MAX_BYTES);
    int number, rc = AM_OK;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile(
        (PCRE2_SPTR)pattern, pattern_bytes,
        PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C | PCRE2_MATCH_INVALID_UTF, &number, &offset, NULL);
    if (!code)
        return failed(pattern, pattern_bytes, number);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (data && limits) {
        pcre2_set_match_limit(limits, STEPS);
        pcre2_set_depth_limit(limits, STEPS);
        pcre2_set_heap_limit(limits, HEAP_LIMIT_KIB);
        int n = pcre2_match(code, (PCRE2_SPTR)text, text_bytes, 0, 0, data, limits);
        if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
            *matched = n >= 0;
        else
            rc = failed(pattern, pattern_bytes, n);
    } else {
        rc = am_fail(AM_ENOMEM, "out of memory for a regular expression");
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return rc;
}
