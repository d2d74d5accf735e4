/* parquet_column.c — the entries of a column in a row group: its pages, decompressed one at a time,
 * taken apart into levels and values. Knows no rows but where they begin.
 *
 * Where pages begin is noted when they are met, so going back opens one page again, not the chunk.
 * Pages that the rows asked for are not in are passed over by their headers, but for nested columns
 * in pages of version 1, whose headers do not say how many rows begin in them. */
#include <string.h>
#include <zlib.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "compressed.h"
#include "parquet.h"

/* Few bytes may claim to be a large page: what is larger than FREE may be RATIO times its bytes. */
enum { FREE = 64 << 20, RATIO = 1000, MAX_ENTRIES_OF_ROW = 1 << 23 };

static int damaged(const char *what)
{
    return am_fail(AM_EFORMAT, "damaged page: %s", what);
}

static uint32_t value_size(const am_pq_leaf *leaf)
{
    static const uint32_t sizes[] = {1, 4, 8, 12, 4, 8, 0, 0};
    int type = leaf->element->type;
    return type == AM_PQ_FIXED ? (uint32_t)leaf->element->type_length : sizes[type];
}

static int level_width(int max)
{
    return max > 0 ? 32 - __builtin_clz((unsigned)max) : 0;
}

/* ---- the bytes of a page ------------------------------------------------------------------ */

static int check_crc(const am_pq_column *c, const am_pq_page_header *h, size_t body)
{
    if (!h->has_crc)
        return AM_OK;
    uLong sum = crc32(0, c->file->data + body, (uInt)h->compressed);
    return (uint32_t)sum == h->crc ? AM_OK : damaged("its checksum is wrong");
}

/* Decompress what follows `plain` bytes of a page into memory of `uncompressed` bytes. */
static int decompress(void **out, const am_pq_column *c, const am_pq_page_header *h, size_t body,
                      size_t plain)
{
    size_t size = (size_t)h->uncompressed, stored = (size_t)h->compressed;
    const uint8_t *data = c->file->data + body;
    if (plain > size || plain > stored)
        return damaged("its levels are cut off");
    if (size > FREE && size / RATIO > stored)
        return am_fail(AM_EFORMAT, "a page of %zu bytes claims to be %zu, which is not believed",
                       stored, size);
    void *p = NULL;
    AM_TRY(am_realloc(&p, size)); /* not zeroed */
    memcpy(p, data, plain);
    /* a page of levels alone may leave out its empty block */
    int rc = size == plain && stored == plain
                 ? AM_OK
                 : am_decompress((uint8_t *)p + plain, size - plain, c->chunk->codec, data + plain,
                                 stored - plain);
    if (rc != AM_OK)
        am_free(p);
    else
        *out = p;
    return rc;
}

static int is_stored_plain(const am_pq_column *c, const am_pq_page_header *h)
{
    return c->chunk->codec == AM_CODEC_NONE || (h->type == AM_PQ_DATA_PAGE_V2 && !h->is_compressed);
}

/* Let go of the page's memory, unless values that were given out lie in it. */
static int drop_memory(am_pq_column *c)
{
    void *memory = c->memory;
    c->memory = NULL;
    c->loaded = 0;
    if (memory && c->keeping) {
        int rc = am_pq_keep_memory(c->keep, memory, c->memory_bytes);
        if (rc != AM_OK)
            am_free(memory);
        return rc;
    }
    am_free(memory);
    return AM_OK;
}

/* The uncompressed bytes of the current page. */
static int page_bytes(am_pq_column *c, const uint8_t **data)
{
    const am_pq_page_header *h = &c->header;
    size_t plain = 0;
    if (is_stored_plain(c, h)) {
        if (h->compressed != h->uncompressed)
            return damaged("its sizes contradict one another");
        AM_TRY(check_crc(c, h, c->body));
        *data = c->file->data + c->body;
        return AM_OK;
    }
    if (!c->memory || c->memory_offset != c->offset) {
        AM_TRY(drop_memory(c));
        AM_TRY(check_crc(c, h, c->body));
        if (h->type == AM_PQ_DATA_PAGE_V2)
            plain = (size_t)h->def_bytes + (size_t)h->rep_bytes;
        AM_TRY(decompress(&c->memory, c, h, c->body, plain));
        c->memory_bytes = (size_t)h->uncompressed;
        c->memory_offset = c->offset;
    }
    *data = c->memory;
    return AM_OK;
}

