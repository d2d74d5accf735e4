/* op.c — the registry's tables and am_apply, the one way to run an op; and the helpers that op
 * families share. Holds no op of its own. */
#include "op.h"

#include <string.h>

#include "tape.h"

#define OP(name, min_in, max_in, n_out, attrs, doc) extern const am_op_impl am_op_impl_##name;
#include "ops.def"
#undef OP

static const struct {
    const char *name, *doc, *attrs;
    int min_in, max_in, n_out;
    const am_op_impl *impl;
} ops[AM_OP_COUNT] = {
#define OP(name, min_in, max_in, n_out, attrs, doc)                                                \
    [AM_OP_##name] = {#name, doc, #attrs, min_in, max_in, n_out, &am_op_impl_##name},
#include "ops.def"
#undef OP
};

/* ---- the registry ----------------------------------------------------------------------- */

static bool known(int op)
{
    return op >= 0 && op < AM_OP_COUNT;
}

const char *am_op_name(int op)
{
    return known(op) ? ops[op].name : "?";
}

const char *am_op_doc(int op)
{
    return known(op) ? ops[op].doc : "";
}

const char *am_op_attrs(int op)
{
    return known(op) ? ops[op].attrs : "";
}

int am_op_find(int *op, const char *name)
{
    for (int i = 0; name && i < AM_OP_COUNT; i++)
        if (strcmp(name, ops[i].name) == 0) {
            *op = i;
            return AM_OK;
        }
    return am_fail(AM_EINVAL, "there is no op \"%s\"", name ? name : "");
}

int am_op_arity(int op, int *min_in, int *max_in, int *n_out)
{
    if (!known(op))
        return am_fail(AM_EINVAL, "op %d does not exist", op);
    *min_in = ops[op].min_in;
    *max_in = ops[op].max_in;
    *n_out = ops[op].n_out;
    return AM_OK;
}

int am_op_differentiable(int op)
{
    return known(op) && ops[op].impl->backward != NULL;
}

int am_op_supported(int op, int device, int dtype)
{
    const am_backend *be;
    if (!known(op) || !am_dtype_size(dtype) || am_device_open(device, &be, NULL) != AM_OK)
        return 0;
    for (int i = 0; i < AM_OP_KERNELS && ops[op].impl->kernels[i]; i++) {
        void (*slot)(void);
        memcpy(&slot, (const char *)be + ops[op].impl->kernels[i], sizeof slot);
        if (!slot)
            return 0;
    }
    return 1;
}

int am_op_backward(int op, am_bwd *b)
{
    return ops[op].impl->backward(b);
}

bool am_op_can_recompute(int op)
{
    return known(op) && ops[op].impl->recompute != NULL;
}

int am_op_recompute(int op, const am_bwd *b, am_tensor *out)
{
    return ops[op].impl->recompute(b, out);
}

/* ---- apply ------------------------------------------------------------------------------ */

static int check_inputs(am_call *c)
{
    const char *name = am_op_name(c->op);
    if (c->n_in < ops[c->op].min_in || c->n_in > ops[c->op].max_in)
        return am_fail(AM_EINVAL, "%s takes %d to %d tensors, not %d", name, ops[c->op].min_in,
                       ops[c->op].max_in, c->n_in);
    for (int i = 0; i < c->n_in; i++) {
        if (!c->in[i] && i >= ops[c->op].min_in)
            continue;
        AM_TRY(am_tensor_check_alive(c->in[i], name));
        if (i == 0)
            c->device = c->in[i]->device;
        else if (c->in[i]->device != c->device)
            return am_fail(AM_EDEVICE, "%s: tensors on %s and %s; move one with :to(device)", name,
                           am_device_name(c->device), am_device_name(c->in[i]->device));
    }
    return AM_OK;
}

/* Bytes of what the call reads and writes; views and scalars count as what they show. */
static int64_t call_bytes(const am_call *c)
{
    int64_t bytes = am_tensor_bytes(c->out[0]);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i])
            bytes += am_tensor_bytes(c->in[i]);
    return bytes;
}

static void call_free(am_call *c)
{
    am_temps_free(&c->temps);
    for (int i = 0; i < AM_OP_SAVED; i++)
        am_tensor_release(c->saved[i]);
}

