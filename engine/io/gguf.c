/* gguf.c — reading GGUF versions 2 and 3 (little endian): magic, counts, key-values, tensor
 * descriptions, then the tensors' bytes from the next multiple of general.alignment. Everything
 * is checked when the file is opened; the accessors of gguf.h then read without checks.
 * Source of the layout: ggml's docs/gguf.md. Dequantising is in gguf_types.c, writing in
 * gguf_write.c. */
#include "gguf.h"

#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "archive.h"
#include "gguf_types.h"

enum { DEFAULT_ALIGNMENT = 32, ARRAY_DEPTH_MAX = 4, METADATA_ITEMS_MAX = 64 };

struct am_gguf_array {
    int type;
    int64_t count;
    const uint8_t *items;
    uint64_t *strings; /* offset of each string's length from items */
};

typedef struct key_value {
    char *key;
    int type;
    const uint8_t *value; /* of a scalar or string */
    am_gguf_array array;
} key_value;

typedef struct am_gguf {
    key_value *values;
    am_name *names;
    int64_t count;
    char **tensor_names;
    int64_t n_tensor_names;
} am_gguf;

static const struct {
    const char *name;
    int bytes; /* 0: of its own length */
} value_types[AM_GGUF_TYPE_COUNT] = {
    [AM_GGUF_U8] = {"u8", 1},       [AM_GGUF_I8] = {"i8", 1},     [AM_GGUF_U16] = {"u16", 2},
    [AM_GGUF_I16] = {"i16", 2},     [AM_GGUF_U32] = {"u32", 4},   [AM_GGUF_I32] = {"i32", 4},
    [AM_GGUF_F32] = {"f32", 4},     [AM_GGUF_BOOL] = {"bool", 1}, [AM_GGUF_STRING] = {"string", 0},
    [AM_GGUF_ARRAY] = {"array", 0}, [AM_GGUF_U64] = {"u64", 8},   [AM_GGUF_I64] = {"i64", 8},
    [AM_GGUF_F64] = {"f64", 8},
};

const char *am_gguf_value_type(int type, int *bytes)
{
    *bytes = value_types[type].bytes;
    return value_types[type].name;
}

/* ---- bytes ------------------------------------------------------------------------------- */

/* What is left of the file, and what is being read, for messages. */
typedef struct cursor {
    const am_archive *archive;
    const uint8_t *at, *end;
    const char *what, *name;
} cursor;

static int fail_truncated(const cursor *c)
{
    return am_fail(AM_EFORMAT, "%s: the file ends inside %s%s%.100s: truncated or damaged",
                   c->archive->path, c->what, c->name ? " " : "", c->name ? c->name : "");
}

