/* token_rows.c — tokenised rows in a file: written in one go, then mapped. Knows no tokenizer and
 * no text.
 *
 *   front      magic, version                                   a place that no version moves
 *   group      the arrays of PAGE rows, then their entries      as often as needed
 *   directory  where the entries of each group begin
 *   metadata   a text of the caller's
 *   footer     key, sizes, and the checksum of all bytes before it
 *
 * Numbers are little-endian and aligned. The entries of a group follow its rows, so writing needs
 * memory for one group, whatever the number of rows. */
#include "token_rows.h"

#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/hash.h"
#include "../io/json.h"

enum { VERSION = 1, PAGE = 1024, FLUSH = 1 << 18, WINDOW = 1 << 24, GIVE_BACK = 256 };
enum { HAS_MASK = 1, HAS_POSITIONS = 2, HAS_ALL = 3 };
static const char magic[8] = "AMROWS\r\n";

typedef struct front {
    char magic[8];
    uint32_t version, zero;
} front;

typedef struct entry {
    uint64_t at; /* of input_ids; labels and what `has` names follow */
    uint64_t number;
    uint32_t n, label_tokens, file, has;
} entry;

typedef struct footer {
    uint8_t key[AM_HASH_BYTES];
    uint64_t rows, directory, metadata, metadata_bytes; /* places from the file's begin */
    uint8_t checksum[AM_HASH_BYTES];
} footer;

/* ---- writing ---------------------------------------------------------------------------- */

struct am_token_rows_writer {
    am_file_writer file;
    char *path;
    uint8_t key[AM_HASH_BYTES];
    int unnamed;
    uint64_t at, rows;
    entry entries[PAGE]; /* of the group that is being written */
    uint64_t *groups;    /* where the entries of the others are */
    size_t group_count, group_capacity;
    am_hash_state hash;
    am_buffer pending;
};

static int flush(am_token_rows_writer *w)
{
    AM_TRY(w->pending.rc);
    am_hash_update(&w->hash, w->pending.data, w->pending.bytes);
    w->file.total = w->at; /* at least */
    AM_TRY(am_file_append(&w->file, w->pending.data, w->pending.bytes));
    w->pending.bytes = 0;
    return AM_OK;
}

static int put(am_token_rows_writer *w, const void *data, size_t bytes)
{
    if (bytes > 0)
        am_buffer_put(&w->pending, data, bytes);
    w->at += bytes;
    return w->pending.bytes < FLUSH ? w->pending.rc : flush(w);
}

static int align(am_token_rows_writer *w)
{
    static const char zeros[8];
    return put(w, zeros, (size_t)(-w->at & 7));
}

int am_token_rows_create(am_token_rows_writer **out, const char *path, const uint8_t *key,
                         int unnamed)
{
    void *p;
    int rc;
    AM_TRY(am_alloc(&p, sizeof(am_token_rows_writer)));
    am_token_rows_writer *w = p;
    w->unnamed = unnamed;
    memcpy(w->key, key, sizeof w->key);
    am_hash_begin(&w->hash);
    AM_TRY_OUT(am_strdup(&w->path, path));
    AM_TRY_OUT((unnamed ? am_file_begin_unnamed : am_file_begin)(&w->file, w->path, 0));
    front f = {.version = VERSION};
    memcpy(f.magic, magic, sizeof magic);
    AM_TRY_OUT(put(w, &f, sizeof f));
    *out = w;
    return AM_OK;
out:
    am_token_rows_discard(w);
    return rc;
}

static int end_group(am_token_rows_writer *w)
{
    size_t n = (size_t)(w->rows - (uint64_t)w->group_count * PAGE);
    void *p = w->groups;
    int rc = am_grow(&p, &w->group_capacity, w->group_count + 1, sizeof *w->groups);
    w->groups = p;
    AM_TRY(rc);
    AM_TRY(align(w));
    w->groups[w->group_count++] = w->at;
    return put(w, w->entries, n * sizeof *w->entries);
}

