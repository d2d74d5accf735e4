/* op_run.c — see op_run.h. */
#include "op_run.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "dtype.h"

/* ---- cases ------------------------------------------------------------------------------- */

const op_case *case_at(int i)
{
    const case_table *tables[] = {&elem_cases, &shape_cases, &matrix_cases, &decoder_cases};
    for (int t = 0; t < 4; i -= tables[t++]->n)
        if (i < tables[t]->n)
            return &tables[t]->cases[i];
    return NULL;
}

int case_n_in(const op_case *c)
{
    int n = 0;
    for (int i = 0; i < CASE_INPUTS; i++)
        if (c->in[i].kind != IN_NONE)
            n = i + 1;
    return n;
}

static int is_float_kind(int kind)
{
    return kind >= IN_NORMAL && kind <= IN_SPACED;
}

unsigned case_differentiable(const op_case *c)
{
    unsigned mask = 0;
    if (am_op_differentiable(c->op))
        for (int i = 0; i < CASE_INPUTS; i++)
            if (is_float_kind(c->in[i].kind))
                mask |= 1u << i;
    return mask;
}

static int64_t numel(const op_input *in)
{
    int64_t n = 1;
    for (int d = 0; d < in->ndim; d++)
        n *= in->shape[d];
    return n;
}

const char *case_text(const op_case *c)
{
    static char text[256];
    int at = snprintf(text, sizeof text, "%s", c->name);
    for (int i = 0; i < case_n_in(c); i++) {
        char shape[96];
        if (c->in[i].kind == IN_ABSENT)
            at += snprintf(text + at, sizeof text - (size_t)at, " -");
        else
            at += snprintf(text + at, sizeof text - (size_t)at, " %s",
                           am_shape_text(shape, c->in[i].ndim, c->in[i].shape));
    }
    return text;
}

/* ---- values ------------------------------------------------------------------------------ */

static double u01(uint64_t stream, int64_t i)
{
    return ((double)am_rng_u32(99, stream, (uint64_t)i) + 0.5) / 4294967296.0;
}

/* A permutation of 0..n-1 by a multiplier that is prime to n. */
static int64_t permuted(int64_t i, int64_t n)
{
    int64_t step = n > 2 ? n * 5 / 8 + 1 : 1, a = n, b = step;
    while (b != 1) { /* step up until gcd(n, step) is 1 */
        a = n;
        b = step;
        while (b > 1) {
            int64_t r = a % b;
            a = b;
            b = r;
        }
        if (b == 1)
            break;
        step++;
    }
    return (i * step + 1) % n;
}

static double value_of(const op_input *in, int which, int64_t i)
{
    uint64_t stream = (uint64_t)(in->kind * 16 + which);
    double u = u01(stream, i), s = u01(stream + 1000, i) < 0.5 ? -1 : 1;
    int64_t n = numel(in), t;
    switch (in->kind) {
    case IN_NORMAL:
        return 4 * u - 2;
    case IN_POSITIVE:
        return 0.3 + 2 * u;
    case IN_AWAY:
        return s * (0.1 + 1.9 * u);
    case IN_SPACED:
        if (in->ndim == 0)
            return 0.845 + 0.01 * (which + 1);
        return ((double)(permuted(i, n) - n / 2)) * 0.05 + 0.01 * (which + 1);
    case IN_TABLE:
        return 2 * u - 1;
    case IN_FREQ:
        return pow(1e-4, (double)i / (double)n);
    case IN_INDEX32:
    case IN_INDEX64:
    case IN_POS32:
        return floor(u * (double)in->n);
    case IN_LABEL32:
    case IN_LABEL64:
        return u01(stream + 2000, i) < 0.3 ? -100 : floor(u * (double)in->n);
    case IN_BOUNDS: /* start, end: about -1..n/2 and n/2..n+1, some the wrong way round */
        if (i % 2 == 0)
            return floor(u * (double)in->n * 0.6) - 1;
        return floor((double)in->n * (0.4 + 0.7 * u));
    case IN_GROUPS: /* every third group has no rows; the others grow */
        if (i == 0 || i == n - 1)
            return (double)(i ? in->n : 0);
        i -= i % 3 == 2;
        return floor((double)(in->n * i * i) / (double)((n - 1) * (n - 1)));
    case IN_PACKED: { /* scales of 0.25 to 0.5, and codes */
        float scale = (float)(0.25 + 0.25 * u01(stream, i / 4));
        return i < 4 * in->n ? ((const uint8_t *)&scale)[i % 4] : floor(256 * u);
    }
    case IN_PACK:
        t = i / 2 % in->shape[1];
        return (double)((t / in->n + i % 2) * in->n);
    default:
        return u < 0.5;
    }
}

