/* parquet.h — what the parts of the Parquet reader share. Source of the format:
 * parquet.thrift, Encodings.md and LogicalTypes.md of github.com/apache/parquet-format.
 *   parquet_meta.c      footer and page headers (Thrift's compact protocol)
 *   parquet_schema.c    from the list of schema elements to a tree of values, lists and structs
 *   parquet_encoding.c  levels and values out of the bytes of a page
 *   parquet_column.c    the pages of a column chunk, one at a time
 *   parquet_value.c     a stored value as JSON would have it
 *   parquet.c           files, and rows out of columns
 * Everything in a file is distrusted: sizes are compared with what is there before they are used.
 */
#ifndef AM_PARQUET_H
#define AM_PARQUET_H

#include "file.h"
#include "json.h"

enum { /* physical types */
       AM_PQ_BOOLEAN,
       AM_PQ_INT32,
       AM_PQ_INT64,
       AM_PQ_INT96,
       AM_PQ_FLOAT,
       AM_PQ_DOUBLE,
       AM_PQ_BYTE_ARRAY,
       AM_PQ_FIXED,
       AM_PQ_TYPES
};

enum { /* encodings */
       AM_PQ_PLAIN = 0,
       AM_PQ_PLAIN_DICTIONARY = 2,
       AM_PQ_RLE = 3,
       AM_PQ_BIT_PACKED = 4,
       AM_PQ_DELTA_BINARY_PACKED = 5,
       AM_PQ_DELTA_LENGTH_BYTE_ARRAY = 6,
       AM_PQ_DELTA_BYTE_ARRAY = 7,
       AM_PQ_RLE_DICTIONARY = 8,
       AM_PQ_BYTE_STREAM_SPLIT = 9
};

/* ---- footer ----------------------------------------------------------------------------- */

enum { AM_PQ_REQUIRED, AM_PQ_OPTIONAL, AM_PQ_REPEATED };

/* What a value stands for, out of ConvertedType and LogicalType. */
enum {
    AM_PQ_NOTHING, /* the physical type alone */
    AM_PQ_TEXT,
    AM_PQ_MAP,
    AM_PQ_LIST,
    AM_PQ_DECIMAL,
    AM_PQ_DATE,
    AM_PQ_TIME,
    AM_PQ_TIMESTAMP,
    AM_PQ_UNSIGNED,
    AM_PQ_UUID,
    AM_PQ_FLOAT16,
    AM_PQ_INTERVAL
};

typedef struct am_pq_element { /* of the schema, in depth-first order */
    const char *name;          /* in the mapping */
    uint32_t name_bytes;
    int32_t type;        /* physical, or -1: a group */
    int32_t type_length; /* bytes of AM_PQ_FIXED */
    int32_t repetition;
    int32_t children;
    int32_t logical, unit; /* unit: of a second, as a power of ten (3, 6 or 9) */
    int32_t scale;         /* digits behind the point of AM_PQ_DECIMAL */
} am_pq_element;

/* How much of a name is shown in messages: "%.*s". */
static inline int am_pq_name_width(const am_pq_element *e)
{
    return e->name_bytes < 100 ? (int)e->name_bytes : 100;
}

typedef struct am_pq_chunk { /* a column of a row group */
    int64_t data_page, dictionary_page, compressed, values;
    int32_t type, codec;
} am_pq_chunk;

typedef struct am_pq_group {
    int64_t rows, first_row, bytes;
} am_pq_group;

typedef struct am_pq_meta {
    am_pq_element *elements;
    am_pq_group *groups;
    am_pq_chunk *chunks; /* chunks_per_group for each group */
    size_t element_count, group_count, chunk_count, chunks_per_group;
    size_t element_capacity, group_capacity, chunk_capacity;
    int64_t rows;
} am_pq_meta;

/* Read the footer of a file of `bytes` bytes into a zeroed struct. *data_end: where it begins. */
int am_pq_meta_read(am_pq_meta *m, const uint8_t *file, size_t bytes, size_t *data_end);
void am_pq_meta_free(am_pq_meta *m);

