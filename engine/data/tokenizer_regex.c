/* tokenizer_regex.c — Oniguruma patterns rewritten for PCRE2, and the matching itself.
 *
 * Differences that matter (Oniguruma 6.9 with Ruby syntax against PCRE2 10.42 with UTF and UCP):
 *   \s         PCRE2's also has U+180E; Oniguruma's is the White_Space property
 *   \w \b \h   Alphabetic, M, Nd and Pc; word edges by that; hexadecimal digits
 *   \p{Han}    PCRE2 10.42 means Script_Extensions, Oniguruma Script
 *   ^ $        always match at line breaks
 *   (?m)       lets the dot match line breaks
 *   {n,m}+     repeats the repetition, {n}? makes it optional; both are refused
 * PCRE2 10.42 knows Unicode 14: characters assigned later count as unassigned. */
#include "tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"

enum { MAX_PATTERN = 1 << 16 };
/* Steps one match may take: plenty for any pattern that is linear in the text. */
enum { STEPS_BASE = 100 * 1000, STEPS_PER_BYTE = 32 };
enum { DEPTH_LIMIT = 100 * 1000, HEAP_LIMIT_KIB = 64 * 1024 };
enum { JIT_STACK_FIRST = 32 * 1024, JIT_STACK_MAX = 1024 * 1024 };

struct am_regex {
    pcre2_code *code;
    int jit;
};

/* ---- rewriting -------------------------------------------------------------------------- */

