/* json.c — the JSON reader: text to a tree of values. The writer is in json_write.c.
 *
 * Children are collected on stacks while their array or object is open and copied into the arena
 * when it closes, so items lie next to each other and the arena holds nothing else. Objects with
 * more than SMALL_OBJECT members get a hash table behind their members. */
#include "json.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"

enum { SMALL_OBJECT = 8 };
enum { MIN_CHUNK = 1 << 10, MAX_CHUNK = 1 << 20 };
#define MAX_TEXT ((size_t)INT32_MAX)

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    char bytes[];
} chunk;

struct am_json_doc {
    am_json root;
    char *strings; /* all keys and strings; never more bytes than the text has */
    chunk *chunks;
    uint64_t seed;
};

/* Lies behind the members of an indexed object. Slots hold member number + 1; 0 is free. */
typedef struct object_index {
    uint64_t seed;
    uint32_t mask;
    uint32_t slots[];
} object_index;

typedef struct parser {
    const char *text, *at, *end;
    am_json_doc *doc;
    char *string_at; /* next free byte of doc->strings */
    am_json *values;
    size_t n_values, cap_values;
    am_json_member *members;
    size_t n_members, cap_members;
    int depth, flags;
} parser;

/* ---- errors ------------------------------------------------------------------------------ */

/* Lines and columns count from 1; a column is a character. */
static int fail_at(const parser *ps, const char *at, const char *what)
{
    int64_t line = 1, column = 1;
    for (const char *p = ps->text; p < at; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*p & 0xc0) != 0x80) {
            column++;
        }
    }
    return am_fail(AM_EFORMAT, "JSON line %lld, column %lld: %s", (long long)line,
                   (long long)column, what);
}

static int fail_here(const parser *ps, const char *what)
{
    return fail_at(ps, ps->at, ps->at == ps->end ? "the text ends too early" : what);
}

/* ---- memory ------------------------------------------------------------------------------ */

static int arena_take(am_json_doc *doc, void **out, size_t bytes)
{
    bytes = (bytes + 7) & ~(size_t)7;
    chunk *c = doc->chunks;
    if (!c || c->size - c->used < bytes) {
        size_t size = c ? c->size * 2 : MIN_CHUNK;
        if (size > MAX_CHUNK)
            size = MAX_CHUNK;
        if (size < bytes)
            size = bytes;
        void *p = NULL;
        AM_TRY(am_alloc(&p, sizeof(chunk) + size));
        c = p;
        c->size = size;
        c->next = doc->chunks;
        doc->chunks = c;
    }
    *out = c->bytes + c->used;
    c->used += bytes;
    return AM_OK;
}

/* ---- objects by key ---------------------------------------------------------------------- */

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Keyed by a seed the author of a file can't know, so keys made to collide don't. */
static uint32_t hash_key(uint64_t seed, const char *key, size_t bytes)
{
    uint64_t h = seed ^ bytes, word;
    for (; bytes >= 8; key += 8, bytes -= 8) {
        memcpy(&word, key, 8);
        h = fold(h ^ word, seed | 1);
    }
    word = 0;
    memcpy(&word, key, bytes);
    h = fold(h ^ word, seed | 1);
    return (uint32_t)(h ^ (h >> 32));
}

static int same_key(const am_json_member *m, const char *key, size_t bytes)
{
    return m->bytes == bytes && memcmp(m->key, key, bytes) == 0;
}

static const object_index *index_of(const am_json *object)
{
    return (const object_index *)(const void *)(object->as.members + object->count);
}

/* Build the table behind `members`; *twice is set to a key that occurs twice. */
static void index_members(object_index *table, am_json_member *members, uint32_t count,
                          const am_json_member **twice)
{
    for (uint32_t i = 0; i < count; i++) {
        am_json_member *m = &members[i];
        m->hash = hash_key(table->seed, m->key, m->bytes);
        uint32_t slot = m->hash & table->mask;
        for (; table->slots[slot]; slot = (slot + 1) & table->mask) {
            const am_json_member *other = &members[table->slots[slot] - 1];
            if (other->hash == m->hash && same_key(other, m->key, m->bytes)) {
                *twice = m;
                break;
            }
        }
        table->slots[slot] = i + 1;
    }
}

