/* json_write.c — the growable buffer and the JSON writer of json.h. */
#include "json.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"

void am_buffer_put(am_buffer *b, const void *data, size_t bytes)
{
    if (b->rc != AM_OK)
        return;
    if (bytes >= SIZE_MAX - b->bytes) {
        b->rc = am_fail(AM_ENOMEM, "buffer of more than SIZE_MAX bytes");
        return;
    }
    if (b->bytes + bytes + 1 > b->capacity) {
        b->rc = am_grow((void **)&b->data, &b->capacity, b->bytes + bytes + 1, 1);
        if (b->rc != AM_OK)
            return;
    }
    if (bytes)
        memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
    b->data[b->bytes] = 0;
}

void am_buffer_free(am_buffer *b)
{
    am_free(b->data);
    memset(b, 0, sizeof *b);
}

static void put_text(am_buffer *b, const char *text)
{
    am_buffer_put(b, text, strlen(text));
}

/* A value begins: the comma that separates it from the one before. */
static void separate(am_buffer *b)
{
    if (b->comma)
        put_text(b, ",");
    b->comma = 1;
}

void am_json_put_open(am_buffer *b, char bracket)
{
    separate(b);
    am_buffer_put(b, &bracket, 1);
    b->comma = 0;
}

void am_json_put_close(am_buffer *b, char bracket)
{
    am_buffer_put(b, &bracket, 1);
    b->comma = 1;
}

static void put_escaped(am_buffer *b, const char *text, size_t bytes)
{
    static const char short_escape[] = "btn\0fr"; /* for characters 8 to 13 */
    put_text(b, "\"");
    for (size_t i = 0, run = 0; i <= bytes;) {
        unsigned char c = i < bytes ? (unsigned char)text[i] : 0;
        int length = i < bytes ? am_utf8_length(text + i, bytes - i) : 0;
        if (i < bytes && length && c >= 0x20 && c != '"' && c != '\\') {
            i += (size_t)length;
            continue;
        }
        am_buffer_put(b, text + run, i - run);
        if (i < bytes) {
            char escape[8];
            if (c == '"' || c == '\\')
                snprintf(escape, sizeof escape, "\\%c", c);
            else if (c >= 8 && c <= 13 && short_escape[c - 8])
                snprintf(escape, sizeof escape, "\\%c", short_escape[c - 8]);
            else if (c < 0x20)
                snprintf(escape, sizeof escape, "\\u%04x", c);
            else
                strcpy(escape, "\xef\xbf\xbd"); /* not UTF-8: U+FFFD */
            put_text(b, escape);
        }
        run = ++i;
    }
    put_text(b, "\"");
}

void am_json_put_key(am_buffer *b, const char *key, size_t bytes)
{
    separate(b);
    put_escaped(b, key, bytes);
    put_text(b, ":");
    b->comma = 0;
}

void am_json_put_string(am_buffer *b, const char *text, size_t bytes)
{
    separate(b);
    put_escaped(b, text, bytes);
}

void am_json_put_int(am_buffer *b, int64_t value)
{
    char text[32];
    separate(b);
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_text(b, text);
}

void am_json_put_uint(am_buffer *b, uint64_t value)
{
    char text[32];
    separate(b);
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    put_text(b, text);
}

/* The first precision that reads back the same is the shortest. 15 digits are tried first: nearly
 * all numbers end there (%g drops zeros), except subnormals, which have fewer digits. */
static void shortest_double(char *text, size_t bytes, double value)
{
    double magnitude = value < 0 ? -value : value;
    int precision = magnitude != 0 && magnitude < 2.2250738585072014e-308 ? 1 : 15;
    do
        snprintf(text, bytes, "%.*g", precision, value);
    while (strtod(text, NULL) != value && ++precision <= 17);
    size_t n = strlen(text);
    if (!strpbrk(text, ".e"))
        snprintf(text + n, bytes - n, ".0");
}

void am_json_put_double(am_buffer *b, double value)
{
    char text[40];
    if (value - value != 0) {
        am_json_put_null(b);
        return;
    }
    separate(b);
    /* The C locale, whatever the process has set: a comma would not be JSON. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = uselocale(c_locale);
    shortest_double(text, sizeof text, value);
    uselocale(before);
    freelocale(c_locale);
    put_text(b, text);
}

void am_json_put_bool(am_buffer *b, int value)
{
    separate(b);
    put_text(b, value ? "true" : "false");
}

void am_json_put_null(am_buffer *b)
{
    separate(b);
    put_text(b, "null");
}

void am_json_put_value(am_buffer *b, const am_json *v)
{
    switch (v->kind) {
    case AM_JSON_BOOL:
        am_json_put_bool(b, v->as.boolean);
        break;
    case AM_JSON_NUMBER:
        if (v->is_int)
            am_json_put_int(b, v->as.integer);
        else
            am_json_put_double(b, v->as.real);
        break;
    case AM_JSON_STRING:
        am_json_put_string(b, v->as.text, v->count);
        break;
    case AM_JSON_ARRAY:
        am_json_put_open(b, '[');
        for (uint32_t i = 0; i < v->count; i++)
            am_json_put_value(b, &v->as.items[i]);
        am_json_put_close(b, ']');
        break;
    case AM_JSON_OBJECT:
        am_json_put_open(b, '{');
        for (uint32_t i = 0; i < v->count; i++) {
            const am_json_member *m = &v->as.members[i];
            am_json_put_key(b, m->key, m->bytes);
            am_json_put_value(b, &m->value);
        }
        am_json_put_close(b, '}');
        break;
    default:
        am_json_put_null(b);
    }
}
