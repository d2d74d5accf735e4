/* parquet_encoding.c — levels and values out of the bytes of a page (Encodings.md). Knows neither
 * columns nor files. Values come one at a time, so that memory does not grow with what a few bytes
 * claim to hold. */
#include <string.h>

#include "parquet.h"

static uint32_t load_u32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* `width` (at most 64) bits, of which the lowest is number `bit` of the bytes from `at`. */
static uint64_t bits_at(const uint8_t *at, const uint8_t *end, uint64_t bit, int width)
{
    uint64_t low = 0, high = 0;
    at += bit / 8;
    size_t there = (size_t)(end - at);
    int shift = (int)(bit % 8);
    memcpy(&low, at, there < 8 ? there : 8);
    if (there > 8)
        high = at[8];
    uint64_t value = low >> shift;
    if (shift > 0)
        value |= high << (64 - shift);
    return width < 64 ? value & (((uint64_t)1 << width) - 1) : value;
}

/* False when it has no end, or more than 64 bits. */
static int take_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return 1;
    }
    return 0;
}

/* ---- runs --------------------------------------------------------------------------------- */

void am_pq_runs_begin(am_pq_runs *r, const uint8_t *data, size_t bytes, int width)
{
    *r = (am_pq_runs){.at = data, .end = data + bytes, .width = width};
}

void am_pq_runs_begin_packed(am_pq_runs *r, const uint8_t *data, size_t bytes, int width)
{
    *r = (am_pq_runs){.at = data, .end = data + bytes, .width = width, .packed = 1};
    r->high_first = 1;
    r->left = width > 0 ? (uint64_t)bytes * 8 / (unsigned)width : 0;
}

static const char *next_run(am_pq_runs *r)
{
    uint64_t head;
    if (r->packed) { /* the bytes of the run that ended */
        r->at += (r->bit + 7) / 8;
        r->packed = 0;
    }
    if (r->high_first || !take_varint(&r->at, r->end, &head))
        return "it has fewer numbers than it should";
    uint64_t there = (uint64_t)(r->end - r->at), width = (unsigned)r->width;
    if (head & 1) { /* groups of eight; the last one may be cut off */
        uint64_t numbers = there * 8 / width;
        r->packed = 1;
        r->bit = 0;
        r->left = head >> 1 <= numbers / 8 ? head >> 1 << 3 : numbers;
        return NULL;
    }
    size_t bytes = (width + 7) / 8;
    if (bytes > there)
        return "it has fewer numbers than it should";
    r->left = head >> 1;
    r->value = (uint32_t)bits_at(r->at, r->at + bytes, 0, r->width);
    r->at += bytes;
    return NULL;
}

static uint32_t high_first(const uint8_t *at, uint64_t bit, int width)
{
    uint32_t value = 0;
    for (int k = 0; k < width; k++, bit++)
        value = value << 1 | (at[bit / 8] >> (7 - bit % 8) & 1);
    return value;
}

const char *am_pq_runs_next(am_pq_runs *r, uint32_t *value)
{
    if (r->width == 0) { /* some writers leave them out */
        *value = 0;
        return NULL;
    }
    while (r->left == 0) {
        const char *bad = next_run(r);
        if (bad)
            return bad;
    }
    r->left--;
    if (!r->packed) {
        *value = r->value;
        return NULL;
    }
    *value = r->high_first ? high_first(r->at, r->bit, r->width)
                           : (uint32_t)bits_at(r->at, r->end, r->bit, r->width);
    r->bit += (unsigned)r->width;
    return NULL;
}

/* ---- differences -------------------------------------------------------------------------- */

static uint64_t unzigzag(uint64_t x)
{
    return x >> 1 ^ (0 - (x & 1));
}

static const char no_deltas[] = "its differences are damaged";