const am_json *am_json_get_bytes(const am_json *v, const char *key, size_t bytes)
{
    if (!v || v->kind != AM_JSON_OBJECT)
        return NULL;
    const am_json_member *members = v->as.members;
    if (!v->indexed) {
        for (uint32_t i = v->count; i-- > 0;)
            if (same_key(&members[i], key, bytes))
                return &members[i].value;
        return NULL;
    }
    const object_index *table = index_of(v);
    uint32_t hash = hash_key(table->seed, key, bytes);
    for (uint32_t slot = hash & table->mask; table->slots[slot]; slot = (slot + 1) & table->mask) {
        const am_json_member *m = &members[table->slots[slot] - 1];
        if (m->hash == hash && same_key(m, key, bytes))
            return &m->value;
    }
    return NULL;
}

const am_json *am_json_get(const am_json *v, const char *key)
{
    return am_json_get_bytes(v, key, strlen(key));
}

const am_json *am_json_get_kind(const am_json *v, const char *key, int kind)
{
    const am_json *member = am_json_get(v, key);
    return am_json_is(member, kind) ? member : NULL;
}

int am_json_equals(const am_json *v, const char *text)
{
    size_t bytes = strlen(text);
    return am_json_is(v, AM_JSON_STRING) && v->count == bytes &&
           memcmp(v->as.text, text, bytes) == 0;
}

const char *am_json_kind_name(int kind)
{
    static const char *const names[] = {"null",     "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return kind >= 0 && kind <= AM_JSON_OBJECT ? names[kind] : "nothing";
}

/* ---- UTF-8 ------------------------------------------------------------------------------- */

int am_utf8_length(const char *s, size_t bytes)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80)
        return 1;
    /* Lead bytes c0, c1 would be overlong, f5 and up beyond U+10FFFF. */
    if (u[0] < 0xc2 || u[0] > 0xf4 || bytes < 2)
        return 0;
    /* Some leads narrow the second byte: no overlong forms, no surrogates, no more than 10FFFF. */
    unsigned low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (u[1] < low || u[1] > high)
        return 0;
    if (u[0] < 0xe0)
        return 2;
    if (bytes < 3 || (u[2] & 0xc0) != 0x80)
        return 0;
    if (u[0] < 0xf0)
        return 3;
    return bytes >= 4 && (u[3] & 0xc0) == 0x80 ? 4 : 0;
}

