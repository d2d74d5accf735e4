/* json.h — reading and writing JSON (RFC 8259) inside the engine.
 * The reader is strict: UTF-8 is validated, nothing beyond the RFC is accepted (no comments, NaN,
 * trailing commas or byte order mark), depth and size are capped. It builds a tree of const
 * values in memory of the document's own; strings keep explicit lengths because \u0000 is a
 * legal character. The writer appends to a growable buffer. */
#ifndef AM_JSON_H
#define AM_JSON_H

#include <stddef.h>
#include <stdint.h>
#include "../am.h"

/* ---- reading ---------------------------------------------------------------------------- */

enum { AM_JSON_NULL, AM_JSON_BOOL, AM_JSON_NUMBER, AM_JSON_STRING, AM_JSON_ARRAY, AM_JSON_OBJECT };
enum { AM_JSON_MAX_DEPTH = 256 };

typedef struct am_json_member am_json_member;
typedef struct am_json am_json;
struct am_json {
    uint8_t kind;
    uint8_t is_int;  /* number: written without fraction or exponent, and fits int64_t */
    uint8_t indexed; /* object: a hash table lies behind the members */
    uint32_t count;  /* bytes of a string, items of an array, members of an object */
    union {
        int boolean;
        int64_t integer;  /* is_int */
        double real;      /* !is_int */
        const char *text; /* `count` bytes and a NUL after them */
        const am_json *items;
        const am_json_member *members; /* in the order of the text */
    } as;
};
struct am_json_member {
    const char *key; /* `bytes` bytes and a NUL after them */
    uint32_t bytes;
    uint32_t hash;
    am_json value;
};

typedef struct am_json_doc am_json_doc;

/* With it a key that occurs twice in an object is an error; without it all occurrences are kept
 * as members and am_json_get finds the last one, as Python and serde do. */
enum { AM_JSON_UNIQUE_KEYS = 1 };

/* Parse one value that fills the whole text (white space around it is allowed). The text is not
 * needed afterwards. AM_EFORMAT says line and column; AM_ENOMEM. */
int am_json_parse(am_json_doc **out, const char *text, size_t bytes, int flags);
void am_json_free(am_json_doc *doc);
const am_json *am_json_root(const am_json_doc *doc);

/* Member of an object by key, constant time for large objects; NULL when absent or when `v` is
 * NULL or no object, so that lookups can be chained. */
const am_json *am_json_get(const am_json *v, const char *key);
const am_json *am_json_get_bytes(const am_json *v, const char *key, size_t bytes);

/* The same with a check of the kind: NULL also when the member is of another kind. */
const am_json *am_json_get_kind(const am_json *v, const char *key, int kind);

static inline int am_json_is(const am_json *v, int kind)
{
    return v && v->kind == kind;
}
static inline int am_json_is_int(const am_json *v)
{
    return v && v->kind == AM_JSON_NUMBER && v->is_int;
}
/* Value of a number; 0 for anything else. */
static inline double am_json_double(const am_json *v)
{
    if (!v || v->kind != AM_JSON_NUMBER)
        return 0;
    return v->is_int ? (double)v->as.integer : v->as.real;
}
/* A boolean's value; `absent` for NULL, null and anything else. */
static inline int am_json_bool(const am_json *v, int absent)
{
    return v && v->kind == AM_JSON_BOOL ? v->as.boolean : absent;
}
/* A string equal to a C string? */
int am_json_equals(const am_json *v, const char *text);
const char *am_json_kind_name(int kind); /* "an object", "a string", … for messages */

/* ---- UTF-8 ------------------------------------------------------------------------------ */

/* Length (1 to 4) of the valid UTF-8 sequence at s, of which `bytes` > 0 are readable; 0 when it
 * is invalid (overlong, surrogate, beyond U+10FFFF, cut off). */
int am_utf8_length(const char *s, size_t bytes);
/* Write code point c (not a surrogate, at most 0x10FFFF) to s; its length, 1 to 4. */
int am_utf8_put(char *s, uint32_t c);

/* ---- writing ---------------------------------------------------------------------------- */

/* A growable byte buffer. The first failure is kept in rc and later calls do nothing, so a writer
 * checks rc once at its end. `data` has a NUL after `bytes` once something was put. */
typedef struct am_buffer {
    char *data;
    size_t bytes, capacity;
    int rc;
    int comma; /* of the JSON writer: a value stands before */
} am_buffer;

void am_buffer_put(am_buffer *b, const void *data, size_t bytes);
void am_buffer_free(am_buffer *b);

/* Compact JSON with commas and colons placed by the writer:
 *   am_json_put_open(b, '{'); am_json_put_key(b, "n", 1); am_json_put_int(b, 3);
 *   am_json_put_close(b, '}');
 * Bytes that are not UTF-8 become U+FFFD; doubles take the shortest form that reads back the same
 * and always have a '.' or an exponent; NaN and infinities become null. */
void am_json_put_open(am_buffer *b, char bracket);
void am_json_put_close(am_buffer *b, char bracket);
void am_json_put_key(am_buffer *b, const char *key, size_t bytes);
void am_json_put_string(am_buffer *b, const char *text, size_t bytes);
void am_json_put_int(am_buffer *b, int64_t value);
void am_json_put_uint(am_buffer *b, uint64_t value);
void am_json_put_double(am_buffer *b, double value);
void am_json_put_bool(am_buffer *b, int value);
void am_json_put_null(am_buffer *b);

/* Append a parsed value as it was read (members in order). */
void am_json_put_value(am_buffer *b, const am_json *v);

#endif
