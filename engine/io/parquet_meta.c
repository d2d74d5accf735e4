/* parquet_meta.c — the footer of a Parquet file and the headers of its pages, which are structs in
 * Thrift's compact protocol. What nobody here needs is passed over. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "compressed.h"
#include "parquet.h"

/* ---- the compact protocol -----------------------------------------------------------------
 * The first thing that is wrong is kept in `bad`; from there on every read gives 0, and structs
 * and lists end. */

enum { STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT };
enum { MAX_NESTING = 24 };

typedef struct reader {
    const uint8_t *at, *end;
    const char *bad;
} reader;

typedef struct field {
    int id, type;
} field;

static uint64_t fail(reader *r, const char *what)
{
    if (!r->bad)
        r->bad = what;
    r->at = r->end;
    return 0;
}

static uint8_t read_byte(reader *r)
{
    return r->at < r->end ? *r->at++ : (uint8_t)fail(r, "it is cut off");
}

static uint64_t read_varint(reader *r)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t byte = read_byte(r);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    return fail(r, "a number of more than 64 bits");
}

static int64_t read_zigzag(reader *r)
{
    uint64_t value = read_varint(r);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static void skip_bytes(reader *r, uint64_t bytes)
{
    if (bytes > (uint64_t)(r->end - r->at))
        fail(r, "it is cut off");
    else
        r->at += bytes;
}

/* The next field of a struct, which began with {0}; 0 at the struct's end. */
static int next_field(reader *r, field *f)
{
    uint8_t head = read_byte(r);
    f->type = head & 15;
    if (f->type == STOP || r->bad)
        return 0;
    if (f->type > STRUCT)
        return (int)fail(r, "a field of unknown type");
    int64_t id = head >> 4 ? f->id + (head >> 4) : read_zigzag(r);
    if (id < -32768 || id > 32767)
        return (int)fail(r, "a field whose number is too large");
    f->id = (int)id;
    return !r->bad;
}

/* The number of items of a list, each of which has a byte at least. */
static uint64_t read_list(reader *r, int *type)
{
    uint8_t head = read_byte(r);
    uint64_t n = head >> 4;
    *type = head & 15;
    if (n == 15)
        n = read_varint(r);
    return n <= (uint64_t)(r->end - r->at) ? n
                                           : fail(r, "a list that is longer than what holds it");
}

static void skip(reader *r, int type, int nesting);

static void skip_items(reader *r, int type, uint64_t n, int nesting)
{
    for (uint64_t i = 0; i < n && !r->bad; i++)
        if (type == TRUE || type == FALSE)
            read_byte(r); /* only in structs does the type say the value */
        else
            skip(r, type, nesting);
}

static void skip_struct(reader *r, int nesting)
{
    field f = {0};
    while (next_field(r, &f))
        skip(r, f.type, nesting);
}

static void skip_map(reader *r, int nesting)
{
    uint64_t n = read_varint(r);
    if (n == 0)
        return;
    uint8_t types = read_byte(r);
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        skip_items(r, types >> 4, 1, nesting);
        skip_items(r, types & 15, 1, nesting);
    }
}

static void skip(reader *r, int type, int nesting)
{
    int item;
    if (nesting > MAX_NESTING) {
        fail(r, "structs that are nested too deeply");
        return;
    }
    switch (type) {
    case TRUE:
    case FALSE:
        return;
    case BYTE:
        skip_bytes(r, 1);
        return;
    case I16:
    case I32:
    case I64:
        read_varint(r);
        return;
    case DOUBLE:
        skip_bytes(r, 8);
        return;
    case BINARY:
        skip_bytes(r, read_varint(r));
        return;
    case LIST:
    case SET: {
        uint64_t n = read_list(r, &item);
        skip_items(r, item, n, nesting + 1);
        return;
    }
    case MAP:
        skip_map(r, nesting + 1);
        return;
    case STRUCT:
        skip_struct(r, nesting + 1);
        return;
    default:
        fail(r, "a value of unknown type");
    }
}

/* ---- fields of the types that are expected ------------------------------------------------ */

static int64_t get_i64(reader *r, const field *f)
{
    if (f->type != I64 && f->type != I32)
        return (int64_t)fail(r, "a field that is no whole number");
    return read_zigzag(r);
}

static int32_t get_i32(reader *r, const field *f)
{
    int64_t value = get_i64(r, f);
    return value >= INT32_MIN && value <= INT32_MAX ? (int32_t)value
                                                    : (int32_t)fail(r, "a number of over 32 bits");
}

/* A number that must not be negative. */
static int32_t get_count(reader *r, const field *f)
{
    int32_t value = get_i32(r, f);
    return value >= 0 ? value : (int32_t)fail(r, "a size below 0");
}