int am_utf8_put(char *s, uint32_t c)
{
    if (c < 0x80) {
        s[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        s[0] = (char)(0xc0 | c >> 6);
        s[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        s[0] = (char)(0xe0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 0x3f));
        s[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    s[0] = (char)(0xf0 | c >> 18);
    s[1] = (char)(0x80 | (c >> 12 & 0x3f));
    s[2] = (char)(0x80 | (c >> 6 & 0x3f));
    s[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* ---- strings ----------------------------------------------------------------------------- */

static int hex4(const parser *ps, const char *at, uint32_t *value)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        if (at + i >= ps->end)
            return fail_at(ps, ps->end, "the text ends too early");
        char c = at[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            digit = (uint32_t)((c | 32) - 'a' + 10);
        else
            return fail_at(ps, at + i, "\\u needs four hexadecimal digits");
        v = v << 4 | digit;
    }
    *value = v;
    return AM_OK;
}

/* ps->at stands on the backslash; at most 4 bytes are written for at least 6 read. */
static int parse_escape(parser *ps, char **out)
{
    const char *start = ps->at;
    if (ps->end - start < 2)
        return fail_at(ps, ps->end, "the text ends too early");
    ps->at += 2;
    switch (start[1]) {
    case '"':
    case '\\':
    case '/':
        *(*out)++ = start[1];
        return AM_OK;
    case 'b':
        *(*out)++ = '\b';
        return AM_OK;
    case 'f':
        *(*out)++ = '\f';
        return AM_OK;
    case 'n':
        *(*out)++ = '\n';
        return AM_OK;
    case 'r':
        *(*out)++ = '\r';
        return AM_OK;
    case 't':
        *(*out)++ = '\t';
        return AM_OK;
    case 'u':
        break;
    default:
        return fail_at(ps, start, "unknown escape in a string");
    }
    uint32_t c = 0, low = 0;
    AM_TRY(hex4(ps, ps->at, &c));
    ps->at += 4;
    if (c >= 0xd800 && c <= 0xdfff) {
        if (c >= 0xdc00 || ps->end - ps->at < 2 || ps->at[0] != '\\' || ps->at[1] != 'u')
            return fail_at(ps, start, "half of a surrogate pair");
        AM_TRY(hex4(ps, ps->at + 2, &low));
        if (low < 0xdc00 || low > 0xdfff)
            return fail_at(ps, start, "half of a surrogate pair");
        ps->at += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    *out += am_utf8_put(*out, c);
    return AM_OK;
}

/* Copy to the document's strings; ps->at stands on the opening quote. */
static int parse_string(parser *ps, const char **text, uint32_t *bytes)
{
    const char *start = ps->at++;
    char *out = ps->string_at;
    for (;;) {
        const char *run = ps->at;
        while (ps->at < ps->end && *ps->at != '"' && *ps->at != '\\' &&
               (unsigned char)*ps->at >= 0x20 && (unsigned char)*ps->at < 0x80)
            ps->at++;
        memcpy(out, run, (size_t)(ps->at - run));
        out += ps->at - run;
        if (ps->at == ps->end)
            return fail_at(ps, start, "this string does not end");
        unsigned char c = (unsigned char)*ps->at;
        if (c == '"')
            break;
        if (c == '\\') {
            AM_TRY(parse_escape(ps, &out));
        } else if (c < 0x20) {
            return fail_here(ps, "control character in a string (write it as \\u00..)");
        } else {
            int n = am_utf8_length(ps->at, (size_t)(ps->end - ps->at));
            if (n == 0)
                return fail_here(ps, "not valid UTF-8");
            memcpy(out, ps->at, (size_t)n);
            out += n;
            ps->at += n;
        }
    }
    ps->at++;
    *text = ps->string_at;
    *bytes = (uint32_t)(out - ps->string_at);
    *out++ = 0; /* the closing quote's byte pays for it */
    ps->string_at = out;
    return AM_OK;
}

/* ---- numbers ----------------------------------------------------------------------------- */

static int is_digit(const parser *ps, const char *at)
{
    return at < ps->end && *at >= '0' && *at <= '9';
}

/* The digits from start to ps->at as a double, in the C locale whatever the process has set. */
static int decimal_to_double(const parser *ps, const char *start, double *value)
{
    char small[64], *copy = small;
    void *big = NULL;
    size_t bytes = (size_t)(ps->at - start);
    if (bytes >= sizeof small) {
        AM_TRY(am_alloc(&big, bytes + 1));
        copy = big;
    }
    memcpy(copy, start, bytes);
    copy[bytes] = 0;
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* static in glibc */
    *value = strtod_l(copy, NULL, c_locale);
    freelocale(c_locale);
    am_free(big);
    if (*value - *value != 0) /* infinite */
        return fail_at(ps, start, "number out of range");
    return AM_OK;
}

static int parse_number(parser *ps, am_json *v)
{
    const char *start = ps->at;
    int negative = *ps->at == '-', exact = 1;
    uint64_t n = 0;
    ps->at += negative;
    if (!is_digit(ps, ps->at))
        return fail_here(ps, "expected a digit");
    if (*ps->at == '0' && is_digit(ps, ps->at + 1))
        return fail_here(ps, "number with a leading zero");
    for (; is_digit(ps, ps->at); ps->at++) {
        uint64_t digit = (uint64_t)(*ps->at - '0');
        if (n > ((uint64_t)INT64_MAX - digit) / 10)
            exact = 0;
        else
            n = n * 10 + digit;
    }
    if (ps->at < ps->end && *ps->at == '.') {
        ps->at++;
        exact = 0;
        if (!is_digit(ps, ps->at))
            return fail_here(ps, "expected a digit after the point");
        while (is_digit(ps, ps->at))
            ps->at++;
    }
    if (ps->at < ps->end && (*ps->at | 32) == 'e') {
        ps->at++;
        exact = 0;
        if (ps->at < ps->end && (*ps->at == '+' || *ps->at == '-'))
            ps->at++;
        if (!is_digit(ps, ps->at))
            return fail_here(ps, "expected a digit in the exponent");
        while (is_digit(ps, ps->at))
            ps->at++;
    }
    v->kind = AM_JSON_NUMBER;
    if (exact && !(negative && n == 0)) { /* "-0" stays a double to keep its sign */
        v->is_int = 1;
        v->as.integer = negative ? -(int64_t)n : (int64_t)n;
        return AM_OK;
    }
    if (negative && ps->at - start == 20 && memcmp(start, "-9223372036854775808", 20) == 0) {
        v->is_int = 1;
        v->as.integer = INT64_MIN;
        return AM_OK;
    }
    return decimal_to_double(ps, start, &v->as.real);
}

/* ---- values ------------------------------------------------------------------------------ */

static int parse_value(parser *ps, am_json *v);

static void skip_space(parser *ps)
{
    while (ps->at < ps->end &&
           (*ps->at == ' ' || *ps->at == '\n' || *ps->at == '\r' || *ps->at == '\t'))
        ps->at++;
}

/* After an item: 1 when a comma was taken, 0 when `close` was. */
static int next_item(parser *ps, char close, int *more, const char *what)
{
    skip_space(ps);
    if (ps->at < ps->end && (*ps->at == ',' || *ps->at == close)) {
        *more = *ps->at++ == ',';
        return AM_OK;
    }
    return fail_here(ps, what);
}

static int enter(parser *ps, char close, int *more)
{
    if (++ps->depth > AM_JSON_MAX_DEPTH)
        return fail_here(ps, "nested too deeply");
    ps->at++;
    skip_space(ps);
    *more = !(ps->at < ps->end && *ps->at == close);
    if (!*more)
        ps->at++;
    return AM_OK;
}

static int parse_array(parser *ps, am_json *v)
{
    size_t base = ps->n_values;
    int more;
    AM_TRY(enter(ps, ']', &more));
    while (more) {
        am_json item = {0};
        AM_TRY(parse_value(ps, &item));
        if (ps->n_values == ps->cap_values)
            AM_TRY(am_grow((void **)&ps->values, &ps->cap_values, ps->n_values + 1,
                           sizeof *ps->values));
        ps->values[ps->n_values++] = item;
        AM_TRY(next_item(ps, ']', &more, "expected ',' or ']'"));
    }
    size_t count = ps->n_values - base;
    v->kind = AM_JSON_ARRAY;
    v->count = (uint32_t)count;
    if (count) {
        void *items;
        AM_TRY(arena_take(ps->doc, &items, count * sizeof *ps->values));
        memcpy(items, ps->values + base, count * sizeof *ps->values);
        v->as.items = items;
    }
    ps->n_values = base;
    ps->depth--;
    return AM_OK;
}

static int parse_member(parser *ps, am_json_member *m)
{
    skip_space(ps);
    if (ps->at == ps->end || *ps->at != '"')
        return fail_here(ps, "expected a key in double quotes");
    AM_TRY(parse_string(ps, &m->key, &m->bytes));
    skip_space(ps);
    if (ps->at == ps->end || *ps->at != ':')
        return fail_here(ps, "expected ':'");
    ps->at++;
    return parse_value(ps, &m->value);
}

static int close_object(parser *ps, const char *start, size_t base, am_json *v)
{
    size_t count = ps->n_members - base, slots = 0, index_bytes = 0;
    const am_json_member *twice = NULL;
    v->kind = AM_JSON_OBJECT;
    v->count = (uint32_t)count;
    if (count > SMALL_OBJECT) {
        for (slots = 32; slots < 2 * count; slots *= 2)
            ;
        index_bytes = sizeof(object_index) + slots * sizeof(uint32_t);
    }
    if (count) {
        void *p;
        AM_TRY(arena_take(ps->doc, &p, count * sizeof *ps->members + index_bytes));
        am_json_member *members = p;
        memcpy(members, ps->members + base, count * sizeof *ps->members);
        v->as.members = members;
        if (slots) {
            object_index *table = (object_index *)(void *)(members + count);
            table->seed = ps->doc->seed;
            table->mask = (uint32_t)(slots - 1);
            index_members(table, members, v->count, &twice);
            v->indexed = 1;
        } else if (ps->flags & AM_JSON_UNIQUE_KEYS) {
            for (size_t i = 1; i < count; i++)
                for (size_t j = 0; j < i; j++)
                    if (same_key(&members[j], members[i].key, members[i].bytes))
                        twice = &members[i];
        }
    }
    if (twice && (ps->flags & AM_JSON_UNIQUE_KEYS)) {
        (void)fail_at(ps, start, "in the object that begins here");
        return am_fail_context(AM_EFORMAT, "key \"%.100s\" occurs twice", twice->key);
    }
    ps->n_members = base;
    ps->depth--;
    return AM_OK;
}

static int parse_object(parser *ps, am_json *v)
{
    const char *start = ps->at;
    size_t base = ps->n_members;
    int more;
    AM_TRY(enter(ps, '}', &more));
    while (more) {
        am_json_member member = {0};
        AM_TRY(parse_member(ps, &member));
        if (ps->n_members == ps->cap_members)
            AM_TRY(am_grow((void **)&ps->members, &ps->cap_members, ps->n_members + 1,
                           sizeof *ps->members));
        ps->members[ps->n_members++] = member;
        AM_TRY(next_item(ps, '}', &more, "expected ',' or '}'"));
    }
    return close_object(ps, start, base, v);
}

static int parse_word(parser *ps, const char *word, am_json *v, int kind, int boolean)
{
    size_t bytes = strlen(word);
    if ((size_t)(ps->end - ps->at) < bytes || memcmp(ps->at, word, bytes) != 0)
        return fail_at(ps, ps->at, "expected a value");
    ps->at += bytes;
    v->kind = (uint8_t)kind;
    v->as.boolean = boolean;
    return AM_OK;
}

static int parse_value(parser *ps, am_json *v)
{
    skip_space(ps);
    if (ps->at == ps->end)
        return fail_here(ps, "");
    switch (*ps->at) {
    case '{':
        return parse_object(ps, v);
    case '[':
        return parse_array(ps, v);
    case '"':
        v->kind = AM_JSON_STRING;
        return parse_string(ps, &v->as.text, &v->count);
    case 't':
        return parse_word(ps, "true", v, AM_JSON_BOOL, 1);
    case 'f':
        return parse_word(ps, "false", v, AM_JSON_BOOL, 0);
    case 'n':
        return parse_word(ps, "null", v, AM_JSON_NULL, 0);
    default:
        if (*ps->at == '-' || (*ps->at >= '0' && *ps->at <= '9'))
            return parse_number(ps, v);
        return fail_here(ps, "expected a value");
    }
}

/* ---- documents --------------------------------------------------------------------------- */

int am_json_parse(am_json_doc **out, const char *text, size_t bytes, int flags)
{
    if (bytes > MAX_TEXT)
        return am_fail(AM_EFORMAT, "JSON text of %zu bytes is longer than 2 GiB", bytes);
    parser ps = {.text = text, .at = text, .end = text + bytes, .flags = flags};
    void *p = NULL;
    int rc;
    AM_TRY(am_alloc(&p, sizeof(am_json_doc)));
    ps.doc = p;
    ps.doc->seed = fold((uintptr_t)p, 0x9e3779b97f4a7c15u);
    p = NULL;
    AM_TRY_OUT(am_alloc(&p, bytes + 1));
    ps.doc->strings = ps.string_at = p;
    AM_TRY_OUT(parse_value(&ps, &ps.doc->root));
    skip_space(&ps);
    if (ps.at != ps.end)
        rc = fail_here(&ps, "text after the value");
out:
    am_free(ps.values);
    am_free(ps.members);
    if (rc == AM_OK)
        *out = ps.doc;
    else
        am_json_free(ps.doc);
    return rc;
}

void am_json_free(am_json_doc *doc)
{
    if (!doc)
        return;
    for (chunk *c = doc->chunks, *next; c; c = next) {
        next = c->next;
        am_free(c);
    }
    am_free(doc->strings);
    am_free(doc);
}

const am_json *am_json_root(const am_json_doc *doc)
{
    return &doc->root;
}
