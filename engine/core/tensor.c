/* tensor.c — storages and shells: making, sharing, releasing, host transfers, scopes.
 * Holds no arithmetic (ops/) and no gradients beyond carrying them (ops/tape.c). */
#include "tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../dtype.h"
#include "../ops/tape.h"
#include "device.h"
#include "error.h"
#include "mem.h"

/* ---- storages --------------------------------------------------------------------------- */

static int storage_new(am_storage **out, int device, size_t bytes, bool exact)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_storage)));
    am_storage *s = p;
    if (!exact && device >= 0 && device < AM_DEVICE_COUNT)
        s->pool = am_mem_pool(device);
    int rc = exact ? am_device_alloc_exact(device, &s->data, bytes)
                   : am_device_alloc(device, s->pool, &s->data, bytes);
    if (rc != AM_OK) {
        am_free(s);
        return rc;
    }
    s->refs = 1;
    s->device = device;
    s->bytes = bytes;
    s->exact = exact;
    *out = s;
    return AM_OK;
}

static void storage_release(am_storage *s)
{
    if (!s || --s->refs > 0)
        return;
    if (s->release)
        s->release(s->owner);
    else if (s->exact)
        am_device_free_exact(s->device, s->data, s->bytes);
    else
        am_device_free(s->device, s->pool, s->data, s->bytes);
    am_free(s);
}

/* ---- shapes ----------------------------------------------------------------------------- */

int64_t am_shape_numel(int ndim, const int64_t *shape)
{
    int64_t n = 1;
    for (int i = 0; i < ndim; i++)
        n *= shape[i];
    return n;
}

bool am_shape_equal(const am_tensor *a, const am_tensor *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

const char *am_shape_text(char text[96], int ndim, const int64_t *shape)
{
    enum { ROOM = 96, NUMBER = 22 }; /* ",-9223372036854775808" */
    size_t n = 0;
    int i = 0;
    text[n++] = '[';
    for (; i < ndim && n + NUMBER + sizeof ",...]" <= ROOM; i++)
        n += (size_t)snprintf(text + n, ROOM - n, i ? ",%lld" : "%lld", (long long)shape[i]);
    snprintf(text + n, ROOM - n, i < ndim ? ",...]" : "]");
    return text;
}

static int check_shape(int dtype, int ndim, const int64_t *shape)
{
    int64_t n = 1;
    if (dtype < 0 || dtype >= AM_DTYPE_COUNT)
        return am_fail(AM_EINVAL, "dtype %d does not exist", dtype);
    if (ndim < 0 || ndim > AM_MAX_DIMS)
        return am_fail(AM_ESHAPE, "a tensor has 0 to %d dims, not %d", AM_MAX_DIMS, ndim);
    for (int i = 0; i < ndim; i++)
        /* A size of 0 does not excuse the others: strides are products of them, too. */
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i] ? shape[i] : 1, &n) ||
            n > INT64_MAX / 16)
            return am_fail(AM_ESHAPE, "size %lld of dim %d is out of range", (long long)shape[i],
                           i);
    return AM_OK;
}

static void dense_strides(am_tensor *t)
{
    int64_t n = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        t->stride[i] = n;
        n *= t->shape[i];
    }
}

bool am_tensor_dense(const am_tensor *t)
{
    int64_t n = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] == 0)
            return true;
        if (t->shape[i] != 1 && t->stride[i] != n)
            return false;
        n *= t->shape[i];
    }
    return true;
}

/* ---- shells ----------------------------------------------------------------------------- */

static int shell_new(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device)
{
    AM_TRY(check_shape(dtype, ndim, shape));
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_tensor)));
    am_tensor *t = p;
    t->refs = 1;
    t->dtype = dtype;
    t->ndim = ndim;
    t->device = device;
    for (int i = 0; i < ndim; i++)
        t->shape[i] = shape[i];
    dense_strides(t);
    *out = t;
    return AM_OK;
}

static int tensor_make(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device,
                       bool exact)
{
    am_tensor *t;
    AM_TRY(shell_new(&t, dtype, ndim, shape, device));
    size_t bytes = (size_t)am_shape_numel(ndim, shape) * (size_t)am_dtype_size(dtype);
    int rc = storage_new(&t->storage, device, bytes, exact);
    if (rc != AM_OK) {
        am_free(t);
        return rc;
    }
    *out = t;
    return AM_OK;
}

int am_tensor_make(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device)
{
    return tensor_make(out, dtype, ndim, shape, device, false);
}

int am_tensor_make_exact(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device)
{
    return tensor_make(out, dtype, ndim, shape, device, true);
}