static uint64_t load(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* NULL after raising AM_EFORMAT. */
static const uint8_t *take(cursor *c, uint64_t bytes)
{
    const uint8_t *p = c->at;
    if (bytes > (uint64_t)(c->end - c->at)) {
        (void)fail_truncated(c);
        return NULL;
    }
    c->at += bytes;
    return p;
}

static int take_u32(cursor *c, uint32_t *v)
{
    const uint8_t *p = take(c, 4);
    if (!p)
        return AM_EFORMAT;
    *v = (uint32_t)load(p, 4);
    return AM_OK;
}

static int take_u64(cursor *c, uint64_t *v)
{
    const uint8_t *p = take(c, 8);
    if (!p)
        return AM_EFORMAT;
    *v = load(p, 8);
    return AM_OK;
}

/* A count of things of at least `least` bytes each, so that room for them may be allocated. */
static int take_count(cursor *c, uint64_t least, int64_t *count)
{
    uint64_t n;
    AM_TRY(take_u64(c, &n));
    if (n > (uint64_t)(c->end - c->at) / least)
        return fail_truncated(c);
    *count = (int64_t)n;
    return AM_OK;
}

static int take_string(cursor *c, const char **text, uint64_t *bytes)
{
    AM_TRY(take_u64(c, bytes));
    *text = (const char *)take(c, *bytes);
    return *text ? AM_OK : AM_EFORMAT;
}

/* A copy with a NUL, which a name must not contain. */
static int take_name(cursor *c, char **name)
{
    const char *text;
    uint64_t bytes;
    void *p;
    AM_TRY(take_string(c, &text, &bytes));
    if (memchr(text, 0, bytes))
        return am_fail(AM_EFORMAT, "%s: a zero byte in the name of %s", c->archive->path, c->what);
    AM_TRY(am_alloc(&p, bytes + 1));
    memcpy(p, text, bytes);
    *name = p;
    return AM_OK;
}

/* ---- key-values -------------------------------------------------------------------------- */

static int fail_type(const cursor *c, uint32_t type)
{
    return am_fail(AM_EFORMAT, "%s: key \"%.100s\" has value type %u, which does not exist",
                   c->archive->path, c->name, type);
}

static int take_array(cursor *c, am_gguf_array *array, int depth);

/* Items of an array that have lengths of their own. Offsets are kept for strings; nested arrays
 * are only checked. */
static int take_items(cursor *c, am_gguf_array *array, int depth)
{
    if (array->type == AM_GGUF_STRING) {
        void *p;
        AM_TRY(am_alloc(&p, (size_t)array->count * sizeof *array->strings));
        array->strings = p;
    }
    for (int64_t i = 0; i < array->count; i++) {
        if (array->type == AM_GGUF_STRING) {
            const char *text;
            uint64_t bytes;
            array->strings[i] = (uint64_t)(c->at - array->items);
            AM_TRY(take_string(c, &text, &bytes));
        } else {
            am_gguf_array inner = {0};
            int rc = take_array(c, &inner, depth + 1);
            am_free(inner.strings);
            AM_TRY(rc);
        }
    }
    return AM_OK;
}

static int take_array(cursor *c, am_gguf_array *array, int depth)
{
    uint32_t type;
    if (depth > ARRAY_DEPTH_MAX)
        return am_fail(AM_EFORMAT, "%s: key \"%.100s\": arrays nested too deeply", c->archive->path,
                       c->name);
    AM_TRY(take_u32(c, &type));
    if (type >= AM_GGUF_TYPE_COUNT)
        return fail_type(c, type);
    uint64_t size = (uint64_t)value_types[type].bytes, least = 8; /* a string's length */
    if (size > 0)
        least = size;
    else if (type == AM_GGUF_ARRAY)
        least = 12; /* a type and a count */
    AM_TRY(take_count(c, least, &array->count));
    array->type = (int)type;
    array->items = c->at;
    if (size > 0)
        return take(c, (uint64_t)array->count * size) ? AM_OK : AM_EFORMAT;
    return take_items(c, array, depth);
}

static int take_key_value(cursor *c, key_value *kv)
{
    uint32_t type;
    AM_TRY(take_name(c, &kv->key));
    c->name = kv->key;
    AM_TRY(take_u32(c, &type));
    if (type >= AM_GGUF_TYPE_COUNT)
        return fail_type(c, type);
    kv->type = (int)type;
    kv->value = c->at;
    if (type == AM_GGUF_ARRAY)
        return take_array(c, &kv->array, 1);
    if (type == AM_GGUF_STRING) {
        const char *text;
        uint64_t bytes;
        return take_string(c, &text, &bytes);
    }
    return take(c, (uint64_t)value_types[type].bytes) ? AM_OK : AM_EFORMAT;
}

static int read_key_values(am_archive *a, cursor *c, int64_t count)
{
    am_gguf *g = a->gguf;
    void *p;
    const char *twice;
    AM_TRY(am_alloc(&p, (size_t)count * sizeof *g->values));
    g->values = p;
    AM_TRY(am_alloc(&p, (size_t)count * sizeof *g->names));
    g->names = p;
    c->what = "key";
    while (g->count < count) {
        key_value *kv = &g->values[g->count++];
        c->name = NULL;
        AM_TRY(take_key_value(c, kv));
        g->names[g->count - 1] = (am_name){kv->key, g->count - 1};
    }
    am_names_sort(g->names, g->count, &twice);
    if (twice)
        return am_fail(AM_EFORMAT, "%s: key \"%.100s\" occurs twice", a->path, twice);
    return AM_OK;
}

/* ---- metadata as JSON -------------------------------------------------------------------- */

/* The value as an integer's bits, sign-extended. */
static int64_t load_int(int type, const uint8_t *p)
{
    switch (type) {
    case AM_GGUF_I8:
        return (int8_t)*p;
    case AM_GGUF_I16:
        return (int16_t)load(p, 2);
    case AM_GGUF_I32:
        return (int32_t)load(p, 4);
    case AM_GGUF_BOOL:
        return *p != 0;
    default:
        return (int64_t)load(p, value_types[type].bytes);
    }
}

static double load_double(int type, const uint8_t *p)
{
    float f;
    double d;
    switch (type) {
    case AM_GGUF_F32:
        memcpy(&f, p, 4);
        return (double)f;
    case AM_GGUF_F64:
        memcpy(&d, p, 8);
        return d;
    case AM_GGUF_U64:
        return (double)load(p, 8);
    default:
        return (double)load_int(type, p);
    }
}

static void put_scalar(am_buffer *b, int type, const uint8_t *p)
{
    switch (type) {
    case AM_GGUF_STRING:
        am_json_put_string(b, (const char *)p + 8, load(p, 8));
        break;
    case AM_GGUF_BOOL:
        am_json_put_bool(b, *p != 0);
        break;
    case AM_GGUF_F32:
    case AM_GGUF_F64:
        am_json_put_double(b, load_double(type, p));
        break;
    case AM_GGUF_U64:
        am_json_put_uint(b, load(p, 8));
        break;
    default:
        am_json_put_int(b, load_int(type, p));
    }
}

static const uint8_t *array_item(const am_gguf_array *array, int64_t i)
{
    return array->items + (array->type == AM_GGUF_STRING
                               ? array->strings[i]
                               : (uint64_t)i * (uint64_t)value_types[array->type].bytes);
}

static int put_metadata(am_archive *a)
{
    am_buffer *b = &a->metadata;
    am_json_put_open(b, '{');
    for (int64_t i = 0; i < a->gguf->count; i++) {
        const key_value *kv = &a->gguf->values[i];
        const am_gguf_array *array = &kv->array;
        if (kv->type == AM_GGUF_ARRAY &&
            (array->count > METADATA_ITEMS_MAX || array->type == AM_GGUF_ARRAY))
            continue;
        am_json_put_key(b, kv->key, strlen(kv->key));
        if (kv->type != AM_GGUF_ARRAY) {
            put_scalar(b, kv->type, kv->value);
            continue;
        }
        am_json_put_open(b, '[');
        for (int64_t j = 0; j < array->count; j++)
            put_scalar(b, array->type, array_item(array, j));
        am_json_put_close(b, ']');
    }
    am_json_put_close(b, '}');
    return b->rc;
}

/* ---- tensors ----------------------------------------------------------------------------- */

/* `offset` is relative to the data for now: the data begins after the last description. */
static int take_tensor(am_archive *a, cursor *c, am_archive_entry *e)
{
    am_gguf *g = a->gguf;
    uint32_t ndim, number;
    uint64_t size, offset;
    c->name = NULL;
    AM_TRY(take_name(c, &g->tensor_names[g->n_tensor_names]));
    e->name = c->name = g->tensor_names[g->n_tensor_names++];
    AM_TRY(take_u32(c, &ndim));
    if (ndim > AM_MAX_DIMS)
        return am_archive_blame(a, e,
                                am_fail(AM_EFORMAT, "%u dims, more than %d", ndim, AM_MAX_DIMS));
    e->ndim = (int)ndim;
    for (int i = e->ndim - 1; i >= 0; i--) { /* the file has the fastest dim first */
        AM_TRY(take_u64(c, &size));
        if (size > INT64_MAX)
            return am_archive_blame(a, e, am_fail(AM_EFORMAT, "its shape is too large"));
        e->shape[i] = (int64_t)size;
    }
    AM_TRY(take_u32(c, &number));
    AM_TRY(take_u64(c, &offset));
    if (offset > a->map->bytes)
        return am_archive_blame(a, e,
                                am_fail(AM_EFORMAT, "begins at byte %llu: truncated or damaged",
                                        (unsigned long long)offset));
    e->offset = (size_t)offset;

    const am_gguf_type *type = am_gguf_type_find(number);
    int64_t numel = am_archive_numel(e), bytes;
    if (numel < 0)
        return am_archive_blame(a, e, am_fail(AM_EFORMAT, "its shape is too large"));
    e->dtype = type ? type->dtype : -1;
    e->stored_as = type ? type->name : "a type unknown here";
    if (!type)
        return AM_OK; /* its bytes can't be checked; it can't be read either */
    if ((e->ndim > 0 ? e->shape[e->ndim - 1] : 1) % type->items != 0)
        return am_archive_blame(
            a, e,
            am_fail(AM_EFORMAT, "rows of %lld are no multiple of %s's block of %d",
                    (long long)(e->ndim > 0 ? e->shape[e->ndim - 1] : 1), type->name, type->items));
    if (__builtin_mul_overflow(numel / type->items, (int64_t)type->bytes, &bytes))
        return am_archive_blame(a, e, am_fail(AM_EFORMAT, "its shape is too large"));
    e->bytes = (size_t)bytes;
    e->dequantize = type->dequantize;
    e->block_bytes = (size_t)type->bytes;
    return AM_OK;
}

static int read_alignment(const am_archive *a, size_t *alignment)
{
    int64_t value = (int64_t)*alignment;
    AM_TRY(am_gguf_int(&value, a, "general.alignment"));
    if (value <= 0 || value > 1 << 20 || (value & (value - 1)) != 0)
        return am_fail(AM_EFORMAT, "%s: general.alignment is %lld, not a power of two", a->path,
                       (long long)value);
    *alignment = (size_t)value;
    return AM_OK;
}

static int read_tensors(am_archive *a, cursor *c, int64_t count)
{
    size_t alignment = DEFAULT_ALIGNMENT;
    void *p;
    AM_TRY(read_alignment(a, &alignment));
    AM_TRY(am_archive_reserve(a, count));
    AM_TRY(am_alloc(&p, (size_t)count * sizeof *a->gguf->tensor_names));
    a->gguf->tensor_names = p;
    c->what = "the description of tensor";
    while (a->count < count) {
        AM_TRY(take_tensor(a, c, &a->entries[a->count]));
        a->count++;
    }
    size_t start = (size_t)(c->at - a->map->data);
    start = (start + alignment - 1) & ~(alignment - 1);
    for (int64_t i = 0; i < count; i++) {
        am_archive_entry *e = &a->entries[i];
        if (e->offset % alignment != 0)
            return am_archive_blame(
                a, e,
                am_fail(AM_EFORMAT, "offset %zu is no multiple of %zu", e->offset, alignment));
        size_t available = start < a->map->bytes ? a->map->bytes - start : 0;
        if (e->offset > available || e->bytes > available - e->offset)
            return am_archive_blame(
                a, e,
                am_fail(AM_EFORMAT, "ends at byte %zu of %zu: the file is truncated or damaged",
                        e->offset + e->bytes, available));
        e->offset += start;
    }
    return am_archive_check_layout(a, start, 0);
}

int am_gguf_read(am_archive *a)
{
    cursor c = {.archive = a,
                .at = a->map->data + 4,
                .end = a->map->data + a->map->bytes,
                .what = "the header"};
    uint32_t version = 0;
    int64_t tensors = 0, values = 0;
    void *p;
    a->kind = "gguf";
    AM_TRY(am_alloc(&p, sizeof(am_gguf)));
    a->gguf = p;
    AM_TRY(take_u32(&c, &version));
    if (version != 2 && version != 3)
        return am_fail((version & 0xffff) == 0 ? AM_EUNSUP : AM_EFORMAT,
                       "%s: GGUF version %u%s; versions 2 and 3, little endian, are read", a->path,
                       (version & 0xffff) == 0 ? __builtin_bswap32(version) : version,
                       (version & 0xffff) == 0 ? " in big endian" : "");
    AM_TRY(take_count(&c, 24, &tensors)); /* name length, dims, type, offset */
    AM_TRY(take_count(&c, 13, &values));  /* key length, type, one byte */
    AM_TRY(read_key_values(a, &c, values));
    AM_TRY(put_metadata(a));
    return read_tensors(a, &c, tensors);
}

void am_gguf_release(struct am_gguf *g)
{
    if (!g)
        return;
    for (int64_t i = 0; i < g->count; i++) {
        am_free(g->values[i].key);
        am_free(g->values[i].array.strings);
    }
    for (int64_t i = 0; i < g->n_tensor_names; i++)
        am_free(g->tensor_names[i]);
    am_free(g->values);
    am_free(g->names);
    am_free(g->tensor_names);
    am_free(g);
}

/* ---- accessors --------------------------------------------------------------------------- */

static const key_value *find(const am_archive *a, const char *key)
{
    int64_t i = a->gguf ? am_names_find(a->gguf->names, a->gguf->count, key) : -1;
    return i >= 0 ? &a->gguf->values[i] : NULL;
}

static int fail_kind(const am_archive *a, const key_value *kv, const char *wanted)
{
    return am_fail(AM_EFORMAT, "%s: key \"%.100s\" is of type %s, not %s", a->path, kv->key,
                   value_types[kv->type].name, wanted);
}

static int is_integer(int type)
{
    return type <= AM_GGUF_I32 || type == AM_GGUF_U64 || type == AM_GGUF_I64;
}

static int is_float(int type)
{
    return type == AM_GGUF_F32 || type == AM_GGUF_F64;
}

int am_gguf_has(const am_archive *a, const char *key)
{
    return find(a, key) != NULL;
}

int am_gguf_int(int64_t *value, const am_archive *a, const char *key)
{
    const key_value *kv = find(a, key);
    if (!kv)
        return AM_OK;
    if (!is_integer(kv->type))
        return fail_kind(a, kv, "an integer");
    if (kv->type == AM_GGUF_U64 && load(kv->value, 8) > INT64_MAX)
        return am_fail(AM_EFORMAT, "%s: key \"%.100s\" is too large", a->path, kv->key);
    *value = load_int(kv->type, kv->value);
    return AM_OK;
}

int am_gguf_double(double *value, const am_archive *a, const char *key)
{
    const key_value *kv = find(a, key);
    if (!kv)
        return AM_OK;
    if (!is_integer(kv->type) && !is_float(kv->type))
        return fail_kind(a, kv, "a number");
    *value = load_double(kv->type, kv->value);
    return AM_OK;
}

int am_gguf_bool(int *value, const am_archive *a, const char *key)
{
    const key_value *kv = find(a, key);
    if (!kv)
        return AM_OK;
    if (kv->type != AM_GGUF_BOOL)
        return fail_kind(a, kv, "bool");
    *value = *kv->value != 0;
    return AM_OK;
}

int am_gguf_string(const char **text, size_t *bytes, const am_archive *a, const char *key)
{
    const key_value *kv = find(a, key);
    if (!kv)
        return AM_OK;
    if (kv->type != AM_GGUF_STRING)
        return fail_kind(a, kv, "string");
    *text = (const char *)kv->value + 8;
    *bytes = (size_t)load(kv->value, 8);
    return AM_OK;
}

int am_gguf_array_find(const am_gguf_array **out, const am_archive *a, const char *key)
{
    const key_value *kv = find(a, key);
    if (kv && kv->type != AM_GGUF_ARRAY)
        return fail_kind(a, kv, "array");
    *out = kv ? &kv->array : NULL;
    return AM_OK;
}

int am_gguf_array_type(const am_gguf_array *array)
{
    return array->type;
}

int64_t am_gguf_array_count(const am_gguf_array *array)
{
    return array->count;
}

const char *am_gguf_array_string(const am_gguf_array *array, int64_t i, size_t *bytes)
{
    const uint8_t *p = array_item(array, i);
    *bytes = (size_t)load(p, 8);
    return (const char *)p + 8;
}

int64_t am_gguf_array_int(const am_gguf_array *array, int64_t i)
{
    return load_int(array->type, array_item(array, i));
}

double am_gguf_array_double(const am_gguf_array *array, int64_t i)
{
    return load_double(array->type, array_item(array, i));
}