static int64_t get_long_count(reader *r, const field *f)
{
    int64_t value = get_i64(r, f);
    return value >= 0 ? value : (int64_t)fail(r, "a size below 0");
}

/* Begin a struct, or the items of a list of structs. */
static int is_struct(reader *r, const field *f)
{
    return f->type == STRUCT || fail(r, "a field that is no struct");
}

static uint64_t get_structs(reader *r, const field *f)
{
    int type;
    if (f->type != LIST)
        return fail(r, "a field that is no list");
    uint64_t n = read_list(r, &type);
    return type == STRUCT || n == 0 ? n : fail(r, "a list that holds no structs");
}

/* ---- the schema --------------------------------------------------------------------------- */

/* ConvertedType, the older of the two ways to say what a value stands for. */
static void set_converted(am_pq_element *e, int32_t converted)
{
    static const struct {
        int logical, unit;
    } kinds[] = {
        {AM_PQ_TEXT, 0},     {AM_PQ_MAP, 0},       {AM_PQ_MAP, 0},       {AM_PQ_LIST, 0},
        {AM_PQ_TEXT, 0},     {AM_PQ_DECIMAL, 0},   {AM_PQ_DATE, 0},      {AM_PQ_TIME, 3},
        {AM_PQ_TIME, 6},     {AM_PQ_TIMESTAMP, 3}, {AM_PQ_TIMESTAMP, 6}, {AM_PQ_UNSIGNED, 0},
        {AM_PQ_UNSIGNED, 0}, {AM_PQ_UNSIGNED, 0},  {AM_PQ_UNSIGNED, 0},  {AM_PQ_NOTHING, 0},
        {AM_PQ_NOTHING, 0},  {AM_PQ_NOTHING, 0},   {AM_PQ_NOTHING, 0},   {AM_PQ_TEXT, 0},
        {AM_PQ_NOTHING, 0},  {AM_PQ_INTERVAL, 0},
    };
    if (converted >= 0 && converted < (int32_t)(sizeof kinds / sizeof *kinds)) {
        e->logical = kinds[converted].logical;
        e->unit = kinds[converted].unit;
    }
}

/* TimeType and TimestampType: field 2 is a union of structs without fields, one for each unit. */
static void read_time(reader *r, am_pq_element *e)
{
    field f = {0};
    while (next_field(r, &f)) {
        if (f.id == 2 && is_struct(r, &f)) {
            field unit = {0};
            while (next_field(r, &unit)) {
                if (unit.id >= 1 && unit.id <= 3)
                    e->unit = 3 * unit.id;
                skip(r, unit.type, 0);
            }
        } else {
            skip(r, f.type, 0);
        }
    }
}

static void read_decimal(reader *r, am_pq_element *e)
{
    field f = {0};
    while (next_field(r, &f)) {
        if (f.id == 1)
            e->scale = get_count(r, &f);
        else
            skip(r, f.type, 0);
    }
}

/* IntType: field 2 says whether it is signed; the width changes nothing. */
static void read_integer(reader *r, am_pq_element *e)
{
    field f = {0};
    while (next_field(r, &f)) {
        if (f.id == 2)
            e->logical = f.type == FALSE ? AM_PQ_UNSIGNED : AM_PQ_NOTHING;
        skip(r, f.type, 0);
    }
}

/* LogicalType, a union. */
static void read_logical(reader *r, am_pq_element *e)
{
    static const int kinds[] = {
        [1] = AM_PQ_TEXT,    [2] = AM_PQ_MAP,   [3] = AM_PQ_LIST,     [4] = AM_PQ_TEXT,
        [5] = AM_PQ_DECIMAL, [6] = AM_PQ_DATE,  [7] = AM_PQ_TIME,     [8] = AM_PQ_TIMESTAMP,
        [12] = AM_PQ_TEXT,   [14] = AM_PQ_UUID, [15] = AM_PQ_FLOAT16,
    };
    field f = {0};
    while (next_field(r, &f)) {
        if (!is_struct(r, &f))
            return;
        if (f.id >= 0 && f.id < (int)(sizeof kinds / sizeof *kinds))
            e->logical = kinds[f.id];
        if (f.id == 5)
            read_decimal(r, e);
        else if (f.id == 7 || f.id == 8)
            read_time(r, e);
        else if (f.id == 10)
            read_integer(r, e);
        else
            skip_struct(r, 0);
    }
}

