/* safetensors.c — the safetensors format: 8 bytes of header length (little endian), a JSON header
 * {name: {dtype, shape, data_offsets}}, then the tensors' bytes without gaps. Reading checks all
 * that the reference implementation (huggingface/safetensors) checks. */
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"
#include "archive.h"

enum { HEADER_MAX = 100000000 }; /* the reference implementation's cap */
enum { CHUNK = 8 << 20 }; /* bytes copied at a time when a tensor can't be written in place */

/* Types of the format that the engine has no dtype for; their sizes, so that files can be checked.
 */
static const struct {
    const char *name;
    int bytes;
} foreign_types[] = {{"I8", 1},      {"I16", 2},     {"U16", 2},     {"U32", 4}, {"U64", 8},
                     {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"C64", 8}};

static const char *const type_names[AM_DTYPE_COUNT] = {
#define X(id, name, bytes, st, fl) st,
#include "../dtype.def"
#undef X
};

/* ---- reading ----------------------------------------------------------------------------- */

/* Sets dtype and the size of an element; 0: a type nobody knows, so its bytes can't be checked. */
static void find_type(am_archive_entry *e, int64_t *size)
{
    e->dtype = -1;
    *size = 0;
    for (int d = 0; d < AM_DTYPE_COUNT; d++)
        if (strcmp(type_names[d], e->stored_as) == 0) {
            e->dtype = d;
            *size = am_dtype_size(d);
        }
    for (size_t i = 0; i < sizeof foreign_types / sizeof *foreign_types; i++)
        if (strcmp(foreign_types[i].name, e->stored_as) == 0)
            *size = foreign_types[i].bytes;
}

static int read_shape(const am_archive *a, am_archive_entry *e, const am_json *shape)
{
    if (!am_json_is(shape, AM_JSON_ARRAY))
        return am_archive_blame(a, e, am_fail(AM_EFORMAT, "\"shape\" is missing or not an array"));
    if (shape->count > AM_MAX_DIMS)
        return am_archive_blame(
            a, e, am_fail(AM_EUNSUP, "%u dims, more than %d", shape->count, AM_MAX_DIMS));
    e->ndim = (int)shape->count;
    for (uint32_t i = 0; i < shape->count; i++) {
        const am_json *size = &shape->as.items[i];
        if (!am_json_is_int(size) || size->as.integer < 0)
            return am_archive_blame(a, e,
                                    am_fail(AM_EFORMAT, "dim %u of its shape is not a size", i));
        e->shape[i] = size->as.integer;
    }
    return AM_OK;
}

/* `data` is where the tensors' bytes begin. */
static int read_entry(const am_archive *a, am_archive_entry *e, const am_json *v, size_t data)
{
    if (!am_json_is(v, AM_JSON_OBJECT))
        return am_archive_blame(
            a, e,
            am_fail(AM_EFORMAT, "described by %s, not an object", am_json_kind_name(v->kind)));
    const am_json *type = am_json_get_kind(v, "dtype", AM_JSON_STRING);
    const am_json *offsets = am_json_get_kind(v, "data_offsets", AM_JSON_ARRAY);
    if (!type || strlen(type->as.text) != type->count)
        return am_archive_blame(a, e, am_fail(AM_EFORMAT, "\"dtype\" is missing or not a string"));
    if (!offsets || offsets->count != 2 || !am_json_is_int(&offsets->as.items[0]) ||
        !am_json_is_int(&offsets->as.items[1]))
        return am_archive_blame(
            a, e, am_fail(AM_EFORMAT, "\"data_offsets\" is missing or not two integers"));
    e->stored_as = type->as.text;
    AM_TRY(read_shape(a, e, am_json_get(v, "shape")));

    int64_t begin = offsets->as.items[0].as.integer, end = offsets->as.items[1].as.integer;
    size_t available = a->map->bytes - data;
    if (begin < 0 || end < begin)
        return am_archive_blame(a, e,
                                am_fail(AM_EFORMAT, "data_offsets [%lld, %lld] are not a range",
                                        (long long)begin, (long long)end));
    if ((uint64_t)end > available)
        return am_archive_blame(
            a, e,
            am_fail(AM_EFORMAT, "ends at byte %lld of %zu: the file is truncated or damaged",
                    (long long)end, available));
    e->offset = data + (size_t)begin;
    e->bytes = (size_t)(end - begin);

    int64_t numel = am_archive_numel(e), size, need;
    find_type(e, &size);
    if (numel < 0 || __builtin_mul_overflow(numel, size, &need))
        return am_archive_blame(a, e, am_fail(AM_EFORMAT, "its shape is too large"));
    if (size > 0 && (uint64_t)need != e->bytes)
        return am_archive_blame(a, e,
                                am_fail(AM_EFORMAT, "%zu bytes, but %s of its shape takes %lld",
                                        e->bytes, e->stored_as, (long long)need));
    return AM_OK;
}