int am_token_rows_add(am_token_rows_writer *w, const am_token_row *row)
{
    const int32_t *arrays[] = {row->input_ids, row->labels, row->attention_mask, row->position_ids};
    if (!w->file.temporary)
        return am_fail(AM_ESTATE, "am_token_rows_add: no file is being written");
    if (row->n < 0 || row->n > INT32_MAX || row->label_tokens < 0 || row->label_tokens > row->n ||
        row->file < 0 || row->file > INT32_MAX || row->number < 0 || !arrays[0] || !arrays[1])
        return am_fail(AM_EINVAL, "am_token_rows_add: a row of %lld tokens, %lld of them learnt",
                       (long long)row->n, (long long)row->label_tokens);
    w->entries[w->rows % PAGE] = (entry){
        .at = w->at,
        .number = (uint64_t)row->number,
        .n = (uint32_t)row->n,
        .label_tokens = (uint32_t)row->label_tokens,
        .file = (uint32_t)row->file,
        .has = (arrays[2] ? HAS_MASK : 0) | (arrays[3] ? HAS_POSITIONS : 0),
    };
    for (int i = 0; i < 4; i++)
        if (arrays[i])
            AM_TRY(put(w, arrays[i], (size_t)row->n * sizeof **arrays));
    return ++w->rows % PAGE == 0 ? end_group(w) : AM_OK;
}

static int write_end(am_token_rows_writer *w, const char *metadata, size_t bytes)
{
    footer f = {.rows = w->rows, .metadata_bytes = bytes};
    memcpy(f.key, w->key, sizeof f.key);
    if (w->rows % PAGE != 0)
        AM_TRY(end_group(w));
    AM_TRY(align(w));
    f.directory = w->at;
    AM_TRY(put(w, w->groups, w->group_count * sizeof *w->groups));
    f.metadata = w->at;
    AM_TRY(put(w, metadata, bytes));
    AM_TRY(align(w));
    AM_TRY(put(w, &f, sizeof f - sizeof f.checksum));
    AM_TRY(flush(w));
    am_hash_end(&w->hash, f.checksum);
    return am_file_append(&w->file, f.checksum, sizeof f.checksum);
}

int am_token_rows_finish(am_token_rows **out, am_token_rows_writer *w, const char *metadata,
                         size_t bytes)
{
    am_mapping *m = NULL;
    am_token_rows *rows = NULL;
    int rc;
    if (!w->file.temporary)
        return am_fail(AM_ESTATE, "am_token_rows_finish: no file is being written");
    AM_TRY_OUT(write_end(w, metadata, bytes));
    AM_TRY_OUT(am_file_map(&m, &w->file));
    AM_TRY_OUT(am_token_rows_read(&rows, m, w->key, 0));
    if (!w->unnamed)
        AM_TRY_OUT(am_file_commit(&w->file));
    *out = rows;
    rows = NULL;
out:
    am_token_rows_release(rows);
    am_file_discard(&w->file);
    return rc;
}

void am_token_rows_discard(am_token_rows_writer *w)
{
    if (!w)
        return;
    am_file_discard(&w->file);
    am_buffer_free(&w->pending);
    am_free(w->groups);
    am_free(w->path);
    am_free(w);
}

/* ---- reading ---------------------------------------------------------------------------- */

struct am_token_rows {
    am_mapping *mapping;
    const uint64_t *groups;
    uint64_t directory; /* where arrays and entries end */
    int64_t count;
    const char *metadata;
    size_t metadata_bytes;
    uint32_t gets;
};

/* Read through a window, so that a large file does not fill the memory. */
static int check_sum(const am_mapping *m, const footer *f)
{
    uint8_t digest[AM_HASH_BYTES];
    am_hash_state hash;
    am_hash_begin(&hash);
    for (size_t at = 0, end = m->bytes - sizeof digest; at < end;) {
        size_t part = end - at < WINDOW ? end - at : WINDOW;
        AM_TRY(am_signals_check());
        am_hash_update(&hash, m->data + at, part);
        am_mapping_give_back(m, at, part);
        at += part;
    }
    am_hash_end(&hash, digest);
    return memcmp(digest, f->checksum, sizeof digest) == 0
               ? AM_OK
               : am_fail(AM_EFORMAT, "the checksum is wrong: the file is damaged");
}

static int check_footer(const am_mapping *m, const footer *f, const uint8_t *key)
{
    uint64_t end = m->bytes - sizeof *f, groups = f->rows / PAGE + (f->rows % PAGE != 0);
    if (f->directory > end || f->directory % 8 != 0 || f->rows > f->directory / sizeof(entry) ||
        f->metadata != f->directory + 8 * groups || f->metadata > end ||
        f->metadata_bytes > end - f->metadata)
        return am_fail(AM_EFORMAT, "sizes in it contradict one another: the file is damaged");
    if (key && memcmp(key, f->key, sizeof f->key) != 0)
        return am_fail(AM_EFORMAT, "it is of other data");
    return AM_OK;
}

