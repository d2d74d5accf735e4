/* gguf_write.c — writing GGUF version 3: key-values from JSON, tensor descriptions, then the
 * tensors' bytes one after another, so that only one of them need be in memory. What the types are
 * made of is in gguf_quantize.c. */
#include <math.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"
#include "archive.h"
#include "gguf.h"
#include "gguf_types.h"

enum { ALIGNMENT = 32, VERSION = 3, NAME_MAX_BYTES = 63 }; /* ggml: GGML_MAX_NAME with its NUL */
enum { CHUNK = 1 << 20 };                                  /* elements at a time */

typedef struct planned {
    char *name;
    const am_gguf_type *type;
    int ndim;
    int64_t shape[AM_MAX_DIMS];
    uint64_t bytes;
} planned;

struct am_gguf_writer {
    am_file_writer file;
    char *path;
    planned *tensors;
    int64_t n, next;
    am_tensor *part; /* f32, CHUNK elements */
    uint8_t *blocks; /* what they become */
};

/* ---- key-values -------------------------------------------------------------------------- */

static void put_number(am_buffer *b, uint64_t v, int bytes)
{
    uint8_t raw[8];
    for (int i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(v >> 8 * i & 0xff);
    am_buffer_put(b, raw, (size_t)bytes);
}

static void put_text(am_buffer *b, const char *text, size_t bytes)
{
    put_number(b, bytes, 8);
    am_buffer_put(b, text, bytes);
}

/* Whether a JSON integer is one of a type. */
static int in_range(int type, int64_t v)
{
    switch (type) {
    case AM_GGUF_U8:
        return v >= 0 && v <= UINT8_MAX;
    case AM_GGUF_I8:
        return v >= INT8_MIN && v <= INT8_MAX;
    case AM_GGUF_U16:
        return v >= 0 && v <= UINT16_MAX;
    case AM_GGUF_I16:
        return v >= INT16_MIN && v <= INT16_MAX;
    case AM_GGUF_U32:
        return v >= 0 && v <= UINT32_MAX;
    case AM_GGUF_I32:
        return v >= INT32_MIN && v <= INT32_MAX;
    case AM_GGUF_U64:
        return v >= 0;
    default:
        return 1;
    }
}

static int put_value(am_buffer *b, const char *key, int type, const am_json *v)
{
    int bytes, kind = type == AM_GGUF_BOOL     ? AM_JSON_BOOL
                      : type == AM_GGUF_STRING ? AM_JSON_STRING
                                               : AM_JSON_NUMBER;
    const char *name = am_gguf_value_type(type, &bytes);
    int real = type == AM_GGUF_F32 || type == AM_GGUF_F64;
    if (v->kind != kind ||
        (kind == AM_JSON_NUMBER && !real && (!v->is_int || !in_range(type, v->as.integer))))
        return am_fail(AM_EINVAL, "key \"%.100s\": %s is no %s", key, am_json_kind_name(v->kind),
                       name);
    if (type == AM_GGUF_STRING) {
        put_text(b, v->as.text, v->count);
    } else if (type == AM_GGUF_F32) {
        float f = (float)am_json_double(v);
        am_buffer_put(b, &f, 4);
    } else if (type == AM_GGUF_F64) {
        double d = am_json_double(v);
        am_buffer_put(b, &d, 8);
    } else {
        put_number(b, kind == AM_JSON_BOOL ? (uint64_t)v->as.boolean : (uint64_t)v->as.integer,
                   bytes);
    }
    return b->rc;
}

/* key: {"type": value} or {"type": [value, …]} */
static int put_key_value(am_buffer *b, const am_json_member *m)
{
    const am_json *v = &m->value;
    int type = -1, bytes;
    if (v->kind == AM_JSON_OBJECT && v->count == 1)
        for (int t = 0; t < AM_GGUF_TYPE_COUNT; t++)
            if (t != AM_GGUF_ARRAY &&
                strcmp(v->as.members[0].key, am_gguf_value_type(t, &bytes)) == 0)
                type = t;
    if (type < 0)
        return am_fail(AM_EINVAL, "key \"%.100s\" is no object of one type and value", m->key);
    if (m->bytes == 0 || strlen(m->key) != m->bytes)
        return am_fail(AM_EINVAL, "\"%.100s\" is no name of a key", m->key);
    const am_json *value = &v->as.members[0].value;
    put_text(b, m->key, m->bytes);
    if (value->kind != AM_JSON_ARRAY) {
        put_number(b, (uint64_t)type, 4);
        return put_value(b, m->key, type, value);
    }
    put_number(b, AM_GGUF_ARRAY, 4);
    put_number(b, (uint64_t)type, 4);
    put_number(b, value->count, 8);
    for (uint32_t i = 0; i < value->count; i++)
        AM_TRY(put_value(b, m->key, type, &value->as.items[i]));
    return b->rc;
}

static int put_metadata(am_buffer *b, const char *metadata, int64_t n_tensors)
{
    am_json_doc *doc = NULL;
    int rc;
    AM_TRY_OUT(am_json_parse(&doc, metadata, strlen(metadata), AM_JSON_UNIQUE_KEYS));
    const am_json *root = am_json_root(doc);
    if (root->kind != AM_JSON_OBJECT) {
        rc = am_fail(AM_EINVAL, "%s, no object", am_json_kind_name(root->kind));
        goto out;
    }
    am_buffer_put(b, "GGUF", 4);
    put_number(b, VERSION, 4);
    put_number(b, (uint64_t)n_tensors, 8);
    put_number(b, root->count, 8);
    for (uint32_t i = 0; i < root->count; i++)
        AM_TRY_OUT(put_key_value(b, &root->as.members[i]));
out:
    am_json_free(doc);
    return rc == AM_OK ? rc : am_fail_context(rc == AM_EFORMAT ? AM_EINVAL : rc, "GGUF metadata");
}

/* ---- tensors ------------------------------------------------------------------------------ */

static uint64_t padded(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int fail_tensor(const planned *p, int rc)
{
    return am_fail_context(rc, "tensor \"%.120s\"", p->name);
}

static int plan(planned *p, const char *name, const char *type, int ndim, const int64_t *shape)
{
    int number = am_gguf_type_number(type);
    int64_t numel = 1;
    if (strlen(name) == 0 || strlen(name) > NAME_MAX_BYTES)
        return am_fail(AM_EINVAL, "a tensor is named \"%.120s\"; a name has 1 to %d bytes", name,
                       NAME_MAX_BYTES);
    AM_TRY(am_strdup(&p->name, name));
    if (number < 0)
        return fail_tensor(p, am_fail(AM_EUNSUP, "type \"%.40s\" cannot be written", type));
    p->type = am_gguf_type_find((uint32_t)number);
    if (ndim < 1 || ndim > 4)
        return fail_tensor(p, am_fail(AM_EINVAL, "%d dims, but GGUF has 1 to 4", ndim));
    p->ndim = ndim;
    for (int d = 0; d < ndim; d++) {
        p->shape[d] = shape[d];
        if (shape[d] < 1 || __builtin_mul_overflow(numel, shape[d], &numel))
            return fail_tensor(p, am_fail(AM_EINVAL, "dim %d is %lld", d, (long long)shape[d]));
    }
    if (shape[ndim - 1] % p->type->items != 0)
        return fail_tensor(p, am_fail(AM_EINVAL,
                                      "rows of %lld elements do not divide into %s's blocks of %d",
                                      (long long)shape[ndim - 1], type, p->type->items));
    p->bytes = (uint64_t)(numel / p->type->items) * (uint64_t)p->type->bytes;
    return AM_OK;
}

/* Descriptions: name, dims from the innermost, type, place. Returns the size of all data. */
static uint64_t put_descriptions(am_buffer *b, const planned *tensors, int64_t n)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const planned *p = &tensors[i];
        put_text(b, p->name, strlen(p->name));
        put_number(b, (uint64_t)p->ndim, 4);
        for (int d = p->ndim - 1; d >= 0; d--)
            put_number(b, (uint64_t)p->shape[d], 8);
        put_number(b, (uint64_t)am_gguf_type_number(p->type->name), 4);
        put_number(b, at, 8);
        at += padded(p->bytes);
    }
    while (b->rc == AM_OK && b->bytes % ALIGNMENT != 0)
        am_buffer_put(b, "", 1);
    return at;
}

