/* parquet_value.c — a stored value as JSON would have it, the way `datasets` writes JSON:
 *   whole numbers and floats       a number: the nearest double; null for NaN and infinities
 *   text, JSON, enums              text, which must be UTF-8
 *   bytes without a meaning        the bytes
 *   decimals                       text with all digits of their scale
 *   dates and timestamps           milliseconds since 1970 (UTC), rounded down
 *   times of day                   text: "01:02:03", with six or nine digits of a second if need be
 *   UUIDs                          text
 * Also the memory that the values of a row need. Knows no pages. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "parquet.h"

/* ---- memory until the next row ------------------------------------------------------------ */

/* A block of bytes that are handed out, or memory that was taken over. */
struct am_pq_keep {
    am_pq_keep *next;
    void *memory; /* taken over */
    size_t used, bytes;
    uint64_t total; /* of this block and those behind it */
    uint8_t data[];
};

enum { BLOCK = 4096 };
static const uint64_t MAX_KEPT = (uint64_t)1 << 30;

static int add(am_pq_keep **keep, size_t bytes, void *memory, size_t memory_bytes)
{
    void *p;
    uint64_t total = (*keep ? (*keep)->total : 0) + bytes + memory_bytes;
    if (total > MAX_KEPT)
        return am_fail(AM_EFORMAT, "a row whose values take more than %llu bytes",
                       (unsigned long long)MAX_KEPT);
    AM_TRY(am_alloc(&p, sizeof(am_pq_keep) + bytes));
    am_pq_keep *k = p;
    *k = (am_pq_keep){.next = *keep, .memory = memory, .bytes = bytes, .total = total};
    *keep = k;
    return AM_OK;
}

int am_pq_keep_bytes(am_pq_keep **keep, void **p, size_t bytes)
{
    am_pq_keep *k = *keep;
    if (!k || k->bytes - k->used < bytes) {
        AM_TRY(add(keep, bytes > BLOCK ? bytes : BLOCK, NULL, 0));
        k = *keep;
    }
    *p = k->data + k->used;
    k->used += bytes;
    return AM_OK;
}

int am_pq_keep_memory(am_pq_keep **keep, void *memory, size_t bytes)
{
    return add(keep, 0, memory, bytes);
}

void am_pq_keep_free(am_pq_keep **keep)
{
    while (*keep) {
        am_pq_keep *k = *keep;
        *keep = k->next;
        am_free(k->memory);
        am_free(k);
    }
}

/* ---- numbers ------------------------------------------------------------------------------ */

static void set_number(am_parquet_value *out, double x)
{
    out->kind = isfinite(x) ? AM_PARQUET_NUMBER : AM_PARQUET_NULL;
    out->number = x;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static double half(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double x = exponent == 0    ? ldexp(fraction, -24)
               : exponent == 31 ? (double)(fraction ? NAN : INFINITY)
                                : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -x : x;
}

/* Impala's and old Spark's timestamps: nanoseconds of the day, then the Julian day. */
static double int96_milliseconds(const uint8_t *data)
{
    enum { JULIAN_1970 = 2440588 };
    int64_t nanoseconds;
    int32_t day;
    memcpy(&nanoseconds, data, 8);
    memcpy(&day, data + 8, 4);
    return ((double)day - JULIAN_1970) * 86400000.0 + (double)floor_div(nanoseconds, 1000000);
}

/* ---- text --------------------------------------------------------------------------------- */

static int set_text(am_parquet_value *out, am_pq_keep **keep, const char *text, size_t bytes)
{
    void *p;
    AM_TRY(am_pq_keep_bytes(keep, &p, bytes));
    if (bytes > 0)
        memcpy(p, text, bytes);
    out->kind = AM_PARQUET_TEXT;
    out->count = (int32_t)bytes;
    out->text = p;
    return AM_OK;
}

static int check_utf8(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        if ((uint8_t)text[i] < 0x80) {
            i++;
            continue;
        }
        int n = am_utf8_length(text + i, bytes - i);
        if (n == 0)
            return am_fail(AM_EFORMAT, "byte %zu of a text is not UTF-8", i + 1);
        i += (size_t)n;
    }
    return AM_OK;
}