const char *am_pq_delta_begin(am_pq_delta *d, const uint8_t *data, size_t bytes)
{
    uint64_t block, first;
    *d = (am_pq_delta){.at = data, .end = data + bytes};
    if (!take_varint(&d->at, d->end, &block) || !take_varint(&d->at, d->end, &d->miniblocks) ||
        !take_varint(&d->at, d->end, &d->left) || !take_varint(&d->at, d->end, &first))
        return no_deltas;
    if (block == 0 || block > 1 << 24 || d->miniblocks == 0 || d->miniblocks > block ||
        block % d->miniblocks != 0 || block / d->miniblocks % 8 != 0)
        return no_deltas;
    d->per_miniblock = block / d->miniblocks;
    d->miniblock = d->miniblocks; /* no block has begun */
    d->value = unzigzag(first);
    return NULL;
}

/* Go to the next miniblock: its widths and its smallest difference are at the block's head. */
static const char *next_miniblock(am_pq_delta *d)
{
    if (d->in_miniblock == 0 && d->widths && d->miniblock < d->miniblocks) {
        d->at += d->per_miniblock / 8 * d->widths[d->miniblock];
        d->miniblock++;
    }
    if (d->miniblock == d->miniblocks) {
        uint64_t smallest;
        if (!take_varint(&d->at, d->end, &smallest) || d->miniblocks > (uint64_t)(d->end - d->at))
            return no_deltas;
        d->min_delta = unzigzag(smallest);
        d->widths = d->at;
        d->at += d->miniblocks;
        d->miniblock = 0;
    }
    uint8_t width = d->widths[d->miniblock];
    if (width > 64 || d->per_miniblock / 8 * width > (uint64_t)(d->end - d->at))
        return no_deltas;
    d->in_miniblock = d->per_miniblock;
    d->bit = 0;
    return NULL;
}

const char *am_pq_delta_next(am_pq_delta *d, uint64_t *value)
{
    if (d->left == 0)
        return "it has fewer values than it should";
    d->left--;
    if (!d->begun) {
        d->begun = 1;
        *value = d->value;
        return NULL;
    }
    if (d->in_miniblock == 0) {
        const char *bad = next_miniblock(d);
        if (bad)
            return bad;
    }
    int width = d->widths[d->miniblock];
    d->value += d->min_delta + bits_at(d->at, d->end, d->bit, width);
    d->bit += (unsigned)width;
    d->in_miniblock--;
    *value = d->value;
    return NULL;
}

/* Where the bytes behind all of the differences begin. Goes by miniblocks, each of which has a byte
 * at least, and not by values, of which few bytes may claim very many. */
static const char *delta_end(const am_pq_delta *begun, const uint8_t **end)
{
    am_pq_delta d = *begun;
    uint64_t left = d.left > 0 ? d.left - 1 : 0; /* the first is no difference */
    while (left > 0) {
        const char *bad = next_miniblock(&d);
        if (bad)
            return bad;
        d.in_miniblock = 0;
        left -= left < d.per_miniblock ? left : d.per_miniblock;
    }
    *end = d.at;
    if (d.widths)
        *end += d.per_miniblock / 8 * d.widths[d.miniblock];
    return NULL;
}

/* ---- dictionaries ------------------------------------------------------------------------- */

static const char too_short[] = "its values are cut off";

/* Set starts or check sizes; count and size are set by the caller, and starts has room. */
const char *am_pq_dictionary_index(am_pq_dictionary *d, const uint8_t *data, size_t bytes)
{
    d->data = data;
    if (d->size > 0)
        return d->count > bytes / d->size ? too_short : NULL;
    for (size_t i = 0, at = 0; i < d->count; i++) {
        if (bytes - at < 4 || load_u32(data + at) > bytes - at - 4)
            return too_short;
        d->starts[i] = (uint32_t)at;
        at += 4 + load_u32(data + at);
    }
    return NULL;
}