static int read_rows(am_token_rows *r, const uint8_t *key, int verify)
{
    const am_mapping *m = r->mapping;
    front head;
    footer f;
    if (m->bytes < sizeof head + sizeof f)
        return am_fail(AM_EFORMAT, "it is cut short");
    memcpy(&head, m->data, sizeof head);
    memcpy(&f, m->data + m->bytes - sizeof f, sizeof f);
    if (memcmp(head.magic, magic, sizeof magic) != 0)
        return am_fail(AM_EFORMAT, "it holds no token rows");
    if (head.version != VERSION)
        return am_fail(AM_EFORMAT, "it is of version %u, not %d", head.version, VERSION);
    if (verify)
        AM_TRY(check_sum(m, &f));
    AM_TRY(check_footer(m, &f, key));
    r->directory = f.directory;
    r->groups = (const void *)(m->data + f.directory);
    r->count = (int64_t)f.rows;
    r->metadata = (const char *)m->data + f.metadata;
    r->metadata_bytes = (size_t)f.metadata_bytes;
    return AM_OK;
}

int am_token_rows_read(am_token_rows **out, am_mapping *m, const uint8_t *key, int verify)
{
    void *p = NULL;
    int rc = am_alloc(&p, sizeof(am_token_rows));
    if (rc != AM_OK) {
        am_mapping_release(m);
        return rc;
    }
    ((am_token_rows *)p)->mapping = m;
    rc = read_rows(p, key, verify);
    if (rc != AM_OK)
        am_token_rows_release(p);
    else
        *out = p;
    return rc;
}

int am_token_rows_open(am_token_rows **out, const char *path, const uint8_t *key)
{
    am_mapping *m;
    AM_TRY(am_mapping_open(&m, path));
    int rc = am_token_rows_read(out, m, key, 1);
    return rc == AM_EFORMAT ? am_fail_context(rc, "%s", path) : rc;
}

void am_token_rows_release(am_token_rows *r)
{
    if (!r)
        return;
    am_mapping_release(r->mapping);
    am_free(r);
}

int64_t am_token_rows_count(const am_token_rows *r)
{
    return r->count;
}

const char *am_token_rows_metadata(const am_token_rows *r, size_t *bytes)
{
    *bytes = r->metadata_bytes;
    return r->metadata;
}

static int damaged(int64_t i)
{
    return am_fail(AM_EFORMAT, "token row %lld lies outside of its file", (long long)i);
}

int am_token_rows_get(am_token_row *row, am_token_rows *r, int64_t i)
{
    entry e;
    if (i < 0 || i >= r->count)
        return am_fail(AM_EINVAL, "token row %lld of %lld", (long long)i, (long long)r->count);
    if (++r->gets % GIVE_BACK == 0) /* the system keeps what it has memory for */
        am_mapping_give_back(r->mapping, 0, r->mapping->bytes);
    uint64_t group = r->groups[i / PAGE], within = (uint64_t)(i % PAGE) * sizeof e;
    if (group % 8 != 0 || group > r->directory || within + sizeof e > r->directory - group)
        return damaged(i);
    memcpy(&e, r->mapping->data + group + within, sizeof e);
    uint64_t arrays = 2u + (e.has & 1) + (e.has >> 1 & 1);
    if (e.n > INT32_MAX || e.label_tokens > e.n || e.has > HAS_ALL || e.number > INT64_MAX ||
        e.at % 4 != 0 || e.at > r->directory ||
        arrays * e.n > (r->directory - e.at) / sizeof(int32_t))
        return damaged(i);
    const int32_t *data = (const void *)(r->mapping->data + e.at);
    *row = (am_token_row){
        .input_ids = data,
        .labels = data + e.n,
        .attention_mask = e.has & HAS_MASK ? data + 2 * (size_t)e.n : NULL,
        .position_ids = e.has & HAS_POSITIONS ? data + (arrays - 1) * e.n : NULL,
        .n = e.n,
        .label_tokens = e.label_tokens,
        .file = e.file,
        .number = (int64_t)e.number,
    };
    return AM_OK;
}
