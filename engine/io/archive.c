/* archive.c — archives as the API sees them: opening by content, finding, and making tensors from
 * the mapped bytes. The formats are in safetensors.c, gguf.c and pytorch.c. */
#include "archive.h"

#include <stdlib.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"

/* ---- names ------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const am_name *)a)->name, ((const am_name *)b)->name);
}

void am_names_sort(am_name *names, int64_t n, const char **twice)
{
    *twice = NULL;
    if (n > 0)
        qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(names[i - 1].name, names[i].name) == 0)
            *twice = names[i].name;
}

int64_t am_names_find(const am_name *names, int64_t n, const char *name)
{
    am_name key = {.name = name};
    const am_name *found =
        n > 0 ? bsearch(&key, names, (size_t)n, sizeof key, compare_names) : NULL;
    return found ? found->number : -1;
}

/* ---- what the readers share -------------------------------------------------------------- */

int am_archive_reserve(am_archive *a, int64_t n)
{
    void *p;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof *a->entries));
    a->entries = p;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof *a->names));
    a->names = p;
    return AM_OK;
}

int am_archive_blame(const am_archive *a, const am_archive_entry *e, int code)
{
    return am_fail_context(code, "%s: tensor \"%.120s\"", a->path, e->name);
}

int64_t am_archive_numel(const am_archive_entry *e)
{
    int64_t n = 1;
    for (int i = 0; i < e->ndim; i++)
        if (e->shape[i] == 0)
            return 0;
    for (int i = 0; i < e->ndim; i++)
        if (__builtin_mul_overflow(n, e->shape[i], &n))
            return -1;
    return n;
}

static int compare_places(const void *a, const void *b)
{
    const am_archive_entry *x = *(am_archive_entry *const *)a, *y = *(am_archive_entry *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

int am_archive_check_layout(am_archive *a, size_t start, int dense)
{
    void *p;
    int rc = AM_OK;
    AM_TRY(am_alloc(&p, (size_t)a->count * sizeof(void *)));
    const am_archive_entry **order = p; /* those that have bytes, by place */
    const am_archive_entry *before = NULL;
    size_t n = 0, end = start;
    for (int64_t i = 0; i < a->count; i++)
        if (a->entries[i].bytes > 0)
            order[n++] = &a->entries[i];
    if (n > 0)
        qsort(p, n, sizeof(void *), compare_places);
    for (size_t i = 0; i < n && rc == AM_OK; i++) {
        const am_archive_entry *e = order[i];
        if (e->offset < end && before)
            rc = am_archive_blame(
                a, e, am_fail(AM_EFORMAT, "its bytes overlap those of \"%.100s\"", before->name));
        else if (dense && e->offset > end)
            rc = am_archive_blame(
                a, e,
                am_fail(AM_EFORMAT, "%zu bytes before it belong to no tensor", e->offset - end));
        end = e->offset + e->bytes;
        before = e;
    }
    if (rc == AM_OK && dense && end != a->map->bytes)
        rc = am_fail(AM_EFORMAT, "%s: %zu bytes after the last tensor belong to none", a->path,
                     a->map->bytes - end);
    am_free(p);
    return rc;
}

/* ---- opening ----------------------------------------------------------------------------- */

static int read_content(am_archive *a)
{
    const char *data = (const char *)a->map->data;
    size_t bytes = a->map->bytes;
    if (bytes >= 4 && memcmp(data, "GGUF", 4) == 0)
        return am_gguf_read(a);
    if (bytes >= 18 && memcmp(data, "version https://git", 18) == 0)
        return am_fail(AM_EFORMAT,
                       "%s: a Git LFS pointer, not the weights themselves; fetch them with "
                       "`git lfs pull`",
                       a->path);
    if (am_pytorch_is(a))
        return am_pytorch_read(a);
    if (bytes >= 9 && data[0] == '\x80' && data[1] >= 2 && data[1] <= 5 && data[8] != '{')
        return am_fail(AM_EFORMAT,
                       "%s: a pickle, but not as torch.save writes it; load it with Python and "
                       "write it with safetensors.torch.save_file",
                       a->path);
    return am_safetensors_read(a);
}

int am_archive_open(am_archive **out, const char *path)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_archive)));
    am_archive *a = p;
    int rc;
    const char *twice;
    AM_TRY_OUT(am_strdup(&a->path, path));
    AM_TRY_OUT(am_mapping_open(&a->map, path));
    AM_TRY_OUT(read_content(a));
    for (int64_t i = 0; i < a->count; i++)
        a->names[i] = (am_name){a->entries[i].name, i};
    am_names_sort(a->names, a->count, &twice);
    if (twice)
        rc = am_fail(AM_EFORMAT, "%s: tensor \"%.120s\" occurs twice", path, twice);
out:
    if (rc == AM_OK)
        *out = a;
    else
        am_archive_release(a);
    return rc;
}

void am_archive_release(am_archive *a)
{
    if (!a)
        return;
    am_gguf_release(a->gguf);
    am_json_free(a->header);
    am_buffer_free(&a->metadata);
    am_free(a->entries);
    am_free(a->names);
    am_free(a->name_text);
    am_free(a->path);
    am_mapping_release(a->map);
    am_free(a);
}

/* ---- looking ----------------------------------------------------------------------------- */

const char *am_archive_kind(const am_archive *a)
{
    return a->kind;
}

int64_t am_archive_count(const am_archive *a)
{
    return a->count;
}