static const char *from_dictionary(am_pq_values *v, am_pq_raw *raw)
{
    const am_pq_dictionary *d = v->dictionary;
    uint32_t i;
    const char *bad = am_pq_runs_next(&v->runs, &i);
    if (bad)
        return bad;
    if (i >= d->count)
        return "an index beyond the dictionary's end";
    if (d->size > 0) {
        *raw = (am_pq_raw){.data = d->data + (size_t)i * d->size, .bytes = d->size};
    } else {
        const uint8_t *at = d->data + d->starts[i];
        *raw = (am_pq_raw){.data = at + 4, .bytes = load_u32(at)};
    }
    return NULL;
}

/* ---- values ------------------------------------------------------------------------------- */

/* Lengths from v->at on, at most `most`; what they are lengths of lies behind them. */
static const char *begin_lengths(am_pq_values *v, am_pq_delta *d, uint64_t most)
{
    const char *bad = am_pq_delta_begin(d, v->at, (size_t)(v->end - v->at));
    if (bad || d->left > most)
        return bad ? bad : "it has more values than it should";
    return delta_end(d, &v->at);
}

static const char *begin_prefixes(am_pq_values *v, uint64_t most)
{
    const char *bad = begin_lengths(v, &v->other, most);
    return bad ? bad : begin_lengths(v, &v->delta, most);
}

static const char *begin_booleans(am_pq_values *v)
{
    size_t there = (size_t)(v->end - v->at);
    if (there < 4 || load_u32(v->at) > there - 4)
        return too_short;
    am_pq_runs_begin(&v->runs, v->at + 4, load_u32(v->at), 1);
    return NULL;
}

static const char *begin_indices(am_pq_values *v)
{
    if (!v->dictionary || (!v->dictionary->starts && v->dictionary->size == 0))
        return "a page refers to a dictionary that is not there";
    if (v->at == v->end) /* a page of nulls */
        am_pq_runs_begin(&v->runs, v->at, 0, 1);
    else if (*v->at > 32)
        return "indices of more than 32 bits";
    else
        am_pq_runs_begin(&v->runs, v->at + 1, (size_t)(v->end - v->at) - 1, *v->at);
    return NULL;
}

const char *am_pq_values_begin(am_pq_values *v, int encoding, int type, uint32_t size,
                               const am_pq_dictionary *dictionary, uint32_t most,
                               const uint8_t *data, size_t bytes)
{
    int whole = type == AM_PQ_INT32 || type == AM_PQ_INT64;
    int text = type == AM_PQ_BYTE_ARRAY;
    am_buffer kept = v->text;
    *v = (am_pq_values){.encoding = encoding, .type = type, .size = size, .at = data};
    v->end = data + bytes;
    v->dictionary = dictionary;
    v->text = kept;
    v->text.bytes = 0;
    if (encoding == AM_PQ_PLAIN)
        return NULL;
    if ((encoding == AM_PQ_PLAIN_DICTIONARY || encoding == AM_PQ_RLE_DICTIONARY) &&
        type != AM_PQ_BOOLEAN) {
        v->encoding = AM_PQ_RLE_DICTIONARY;
        return begin_indices(v);
    }
    if (encoding == AM_PQ_RLE && type == AM_PQ_BOOLEAN)
        return begin_booleans(v);
    if (encoding == AM_PQ_DELTA_BINARY_PACKED && whole)
        return am_pq_delta_begin(&v->delta, data, bytes);
    if (encoding == AM_PQ_DELTA_LENGTH_BYTE_ARRAY && text)
        return begin_lengths(v, &v->delta, most);
    if (encoding == AM_PQ_DELTA_BYTE_ARRAY && (text || type == AM_PQ_FIXED))
        return begin_prefixes(v, most);
    if (encoding == AM_PQ_BYTE_STREAM_SPLIT && size > 0 && size <= sizeof v->scratch &&
        type != AM_PQ_BOOLEAN) {
        v->count = bytes / size;
        return bytes % size == 0 ? NULL : too_short;
    }
    return "values of an encoding that is not read for their type";
}

