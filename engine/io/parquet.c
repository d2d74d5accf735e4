/* parquet.c — Parquet files, and rows put together from the entries of their columns. An entry's
 * repetition level says at which list a further item begins, its definition level how deep it is
 * not null ("Dremel", Melnik et al. 2010). All columns below a list or struct must agree on where
 * it ends and whether it is null: a damaged file is an error, never a row that mixes two. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "parquet.h"

enum { MAX_VALUES = 1 << 23, MAX_TEXT = 64 << 20 };

struct am_parquet {
    char *path;
    am_mapping *file;
    am_pq_meta meta;
    am_pq_schema schema;
    am_buffer json;
    am_pq_column *columns; /* one for each leaf */
    uint8_t *wanted;       /* leaves that are read */
    size_t data_end;
    size_t group; /* whose chunks the columns read; meta.group_count: none */
    /* the row that was read last */
    am_pq_keep *keep;
    am_parquet_value *values;
    size_t count, capacity;
    uint64_t text;
};

/* ---- files -------------------------------------------------------------------------------- */

static int open_file(am_parquet *p)
{
    void *memory;
    AM_TRY(am_mapping_open(&p->file, p->path));
    AM_TRY(am_pq_meta_read(&p->meta, p->file->data, p->file->bytes, &p->data_end));
    AM_TRY(am_pq_schema_build(&p->schema, &p->meta));
    size_t leaves = (size_t)p->schema.leaf_count;
    if (p->meta.group_count > 0 && p->meta.chunks_per_group != leaves)
        return am_fail(AM_EFORMAT, "damaged Parquet footer: row groups of %zu columns, not %zu",
                       p->meta.chunks_per_group, leaves);
    AM_TRY(am_alloc(&memory, leaves * sizeof *p->columns));
    p->columns = memory;
    for (size_t i = 0; i < leaves; i++)
        p->columns[i] =
            (am_pq_column){.file = p->file, .leaf = &p->schema.leaves[i], .keep = &p->keep};
    AM_TRY(am_alloc(&memory, leaves));
    p->wanted = memory;
    memset(p->wanted, 1, leaves);
    p->group = p->meta.group_count;
    am_pq_schema_json(&p->json, &p->schema);
    return p->json.rc;
}

/* Messages begin with the file's name, which the mapping's own already have. */
static int in_file(const am_parquet *p, int rc)
{
    return rc == AM_EFORMAT || rc == AM_EUNSUP ? am_fail_context(rc, "%s", p->path) : rc;
}

int am_parquet_open(am_parquet **out, const char *path)
{
    void *memory;
    AM_TRY(am_alloc(&memory, sizeof(am_parquet)));
    am_parquet *p = memory;
    int rc = am_strdup(&p->path, path);
    if (rc == AM_OK)
        rc = in_file(p, open_file(p));
    if (rc != AM_OK)
        am_parquet_release(p);
    else
        *out = p;
    return rc;
}

void am_parquet_release(am_parquet *p)
{
    if (!p)
        return;
    for (int i = 0; p->columns && i < p->schema.leaf_count; i++)
        am_pq_column_close(&p->columns[i]);
    am_pq_keep_free(&p->keep);
    am_free(p->columns);
    am_free(p->wanted);
    am_free(p->values);
    am_buffer_free(&p->json);
    am_pq_schema_free(&p->schema);
    am_pq_meta_free(&p->meta);
    am_mapping_release(p->file);
    am_free(p->path);
    am_free(p);
}

int64_t am_parquet_rows(const am_parquet *p)
{
    return p->meta.rows;
}

const char *am_parquet_schema(const am_parquet *p)
{
    return p->json.data;
}

/* ---- row groups --------------------------------------------------------------------------- */