static int dtype_of(int kind, int dtype)
{
    switch (kind) {
    case IN_TABLE:
    case IN_FREQ:
        return AM_F32;
    case IN_INDEX32:
    case IN_LABEL32:
    case IN_POS32:
    case IN_BOUNDS:
    case IN_GROUPS:
    case IN_PACK:
        return AM_I32;
    case IN_INDEX64:
    case IN_LABEL64:
        return AM_I64;
    case IN_BOOL:
        return AM_BOOL;
    case IN_PACKED:
        return AM_U8;
    default:
        return dtype;
    }
}

/* Doubles to a dtype's bytes. */
static void encode(void *to, int dtype, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case AM_F32:
            ((float *)to)[i] = (float)from[i];
            break;
        case AM_BF16:
            ((uint16_t *)to)[i] = am_f32_to_bf16((float)from[i]);
            break;
        case AM_F16:
            ((uint16_t *)to)[i] = am_f32_to_f16((float)from[i]);
            break;
        case AM_F64:
            ((double *)to)[i] = from[i];
            break;
        case AM_I32:
            ((int32_t *)to)[i] = (int32_t)from[i];
            break;
        case AM_I64:
            ((int64_t *)to)[i] = (int64_t)from[i];
            break;
        default:
            ((uint8_t *)to)[i] = (uint8_t)from[i];
        }
}

static void decode(double *to, int dtype, const void *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case AM_F32:
            to[i] = (double)((const float *)from)[i];
            break;
        case AM_BF16:
            to[i] = (double)am_bf16_to_f32(((const uint16_t *)from)[i]);
            break;
        case AM_F16:
            to[i] = (double)am_f16_to_f32(((const uint16_t *)from)[i]);
            break;
        case AM_F64:
            to[i] = ((const double *)from)[i];
            break;
        case AM_I32:
            to[i] = ((const int32_t *)from)[i];
            break;
        case AM_I64:
            to[i] = (double)((const int64_t *)from)[i];
            break;
        default:
            to[i] = ((const uint8_t *)from)[i];
        }
}

static void *grab(int64_t n, size_t size)
{
    void *p = calloc(n > 0 ? (size_t)n : 1, size);
    ck_assert_ptr_nonnull(p);
    return p;
}

void case_fill(const op_case *c, int dtype, case_values *values)
{
    memset(values, 0, sizeof *values);
    for (int i = 0; i < case_n_in(c); i++) {
        const op_input *in = &c->in[i];
        if (in->kind == IN_ABSENT)
            continue;
        int64_t n = values->n[i] = numel(in);
        double *v = values->v[i] = grab(n, sizeof *v);
        for (int64_t j = 0; j < n; j++)
            v[j] = value_of(in, i, j);
        void *bytes = grab(n, 8);
        encode(bytes, dtype_of(in->kind, dtype), v, n);
        decode(v, dtype_of(in->kind, dtype), bytes, n);
        free(bytes);
    }
}

void case_values_free(case_values *values)
{
    for (int i = 0; i < CASE_INPUTS; i++)
        free(values->v[i]);
}

/* ---- running ----------------------------------------------------------------------------- */

static void must(int rc, const op_case *c, const char *what)
{
    if (rc != AM_OK)
        ck_abort_msg("%s: %s: %s (%s)", case_text(c), what, am_error_message(), am_error_name(rc));
}

double out_weight(int64_t i)
{
    return 0.5 + 2 * u01(77, i) * (u01(78, i) < 0.5 ? -1 : 1);
}