int am_tensor_new(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device)
{
    AM_TRY(am_tensor_make(out, dtype, ndim, shape, device));
    am_scope_register(*out);
    return AM_OK;
}

int am_tensor_from_memory(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device,
                          void *data, void (*release)(void *owner), void *owner)
{
    am_tensor *t;
    void *p;
    AM_TRY(shell_new(&t, dtype, ndim, shape, device));
    int rc = am_alloc(&p, sizeof(am_storage));
    if (rc != AM_OK) {
        am_free(t);
        return rc;
    }
    t->storage = p;
    *t->storage =
        (am_storage){.refs = 1,
                     .device = device,
                     .data = data,
                     .bytes = (size_t)am_shape_numel(ndim, shape) * (size_t)am_dtype_size(dtype),
                     .release = release,
                     .owner = owner};
    *out = t;
    return AM_OK;
}

int am_tensor_view(am_tensor **out, const am_tensor *t, int ndim, const int64_t *shape,
                   const int64_t *stride, int64_t offset)
{
    AM_TRY(am_tensor_check_alive(t, "view"));
    am_tensor *v;
    AM_TRY(shell_new(&v, t->dtype, ndim, shape, t->device));
    memcpy(v->stride, stride, (size_t)ndim * sizeof *stride);
    v->offset = t->offset + offset;
    v->storage = t->storage;
    v->storage->refs++;
    *out = v;
    return AM_OK;
}

int am_tensor_alias(am_tensor **out, const am_tensor *t)
{
    return am_tensor_view(out, t, t->ndim, t->shape, t->stride, 0);
}

int am_tensor_scalar(am_tensor **out, int dtype, double value, int device)
{
    AM_TRY(am_tensor_make(out, dtype, 0, NULL, device));
    int rc = am_tensor_fill(*out, value);
    if (rc != AM_OK)
        am_tensor_release(*out);
    return rc;
}

void am_tensor_reseat(am_tensor *t, am_storage *storage, int64_t offset)
{
    storage->refs++;
    storage_release(t->storage);
    t->storage = storage;
    t->offset = offset;
    dense_strides(t);
}

int am_tensor_set_data(am_tensor *t, am_tensor *source)
{
    AM_TRY(am_tensor_check_given(t, "set_data"));
    if (t->computed)
        return am_fail(AM_EINVAL, "set_data: the tensor is the result of an op");
    if (source) {
        AM_TRY(am_tensor_check_alive(source, "set_data"));
        if (source->dtype != t->dtype || source->device != t->device || !am_shape_equal(source, t))
            return am_fail(AM_ESHAPE, "set_data: dtype, shape or device differ");
        if (!am_tensor_dense(source))
            return am_fail(AM_EINVAL, "set_data: the source is not dense");
        am_tensor_reseat(t, source->storage, source->offset);
    } else {
        storage_release(t->storage);
        t->storage = NULL;
    }
    t->moves = true;
    return AM_OK;
}

void am_tensor_retain(am_tensor *t)
{
    if (t)
        t->refs++;
}

static void scope_unlink(am_tensor *t);

void am_tensor_drop(am_tensor *t)
{
    if (!t)
        return;
    if (t->computed)
        am_tape_forget(t);
    storage_release(t->storage);
    t->storage = NULL;
    am_tensor *grad = t->grad;
    t->grad = NULL;
    t->grad_empty = true;
    am_tensor_release(grad);
}

void am_tensor_release(am_tensor *t)
{
    if (!t || --t->refs > 0)
        return;
    am_tensor_drop(t);
    scope_unlink(t);
    am_free(t);
}

int am_tensor_check_given(const am_tensor *t, const char *what)
{
    return t ? AM_OK : am_fail(AM_EINVAL, "%s: a tensor is missing", what);
}

int am_tensor_check_alive(const am_tensor *t, const char *what)
{
    char text[96];
    AM_TRY(am_tensor_check_given(t, what));
    if (!t->storage)
        return am_fail(AM_ESTATE,
                       "%s: a tensor %s was used after its scope had released it; return it from "
                       "am.scope or clone it",
                       what, am_shape_text(text, t->ndim, t->shape));
    return AM_OK;
}

/* ---- getters ---------------------------------------------------------------------------- */

/* What a caller that asks about no tensor is told; a language without types hands us NULL. */
static const am_tensor *asked(const am_tensor *t)
{
    static const am_tensor none = {.dtype = -1, .device = -1};
    return t ? t : &none;
}

int am_tensor_alive(const am_tensor *t)
{
    return asked(t)->storage != NULL;
}

int am_tensor_dtype(const am_tensor *t)
{
    return asked(t)->dtype;
}

int am_tensor_device(const am_tensor *t)
{
    return asked(t)->device;
}

