/* safetensors.c — reading the safetensors format: 8 bytes of header length (little endian), a JSON
 * header {name: {dtype, shape, data_offsets}}, then the tensors' bytes without gaps. What the
 * reference implementation (huggingface/safetensors) checks is checked. Writing it is
 * safetensors_write.c's. */
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"
#include "archive.h"

/* Types of the format that the engine has no dtype for; their sizes, so that files can be checked.
 */
static const struct {
    const char *name;
    int bytes;
} foreign_types[] = {{"I8", 1},      {"I16", 2},     {"U16", 2},     {"U32", 4}, {"U64", 8},
                     {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"C64", 8}};

const char *const am_safetensors_types[AM_DTYPE_COUNT] = {
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
        if (strcmp(am_safetensors_types[d], e->stored_as) == 0) {
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
    if (length > bytes - 8 || length > AM_SAFETENSORS_HEADER_MAX)
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