static int check_names(const planned *tensors, int64_t n)
{
    void *p;
    const char *twice;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof(am_name)));
    am_name *names = p;
    for (int64_t i = 0; i < n; i++)
        names[i] = (am_name){tensors[i].name, i};
    am_names_sort(names, n, &twice);
    int rc = twice ? am_fail(AM_EINVAL, "two tensors are named \"%.120s\"", twice) : AM_OK;
    am_free(p);
    return rc;
}

/* Everything that can be refused before a file is begun; `header` is its first bytes. */
static int prepare(am_gguf_writer *w, am_buffer *header, uint64_t *total, const char *metadata,
                   int64_t n, const char *const *names, const char *const *types, const int *ndims,
                   const int64_t *shapes)
{
    void *p;
    int64_t chunk = CHUNK;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof(planned)));
    w->tensors = p;
    for (int64_t i = 0; i < n; i++) {
        w->n = i + 1;
        AM_TRY(plan(&w->tensors[i], names[i], types[i], ndims[i], shapes + i * AM_MAX_DIMS));
    }
    AM_TRY(check_names(w->tensors, n));
    AM_TRY(am_tensor_make(&w->part, AM_F32, 1, &chunk, 0));
    AM_TRY(am_alloc(&p, CHUNK * sizeof(float)));
    w->blocks = p;
    AM_TRY(put_metadata(header, metadata, n));
    uint64_t data = put_descriptions(header, w->tensors, n);
    *total = header->bytes + data;
    return header->rc;
}