static const char WORD[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
static const char SPACE[] = "\\p{Z}\\x09-\\x0d\\x85";
static const char HEX[] = "0-9a-fA-F";

/* A pattern being rewritten: input, position, output. */
typedef struct rewrite {
    const char *in;
    size_t n, at;
    am_buffer out;
} rewrite;

static void put(rewrite *r, const char *s)
{
    am_buffer_put(&r->out, s, strlen(s));
}

static int refuse(const rewrite *r, const char *what)
{
    return am_fail(AM_EUNSUP, "regular expression '%.*s' uses %s, which is not supported",
                   (int)(r->n < 200 ? r->n : 200), r->in, what);
}

static int peek(const rewrite *r, size_t ahead)
{
    return r->at + ahead < r->n ? (unsigned char)r->in[r->at + ahead] : -1;
}

static int is_hex(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static int is_alnum(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A set of characters: as it is inside a class, in brackets outside. */
static void put_set(rewrite *r, const char *items, int negated, int in_class)
{
    if (!in_class)
        put(r, negated ? "[^" : "[");
    put(r, items);
    if (!in_class)
        put(r, "]");
}

/* A word edge, or with `negated` any other place, by Oniguruma's idea of a word. */
static void put_edge(rewrite *r, int negated)
{
    const char *const parts[] = {"(?:(?<=[", WORD, negated ? "])(?=[" : "])(?![", WORD,
                                 "])|(?<![", WORD, negated ? "])(?![" : "])(?=[", WORD,
                                 "]))"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        put(r, parts[i]);
}

/* \p{Name}, \p{^Name}, \P{Name}, with r->at at the letter p or P. One and two letters are general
 * categories; other names are scripts, except the property Alphabetic. */
static int rewrite_property(rewrite *r)
{
    int negated = r->in[r->at] == 'P';
    r->at++;
    if (peek(r, 0) != '{')
        return refuse(r, "\\p without braces");
    r->at++;
    if (peek(r, 0) == '^') {
        negated = !negated;
        r->at++;
    }
    size_t begin = r->at;
    while (is_alnum(peek(r, 0)) || peek(r, 0) == '_')
        r->at++;
    size_t length = r->at - begin;
    if (length == 0 || length > 40 || peek(r, 0) != '}')
        return refuse(r, "a property that cannot be read");
    r->at++;
    const char *name = r->in + begin;
    put(r, negated ? "\\P{" : "\\p{");
    int alphabetic = (length == 5 && memcmp(name, "Alpha", 5) == 0);
    if (alphabetic) {
        put(r, "Alphabetic");
    } else {
        if (length > 2 && !(length == 10 && memcmp(name, "Alphabetic", 10) == 0) &&
            !(length == 3 && memcmp(name, "Any", 3) == 0))
            put(r, "sc:");
        am_buffer_put(&r->out, name, length);
    }
    put(r, "}");
    return AM_OK;
}

/* \xHH, \x{H…}, \uHHHH, with r->at at the letter. */
static int rewrite_code_point(rewrite *r)
{
    int letter = peek(r, 0);
    r->at++;
    size_t begin = r->at, most = letter == 'u' ? 4 : 2;
    int braces = letter == 'x' && peek(r, 0) == '{';
    if (braces) {
        begin = ++r->at;
        most = 6;
    }
    while (r->at - begin < most && is_hex(peek(r, 0)))
        r->at++;
    size_t length = r->at - begin;
    if (length == 0 || (letter == 'u' && length != 4) || (braces && peek(r, 0) != '}'))
        return refuse(r, "a character number that cannot be read");
    if (letter == 'x' && !braces && length == 2 && r->in[begin] > '7')
        return refuse(r, "a raw byte (\\x80 to \\xff)");
    put(r, "\\x{");
    am_buffer_put(&r->out, r->in + begin, length);
    put(r, "}");
    r->at += (size_t)braces;
    return AM_OK;
}

static int rewrite_escape(rewrite *r, int in_class)
{
    int c = peek(r, 1);
    if (c < 0)
        return am_fail(AM_EFORMAT, "regular expression '%.*s' ends in a backslash",
                       (int)(r->n < 200 ? r->n : 200), r->in);
    r->at++;
    switch (c) {
    case 'p':
    case 'P':
        return rewrite_property(r);
    case 'x':
    case 'u':
        return rewrite_code_point(r);
    case 's':
        put_set(r, SPACE, 0, in_class);
        break;
    case 'S':
        put(r, "\\P{White_Space}");
        break;
    case 'w':
        put_set(r, WORD, 0, in_class);
        break;
    case 'd':
        put(r, "\\p{Nd}");
        break;
    case 'D':
        put(r, "\\P{Nd}");
        break;
    case 'h':
        put_set(r, HEX, 0, in_class);
        break;
    case 'W':
    case 'H':
        if (in_class)
            return refuse(r, "\\W or \\H inside a class");
        put_set(r, c == 'W' ? WORD : HEX, 1, 0);
        break;
    case 'v':
        put(r, "\\x0b");
        break;
    case 'b':
    case 'B':
        if (in_class && c == 'B')
            return refuse(r, "\\B inside a class");
        if (in_class) {
            put(r, "\\x08");
            break;
        }
        put_edge(r, c == 'B');
        break;
    case 'A':
    case 'z':
    case 'Z':
        if (in_class)
            return refuse(r, "an anchor inside a class");
        put(r, (const char[]){'\\', (char)c, 0});
        break;
    case 't':
    case 'n':
    case 'r':
    case 'f':
    case 'a':
    case 'e':
        put(r, (const char[]){'\\', (char)c, 0});
        break;
    default:
        if (is_alnum(c))
            return refuse(r, (const char[]){'\\', (char)c, 0});
        put(r, "\\");
        am_buffer_put(&r->out, r->in + r->at, 1);
    }
    r->at++;
    return AM_OK;
}

/* [ … ], with r->at at the bracket. */
static int rewrite_class(rewrite *r)
{
    put(r, "[");
    r->at++;
    if (peek(r, 0) == '^') {
        put(r, "^");
        r->at++;
    }
    if (peek(r, 0) == ']')
        return refuse(r, "a class that begins with ]");
    for (;;) {
        int c = peek(r, 0);
        if (c < 0)
            return am_fail(AM_EFORMAT, "regular expression '%.*s' has a class without end",
                           (int)(r->n < 200 ? r->n : 200), r->in);
        if (c == '[')
            return refuse(r, "a class within a class");
        if (c == '&' && peek(r, 1) == '&')
            return refuse(r, "an intersection of classes");
        if (c == '\\') {
            AM_TRY(rewrite_escape(r, 1));
            continue;
        }
        am_buffer_put(&r->out, r->in + r->at, 1);
        r->at++;
        if (c == ']')
            return AM_OK;
    }
}

/* The head of a group, with r->at at the parenthesis. */
static int rewrite_group(rewrite *r)
{
    if (peek(r, 1) == '*')
        return refuse(r, "a verb (*…)");
    if (peek(r, 1) != '?') {
        put(r, "(");
        r->at++;
        return AM_OK;
    }
    size_t begin = r->at;
    int c = peek(r, 2);
    if (c == ':' || c == '=' || c == '!' || c == '>') {
        am_buffer_put(&r->out, r->in + r->at, 3);
        r->at += 3;
        return AM_OK;
    }
    if (c == '<' && (peek(r, 3) == '=' || peek(r, 3) == '!')) {
        am_buffer_put(&r->out, r->in + r->at, 4);
        r->at += 4;
        return AM_OK;
    }
    put(r, "(?");
    r->at += 2;
    while ((c = peek(r, 0)) == 'i' || c == 'm' || c == '-') {
        put(r, c == 'm' ? "s" : c == 'i' ? "i" : "-");
        r->at++;
    }
    if (c != ':' && !(c == ')' && begin == 0))
        return refuse(r, "a group or option after (? that is not one of : = ! > <= <! i m");
    am_buffer_put(&r->out, r->in + r->at, 1);
    r->at++;
    return AM_OK;
}

/* {n}, {n,}, {,m}, {n,m}, or a literal brace; with r->at at the brace. */
static int rewrite_interval(rewrite *r)
{
    size_t i = r->at + 1, digits = 0, comma = 0;
    for (; i < r->n && ((r->in[i] >= '0' && r->in[i] <= '9') || (r->in[i] == ',' && !comma)); i++) {
        if (r->in[i] == ',')
            comma = i;
        else
            digits++;
    }
    if (i >= r->n || r->in[i] != '}' || !digits) {
        put(r, "\\{");
        r->at++;
        return AM_OK;
    }
    int next = i + 1 < r->n ? r->in[i + 1] : 0;
    if (next == '+')
        return refuse(r, "{n,m}+");
    if (next == '?' && !comma)
        return refuse(r, "{n}?");
    put(r, comma == r->at + 1 ? "{0" : "{");
    am_buffer_put(&r->out, r->in + r->at + 1, i - r->at);
    r->at = i + 1;
    return AM_OK;
}

static int rewrite_pattern(rewrite *r)
{
    while (r->at < r->n) {
        switch (r->in[r->at]) {
        case '\\':
            AM_TRY(rewrite_escape(r, 0));
            break;
        case '[':
            AM_TRY(rewrite_class(r));
            break;
        case '(':
            AM_TRY(rewrite_group(r));
            break;
        case '{':
            AM_TRY(rewrite_interval(r));
            break;
        default:
            am_buffer_put(&r->out, r->in + r->at, 1);
            r->at++;
        }
    }
    return r->out.rc;
}

/* ---- compiling and matching ------------------------------------------------------------- */

static int compile(am_regex *re, const rewrite *r)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return am_fail(AM_ENOMEM, "out of memory for a regular expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int number;
    PCRE2_SIZE offset;
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    re->code = pcre2_compile((PCRE2_SPTR)(r->out.data ? r->out.data : ""), r->out.bytes, options,
                             &number, &offset, context);
    pcre2_compile_context_free(context);
    if (!re->code) {
        PCRE2_UCHAR why[200];
        pcre2_get_error_message(number, why, sizeof why);
        return am_fail(AM_EUNSUP, "regular expression '%.*s' cannot be compiled: %s",
                       (int)(r->n < 200 ? r->n : 200), r->in, (const char *)why);
    }
    /* Without JIT support (or memory for it) the interpreter does the same, slower. */
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
    return AM_OK;
}

int am_regex_compile(am_regex **out, const char *pattern, size_t bytes)
{
    if (bytes > MAX_PATTERN)
        return am_fail(AM_EUNSUP, "a regular expression of %zu bytes is longer than %d", bytes,
                       MAX_PATTERN);
    for (size_t i = 0; i < bytes;) {
        int length = am_utf8_length(pattern + i, bytes - i);
        if (!length)
            return am_fail(AM_EFORMAT, "a regular expression is not valid UTF-8");
        i += (size_t)length;
    }
    rewrite r = {.in = pattern, .n = bytes};
    void *p = NULL;
    int rc;
    AM_TRY_OUT(am_alloc(&p, sizeof(am_regex)));
    AM_TRY_OUT(rewrite_pattern(&r));
    AM_TRY_OUT(compile(p, &r));
    *out = p;
    p = NULL;
out:
    am_regex_free(p);
    am_buffer_free(&r.out);
    return rc;
}

void am_regex_free(am_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    am_free(re);
}

void am_regex_scratch_free(am_regex_scratch *s)
{
    pcre2_match_context_free(s->limits);
    pcre2_jit_stack_free(s->stack);
    pcre2_match_data_free(s->data);
    memset(s, 0, sizeof *s);
}

static int scratch_begin(am_regex_scratch *s)
{
    if (s->data && s->limits)
        return AM_OK;
    am_regex_scratch_free(s);
    s->data = pcre2_match_data_create(1, NULL);
    s->limits = pcre2_match_context_create(NULL);
    if (!s->data || !s->limits)
        return am_fail(AM_ENOMEM, "out of memory for a regular expression");
    pcre2_set_depth_limit(s->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(s->limits, HEAP_LIMIT_KIB);
    s->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
    if (s->stack)
        pcre2_jit_stack_assign(s->limits, NULL, s->stack);
    return AM_OK;
}

int am_regex_find(const am_regex *re, am_regex_scratch *s, const char *text, size_t bytes,
                  size_t from, size_t *start, size_t *end, int *found)
{
    AM_TRY(scratch_begin(s));
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    size_t steps = STEPS_BASE + STEPS_PER_BYTE * (bytes - from);
    pcre2_set_match_limit(s->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    int n = re->jit ? pcre2_jit_match(re->code, subject, bytes, from, PCRE2_NO_UTF_CHECK, s->data,
                                      s->limits)
                    : pcre2_match(re->code, subject, bytes, from, PCRE2_NO_UTF_CHECK, s->data,
                                  s->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(re->code, subject, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->data,
                        s->limits);
    *found = n >= 0;
    if (n >= 0) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->data);
        *start = range[0];
        *end = range[1] < range[0] ? range[0] : range[1];
        return AM_OK;
    }
    if (n == PCRE2_ERROR_NOMATCH)
        return AM_OK;
    PCRE2_UCHAR why[200];
    pcre2_get_error_message(n, why, sizeof why);
    return am_fail(AM_EFORMAT, "splitting the text at byte %zu failed: %s", from,
                   (const char *)why);
}