int am_tensor_ndim(const am_tensor *t)
{
    return asked(t)->ndim;
}

const int64_t *am_tensor_shape(const am_tensor *t)
{
    return asked(t)->shape;
}

const int64_t *am_tensor_strides(const am_tensor *t)
{
    return asked(t)->stride;
}

int64_t am_tensor_numel(const am_tensor *t)
{
    return am_shape_numel(asked(t)->ndim, asked(t)->shape);
}

int64_t am_tensor_bytes(const am_tensor *t)
{
    return am_tensor_numel(t) * am_dtype_size(am_tensor_dtype(t));
}

int am_tensor_is_contiguous(const am_tensor *t)
{
    return am_tensor_dense(asked(t));
}

void *am_tensor_ptr(const am_tensor *t)
{
    return (char *)t->storage->data + t->offset * am_dtype_size(t->dtype);
}

void *am_tensor_data(am_tensor *t)
{
    return am_tensor_alive(t) && am_device_is_host(t->device) ? am_tensor_ptr(t) : NULL;
}

int am_tensor_detach(am_tensor **out, am_tensor *t)
{
    AM_TRY(am_tensor_check_alive(t, "detach"));
    AM_TRY(am_tensor_alias(out, t));
    am_scope_register(*out);
    return AM_OK;
}

int am_tensor_as_strided(am_tensor **out, am_tensor *t, int ndim, const int64_t *shape,
                         const int64_t *strides, int64_t offset)
{
    AM_TRY(am_tensor_check_alive(t, "as_strided"));
    AM_TRY(check_shape(t->dtype, ndim, shape));
    /* One past the last element reached; where there is none, the first one's place. */
    int64_t size = am_dtype_size(t->dtype), end;
    bool any = am_shape_numel(ndim, shape) > 0;
    bool fits = offset >= 0 && !__builtin_add_overflow(t->offset, offset, &end) &&
                !__builtin_add_overflow(end, any, &end);
    for (int i = 0; i < ndim && fits; i++) {
        int64_t reach;
        fits = strides[i] >= 0 &&
               !__builtin_mul_overflow(strides[i], any ? shape[i] - 1 : 0, &reach) &&
               !__builtin_add_overflow(end, reach, &end);
    }
    if (!fits || end > INT64_MAX / 16 || (uint64_t)(end * size) > t->storage->bytes)
        return am_fail(AM_ESHAPE, "as_strided reaches outside the tensor's storage");
    AM_TRY(am_tensor_view(out, t, ndim, shape, strides, offset));
    am_scope_register(*out);
    return AM_OK;
}

/* ---- host transfers --------------------------------------------------------------------- */

static int transfer(const am_tensor *t, void *dev, void *host, size_t bytes, int kind)
{
    const am_backend *be;
    am_stream *stream;
    AM_TRY(am_device_open(t->device, &be, &stream));
    if (bytes == 0)
        return AM_OK;
    if (kind == AM_COPY_TO_DEVICE)
        return be->transfer(stream, dev, host, bytes, kind);
    AM_TRY(am_device_settle(t->device));
    return be->transfer(stream, host, dev, bytes, kind);
}

static int check_bytes(const am_tensor *t, size_t bytes, const char *what)
{
    char text[96];
    size_t need = (size_t)am_tensor_numel(t) * (size_t)am_dtype_size(t->dtype);
    if (bytes != need)
        return am_fail(AM_ESHAPE, "%s: %zu bytes for a %s tensor %s of %zu bytes", what, bytes,
                       am_dtype_name(t->dtype), am_shape_text(text, t->ndim, t->shape), need);
    return AM_OK;
}

int am_tensor_write(am_tensor *t, const void *src, size_t bytes)
{
    AM_TRY(am_tensor_check_alive(t, "write"));
    AM_TRY(check_bytes(t, bytes, "write"));
    if (am_tensor_dense(t))
        return transfer(t, am_tensor_ptr(t), (void *)(uintptr_t)src, bytes, AM_COPY_TO_DEVICE);
    am_tensor *dense;
    AM_TRY(am_tensor_make(&dense, t->dtype, t->ndim, t->shape, t->device));
    int rc = am_tensor_write(dense, src, bytes);
    if (rc == AM_OK)
        rc = am_tensor_copy(t, dense);
    am_tensor_release(dense);
    return rc;
}