static int set_bytes(am_parquet_value *out, const am_pq_leaf *leaf, const am_pq_raw *raw,
                     am_pq_keep **keep)
{
    const char *text = (const char *)raw->data;
    if (raw->bytes > INT32_MAX)
        return am_fail(AM_EFORMAT, "a value of %u bytes, which is too large", raw->bytes);
    if (leaf->element->logical == AM_PQ_TEXT)
        AM_TRY(check_utf8(text, raw->bytes));
    if (raw->passing)
        return set_text(out, keep, text, raw->bytes);
    out->kind = AM_PARQUET_TEXT;
    out->count = (int32_t)raw->bytes;
    out->text = text;
    return AM_OK;
}

static int set_uuid(am_parquet_value *out, const uint8_t *data, am_pq_keep **keep)
{
    char text[37], *at = text;
    for (int i = 0; i < 16; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", data[i]);
    return set_text(out, keep, text, 36);
}

static int set_time(am_parquet_value *out, int64_t time, int unit, am_pq_keep **keep)
{
    static const int64_t per_second[] = {[3] = 1000, [6] = 1000000, [9] = 1000000000};
    char text[32];
    int64_t one = per_second[unit];
    if (time < 0 || time >= 86400 * one)
        return am_fail(AM_EFORMAT, "a time of day that is none (%lld)", (long long)time);
    int64_t second = time / one, nano = time % one * (per_second[9] / one);
    int n = sprintf(text, "%02d:%02d:%02d", (int)(second / 3600), (int)(second / 60 % 60),
                    (int)(second % 60));
    if (nano % 1000 != 0)
        n += sprintf(text + n, ".%09d", (int)nano);
    else if (nano != 0)
        n += sprintf(text + n, ".%06d", (int)(nano / 1000));
    return set_text(out, keep, text, (size_t)n);
}

/* ---- decimals ----------------------------------------------------------------------------- */

enum { DECIMAL_BYTES = 32, DECIMAL_DIGITS = 78, MAX_SCALE = 76 };

/* Divide a big-endian number by ten; the remainder. */
static int divide_by_ten(uint8_t *number, int bytes)
{
    int rest = 0;
    for (int i = 0; i < bytes; i++) {
        int x = rest * 256 + number[i];
        number[i] = (uint8_t)(x / 10);
        rest = x % 10;
    }
    return rest;
}

/* A big-endian two's complement of 1 to DECIMAL_BYTES bytes. */
static int set_decimal(am_parquet_value *out, const uint8_t *data, uint32_t bytes, int scale,
                       am_pq_keep **keep)
{
    uint8_t number[DECIMAL_BYTES];
    char text[DECIMAL_DIGITS + 2], *end = text + sizeof text, *at = end;
    if (bytes == 0 || bytes > DECIMAL_BYTES)
        return am_fail(AM_EUNSUP, "a decimal number of %u bytes; up to %d are read", bytes,
                       DECIMAL_BYTES);
    memcpy(number, data, bytes);
    int negative = number[0] >> 7;
    if (negative) {
        int carry = 1;
        for (int i = (int)bytes - 1; i >= 0; i--) {
            int x = (uint8_t)~number[i] + carry;
            number[i] = (uint8_t)x;
            carry = x >> 8;
        }
    }
    for (int digit = 0; digit < DECIMAL_DIGITS; digit++) {
        if (digit == scale && digit > 0)
            *--at = '.';
        *--at = (char)('0' + divide_by_ten(number, (int)bytes));
    }
    while (at + 1 < end && at[0] == '0' && at[1] != '.')
        at++;
    if (negative)
        *--at = '-';
    return set_text(out, keep, at, (size_t)(end - at));
}

static int set_whole_decimal(am_parquet_value *out, int64_t x, int scale, am_pq_keep **keep)
{
    uint64_t big = __builtin_bswap64((uint64_t)x);
    uint8_t bytes[8];
    memcpy(bytes, &big, 8);
    return set_decimal(out, bytes, 8, scale, keep);
}

/* ---- values ------------------------------------------------------------------------------- */

/* Of an INT32 or INT64. */
static int set_whole(am_parquet_value *out, const am_pq_element *e, int64_t x, am_pq_keep **keep)
{
    static const int64_t per_millisecond[] = {[3] = 1, [6] = 1000, [9] = 1000000};
    switch (e->logical) {
    case AM_PQ_UNSIGNED:
        set_number(out, e->type == AM_PQ_INT32 ? (double)(uint32_t)x : (double)(uint64_t)x);
        return AM_OK;
    case AM_PQ_DATE:
        set_number(out, (double)x * 86400000.0);
        return AM_OK;
    case AM_PQ_TIMESTAMP:
        set_number(out, (double)floor_div(x, per_millisecond[e->unit]));
        return AM_OK;
    case AM_PQ_TIME:
        return set_time(out, x, e->unit, keep);
    case AM_PQ_DECIMAL:
        return set_whole_decimal(out, x, e->scale, keep);
    default:
        set_number(out, (double)x);
        return AM_OK;
    }
}

static int set_fixed(am_parquet_value *out, const am_pq_leaf *leaf, const am_pq_raw *raw,
                     am_pq_keep **keep)
{
    const am_pq_element *e = leaf->element;
    uint16_t bits;
    switch (e->logical) {
    case AM_PQ_DECIMAL:
        return set_decimal(out, raw->data, raw->bytes, e->scale, keep);
    case AM_PQ_UUID:
        return set_uuid(out, raw->data, keep);
    case AM_PQ_FLOAT16:
        memcpy(&bits, raw->data, 2);
        set_number(out, half(bits));
        return AM_OK;
    default:
        return set_bytes(out, leaf, raw, keep);
    }
}

/* raw has as many bytes as the leaf's type. */
int am_pq_value(am_parquet_value *out, const am_pq_leaf *leaf, const am_pq_raw *raw,
                am_pq_keep **keep)
{
    int32_t whole;
    int64_t large;
    float f;
    double d;
    switch (leaf->element->type) {
    case AM_PQ_BOOLEAN:
        out->kind = raw->data[0] ? AM_PARQUET_TRUE : AM_PARQUET_FALSE;
        return AM_OK;
    case AM_PQ_INT32:
        memcpy(&whole, raw->data, 4);
        return set_whole(out, leaf->element, whole, keep);
    case AM_PQ_INT64:
        memcpy(&large, raw->data, 8);
        return set_whole(out, leaf->element, large, keep);
    case AM_PQ_INT96:
        set_number(out, int96_milliseconds(raw->data));
        return AM_OK;
    case AM_PQ_FLOAT:
        memcpy(&f, raw->data, 4);
        set_number(out, (double)f);
        return AM_OK;
    case AM_PQ_DOUBLE:
        memcpy(&d, raw->data, 8);
        set_number(out, d);
        return AM_OK;
    default:
        return set_fixed(out, leaf, raw, keep);
    }
}

int am_pq_value_check(const am_pq_leaf *leaf)
{
    const am_pq_element *e = leaf->element;
    int whole = e->type == AM_PQ_INT32 || e->type == AM_PQ_INT64;
    int text = e->type == AM_PQ_BYTE_ARRAY, fixed = e->type == AM_PQ_FIXED;
    int fits = 1;
    switch (e->logical) {
    case AM_PQ_TEXT:
        fits = text || fixed;
        break;
    case AM_PQ_DECIMAL:
        fits = (whole || text || fixed) && e->scale <= MAX_SCALE;
        break;
    case AM_PQ_DATE:
        fits = e->type == AM_PQ_INT32;
        break;
    case AM_PQ_TIME:
    case AM_PQ_TIMESTAMP:
        fits = whole && e->unit >= 3;
        break;
    case AM_PQ_UNSIGNED:
        fits = whole;
        break;
    case AM_PQ_UUID:
        fits = fixed && e->type_length == 16;
        break;
    case AM_PQ_FLOAT16:
        fits = fixed && e->type_length == 2;
        break;
    case AM_PQ_INTERVAL:
        return am_fail(AM_EUNSUP, "column \"%.*s\" holds intervals, which are not read",
                       am_pq_name_width(e), e->name);
    default:
        break;
    }
    return fits ? AM_OK
                : am_fail(AM_EFORMAT,
                          "damaged Parquet schema: \"%.*s\" has a type that its kind of "
                          "value cannot have",
                          am_pq_name_width(e), e->name);
}