static int read_metadata(am_archive *a, const am_json *metadata)
{
    if (!metadata) {
        am_buffer_put(&a->metadata, "{}", 2);
        return a->metadata.rc;
    }
    if (metadata->kind != AM_JSON_OBJECT)
        return am_fail(AM_EFORMAT, "%s: __metadata__ is %s, not an object", a->path,
                       am_json_kind_name(metadata->kind));
    for (uint32_t i = 0; i < metadata->count; i++)
        if (metadata->as.members[i].value.kind != AM_JSON_STRING)
            return am_fail(AM_EFORMAT, "%s: __metadata__ \"%.100s\" is not a string", a->path,
                           metadata->as.members[i].key);
    am_json_put_value(&a->metadata, metadata);
    return a->metadata.rc;
}

int am_safetensors_read(am_archive *a)
{
    const uint8_t *file = a->map->data;
    size_t bytes = a->map->bytes;
    uint64_t length = 0;
    a->kind = "safetensors";
    if (bytes < 8)
        return am_fail(AM_EFORMAT, "%s: %zu bytes are no safetensors, GGUF or PyTorch file",
                       a->path, bytes);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | file[i];
    if (length > bytes - 8 || length > HEADER_MAX)
        return am_fail(AM_EFORMAT,
                       "%s: a header of %llu bytes in a file of %zu: truncated, or neither "
                       "safetensors nor GGUF nor PyTorch",
                       a->path, (unsigned long long)length, bytes);
    if (length < 2 || file[8] != '{')
        return am_fail(AM_EFORMAT, "%s: no JSON header; neither safetensors nor GGUF nor PyTorch",
                       a->path);
    int rc = am_json_parse(&a->header, (const char *)file + 8, (size_t)length, AM_JSON_UNIQUE_KEYS);
    if (rc != AM_OK)
        return am_fail_context(rc, "%s: safetensors header", a->path);

    const am_json *root = am_json_root(a->header);
    AM_TRY(read_metadata(a, am_json_get(root, "__metadata__")));
    AM_TRY(am_archive_reserve(a, root->count));
    size_t data = 8 + (size_t)length;
    for (uint32_t i = 0; i < root->count; i++) {
        const am_json_member *m = &root->as.members[i];
        am_archive_entry *e = &a->entries[a->count];
        if (strcmp(m->key, "__metadata__") == 0)
            continue;
        e->name = m->key;
        if (strlen(m->key) != m->bytes)
            return am_archive_blame(a, e, am_fail(AM_EFORMAT, "a zero byte in its name"));
        AM_TRY(read_entry(a, e, &m->value, data));
        a->count++;
    }
    return am_archive_check_layout(a, data, 1);
}

/* ---- writing ----------------------------------------------------------------------------- */

typedef struct placed {
    uint64_t begin, end;
} placed;

static uint64_t tensor_bytes(const am_tensor *t)
{
    return (uint64_t)am_tensor_numel(t) * (uint64_t)am_dtype_size(t->dtype);
}