int am_gguf_writer_begin(am_gguf_writer **out, const char *path, const char *metadata, int64_t n,
                         const char *const *names, const char *const *types, const int *ndims,
                         const int64_t *shapes)
{
    void *p;
    am_buffer header = {0};
    uint64_t total;
    AM_TRY(am_alloc(&p, sizeof(am_gguf_writer)));
    am_gguf_writer *w = p;
    int rc = am_strdup(&w->path, path);
    if (rc == AM_OK) {
        rc = prepare(w, &header, &total, metadata, n, names, types, ndims, shapes);
        if (rc != AM_OK)
            am_fail_context(rc, "%s", path);
    }
    if (rc == AM_OK)
        rc = am_file_begin(&w->file, w->path, total);
    if (rc == AM_OK)
        rc = am_file_append(&w->file, header.data, header.bytes);
    am_buffer_free(&header);
    if (rc == AM_OK)
        *out = w;
    else
        am_gguf_writer_release(w);
    return rc;
}

/* Quantise n elements of the part that was copied and append them. */
static int append_blocks(am_gguf_writer *w, const planned *p, int64_t n)
{
    const float *x = am_tensor_data(w->part);
    size_t blocks = (size_t)(n / p->type->items);
    if (p->type->items > 1)
        for (int64_t i = 0; i < n; i++)
            if (!isfinite(x[i]))
                return am_fail(AM_EINVAL, "it holds numbers that are not finite, which %s cannot",
                               p->type->name);
    if (!p->type->quantize(w->blocks, x, blocks))
        return am_fail(AM_EINVAL, "its numbers are too large for %s, whose scales are f16",
                       p->type->name);
    return am_file_append(&w->file, w->blocks, blocks * (size_t)p->type->bytes);
}

/* A dense tensor's elements, a chunk at a time. */
static int append_dense(am_gguf_writer *w, const planned *p, const am_tensor *t)
{
    int64_t numel = am_tensor_numel(t), one = 1;
    for (int64_t from = 0; from < numel; from += CHUNK) {
        int64_t n = numel - from < CHUNK ? numel - from : CHUNK;
        am_tensor *source, *part;
        AM_TRY(am_tensor_view(&source, t, 1, &n, &one, from));
        int rc = am_tensor_view(&part, w->part, 1, &n, &one, 0);
        if (rc == AM_OK) {
            rc = am_tensor_copy(part, source);
            am_tensor_release(part);
        }
        am_tensor_release(source);
        AM_TRY(rc);
        AM_TRY(append_blocks(w, p, n));
    }
    return AM_OK;
}

int am_gguf_writer_add(am_gguf_writer *w, am_tensor *t)
{
    static const uint8_t zeros[ALIGNMENT];
    if (w->next >= w->n)
        return am_fail(AM_ESTATE, "%s: all of its %lld tensors are written", w->path,
                       (long long)w->n);
    const planned *p = &w->tensors[w->next];
    am_tensor *dense = t;
    int rc = am_tensor_check_alive(t, p->name);
    AM_TRY(rc);
    if (t->ndim != p->ndim || memcmp(t->shape, p->shape, (size_t)p->ndim * sizeof *t->shape) != 0)
        return am_fail_context(
            fail_tensor(p, am_fail(AM_EINVAL, "its shape is not the one announced")), "%s",
            w->path);
    if (!am_dtype_is_float(t->dtype))
        return am_fail_context(
            fail_tensor(p, am_fail(AM_EINVAL, "%s is no floating dtype", am_dtype_name(t->dtype))),
            "%s", w->path);
    if (!am_tensor_dense(t)) {
        rc = am_tensor_make(&dense, t->dtype, t->ndim, t->shape, t->device);
        if (rc == AM_OK && (rc = am_tensor_copy(dense, t)) != AM_OK)
            am_tensor_release(dense);
    }
    if (rc == AM_OK) {
        rc = append_dense(w, p, dense);
        if (dense != t)
            am_tensor_release(dense);
    }
    if (rc == AM_OK)
        rc = am_file_append(&w->file, zeros, (size_t)(padded(p->bytes) - p->bytes));
    w->next++;
    return rc == AM_OK || rc == AM_EIO ? rc : am_fail_context(fail_tensor(p, rc), "%s", w->path);
}

int am_gguf_writer_commit(am_gguf_writer *w)
{
    if (w->next < w->n)
        return am_fail(AM_ESTATE, "%s: %lld of %lld tensors are written", w->path,
                       (long long)w->next, (long long)w->n);
    return am_file_commit(&w->file);
}

void am_gguf_writer_release(am_gguf_writer *w)
{
    if (!w)
        return;
    am_file_discard(&w->file);
    for (int64_t i = 0; i < w->n; i++)
        am_free(w->tensors[i].name);
    am_free(w->tensors);
    am_free(w->blocks);
    am_tensor_release(w->part);
    am_free(w->path);
    am_free(w);
}
