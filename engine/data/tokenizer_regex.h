/* tokenizer_regex.h — the regular expressions of tokenizer.json, which are written for Oniguruma
 * (Ruby syntax, UTF-8), run by PCRE2. What the two engines understand differently is rewritten or
 * refused by name. Holds no general regex interface: only what splitting a text needs. */
#ifndef AM_TOKENIZER_REGEX_H
#define AM_TOKENIZER_REGEX_H

#include <stddef.h>

typedef struct am_regex am_regex;

/* What matching needs beside the expression, for one thread. Zeroed is empty. */
typedef struct am_regex_scratch {
    void *data, *limits, *stack;
} am_regex_scratch;
void am_regex_scratch_free(am_regex_scratch *s);

/* Compile. AM_EUNSUP names what cannot be carried over; AM_EFORMAT: no regular expression. */
int am_regex_compile(am_regex **out, const char *pattern, size_t bytes);
void am_regex_free(am_regex *re);

/* First match at or after byte `from` of valid UTF-8 text, *found = 0 when there is none. What lies
 * before `from` is visible to look-behind. AM_EFORMAT: the pattern took more steps than allowed. */
int am_regex_find(const am_regex *re, am_regex_scratch *s, const char *text, size_t bytes,
                  size_t from, size_t *start, size_t *end, int *found);

#endif