static size_t find_group(const am_parquet *p, int64_t row)
{
    size_t low = 0, high = p->meta.group_count - 1;
    while (low < high) { /* the last one that begins at the row or before: it is not empty */
        size_t middle = (low + high + 1) / 2;
        if (p->meta.groups[middle].first_row <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Let go of the group that was read last. */
static void close_group(am_parquet *p)
{
    size_t start = SIZE_MAX, end = 0;
    for (int i = 0; i < p->schema.leaf_count; i++) {
        const am_pq_column *c = &p->columns[i];
        if (c->chunk) {
            size_t first = (size_t)c->chunk->data_page;
            start = first < start ? first : start;
            end = c->end > end ? c->end : end;
        }
        am_pq_column_close(&p->columns[i]);
    }
    if (start < end)
        am_mapping_give_back(p->file, start, end - start);
    p->group = p->meta.group_count;
}

static int open_group(am_parquet *p, size_t group)
{
    const am_pq_group *g = &p->meta.groups[group];
    const am_pq_chunk *chunks = &p->meta.chunks[group * p->meta.chunks_per_group];
    close_group(p);
    for (int i = 0; i < p->schema.leaf_count; i++)
        if (p->wanted[i])
            AM_TRY(am_pq_column_begin(&p->columns[i], &chunks[i], g->rows, p->data_end));
    p->group = group;
    return AM_OK;
}

int am_parquet_select(am_parquet *p, const uint8_t *wanted, int64_t columns)
{
    const am_pq_node *nodes = p->schema.nodes;
    int64_t i = 0, chosen = 0;
    for (int n = nodes[0].child; n >= 0; n = nodes[n].next, i++)
        chosen += i < columns && wanted[i] != 0;
    if (i != columns || chosen == 0)
        return am_fail(AM_EINVAL, "%s: %lld of %lld columns, of %lld", p->path, (long long)chosen,
                       (long long)columns, (long long)i);
    close_group(p);
    i = 0;
    for (int n = nodes[0].child; n >= 0; n = nodes[n].next, i++)
        memset(p->wanted + nodes[n].first_leaf, wanted[i] != 0, (size_t)nodes[n].leaves);
    return AM_OK;
}

/* ---- rows --------------------------------------------------------------------------------- */

static int disagree(const am_pq_node *n)
{
    return am_fail(AM_EFORMAT, "damaged: parts of \"%.*s\" do not belong together",
                   n->name_bytes < 100 ? (int)n->name_bytes : 100, n->name);
}

/* A place for the next value; it is the caller's to fill until the next call. */
static int new_value(am_parquet *p, am_parquet_value **out)
{
    if (p->count == MAX_VALUES)
        return am_fail(AM_EFORMAT, "it has more than %d values", MAX_VALUES);
    void *values = p->values;
    int rc = am_grow(&values, &p->capacity, p->count + 1, sizeof *p->values);
    p->values = values;
    AM_TRY(rc);
    *out = &p->values[p->count++];
    (*out)->count = 0;
    return AM_OK;
}

static int put(am_parquet *p, int kind)
{
    am_parquet_value *v;
    AM_TRY(new_value(p, &v));
    v->kind = kind;
    return AM_OK;
}

static am_pq_column *first_column(const am_parquet *p, const am_pq_node *n)
{
    return &p->columns[n->first_leaf];
}

/* Take an entry from each column below a node that is null or empty: all must say so. */
static int take_nothing(am_parquet *p, const am_pq_node *n, uint32_t def)
{
    am_pq_raw raw;
    for (int i = 0; i < n->leaves; i++) {
        am_pq_column *c = first_column(p, n) + i;
        AM_TRY(am_pq_column_peek(c));
        if (c->ended || c->def != def)
            return disagree(n);
        AM_TRY(am_pq_column_take(c, &raw));
    }
    return AM_OK;
}

static int emit(am_parquet *p, const am_pq_node *n, uint32_t above);

static int emit_value(am_parquet *p, const am_pq_node *n)
{
    am_pq_column *c = first_column(p, n);
    am_parquet_value *v;
    am_pq_raw raw;
    AM_TRY(am_pq_column_take(c, &raw));
    AM_TRY(new_value(p, &v));
    if (!raw.data) {
        v->kind = AM_PARQUET_NULL;
        return AM_OK;
    }
    AM_TRY(am_pq_in_column(c->leaf, am_pq_value(v, c->leaf, &raw, &p->keep)));
    if (v->kind == AM_PARQUET_TEXT && (p->text += (uint64_t)v->count) > MAX_TEXT)
        return am_fail(AM_EFORMAT, "it has more than %d bytes of text", MAX_TEXT);
    return AM_OK;
}

/* What lies in a node that is there, as `def` says. */
static int emit_children(am_parquet *p, const am_pq_node *n, uint32_t def)
{
    for (int child = n->child; child >= 0; child = p->schema.nodes[child].next) {
        const am_pq_node *c = &p->schema.nodes[child];
        AM_TRY(am_pq_column_peek(first_column(p, c)));
        AM_TRY(emit(p, c, def));
    }
    return AM_OK;
}

/* Does another item follow? All columns below the list must have the same answer. */
static int has_more(am_parquet *p, const am_pq_node *n, int *more)
{
    for (int i = 0; i < n->leaves; i++) {
        am_pq_column *c = first_column(p, n) + i;
        AM_TRY(am_pq_column_peek(c));
        int here = c->rep >= n->rep;
        if (c->rep > n->rep || (i > 0 && here != *more))
            return disagree(n);
        *more = here;
    }
    return AM_OK;
}

static int emit_items(am_parquet *p, const am_pq_node *n)
{
    size_t at = p->count;
    int32_t items = 0;
    int more = 0;
    AM_TRY(put(p, n->kind == AM_PQ_NODE_MAP ? AM_PARQUET_MAP : AM_PARQUET_LIST));
    do {
        AM_TRY(emit_children(p, n, n->item_def));
        AM_TRY(has_more(p, n, &more));
        items++;
    } while (more);
    p->values[at].count = items;
    return AM_OK;
}

/* The next entry of the node's first column has been looked at; `above` is the definition level of
 * what the node lies in, which is there. */
static int emit(am_parquet *p, const am_pq_node *n, uint32_t above)
{
    const am_pq_column *c = first_column(p, n);
    uint32_t def = c->def;
    if (c->ended || def < above)
        return disagree(n);
    if (n->kind == AM_PQ_NODE_VALUE)
        return emit_value(p, n);
    int list = n->kind != AM_PQ_NODE_STRUCT;
    if (def < n->def || (list && def < n->item_def)) {
        AM_TRY(put(p, def < n->def                ? AM_PARQUET_NULL
                      : n->kind == AM_PQ_NODE_MAP ? AM_PARQUET_MAP
                                                  : AM_PARQUET_LIST));
        return take_nothing(p, n, def);
    }
    if (list)
        return emit_items(p, n);
    AM_TRY(put(p, AM_PARQUET_STRUCT));
    return emit_children(p, n, n->def);
}

static int read_row(am_parquet *p, int64_t row)
{
    const am_pq_node *nodes = p->schema.nodes;
    for (int i = 0; i < p->schema.leaf_count; i++)
        if (p->wanted[i])
            AM_TRY(am_pq_column_seek(&p->columns[i], row));
    for (int n = nodes[0].child; n >= 0; n = nodes[n].next)
        if (p->wanted[nodes[n].first_leaf])
            AM_TRY(emit(p, &nodes[n], 0));
    for (int i = 0; i < p->schema.leaf_count; i++) {
        if (!p->wanted[i])
            continue;
        AM_TRY(am_pq_column_peek(&p->columns[i]));
        if (p->columns[i].rep != 0)
            return disagree(&nodes[0]);
    }
    return AM_OK;
}

int am_parquet_row(am_parquet *p, int64_t i, const am_parquet_value **values, int64_t *count)
{
    if (i < 0 || i >= p->meta.rows)
        return am_fail(AM_EINVAL, "%s: row %lld of %lld", p->path, (long long)i + 1,
                       (long long)p->meta.rows);
    size_t group = find_group(p, i);
    int rc = AM_OK;
    am_pq_keep_free(&p->keep);
    p->count = 0;
    p->text = 0;
    if (group != p->group)
        AM_TRY_OUT(open_group(p, group));
    AM_TRY_OUT(read_row(p, i - p->meta.groups[group].first_row));
    *values = p->values;
    *count = (int64_t)p->count;
    return AM_OK;
out:
    close_group(p); /* columns may be anywhere */
    return rc == AM_EFORMAT || rc == AM_EUNSUP
               ? am_fail_context(rc, "%s row %lld", p->path, (long long)i + 1)
               : rc;
}

void am_parquet_rest(am_parquet *p)
{
    am_pq_keep_free(&p->keep);
    close_group(p);
}