enum { AM_PQ_DATA_PAGE, AM_PQ_INDEX_PAGE, AM_PQ_DICTIONARY_PAGE, AM_PQ_DATA_PAGE_V2 };

typedef struct am_pq_page_header {
    size_t bytes; /* of the header itself */
    int32_t type, uncompressed, compressed;
    int32_t has_crc, is_compressed;
    uint32_t crc;
    int32_t values, rows; /* rows: -1 where the header does not say it */
    int32_t encoding, def_encoding, rep_encoding;
    int32_t def_bytes, rep_bytes; /* of a DATA_PAGE_V2 */
} am_pq_page_header;

int am_pq_page_header_read(am_pq_page_header *h, const uint8_t *data, size_t bytes);

/* ---- schema ----------------------------------------------------------------------------- */

enum { AM_PQ_MAX_DEPTH = 64 };

typedef struct am_pq_leaf {
    const am_pq_element *element, *column; /* column: the one of the row that it lies in */
    int max_def, max_rep;
} am_pq_leaf;

enum { AM_PQ_NODE_VALUE, AM_PQ_NODE_STRUCT, AM_PQ_NODE_LIST, AM_PQ_NODE_MAP };

/* Where the definition level of an entry is below `def`, the node (or one above it) is null; where
 * it is below `item_def`, a list or map has no items. `rep` is the repetition level of a further
 * item. A list has one child, a map two. */
typedef struct am_pq_node {
    const char *name;
    uint32_t name_bytes;
    uint8_t kind, def, item_def, rep;
    int first_leaf, leaves; /* that lie below it, or the value's own */
    int child, next;        /* numbers of nodes: the first child, the next sibling; -1: none */
} am_pq_node;

typedef struct am_pq_schema {
    am_pq_node *nodes; /* 0 is the root, a struct */
    am_pq_leaf *leaves;
    int node_count, leaf_count;
} am_pq_schema;

int am_pq_schema_build(am_pq_schema *s, const am_pq_meta *m);
void am_pq_schema_free(am_pq_schema *s);
void am_pq_schema_json(am_buffer *b, const am_pq_schema *s);

/* Put the column's name before the message of an error in the file. */
int am_pq_in_column(const am_pq_leaf *leaf, int rc);

/* ---- encodings -------------------------------------------------------------------------- */

/* Small numbers of `width` bits: runs of one of them, or bit-packed. All functions that return a
 * text return NULL, or what is wrong with the bytes. */
typedef struct am_pq_runs {
    const uint8_t *at, *end;
    uint64_t left; /* in this run */
    uint64_t bit;  /* of the run's bits: the next number's first */
    uint32_t value;
    int width, packed, high_first;
} am_pq_runs;

void am_pq_runs_begin(am_pq_runs *r, const uint8_t *data, size_t bytes, int width);
/* BIT_PACKED of old files: no runs, the highest bit first. */
void am_pq_runs_begin_packed(am_pq_runs *r, const uint8_t *data, size_t bytes, int width);
const char *am_pq_runs_next(am_pq_runs *r, uint32_t *value);

typedef struct am_pq_delta { /* DELTA_BINARY_PACKED */
    const uint8_t *at, *end, *widths;
    uint64_t left, per_miniblock, miniblocks, miniblock, in_miniblock, bit, min_delta, value;
    int begun;
} am_pq_delta;

const char *am_pq_delta_begin(am_pq_delta *d, const uint8_t *data, size_t bytes);
const char *am_pq_delta_next(am_pq_delta *d, uint64_t *value);

typedef struct am_pq_dictionary {
    const uint8_t *data;
    uint32_t *starts; /* of values that differ in length: where their lengths are; else NULL */
    uint32_t count, size;
} am_pq_dictionary;

const char *am_pq_dictionary_index(am_pq_dictionary *d, const uint8_t *data, size_t bytes);