int am_tensor_read(const am_tensor *t, void *dst, size_t bytes)
{
    AM_TRY(am_tensor_check_alive(t, "read"));
    AM_TRY(check_bytes(t, bytes, "read"));
    if (am_tensor_dense(t))
        return transfer(t, am_tensor_ptr(t), dst, bytes, AM_COPY_TO_HOST);
    am_tensor *dense;
    AM_TRY(am_tensor_make(&dense, t->dtype, t->ndim, t->shape, t->device));
    int rc = am_tensor_copy(dense, t);
    if (rc == AM_OK)
        rc = am_tensor_read(dense, dst, bytes);
    am_tensor_release(dense);
    return rc;
}

int am_floats_canonical(void *values, int dtype, int64_t n)
{
    float *f32 = values;
    double *f64 = values;
    if (dtype != AM_F32 && dtype != AM_F64)
        return am_fail(AM_EINVAL, "am_floats_canonical: float32 or float64, not %s",
                       am_dtype_name(dtype));
    for (int64_t i = 0; i < n; i++) {
        if (dtype == AM_F32 && isnan(f32[i]))
            f32[i] = NAN;
        else if (dtype == AM_F64 && isnan(f64[i]))
            f64[i] = (double)NAN;
    }
    return AM_OK;
}

int am_tensor_item(const am_tensor *t, double *value)
{
    char text[96];
    AM_TRY(am_tensor_check_alive(t, "item"));
    if (am_tensor_numel(t) != 1)
        return am_fail(AM_ESHAPE, "item: a tensor %s has not exactly one element",
                       am_shape_text(text, t->ndim, t->shape));
    union {
        float f32;
        double f64;
        uint16_t half;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
    } v;
    AM_TRY(transfer(t, am_tensor_ptr(t), &v, (size_t)am_dtype_size(t->dtype), AM_COPY_TO_HOST));
    switch (t->dtype) {
    case AM_F32:
        *value = (double)v.f32;
        break;
    case AM_F64:
        *value = v.f64;
        break;
    case AM_BF16:
        *value = (double)am_bf16_to_f32(v.half);
        break;
    case AM_F16:
        *value = (double)am_f16_to_f32(v.half);
        break;
    case AM_I32:
        *value = v.i32;
        break;
    case AM_I64:
        *value = (double)v.i64;
        break;
    default:
        *value = v.u8;
    }
    if (isnan(*value))
        *value = (double)NAN;
    return AM_OK;
}

/* ---- scopes ----------------------------------------------------------------------------- */

struct am_scope {
    am_scope *outer;
    am_tensor *first;
    int depth; /* 0: set aside */
};
static am_scope *innermost;

static void scope_link(am_scope *s, am_tensor *t)
{
    t->scope = s;
    t->scope_prev = NULL;
    t->scope_next = s->first;
    if (s->first)
        s->first->scope_prev = t;
    s->first = t;
}

static void scope_unlink(am_tensor *t)
{
    if (!t->scope)
        return;
    if (t->scope_prev)
        t->scope_prev->scope_next = t->scope_next;
    else
        t->scope->first = t->scope_next;
    if (t->scope_next)
        t->scope_next->scope_prev = t->scope_prev;
    t->scope = NULL;
}

void am_scope_register(am_tensor *t)
{
    if (innermost)
        scope_link(innermost, t);
}

int am_scope_push(void)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_scope)));
    return am_scope_take_up(p);
}

int am_scope_take_up(am_scope *s)
{
    if (!s || s->depth)
        return am_fail(AM_ESTATE, "am_scope_take_up: the scope was not set aside");
    s->outer = innermost;
    s->depth = am_scope_depth() + 1;
    innermost = s;
    return AM_OK;
}

int am_scope_set_aside(am_scope **out)
{
    if (!innermost)
        return am_fail(AM_ESTATE, "am_scope_set_aside without a push");
    *out = innermost;
    innermost = innermost->outer;
    (*out)->depth = 0;
    return AM_OK;
}

int am_scope_keep(am_tensor *t)
{
    AM_TRY(am_tensor_check_given(t, "am.keep"));
    am_scope *s = t->scope;
    if (s && s == innermost) { /* what an outer scope made stays that scope's */
        scope_unlink(t);
        if (s->outer)
            scope_link(s->outer, t);
    }
    return AM_OK;
}

int am_scope_escape(am_tensor *t)
{
    AM_TRY(am_tensor_check_given(t, "am.escape"));
    scope_unlink(t);
    return AM_OK;
}

int am_scope_pop(void)
{
    am_scope *s = innermost;
    if (!s)
        return am_fail(AM_ESTATE, "am_scope_pop without a push");
    while (s->first) {
        am_tensor *t = s->first;
        scope_unlink(t);
        am_tensor_drop(t);
    }
    innermost = s->outer;
    am_free(s);
    return AM_OK;
}

int am_scope_depth(void)
{
    return innermost ? innermost->depth : 0;
}