/* ---- levels and values -------------------------------------------------------------------- */

/* Levels of a page of version 1, from *at on. */
static int begin_levels(am_pq_runs *r, int max, int encoding, uint32_t entries, const uint8_t **at,
                        const uint8_t *end)
{
    size_t there = (size_t)(end - *at), width = (size_t)level_width(max);
    uint32_t bytes;
    if (max == 0)
        return AM_OK;
    if (encoding == AM_PQ_BIT_PACKED) {
        size_t size = ((uint64_t)entries * width + 7) / 8;
        if (size > there)
            return damaged("its levels are cut off");
        am_pq_runs_begin_packed(r, *at, size, (int)width);
        *at += size;
        return AM_OK;
    }
    if (encoding != AM_PQ_RLE)
        return am_fail(AM_EUNSUP, "levels of encoding %d", encoding);
    if (there < 4)
        return damaged("its levels are cut off");
    memcpy(&bytes, *at, 4);
    if (bytes > there - 4)
        return damaged("its levels are cut off");
    am_pq_runs_begin(r, *at + 4, bytes, (int)width);
    *at += 4 + (size_t)bytes;
    return AM_OK;
}

static int begin_all_levels(am_pq_column *c, const uint8_t **at, const uint8_t *end)
{
    const am_pq_page_header *h = &c->header;
    int max_rep = c->leaf->max_rep, max_def = c->leaf->max_def;
    uint32_t entries = (uint32_t)h->values;
    if (h->type == AM_PQ_DATA_PAGE) {
        AM_TRY(begin_levels(&c->reps, max_rep, h->rep_encoding, entries, at, end));
        return begin_levels(&c->defs, max_def, h->def_encoding, entries, at, end);
    }
    size_t rep = (size_t)h->rep_bytes, def = (size_t)h->def_bytes;
    if (rep + def > (size_t)(end - *at))
        return damaged("its levels are cut off");
    am_pq_runs_begin(&c->reps, *at, rep, level_width(max_rep));
    am_pq_runs_begin(&c->defs, *at + rep, def, level_width(max_def));
    *at += rep + def;
    return AM_OK;
}

static int load_page(am_pq_column *c)
{
    const am_pq_page_header *h = &c->header;
    const uint8_t *at = NULL;
    AM_TRY(page_bytes(c, &at));
    const uint8_t *end = at + h->uncompressed;
    AM_TRY(begin_all_levels(c, &at, end));
    const char *bad =
        am_pq_values_begin(&c->values, h->encoding, c->leaf->element->type, value_size(c->leaf),
                           &c->dictionary, (uint32_t)h->values, at, (size_t)(end - at));
    if (bad)
        return am_fail(AM_EFORMAT, "%s (encoding %d)", bad, h->encoding);
    c->loaded = 1;
    return AM_OK;
}

static int load_dictionary(am_pq_column *c, const am_pq_page_header *h, size_t body)
{
    am_pq_dictionary *d = &c->dictionary;
    const uint8_t *data = c->file->data + body;
    size_t bytes = (size_t)h->uncompressed;
    void *p = NULL;
    if (d->starts || d->size > 0)
        return damaged("a second dictionary");
    if (h->encoding != AM_PQ_PLAIN && h->encoding != AM_PQ_PLAIN_DICTIONARY)
        return am_fail(AM_EUNSUP, "a dictionary of encoding %d", h->encoding);
    AM_TRY(check_crc(c, h, body));
    if (c->chunk->codec != AM_CODEC_NONE) {
        AM_TRY(decompress(&c->dictionary_memory, c, h, body, 0));
        data = c->dictionary_memory;
    } else if (h->compressed != h->uncompressed) {
        return damaged("its sizes contradict one another");
    }
    d->count = (uint32_t)h->values;
    d->size = value_size(c->leaf);
    if (d->count > bytes) /* a value has a byte at least */
        return damaged("its values are cut off");
    if (d->size == 0) {
        AM_TRY(am_alloc(&p, (size_t)d->count * sizeof *d->starts));
        d->starts = p;
    }
    const char *bad = am_pq_dictionary_index(d, data, bytes);
    return bad ? damaged(bad) : AM_OK;
}