/* A stored value. It lies in the page or the dictionary, or is good until the next one. */
typedef struct am_pq_raw {
    const uint8_t *data;
    uint32_t bytes;
    int passing;
} am_pq_raw;

typedef struct am_pq_values { /* the values of a page that are there */
    int encoding, type;
    uint32_t size; /* of a value; 0: they differ */
    const uint8_t *at, *end;
    const am_pq_dictionary *dictionary;
    am_pq_runs runs;          /* indices, or booleans */
    am_pq_delta delta, other; /* numbers or lengths; lengths of prefixes */
    uint64_t index, count;    /* of BYTE_STREAM_SPLIT and PLAIN booleans */
    am_buffer text;           /* DELTA_BYTE_ARRAY: the last value */
    uint8_t scratch[64];
} am_pq_values;

/* Begin with the values' bytes in a page, of which there are `most` at most. `size`: of a value of
 * this type, 0 where it varies. */
const char *am_pq_values_begin(am_pq_values *v, int encoding, int type, uint32_t size,
                               const am_pq_dictionary *dictionary, uint32_t most,
                               const uint8_t *data, size_t bytes);
const char *am_pq_values_next(am_pq_values *v, am_pq_raw *raw);

/* ---- columns ---------------------------------------------------------------------------- */

typedef struct am_pq_keep am_pq_keep; /* memory that lasts until the next row */
typedef struct am_pq_page {
    size_t offset;
    int64_t first_row, values_before;
} am_pq_page;

typedef struct am_pq_column {
    const am_mapping *file;
    const am_pq_leaf *leaf;
    const am_pq_chunk *chunk;
    int64_t rows; /* of the row group */
    am_pq_keep **keep;
    int keeping;          /* values were given out: what they lie in must last */
    size_t next, end;     /* the next page's header; where the chunk ends */
    int64_t values_taken; /* of the chunk, pages up to this one */
    am_pq_page *pages;    /* those met so far */
    size_t page_count, page_capacity;
    /* this page */
    am_pq_page_header header;
    size_t offset, body; /* of the header, and of what follows it */
    int64_t first_row;
    uint32_t left; /* entries */
    int loaded;
    void *memory; /* what was decompressed, of the page at memory_offset */
    size_t memory_bytes, memory_offset;
    am_pq_runs reps, defs;
    am_pq_values values;
    am_pq_dictionary dictionary;
    void *dictionary_memory;
    /* the next entry */
    int peeked, ended;
    uint32_t rep, def;
    int64_t row; /* rows that began before it */
} am_pq_column;

/* Go to the first page of a chunk. Everything but file, leaf and keep is set. */
int am_pq_column_begin(am_pq_column *c, const am_pq_chunk *chunk, int64_t rows, size_t data_end);
void am_pq_column_close(am_pq_column *c);
/* Go to the first entry of a row of the group, counted from 0. */
int am_pq_column_seek(am_pq_column *c, int64_t row);
/* Look at the next entry: c->rep, c->def, or c->ended behind the last one (rep is 0 then). */
int am_pq_column_peek(am_pq_column *c);
/* Take the entry that was looked at, and its value (data NULL: there is none). */
int am_pq_column_take(am_pq_column *c, am_pq_raw *raw);

/* ---- values ----------------------------------------------------------------------------- */

/* Bytes that last until the next row. */
int am_pq_keep_bytes(am_pq_keep **keep, void **p, size_t bytes);
/* The same for memory of am_alloc's, which is taken over. Fails when too much is kept. */
int am_pq_keep_memory(am_pq_keep **keep, void *memory, size_t bytes);
void am_pq_keep_free(am_pq_keep **keep);

/* A stored value of a leaf as JSON would have it. */
int am_pq_value(am_parquet_value *out, const am_pq_leaf *leaf, const am_pq_raw *raw,
                am_pq_keep **keep);
/* AM_EUNSUP for a leaf whose values cannot be read. */
int am_pq_value_check(const am_pq_leaf *leaf);

#endif