static void read_element(reader *r, am_pq_element *e)
{
    field f = {0};
    *e = (am_pq_element){.name = "", .type = -1, .repetition = AM_PQ_REQUIRED};
    while (next_field(r, &f)) {
        switch (f.id) {
        case 1:
            e->type = get_count(r, &f);
            break;
        case 2:
            e->type_length = get_count(r, &f);
            break;
        case 3:
            e->repetition = get_count(r, &f);
            break;
        case 4: {
            uint64_t bytes = f.type == BINARY ? read_varint(r) : fail(r, "a name that is no text");
            e->name = (const char *)r->at;
            e->name_bytes = (uint32_t)bytes;
            if (bytes > UINT32_MAX)
                fail(r, "it is cut off");
            skip_bytes(r, bytes);
            break;
        }
        case 5:
            e->children = get_count(r, &f);
            break;
        case 6:
            set_converted(e, get_i32(r, &f)); /* field 10 comes later, and wins */
            break;
        case 7:
            e->scale = get_count(r, &f);
            break;
        case 10:
            if (is_struct(r, &f))
                read_logical(r, e);
            break;
        default:
            skip(r, f.type, 0);
        }
    }
}

/* ---- row groups --------------------------------------------------------------------------- */

static void read_chunk_meta(reader *r, am_pq_chunk *c)
{
    field f = {0};
    while (next_field(r, &f)) {
        switch (f.id) {
        case 1:
            c->type = get_count(r, &f);
            break;
        case 4:
            c->codec = get_count(r, &f);
            break;
        case 5:
            c->values = get_long_count(r, &f);
            break;
        case 7:
            c->compressed = get_long_count(r, &f);
            break;
        case 9:
            c->data_page = get_long_count(r, &f);
            break;
        case 11:
            c->dictionary_page = get_long_count(r, &f);
            break;
        default:
            skip(r, f.type, 0);
        }
    }
}

static void read_chunk(reader *r, am_pq_chunk *c)
{
    field f = {0};
    int found = 0;
    *c = (am_pq_chunk){.type = -1};
    while (next_field(r, &f)) {
        if (f.id == 1)
            fail(r, "a column that lies in another file, which is not supported");
        else if (f.id == 8 || f.id == 9)
            fail(r, "an encrypted column, which is not supported");
        else if (f.id == 3 && is_struct(r, &f))
            read_chunk_meta(r, c), found = 1;
        else
            skip(r, f.type, 0);
    }
    if (!found)
        fail(r, "a column without metadata");
}

/* Room for one more item; a zeroed one. */
static int grow(void **items, size_t *capacity, size_t count, size_t size)
{
    AM_TRY(am_grow(items, capacity, count + 1, size));
    memset((char *)*items + count * size, 0, size);
    return AM_OK;
}

static int read_chunks(reader *r, const field *f, am_pq_meta *m)
{
    uint64_t n = get_structs(r, f);
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        void *p = m->chunks;
        int rc = grow(&p, &m->chunk_capacity, m->chunk_count, sizeof *m->chunks);
        m->chunks = p;
        AM_TRY(rc);
        read_chunk(r, &m->chunks[m->chunk_count++]);
    }
    return AM_OK;
}

static int read_group(reader *r, am_pq_meta *m, am_pq_group *g)
{
    field f = {0};
    size_t before = m->chunk_count;
    while (next_field(r, &f)) {
        if (f.id == 1)
            AM_TRY(read_chunks(r, &f, m));
        else if (f.id == 2)
            g->bytes = get_i64(r, &f);
        else if (f.id == 3)
            g->rows = get_long_count(r, &f);
        else
            skip(r, f.type, 0);
    }
    size_t n = m->chunk_count - before;
    if (m->group_count == 0)
        m->chunks_per_group = n;
    if (n != m->chunks_per_group)
        fail(r, "row groups that differ in their number of columns");
    g->first_row = m->rows;
    if (__builtin_add_overflow(m->rows, g->rows, &m->rows))
        fail(r, "too many rows");
    m->group_count++;
    return AM_OK;
}

/* ---- the footer --------------------------------------------------------------------------- */

static int read_lists(reader *r, am_pq_meta *m, const field *f)
{
    uint64_t n = get_structs(r, f);
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        void *p = f->id == 2 ? (void *)m->elements : (void *)m->groups;
        int rc = f->id == 2 ? grow(&p, &m->element_capacity, m->element_count, sizeof *m->elements)
                            : grow(&p, &m->group_capacity, m->group_count, sizeof *m->groups);
        if (f->id == 2)
            m->elements = p;
        else
            m->groups = p;
        AM_TRY(rc);
        if (f->id == 2)
            read_element(r, &m->elements[m->element_count++]);
        else
            AM_TRY(read_group(r, m, &m->groups[m->group_count]));
    }
    return AM_OK;
}