/* ---- from page to page -------------------------------------------------------------------- */

/* Rows that begin in the current page, or -1 when only its levels tell. */
static int64_t rows_in_page(const am_pq_column *c)
{
    return c->leaf->max_rep == 0 ? c->header.values : c->header.rows;
}

/* Note where a data page begins, unless it was met before. */
static int note_page(am_pq_column *c)
{
    void *p = c->pages;
    if (c->page_count > 0 && c->pages[c->page_count - 1].offset >= c->offset)
        return AM_OK;
    int rc = am_grow(&p, &c->page_capacity, c->page_count + 1, sizeof *c->pages);
    c->pages = p;
    AM_TRY(rc);
    c->pages[c->page_count++] =
        (am_pq_page){.offset = c->offset, .first_row = c->row, .values_before = c->values_taken};
    return AM_OK;
}

static int enter_data_page(am_pq_column *c)
{
    const am_pq_page_header *h = &c->header;
    AM_TRY(note_page(c));
    c->values_taken += h->values;
    if (c->values_taken > c->chunk->values)
        return damaged("more values than the column has");
    c->first_row = c->row;
    c->left = (uint32_t)h->values;
    c->loaded = 0;
    return AM_OK;
}

/* Read the header of the next page, and the page if it holds a dictionary. */
static int next_page(am_pq_column *c)
{
    am_pq_page_header h;
    AM_TRY(am_pq_page_header_read(&h, c->file->data + c->next, c->end - c->next));
    size_t body = c->next + h.bytes;
    if ((size_t)h.compressed > c->end - body)
        return damaged("it ends behind its column");
    c->offset = c->next;
    c->next = body + (size_t)h.compressed;
    if (h.type == AM_PQ_DICTIONARY_PAGE)
        return load_dictionary(c, &h, body);
    if (h.type == AM_PQ_INDEX_PAGE)
        return AM_OK;
    c->header = h;
    c->body = body;
    return enter_data_page(c);
}

static int check_page_rows(const am_pq_column *c)
{
    int64_t rows = rows_in_page(c);
    return !c->loaded || rows < 0 || c->row == c->first_row + rows
               ? AM_OK
               : damaged("rows begin in it that its header does not know");
}

static int advance(am_pq_column *c)
{
    AM_TRY(check_page_rows(c));
    c->loaded = 0;
    if (c->values_taken < c->chunk->values)
        return next_page(c);
    c->ended = 1;
    c->rep = 0;
    return c->row == c->rows ? AM_OK
                             : am_fail(AM_EFORMAT, "it ends after %lld rows of %lld",
                                       (long long)c->row, (long long)c->rows);
}

int am_pq_column_begin(am_pq_column *c, const am_pq_chunk *chunk, int64_t rows, size_t data_end)
{
    int64_t start = chunk->data_page;
    am_pq_column_close(c);
    if (chunk->dictionary_page > 0 && chunk->dictionary_page < start)
        start = chunk->dictionary_page;
    if (start < 4 || (uint64_t)start > data_end ||
        (uint64_t)chunk->compressed > data_end - (uint64_t)start ||
        chunk->type != c->leaf->element->type ||
        (c->leaf->max_rep == 0 ? chunk->values != rows : chunk->values < rows))
        return am_pq_in_column(
            c->leaf, am_fail(AM_EFORMAT, "damaged Parquet footer: it contradicts the file"));
    c->chunk = chunk;
    c->rows = rows;
    c->next = (size_t)start;
    c->end = (size_t)(start + chunk->compressed);
    return AM_OK;
}