/* A tensor with the values in the layout. */
static am_tensor *input_new(const op_case *c, const op_input *in, const double *v,
                            const run_opts *o)
{
    int dtype = dtype_of(in->kind, o->dtype);
    int64_t n = numel(in), stride[CASE_DIMS], room = 1, one[1];
    am_tensor *t, *base;
    for (int d = in->ndim - 1; d >= 0; d--) {
        int k = o->layout == LAYOUT_TRANSPOSED ? in->ndim - 1 - d : d;
        stride[k] = room;
        room *= in->shape[k];
    }
    void *bytes = grab(n, 8);
    encode(bytes, dtype, v, n);
    size_t size = (size_t)n * (size_t)am_dtype_size(dtype);
    if (o->layout == LAYOUT_DENSE || in->ndim == 0) {
        must(am_tensor_new(&t, dtype, in->ndim, in->shape, o->device), c, "new");
    } else {
        int64_t offset = 0;
        if (o->layout == LAYOUT_GAPS) {
            for (int d = 0; d < in->ndim; d++)
                stride[d] *= 2;
            room *= 2;
            offset = 1;
        }
        one[0] = room;
        must(am_tensor_new(&base, dtype, 1, one, o->device), c, "new");
        must(am_tensor_fill(base, am_dtype_is_float(dtype) ? NAN : 1), c, "fill");
        must(am_tensor_as_strided(&t, base, in->ndim, in->shape, stride, n ? offset : 0), c,
             "as_strided");
        am_tensor_release(base);
    }
    must(am_tensor_write(t, bytes, size), c, "write");
    free(bytes);
    return t;
}

static am_tensor *weights_new(const op_case *c, am_tensor *out)
{
    am_tensor *r;
    int64_t n = am_tensor_numel(out);
    int dtype = am_tensor_dtype(out);
    must(am_tensor_new(&r, dtype, am_tensor_ndim(out), am_tensor_shape(out), am_tensor_device(out)),
         c, "weights");
    double *w = grab(n, sizeof *w);
    for (int64_t i = 0; i < n; i++)
        w[i] = out_weight(i);
    void *bytes = grab(n, 8);
    encode(bytes, dtype, w, n);
    must(am_tensor_write(r, bytes, (size_t)n * (size_t)am_dtype_size(dtype)), c, "weights");
    free(bytes);
    free(w);
    return r;
}

static double *read_all(const op_case *c, am_tensor *t, void **bits)
{
    int64_t n = am_tensor_numel(t);
    int dtype = am_tensor_dtype(t);
    void *bytes = grab(n, 8);
    must(am_tensor_read(t, bytes, (size_t)n * (size_t)am_dtype_size(dtype)), c, "read");
    double *v = grab(n, sizeof *v);
    decode(v, dtype, bytes, n);
    if (bits)
        *bits = bytes;
    else
        free(bytes);
    return v;
}

static int backward(const op_case *c, am_tensor **outs, int n)
{
    am_tensor *weights[8];
    am_event ev;
    for (int i = 0; i < n; i++)
        weights[i] = weights_new(c, outs[i]);
    int rc = am_backward_begin_many(outs, weights, n);
    if (rc == AM_OK)
        rc = am_backward_next(&ev);
    if (rc == AM_OK)
        ck_assert_int_eq(ev.kind, AM_EV_DONE);
    for (int i = 0; i < n; i++)
        am_tensor_release(weights[i]);
    return rc;
}

static void keep_output(const op_case *c, am_tensor *out, run_result *r)
{
    r->dtype = am_tensor_dtype(out);
    r->ndim = am_tensor_ndim(out);
    memcpy(r->shape, am_tensor_shape(out), (size_t)r->ndim * sizeof *r->shape);
    r->n = am_tensor_numel(out);
    r->out = read_all(c, out, &r->bits);
}