int am_apply(int op, am_tensor **out, am_tensor *const *in, int n_in, const am_attrs *attrs)
{
    if (!known(op))
        return am_fail(AM_EINVAL, "op %d does not exist", op);
    am_call c = {.op = op, .in = in, .n_in = n_in};
    if (attrs)
        c.attrs = *attrs;
    else if (strcmp(ops[op].attrs, "NONE") != 0)
        return am_fail(AM_EINVAL, "%s needs its attributes (%s)", ops[op].name, ops[op].attrs);
    AM_TRY(am_signals_check());
    AM_TRY(check_inputs(&c));
    AM_TRY(am_tape_inspect(&c));
    if (!ops[op].impl->backward)
        c.record = false;
    uint64_t seed, stream;
    (void)am_rng_get(&seed, &stream);
    am_span span = am_span_begin();
    int rc = ops[op].impl->forward(&c);
    if (am_profiling && rc == AM_OK)
        am_span_end(&span, ops[op].name, AM_PHASE_FORWARD, c.device, call_bytes(&c));
    if (rc == AM_OK && c.record)
        rc = am_tape_record(&c);
    if (rc != AM_OK) {
        (void)am_rng_set(seed, stream); /* tried again, it draws the same numbers */
        am_tensor_release(c.out[0]);
        const char *name = ops[op].name;
        if (strncmp(am_error_message(), name, strlen(name)) != 0)
            (void)am_fail_context(rc, "%s", name);
    } else {
        out[0] = c.out[0];
        am_scope_register(out[0]);
    }
    call_free(&c);
    return rc;
}

int am_out(am_call *c, int dtype, int ndim, const int64_t *shape)
{
    return am_tensor_make(&c->out[0], dtype, ndim, shape, c->device);
}

int am_save(am_call *c, int slot, am_tensor *t)
{
    if (!c->record || !t)
        return AM_OK;
    if (!t->moves)
        return am_tensor_alias(&c->saved[slot], t);
    am_tensor_retain(t);
    c->saved[slot] = t;
    return AM_OK;
}

/* ---- temporaries ------------------------------------------------------------------------ */

int am_temp_new(am_temps *temps, am_tensor **out, int dtype, int ndim, const int64_t *shape,
                int device)
{
    if (temps->n == AM_OP_TEMPS)
        return am_fail(AM_ESTATE, "an op uses more than %d temporaries", AM_OP_TEMPS);
    AM_TRY(am_tensor_make(out, dtype, ndim, shape, device));
    temps->t[temps->n++] = *out;
    return AM_OK;
}

int am_temp_dense(am_temps *temps, am_tensor **out, am_tensor *t)
{
    if (am_tensor_dense(t)) {
        *out = t;
        return AM_OK;
    }
    AM_TRY(am_temp_new(temps, out, t->dtype, t->ndim, t->shape, t->device));
    return am_copy_kernel(*out, t, 0);
}

void am_temps_free(am_temps *temps)
{
    while (temps->n > 0)
        am_tensor_release(temps->t[--temps->n]);
}

/* ---- checks ----------------------------------------------------------------------------- */

int am_check_float(const am_call *c, int i)
{
    if (!am_dtype_is_float(c->in[i]->dtype))
        return am_fail(AM_EINVAL, "%s: input %d is %s; a floating dtype is needed",
                       am_op_name(c->op), i + 1, am_dtype_name(c->in[i]->dtype));
    return AM_OK;
}

int am_check_int(const am_call *c, int i)
{
    int dtype = c->in[i]->dtype;
    if (dtype != AM_I32 && dtype != AM_I64)
        return am_fail(AM_EINVAL, "%s: input %d is %s; int32 or int64 is needed", am_op_name(c->op),
                       i + 1, am_dtype_name(dtype));
    return AM_OK;
}

int am_check_same_dtype(const am_call *c, int i, int j)
{
    if (c->in[i]->dtype != c->in[j]->dtype)
        return am_fail(AM_EINVAL, "%s: dtypes %s and %s differ; cast one with :to(dtype)",
                       am_op_name(c->op), am_dtype_name(c->in[i]->dtype),
                       am_dtype_name(c->in[j]->dtype));
    return AM_OK;
}

int am_check_bias(const am_call *c, int i, int64_t n)
{
    char text[96];
    const am_tensor *bias = i < c->n_in ? c->in[i] : NULL;
    if (!bias)
        return AM_OK;
    AM_TRY(am_check_same_dtype(c, 0, i));
    if (bias->ndim != 1 || bias->shape[0] != n)
        return am_fail(AM_ESHAPE, "%s: the bias %s must be as long as the weight, %lld",
                       am_op_name(c->op), am_shape_text(text, bias->ndim, bias->shape),
                       (long long)n);
    return AM_OK;
}

int am_check_dim(const am_call *c, int ndim, int dim, int *out)
{
    int d = dim < 0 ? dim + ndim : dim;
    if (d < 0 || d >= ndim)
        return am_fail(AM_ESHAPE, "%s: dim %d of a tensor with %d dims", am_op_name(c->op), dim,
                       ndim);
    *out = d;
    return AM_OK;
}

/* ---- walking operands together ---------------------------------------------------------- */