void am_pq_column_close(am_pq_column *c)
{
    am_pq_column empty = {.file = c->file, .leaf = c->leaf, .keep = c->keep};
    am_free(c->memory);
    am_free(c->pages);
    am_free(c->dictionary.starts);
    am_free(c->dictionary_memory);
    am_buffer_free(&c->values.text);
    *c = empty;
}

/* ---- entries ------------------------------------------------------------------------------ */

static int read_levels(am_pq_column *c)
{
    const char *bad = NULL;
    c->rep = 0;
    c->def = 0;
    if (c->leaf->max_rep > 0)
        bad = am_pq_runs_next(&c->reps, &c->rep);
    if (!bad && c->leaf->max_def > 0)
        bad = am_pq_runs_next(&c->defs, &c->def);
    if (bad || c->rep > (uint32_t)c->leaf->max_rep || c->def > (uint32_t)c->leaf->max_def)
        return damaged(bad ? bad : "a level that is too high");
    return AM_OK;
}

static int peek(am_pq_column *c)
{
    while (!c->peeked && !c->ended) {
        if (c->left == 0) {
            AM_TRY(advance(c));
            continue;
        }
        if (!c->loaded)
            AM_TRY(load_page(c));
        AM_TRY(read_levels(c));
        if (c->rep > 0 && c->row == 0)
            return damaged("its first row has no beginning");
        c->peeked = 1;
    }
    return AM_OK;
}

static int take(am_pq_column *c, am_pq_raw *raw)
{
    raw->data = NULL;
    c->peeked = 0;
    c->left--;
    c->row += c->rep == 0;
    if (c->def < (uint32_t)c->leaf->max_def)
        return AM_OK;
    const char *bad = am_pq_values_next(&c->values, raw);
    return bad ? damaged(bad) : AM_OK;
}

/* Go back to the beginning of the last page that was met and in which `row` may begin. */
static void go_back(am_pq_column *c, int64_t row)
{
    size_t low = 0, high = c->page_count - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (c->pages[middle].first_row <= row)
            low = middle;
        else
            high = middle - 1;
    }
    c->next = c->pages[low].offset;
    c->row = c->pages[low].first_row;
    c->values_taken = c->pages[low].values_before;
    c->left = 0;
    c->loaded = 0;
    c->peeked = c->ended = 0;
}

/* Pass over the current page when the row does not begin in it. True when that was done. */
static int pass_over(am_pq_column *c, int64_t row)
{
    int64_t rows = rows_in_page(c);
    if (c->left == 0 || rows < 0 || row < c->first_row + rows)
        return 0;
    c->row = c->first_row + rows;
    c->left = 0;
    c->peeked = 0;
    c->loaded = 0;
    return 1;
}

static int seek(am_pq_column *c, int64_t row)
{
    uint32_t entries = 0;
    am_pq_raw raw;
    if (row < c->row)
        go_back(c, row);
    while (!(c->peeked && c->rep == 0 && c->row == row)) {
        if (pass_over(c, row) || (c->left == 0 && !c->ended)) {
            if (c->left == 0)
                AM_TRY(advance(c));
            continue;
        }
        AM_TRY(peek(c));
        if (c->ended)
            return am_fail(AM_EFORMAT, "it ends before row %lld", (long long)row + 1);
        entries = c->rep == 0 ? 0 : entries + 1;
        if (entries > MAX_ENTRIES_OF_ROW)
            return am_fail(AM_EFORMAT, "a row of more than %d values", MAX_ENTRIES_OF_ROW);
        if (c->rep != 0 || c->row != row)
            AM_TRY(take(c, &raw));
    }
    return AM_OK;
}

int am_pq_column_seek(am_pq_column *c, int64_t row)
{
    c->keeping = 0;
    return am_pq_in_column(c->leaf, seek(c, row));
}

int am_pq_column_peek(am_pq_column *c)
{
    return am_pq_in_column(c->leaf, peek(c));
}

int am_pq_column_take(am_pq_column *c, am_pq_raw *raw)
{
    c->keeping = 1;
    return am_pq_in_column(c->leaf, take(c, raw));
}