const char *am_archive_name(const am_archive *a, int64_t i)
{
    return i >= 0 && i < a->count ? a->entries[i].name : NULL;
}

int64_t am_archive_find(const am_archive *a, const char *name)
{
    return am_names_find(a->names, a->count, name);
}

const char *am_archive_metadata(const am_archive *a)
{
    return a->metadata.data;
}

/* NULL after raising AM_EINVAL. */
static const am_archive_entry *entry_at(const am_archive *a, int64_t i)
{
    if (i >= 0 && i < a->count)
        return &a->entries[i];
    am_fail(AM_EINVAL, "%s: tensor number %lld of %lld", a->path, (long long)i,
            (long long)a->count);
    return NULL;
}

int am_archive_info(const am_archive *a, int64_t i, int *dtype, const char **stored_as, int *ndim,
                    int64_t *shape)
{
    const am_archive_entry *e = entry_at(a, i);
    if (!e)
        return AM_EINVAL;
    *dtype = e->dtype;
    *stored_as = e->stored_as;
    *ndim = e->ndim;
    memcpy(shape, e->shape, (size_t)e->ndim * sizeof *shape);
    return AM_OK;
}

/* ---- making tensors ---------------------------------------------------------------------- */

/* A byte other than 0 and 1 in a file must not become a bool that is neither. */
static void make_bools(uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = bytes[i] != 0;
}

/* Elements that lie apart, in row-major order. */
static void copy_strided(uint8_t *out, const uint8_t *bytes, const am_archive_entry *e)
{
    size_t size = (size_t)am_dtype_size(e->dtype);
    int64_t at[AM_MAX_DIMS] = {0}, n = am_archive_numel(e), place = 0;
    for (int64_t i = 0; i < n; i++, out += size) {
        memcpy(out, bytes + (size_t)place * size, size);
        for (int d = e->ndim - 1; d >= 0; d--) { /* the next one's place */
            place += e->stride[d];
            if (++at[d] < e->shape[d])
                break;
            place -= e->stride[d] * e->shape[d];
            at[d] = 0;
        }
    }
}

/* What a tensor in place ends with. Pages that no tensor uses any more need not stay. */
static void release_place(void *mapping)
{
    am_mapping *m = mapping;
    if (--m->in_place == 0)
        am_mapping_give_back(m, 0, m->bytes);
    am_mapping_release(m);
}

/* The tensor in its own dtype on a host device; shared where its bytes can be used in place. */
static int host_tensor(am_tensor **out, am_archive *a, const am_archive_entry *e, int device)
{
    uint8_t *bytes = a->map->data + e->offset;
    int usable = !e->dequantize && !e->strided && e->dtype != AM_BOOL && e->bytes > 0 &&
                 (uintptr_t)bytes % (size_t)am_dtype_size(e->dtype) == 0;
    if (usable) {
        am_mapping_retain(a->map);
        a->map->in_place++;
        int rc = am_tensor_from_memory(out, e->dtype, e->ndim, e->shape, device, bytes,
                                       release_place, a->map);
        if (rc != AM_OK)
            release_place(a->map);
        return rc;
    }
    am_tensor *t;
    AM_TRY(am_tensor_make(&t, e->dtype, e->ndim, e->shape, device));
    void *data = am_tensor_data(t);
    if (e->bytes == 0)
        ;
    else if (e->dequantize)
        e->dequantize(data, bytes, e->bytes / e->block_bytes);
    else if (e->strided)
        copy_strided(data, bytes, e);
    else
        memcpy(data, bytes, e->bytes);
    if (e->dtype == AM_BOOL && e->bytes > 0)
        make_bools(data, (size_t)am_tensor_bytes(t));
    if (a->map->in_place == 0) /* else a tensor may have been written to */
        am_mapping_give_back(a->map, e->offset, e->bytes);
    *out = t;
    return AM_OK;
}

/* Replace *t by its copy of another dtype or on another device; *t is released in any case. */
static int convert(am_tensor **t, int dtype, int device)
{
    am_tensor *source = *t, *copy;
    int rc = am_tensor_make(&copy, dtype, source->ndim, source->shape, device);
    if (rc == AM_OK) {
        rc = am_tensor_copy(copy, source);
        if (rc == AM_OK)
            *t = copy;
        else
            am_tensor_release(copy);
    }
    am_tensor_release(source);
    return rc;
}

int am_archive_tensor(am_tensor **out, am_archive *a, int64_t i, int dtype, int device)
{
    const am_archive_entry *e = entry_at(a, i);
    if (!e)
        return AM_EINVAL;
    if (e->dtype < 0)
        return am_archive_blame(
            a, e, am_fail(AM_EUNSUP, "stored as %s, which cannot be read", e->stored_as));
    if (dtype < -1 || dtype >= AM_DTYPE_COUNT)
        return am_fail(AM_EINVAL, "dtype %d does not exist", dtype);
    int wanted = dtype < 0 ? e->dtype : dtype, on_host = am_device_is_host(device);
    am_tensor *t;
    am_mapping_prefetch(a->map, e->offset, e->bytes);
    int rc = host_tensor(&t, a, e, on_host ? device : 0);
    if (rc == AM_OK && (wanted != e->dtype || !on_host))
        rc = convert(&t, wanted, device);
    if (rc != AM_OK)
        return am_archive_blame(a, e, rc);
    am_scope_register(t);
    *out = t;
    return AM_OK;
}