/* Larger dtypes first, otherwise as given: then every tensor is aligned for its dtype, which
 * readers that map the file need. */
static uint64_t place(placed *places, int64_t n, am_tensor *const *tensors)
{
    uint64_t at = 0;
    for (int size = 8; size > 0; size /= 2)
        for (int64_t i = 0; i < n; i++)
            if (am_dtype_size(tensors[i]->dtype) == size) {
                places[i].begin = at;
                at += tensor_bytes(tensors[i]);
                places[i].end = at;
            }
    return at;
}

static int put_metadata(am_buffer *b, const char *metadata)
{
    am_json_doc *doc = NULL;
    if (!metadata)
        metadata = "{\"format\":\"pt\"}";
    int rc = am_json_parse(&doc, metadata, strlen(metadata), AM_JSON_UNIQUE_KEYS);
    if (rc != AM_OK)
        return am_fail_context(rc == AM_EFORMAT ? AM_EINVAL : rc, "safetensors metadata");
    const am_json *root = am_json_root(doc);
    int strings = root->kind == AM_JSON_OBJECT;
    for (uint32_t i = 0; strings && i < root->count; i++)
        strings = root->as.members[i].value.kind == AM_JSON_STRING;
    if (strings) {
        am_json_put_key(b, "__metadata__", 12);
        am_json_put_value(b, root);
    } else {
        rc = am_fail(AM_EINVAL, "safetensors metadata is not a JSON object of strings");
    }
    am_json_free(doc);
    return rc;
}

static int check_name(const char *name)
{
    size_t bytes = strlen(name);
    if (strcmp(name, "__metadata__") == 0)
        return am_fail(AM_EINVAL, "a tensor cannot be named __metadata__");
    for (size_t i = 0; i < bytes;) {
        int n = am_utf8_length(name + i, bytes - i);
        if (n == 0)
            return am_fail(AM_EINVAL, "the tensor name \"%.120s\" is not UTF-8", name);
        i += (size_t)n;
    }
    return AM_OK;
}

/* Length and header; parsed again at the end, which finds names that occur twice. */
static int put_header(am_buffer *b, int64_t n, const char *const *names, am_tensor *const *tensors,
                      const placed *places, const char *metadata)
{
    uint8_t length[8] = {0};
    am_buffer_put(b, length, sizeof length);
    am_json_put_open(b, '{');
    AM_TRY(put_metadata(b, metadata));
    for (int64_t i = 0; i < n; i++) {
        AM_TRY(check_name(names[i]));
        const char *type = type_names[tensors[i]->dtype];
        am_json_put_key(b, names[i], strlen(names[i]));
        am_json_put_open(b, '{');
        am_json_put_key(b, "dtype", 5);
        am_json_put_string(b, type, strlen(type));
        am_json_put_key(b, "shape", 5);
        am_json_put_open(b, '[');
        for (int d = 0; d < tensors[i]->ndim; d++)
            am_json_put_int(b, tensors[i]->shape[d]);
        am_json_put_close(b, ']');
        am_json_put_key(b, "data_offsets", 12);
        am_json_put_open(b, '[');
        am_json_put_uint(b, places[i].begin);
        am_json_put_uint(b, places[i].end);
        am_json_put_close(b, ']');
        am_json_put_close(b, '}');
    }
    am_json_put_close(b, '}');
    while (b->rc == AM_OK && b->bytes % 8 != 0)
        am_buffer_put(b, " ", 1);
    AM_TRY(b->rc);

    uint64_t header = b->bytes - 8;
    if (header > HEADER_MAX)
        return am_fail(AM_EINVAL, "a header of %llu bytes, more than readers accept (%d)",
                       (unsigned long long)header, HEADER_MAX);
    for (int i = 0; i < 8; i++)
        b->data[i] = (char)(header >> 8 * i & 0xff);
    am_json_doc *doc = NULL;
    int rc = am_json_parse(&doc, b->data + 8, (size_t)header, AM_JSON_UNIQUE_KEYS);
    am_json_free(doc);
    return rc == AM_EFORMAT ? am_fail_context(AM_EINVAL, "tensor names") : rc;
}

