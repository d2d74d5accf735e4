/* tokenizer_charsmap.c — SentencePiece's compiled replacements: a double array of strings (darts)
 * behind its size, then the texts that they become, each with a NUL after it. Untrusted: every
 * step through the array is checked. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_text.h"

struct am_charsmap {
    uint8_t *bytes; /* as decoded */
    const uint8_t *units;
    size_t unit_count;
    const char *texts; /* `text_bytes`, and a NUL after them */
    size_t text_bytes;
};

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static int decode_base64(uint8_t *out, size_t *count, const char *text, size_t n)
{
    while (n && text[n - 1] == '=')
        n--;
    uint32_t bits = 0;
    *count = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0)
            return am_fail(AM_EFORMAT, "the charsmap is not base64 (character %zu)", i + 1);
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4)
            out[(*count)++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    return AM_OK;
}

static uint32_t word_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int am_charsmap_new(am_charsmap **out, const char *base64, size_t bytes)
{
    void *p = NULL, *decoded = NULL;
    size_t n;
    int rc;
    AM_TRY_OUT(am_alloc(&p, sizeof(am_charsmap)));
    AM_TRY_OUT(am_alloc(&decoded, bytes + 1)); /* zeroed: the NUL */
    AM_TRY_OUT(decode_base64(decoded, &n, base64, bytes));
    am_charsmap *m = p;
    size_t size = n < 4 ? 0 : word_at(decoded);
    if (n < 8 || size % 4 || size < 4 || size > n - 4) {
        rc = am_fail(AM_EFORMAT, "the charsmap is damaged: %zu bytes, of which %zu are its table",
                     n, size);
        goto out;
    }
    m->bytes = decoded;
    m->units = m->bytes + 4;
    m->unit_count = size / 4;
    m->texts = (const char *)m->bytes + 4 + size;
    m->text_bytes = n - 4 - size;
    *out = m;
    return AM_OK;
out:
    am_free(p);
    am_free(decoded);
    return rc;
}

void am_charsmap_free(am_charsmap *m)
{
    if (!m)
        return;
    am_free(m->bytes);
    am_free(m);
}

/* The text at `at`, when it is one. */
static const char *text_at(const am_charsmap *m, uint32_t at, size_t *bytes)
{
    if (at >= m->text_bytes)
        return NULL;
    const char *text = m->texts + at;
    *bytes = strlen(text);
    for (size_t i = 0; i < *bytes;) {
        int length = am_utf8_length(text + i, *bytes - i);
        if (!length)
            return NULL;
        i += (size_t)length;
    }
    return text;
}

static uint32_t offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

const char *am_charsmap_find(const am_charsmap *m, const char *text, size_t n, size_t *bytes)
{
    uint32_t node = offset(word_at(m->units));
    for (size_t i = 0; i < n && text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        node ^= c;
        if (node >= m->unit_count)
            return NULL;
        uint32_t unit = word_at(m->units + 4 * (size_t)node);
        if ((unit & (1u << 31 | 0xff)) != c)
            return NULL;
        node ^= offset(unit);
        if (unit >> 8 & 1) {
            if (node >= m->unit_count)
                return NULL;
            return text_at(m, word_at(m->units + 4 * (size_t)node) & 0x7fffffff, bytes);
        }
    }
    return NULL;
}