static const char *next_plain(am_pq_values *v, am_pq_raw *raw)
{
    size_t there = (size_t)(v->end - v->at);
    if (v->type == AM_PQ_BOOLEAN) {
        if (v->index / 8 >= there)
            return too_short;
        v->scratch[0] = v->at[v->index / 8] >> (v->index % 8) & 1;
        v->index++;
        *raw = (am_pq_raw){.data = v->scratch, .bytes = 1, .passing = 1};
        return NULL;
    }
    uint32_t size = v->size;
    if (size == 0) {
        if (there < 4 || load_u32(v->at) > there - 4)
            return too_short;
        size = load_u32(v->at);
        v->at += 4;
    } else if (there < size) {
        return too_short;
    }
    *raw = (am_pq_raw){.data = v->at, .bytes = size};
    v->at += size;
    return NULL;
}

/* The next bytes behind lengths, as many as the next length says. */
static const char *next_by_length(am_pq_values *v, am_pq_raw *raw)
{
    uint64_t length;
    const char *bad = am_pq_delta_next(&v->delta, &length);
    if (bad)
        return bad;
    if (length > (uint64_t)(v->end - v->at))
        return too_short;
    *raw = (am_pq_raw){.data = v->at, .bytes = (uint32_t)length};
    v->at += length;
    return NULL;
}

static const char *next_by_prefix(am_pq_values *v, am_pq_raw *raw)
{
    uint64_t prefix;
    am_pq_raw suffix;
    const char *bad = am_pq_delta_next(&v->other, &prefix);
    if (!bad)
        bad = next_by_length(v, &suffix);
    if (bad)
        return bad;
    if (prefix > v->text.bytes)
        return "a value begins with more of the last one than there was";
    v->text.bytes = (size_t)prefix;
    am_buffer_put(&v->text, suffix.data, suffix.bytes);
    if (v->text.rc != AM_OK || v->text.bytes > INT32_MAX)
        return "a value that is too large";
    *raw = (am_pq_raw){.data = v->scratch, .bytes = (uint32_t)v->text.bytes, .passing = 1};
    if (v->text.data)
        raw->data = (const uint8_t *)v->text.data;
    return v->size == 0 || raw->bytes == v->size ? NULL : too_short;
}

static const char *next_split(am_pq_values *v, am_pq_raw *raw)
{
    if (v->index == v->count)
        return too_short;
    for (uint32_t k = 0; k < v->size; k++)
        v->scratch[k] = v->at[v->count * k + v->index];
    v->index++;
    *raw = (am_pq_raw){.data = v->scratch, .bytes = v->size, .passing = 1};
    return NULL;
}

static const char *next_boolean(am_pq_values *v, am_pq_raw *raw)
{
    uint32_t value;
    const char *bad = am_pq_runs_next(&v->runs, &value);
    v->scratch[0] = (uint8_t)value;
    *raw = (am_pq_raw){.data = v->scratch, .bytes = 1, .passing = 1};
    return bad;
}

static const char *next_delta(am_pq_values *v, am_pq_raw *raw)
{
    uint64_t value;
    const char *bad = am_pq_delta_next(&v->delta, &value);
    if (bad)
        return bad;
    memcpy(v->scratch, &value, 8); /* little endian: the low half is an INT32 */
    *raw = (am_pq_raw){.data = v->scratch, .bytes = v->size, .passing = 1};
    return NULL;
}

const char *am_pq_values_next(am_pq_values *v, am_pq_raw *raw)
{
    switch (v->encoding) {
    case AM_PQ_PLAIN:
        return next_plain(v, raw);
    case AM_PQ_RLE_DICTIONARY:
        return from_dictionary(v, raw);
    case AM_PQ_RLE:
        return next_boolean(v, raw);
    case AM_PQ_DELTA_BINARY_PACKED:
        return next_delta(v, raw);
    case AM_PQ_DELTA_LENGTH_BYTE_ARRAY:
        return next_by_length(v, raw);
    case AM_PQ_DELTA_BYTE_ARRAY:
        return next_by_prefix(v, raw);
    default:
        return next_split(v, raw);
    }
}