static int read_footer(reader *r, am_pq_meta *m)
{
    field f = {0};
    int64_t rows = -1;
    while (next_field(r, &f)) {
        if (f.id == 2 || f.id == 4)
            AM_TRY(read_lists(r, m, &f));
        else if (f.id == 3)
            rows = get_long_count(r, &f);
        else if (f.id == 8)
            fail(r, "it is encrypted, which is not supported");
        else
            skip(r, f.type, 0);
    }
    if (r->bad)
        return am_fail(AM_EFORMAT, "damaged Parquet footer: %s", r->bad);
    if (rows != m->rows)
        return am_fail(AM_EFORMAT, "damaged Parquet footer: %lld rows, but %lld in its row groups",
                       (long long)rows, (long long)m->rows);
    return AM_OK;
}

int am_pq_meta_read(am_pq_meta *m, const uint8_t *file, size_t bytes, size_t *data_end)
{
    uint32_t size;
    if (bytes >= 4 && memcmp(file, "PARE", 4) == 0)
        return am_fail(AM_EUNSUP, "an encrypted Parquet file, which is not supported");
    if (bytes < 12 || memcmp(file, "PAR1", 4) != 0)
        return am_fail(AM_EFORMAT, "not a Parquet file");
    if (memcmp(file + bytes - 4, "PAR1", 4) != 0)
        return am_fail(AM_EFORMAT, "a Parquet file without an end (cut off?)");
    memcpy(&size, file + bytes - 8, 4);
    if (size > bytes - 12)
        return am_fail(AM_EFORMAT, "damaged Parquet file: a footer of %u bytes in a file of %zu",
                       size, bytes);
    *data_end = bytes - 8 - size;
    reader r = {.at = file + *data_end, .end = file + bytes - 8};
    return read_footer(&r, m);
}

void am_pq_meta_free(am_pq_meta *m)
{
    am_free(m->elements);
    am_free(m->groups);
    am_free(m->chunks);
    memset(m, 0, sizeof *m);
}

/* ---- page headers ------------------------------------------------------------------------- */

static void read_data_page(reader *r, am_pq_page_header *h)
{
    field f = {0};
    while (next_field(r, &f)) {
        if (f.id == 1)
            h->values = get_count(r, &f);
        else if (f.id == 2)
            h->encoding = get_count(r, &f);
        else if (f.id == 3)
            h->def_encoding = get_count(r, &f);
        else if (f.id == 4)
            h->rep_encoding = get_count(r, &f);
        else
            skip(r, f.type, 0);
    }
}

static void read_dictionary_page(reader *r, am_pq_page_header *h)
{
    field f = {0};
    while (next_field(r, &f)) {
        if (f.id == 1)
            h->values = get_count(r, &f);
        else if (f.id == 2)
            h->encoding = get_count(r, &f);
        else
            skip(r, f.type, 0);
    }
}

static void read_data_page_v2(reader *r, am_pq_page_header *h)
{
    field f = {0};
    h->def_encoding = h->rep_encoding = AM_PQ_RLE;
    while (next_field(r, &f)) {
        switch (f.id) {
        case 1:
            h->values = get_count(r, &f);
            break;
        case 3:
            h->rows = get_count(r, &f);
            break;
        case 4:
            h->encoding = get_count(r, &f);
            break;
        case 5:
            h->def_bytes = get_count(r, &f);
            break;
        case 6:
            h->rep_bytes = get_count(r, &f);
            break;
        case 7:
            h->is_compressed = f.type == TRUE;
            break;
        default:
            skip(r, f.type, 0);
        }
    }
}

int am_pq_page_header_read(am_pq_page_header *h, const uint8_t *data, size_t bytes)
{
    reader r = {.at = data, .end = data + bytes};
    field f = {0};
    int described = -1;
    *h = (am_pq_page_header){.type = -1, .rows = -1, .is_compressed = 1};
    while (next_field(&r, &f)) {
        switch (f.id) {
        case 1:
            h->type = get_count(&r, &f);
            break;
        case 2:
            h->uncompressed = get_count(&r, &f);
            break;
        case 3:
            h->compressed = get_count(&r, &f);
            break;
        case 4:
            h->crc = (uint32_t)get_i32(&r, &f);
            h->has_crc = 1;
            break;
        case 5:
            if (is_struct(&r, &f))
                read_data_page(&r, h);
            described = AM_PQ_DATA_PAGE;
            break;
        case 7:
            if (is_struct(&r, &f))
                read_dictionary_page(&r, h);
            described = AM_PQ_DICTIONARY_PAGE;
            break;
        case 8:
            if (is_struct(&r, &f))
                read_data_page_v2(&r, h);
            described = AM_PQ_DATA_PAGE_V2;
            break;
        default:
            skip(&r, f.type, 0);
        }
    }
    if (!r.bad && h->type != AM_PQ_INDEX_PAGE && h->type != described)
        fail(&r, "its kind and what describes it differ");
    if (r.bad)
        return am_fail(AM_EFORMAT, "damaged page header: %s", r.bad);
    h->bytes = (size_t)(r.at - data);
    return AM_OK;
}