/* Writing tensors: the file, a chunk to copy through, and the tensor at hand for messages. */
typedef struct tensor_writer {
    am_file_writer file;
    void *chunk;
    const char *name;
} tensor_writer;

/* The error of reading a tensor (those of the file name it themselves). */
static int fail_reading(const tensor_writer *w, int rc)
{
    return am_fail_context(rc, "%s: tensor \"%.120s\"", w->file.path, w->name);
}

/* Elements [from, from + n) of a dense tensor, through the chunk. */
static int append_part(tensor_writer *w, const am_tensor *t, int64_t from, int64_t n)
{
    am_tensor *part;
    int64_t one = 1;
    size_t bytes = (size_t)n * (size_t)am_dtype_size(t->dtype);
    int rc = am_tensor_view(&part, t, 1, &n, &one, from);
    if (rc != AM_OK)
        return fail_reading(w, rc);
    rc = am_tensor_read(part, w->chunk, bytes);
    am_tensor_release(part);
    return rc == AM_OK ? am_file_append(&w->file, w->chunk, bytes) : fail_reading(w, rc);
}

/* Host memory is written in place, other memory through the chunk. */
static int append_dense(tensor_writer *w, am_tensor *t)
{
    int rc = am_device_sync(t->device);
    if (rc != AM_OK)
        return fail_reading(w, rc);
    const void *data = am_tensor_data(t);
    if (data)
        return am_file_append(&w->file, data, (size_t)tensor_bytes(t));
    int64_t numel = am_tensor_numel(t), step = CHUNK / am_dtype_size(t->dtype);
    for (int64_t from = 0; from < numel; from += step)
        AM_TRY(append_part(w, t, from, numel - from < step ? numel - from : step));
    return AM_OK;
}

/* A tensor's elements in row-major order; strided tensors are made dense first. */
static int append_tensor(tensor_writer *w, am_tensor *t)
{
    if (am_tensor_dense(t))
        return append_dense(w, t);
    am_tensor *dense;
    int rc = am_tensor_make(&dense, t->dtype, t->ndim, t->shape, t->device);
    if (rc != AM_OK)
        return fail_reading(w, rc);
    rc = am_tensor_copy(dense, t);
    rc = rc == AM_OK ? append_dense(w, dense) : fail_reading(w, rc);
    am_tensor_release(dense);
    return rc;
}

int am_safetensors_save(const char *path, int64_t n, const char *const *names,
                        am_tensor *const *tensors, const char *metadata)
{
    tensor_writer w = {0};
    am_buffer header = {0};
    void *places = NULL;
    int rc;
    for (int64_t i = 0; i < n; i++)
        AM_TRY(am_tensor_check_alive(tensors[i], names[i]));
    AM_TRY_OUT(am_alloc(&places, (size_t)n * sizeof(placed)));
    AM_TRY_OUT(am_alloc(&w.chunk, CHUNK));
    uint64_t total = place(places, n, tensors);
    rc = put_header(&header, n, names, tensors, places, metadata);
    if (rc != AM_OK) {
        am_fail_context(rc, "%s", path);
        goto out;
    }
    AM_TRY_OUT(am_file_begin(&w.file, path, header.bytes + total));
    AM_TRY_OUT(am_file_append(&w.file, header.data, header.bytes));
    for (int size = 8; size > 0; size /= 2)
        for (int64_t i = 0; i < n; i++)
            if (am_dtype_size(tensors[i]->dtype) == size) {
                w.name = names[i];
                AM_TRY_OUT(append_tensor(&w, tensors[i]));
            }
    rc = am_file_commit(&w.file);
out:
    am_file_discard(&w.file);
    am_buffer_free(&header);
    am_free(places);
    am_free(w.chunk);
    return rc;
}