int am_nd_make(am_nd *nd, int ndim, const int64_t *shape, int n, am_tensor *const *operands)
{
    int dims = 0;
    int64_t size[AM_MAX_DIMS], stride[AM_ND_OPERANDS][AM_MAX_DIMS];
    for (int d = 0; d < ndim; d++) {
        if (shape[d] == 1)
            continue;
        int64_t s[AM_ND_OPERANDS] = {0};
        for (int j = 0; j < n; j++) {
            int dj = d - (ndim - operands[j]->ndim);
            s[j] = dj < 0 || operands[j]->shape[dj] == 1 ? 0 : operands[j]->stride[dj];
        }
        /* Join with the dim before when every operand steps over it evenly. */
        bool join = dims > 0;
        for (int j = 0; join && j < n; j++)
            join = stride[j][dims - 1] == s[j] * shape[d];
        if (join)
            size[dims - 1] *= shape[d];
        else
            size[dims++] = shape[d];
        for (int j = 0; j < n; j++)
            stride[j][dims - 1] = s[j];
    }
    *nd = (am_nd){.ndim = dims};
    for (int d = 0; d < dims; d++) {
        nd->shape[d] = size[d];
        for (int j = 0; j < n; j++)
            nd->stride[j][d] = stride[j][d];
    }
    return AM_OK;
}

int am_copy_kernel(am_tensor *dst, am_tensor *src, int accumulate)
{
    if (am_tensor_numel(dst) == 0)
        return AM_OK;
    am_copy_args a = {.out = am_tensor_ptr(dst),
                      .a = am_tensor_ptr(src),
                      .dtype_out = dst->dtype,
                      .dtype_a = src->dtype,
                      .accumulate = accumulate};
    am_tensor *operands[] = {dst, src};
    AM_TRY(am_nd_make(&a.nd, dst->ndim, dst->shape, 2, operands));
    return am_launch_copy(dst->device, &a);
}

static bool broadcasts_to(const am_tensor *src, const am_tensor *dst)
{
    for (int i = 1; i <= src->ndim; i++) {
        int64_t s = src->shape[src->ndim - i];
        if (s != 1 && (i > dst->ndim || s != dst->shape[dst->ndim - i]))
            return false;
    }
    return src->ndim <= dst->ndim;
}

int am_tensor_copy(am_tensor *dst, const am_tensor *src)
{
    char a[96], b[96];
    AM_TRY(am_tensor_check_alive(dst, "copy"));
    AM_TRY(am_tensor_check_alive(src, "copy"));
    if (!broadcasts_to(src, dst))
        return am_fail(AM_ESHAPE, "copy: %s into %s does not fit",
                       am_shape_text(a, src->ndim, src->shape),
                       am_shape_text(b, dst->ndim, dst->shape));
    am_tensor *from = (am_tensor *)(uintptr_t)src, *moved = NULL;
    int rc = AM_OK;
    if (src->device != dst->device) { /* through the host, as dense bytes */
        size_t bytes = (size_t)am_tensor_numel(src) * (size_t)am_dtype_size(src->dtype);
        void *host = am_device_is_host(src->device) && am_tensor_dense(src)
                         ? am_tensor_ptr(src)
                         : am_scratch(0, bytes ? bytes : 1);
        if (!host)
            return am_fail(AM_ENOMEM, "copy: out of memory for %zu bytes", bytes);
        if (!(am_device_is_host(src->device) && am_tensor_dense(src)))
            AM_TRY(am_tensor_read(src, host, bytes));
        AM_TRY(am_tensor_make(&moved, src->dtype, src->ndim, src->shape, dst->device));
        AM_TRY_OUT(am_tensor_write(moved, host, bytes));
        from = moved;
    }
    rc = am_copy_kernel(dst, from, 0);
out:
    am_tensor_release(moved);
    return rc;
}

int am_tensor_append(am_tensor **out, am_tensor *store, const am_tensor *src, int64_t at)
{
    char ts[96], tt[96];
    AM_TRY(am_tensor_check_alive(store, "append"));
    AM_TRY(am_tensor_check_alive(src, "append"));
    bool fits = store->ndim >= 2 && src->ndim == store->ndim && at >= 0 &&
                src->shape[1] <= store->shape[1] && at <= store->shape[1] - src->shape[1];
    for (int d = 0; fits && d < store->ndim; d++)
        fits = d == 1 || src->shape[d] == store->shape[d];
    if (!fits)
        return am_fail(AM_ESHAPE, "append: %s does not fit into %s at %lld",
                       am_shape_text(ts, src->ndim, src->shape),
                       am_shape_text(tt, store->ndim, store->shape), (long long)at);
    am_tensor *place;
    AM_TRY(
        am_tensor_view(&place, store, src->ndim, src->shape, store->stride, at * store->stride[1]));
    int rc = am_tensor_copy(place, src);
    am_tensor_release(place);
    AM_TRY(rc);
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, store->shape, sizeof shape);
    shape[1] = at + src->shape[1];
    AM_TRY(am_tensor_view(out, store, store->ndim, shape, store->stride, 0));
    am_scope_register(*out);
    return AM_OK;
}

int am_tensor_fill(am_tensor *t, double value)
{
    AM_TRY(am_tensor_check_alive(t, "fill"));
    if (am_tensor_numel(t) == 0)
        return AM_OK;
    am_fill_args a = {.out = am_tensor_ptr(t), .value = value, .dtype = t->dtype};
    AM_TRY(am_nd_make(&a.nd, t->ndim, t->shape, 1, &t));
    return am_launch_fill(t->device, &a);
}