/* Forward `applies` times, then backward. */
static int once(const op_case *c, am_tensor *const *leaves, const run_opts *o, run_result *r)
{
    am_tensor *in[CASE_INPUTS] = {NULL}, *outs[8] = {NULL};
    int applies = o->applies ? o->applies : 1, rc = AM_OK, n_in = r->n_in;
    const am_attrs unity = {.scalar = {1}};
    for (int i = 0; i < n_in; i++) {
        if (leaves[i] && o->computed && (o->wants >> i & 1))
            must(am_apply(AM_OP_mul_scalar, &in[i], &leaves[i], 1, &unity), c, "mul_scalar");
        else if (leaves[i])
            am_tensor_retain(in[i] = leaves[i]);
    }
    if (o->shared) {
        am_tensor_release(in[o->shared_with]);
        am_tensor_retain(in[o->shared_with] = in[o->shared - 1]);
    }
    for (int i = 0; i < applies && rc == AM_OK; i++) {
        am_rng_set(1234, 7);
        rc = am_apply(c->op, &outs[i], in, n_in, &c->attrs);
    }
    if (rc == AM_OK && !r->out)
        keep_output(c, outs[0], r);
    if (rc == AM_OK && o->wants && am_tensor_requires_grad(outs[0]))
        rc = backward(c, outs, applies);
    for (int i = 0; i < applies; i++)
        am_tensor_release(outs[i]);
    for (int i = 0; i < n_in; i++)
        am_tensor_release(in[i]);
    return rc;
}

int case_run(const op_case *c, const case_values *values, const run_opts *o, run_result *r)
{
    am_tensor *leaves[CASE_INPUTS] = {NULL};
    memset(r, 0, sizeof *r);
    r->n_in = case_n_in(c);
    for (int i = 0; i < r->n_in; i++) {
        if (c->in[i].kind == IN_ABSENT)
            continue;
        leaves[i] = input_new(c, &c->in[i], values->v[i], o);
        if (o->wants >> i & 1)
            must(am_tensor_set_requires_grad(leaves[i], 1), c, "requires_grad");
    }
    int rc = AM_OK;
    for (int i = 0; i < (o->backwards ? o->backwards : 1) && rc == AM_OK; i++)
        rc = once(c, leaves, o, r);
    if (rc == AM_OK)
        rc = am_device_sync(o->device);
    for (int i = 0; i < r->n_in; i++) {
        am_tensor *g = NULL;
        if (rc == AM_OK && leaves[i])
            must(am_tensor_grad(&g, leaves[i]), c, "grad");
        if (g) {
            r->n_grad[i] = am_tensor_numel(g);
            r->grad[i] = read_all(c, g, NULL);
        }
        am_tensor_release(g);
        am_tensor_release(leaves[i]);
    }
    ck_assert_msg(am_tape_length() == 0, "%s: the tape holds nodes after the run", case_text(c));
    if (rc != AM_OK && rc != AM_EUNSUP)
        must(rc, c, "run");
    return rc;
}

void run_result_free(run_result *r)
{
    free(r->out);
    free(r->bits);
    for (int i = 0; i < CASE_INPUTS; i++)
        free(r->grad[i]);
}

/* ---- comparing --------------------------------------------------------------------------- */

static double allowed(const double *want, int64_t i, double largest, tolerance t)
{
    return t.rel * fmax(fmax(fabs(want[i]), largest * t.floor_share), t.floor_abs);
}

static double largest_of(const double *v, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i]) && fabs(v[i]) > largest)
            largest = fabs(v[i]);
    return largest;
}

int64_t first_off(const double *got, const double *want, int64_t n, tolerance t)
{
    double largest = largest_of(want, n);
    for (int64_t i = 0; i < n; i++) {
        /* Written so that NaN is not close. */
        bool close = got[i] == want[i] ||
                     (isfinite(want[i]) && fabs(got[i] - want[i]) <= allowed(want, i, largest, t));
        if (!close)
            return i;
    }
    return -1;
}

void check_close(const char *what, const double *got, const double *want, int64_t n, tolerance t)
{
    int64_t i = first_off(got, want, n, t);
    if (i >= 0)
        ck_abort_msg(
            "%s: element %lld of %lld is %.17g, expected %.17g (off by %.3g, allowed %.3g)", what,
            (long long)i, (long long)n, got[i], want[i], fabs(got[i] - want[i]),
            allowed(want, i, largest_of(want, n), t));
}
