/* op_matmul.c — matmul, linear and lora_linear: everything that is a matrix product.
 * Holds no kernel: they all come down to the backend's gemm, to its gemv in inference mode, to its
 * low_rank, and with a packed weight (op_packed.c) to its packed_gemm. */
#include "op_packed.h"

#include <string.h>

#include "../core/rng_state.h"

/* ---- one dense gemm --------------------------------------------------------------------- */

/* y [rows, n] (+)= alpha x w^T + bias: the same, as inference mode has it. */
static int gemv(am_tensor *y, am_tensor *x, am_tensor *w, am_tensor *bias, int64_t rows, int64_t n,
                int64_t k, double alpha, int accumulate)
{
    return am_launch_gemv(y->device, &(am_gemv_args){.y = am_tensor_ptr(y),
                                                     .x = am_tensor_ptr(x),
                                                     .w = am_tensor_ptr(w),
                                                     .bias = bias ? am_tensor_ptr(bias) : NULL,
                                                     .dtype = y->dtype,
                                                     .accumulate = accumulate,
                                                     .alpha = alpha,
                                                     .rows = rows,
                                                     .n = n,
                                                     .k = k});
}

/* Inference mode's products with a transposed weight are gemv's, for a few rows. */
static bool is_gemv(int64_t m, bool ta, bool tb)
{
    return am_grad_mode() == AM_GRAD_INFERENCE && m <= AM_FEW_ROWS && !ta && tb;
}

static am_gemm_args dense(am_tensor *c, am_tensor *a, bool ta, am_tensor *b, bool tb,
                          am_tensor *bias, int64_t m, int64_t n, int64_t k, int accumulate)
{
    return (am_gemm_args){.c = am_tensor_ptr(c),
                          .a = am_tensor_ptr(a),
                          .b = am_tensor_ptr(b),
                          .bias = bias ? am_tensor_ptr(bias) : NULL,
                          .dtype_ab = a->dtype,
                          .dtype_c = c->dtype,
                          .trans_a = ta,
                          .trans_b = tb,
                          .accumulate = accumulate,
                          .alpha = 1,
                          .m = m,
                          .n = n,
                          .k = k,
                          .lda = ta ? m : k,
                          .ldb = tb ? k : n,
                          .ldc = n,
                          .batch = 1};
}

/* c [m, n] (+)= alpha op(a) op(b) + bias on dense row-major matrices. */
static int gemm(am_tensor *c, am_tensor *a, bool ta, am_tensor *b, bool tb, am_tensor *bias,
                int64_t m, int64_t n, int64_t k, double alpha, int accumulate)
{
    if (m == 0 || n == 0)
        return AM_OK;
    if (is_gemv(m, ta, tb))
        return gemv(c, a, b, bias, m, n, k, alpha, accumulate);
    am_gemm_args args = dense(c, a, ta, b, tb, bias, m, n, k, accumulate);
    args.alpha = alpha;
    return am_launch_gemm(c->device, &args);
}

/* c [m, n] (+)= a op(b) + bias + u op(v), with u [m, r]; op transposes both, or neither. */
static int gemm_low_rank(am_tensor *c, am_tensor *a, am_tensor *b, am_tensor *bias, am_tensor *u,
                         am_tensor *v, bool trans, int64_t m, int64_t n, int64_t k, int64_t r,
                         int accumulate)
{
    if (m == 0 || n == 0)
        return AM_OK;
    if (is_gemv(m, false, trans)) {
        AM_TRY(gemv(c, a, b, bias, m, n, k, 1, accumulate));
        return gemv(c, u, v, NULL, m, n, r, 1, 1);
    }
    am_gemm_args args = dense(c, a, false, b, trans, bias, m, n, k, accumulate);
    args.u = am_tensor_ptr(u);
    args.v = am_tensor_ptr(v);
    args.r = r;
    return am_launch_gemm(c->device, &args);
}

static int shape_mismatch(const am_call *c, const am_tensor *a, const am_tensor *b, const char *why)
{
    char ta[96], tb[96];
    return am_fail(AM_ESHAPE, "%s: %s x %s: %s", am_op_name(c->op),
                   am_shape_text(ta, a->ndim, a->shape), am_shape_text(tb, b->ndim, b->shape), why);
}

/* ---- linear: y = x W^T + b --------------------------------------------------------------
 * dx = dy W;  dW = dy^T x;  db = sum of dy over rows. */

/* A matrix that is dense when transposed (GPT-2's weights): it is multiplied as it lies. */
static bool is_turned(const am_tensor *w)
{
    return w->stride[0] == 1 && w->stride[1] == w->shape[0] && !am_tensor_is_contiguous(w);
}

static int linear_check(am_call *c)
{
    am_tensor *x = c->in[0], *w = c->in[1];
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (x->ndim < 1 || w->ndim != 2 || x->shape[x->ndim - 1] != w->shape[1])
        return shape_mismatch(c, x, w, "x's last dim must be the weight's second");
    return AM_OK;
}

static int linear_out(am_call *c, int64_t n)
{
    int64_t shape[AM_MAX_DIMS];
    am_tensor *x = c->in[0];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = n;
    return am_out(c, x->dtype, x->ndim, shape);
}

static int linear_forward(am_call *c)
{
    am_tensor *x, *w = c->in[1], *bias = NULL;
    AM_TRY(linear_check(c));
    AM_TRY(am_check_bias(c, 2, c->in[1]->shape[0]));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    if (!is_turned(w))
        AM_TRY(am_temp_dense(&c->temps, &w, w));
    if (c->n_in > 2 && c->in[2])
        AM_TRY(am_temp_dense(&c->temps, &bias, c->in[2]));
    AM_TRY(linear_out(c, w->shape[0]));
    AM_TRY(gemm(c->out[0], x, false, w, !is_turned(w), bias, am_rows_of(x), w->shape[0],
                w->shape[1], 1, 0));
    if (c->needs[1])
        AM_TRY(am_save(c, 0, x));
    if (c->needs[0])
        AM_TRY(am_save(c, 1, w));
    return AM_OK;
}

/* dx (+)= dout W */
static int linear_dx(am_bwd *b, int i, am_tensor *w)
{
    am_grad g;
    AM_TRY(am_grad_begin(b, i, true, &g));
    AM_TRY(gemm(g.t, b->dout, false, w, is_turned(w), NULL, am_rows_of(b->dout), w->shape[1],
                w->shape[0], 1, g.accumulate));
    return am_grad_end(b, i, &g);
}

/* dW (+)= dout^T x */
static int linear_dw(am_bwd *b, int i, am_tensor *x)
{
    am_grad g;
    int64_t n = b->dout->shape[b->dout->ndim - 1], k = x->shape[x->ndim - 1];
    AM_TRY(am_grad_begin(b, i, true, &g));
    AM_TRY(gemm(g.t, b->dout, true, x, false, NULL, n, k, am_rows_of(x), 1, g.accumulate));
    return am_grad_end(b, i, &g);
}

/* dbias (+)= sum of dout's rows */
static int linear_dbias(am_bwd *b, int i)
{
    am_grad g;
    int64_t n = b->dout->shape[b->dout->ndim - 1];
    AM_TRY(am_grad_begin(b, i, true, &g));
    AM_TRY(am_launch_reduce(b->device, &(am_reduce_args){.out = am_tensor_ptr(g.t),
                                                         .a = am_tensor_ptr(b->dout),
                                                         .op = AM_R_SUM,
                                                         .dtype = b->dout->dtype,
                                                         .dtype_out = g.t->dtype,
                                                         .accumulate = g.accumulate,
                                                         .scale = 1,
                                                         .outer = 1,
                                                         .n = am_rows_of(b->dout),
                                                         .inner = n}));
    return am_grad_end(b, i, &g);
}

static int linear_backward(am_bwd *b)
{
    if (b->needs[0])
        AM_TRY(linear_dx(b, 0, b->saved[1]));
    if (b->needs[1])
        AM_TRY(linear_dw(b, 1, b->saved[0]));
    if (b->n_in > 2 && b->needs[2])
        AM_TRY(linear_dbias(b, 2));
    return AM_OK;
}

AM_OP(linear, .forward = linear_forward, .backward = linear_backward,
      .kernels = {AM_KERNEL(gemm), AM_KERNEL(gemv), AM_KERNEL(reduce)});

/* ---- lora_linear: y = x W^T + b + s B A x ------------------------------------------------
 * With h = s A x' (x' = x, or x dropped) and z = B h (or z dropped), d = s B^T dz:
 *   dB = dz^T h;  dA = d^T x';  dx = dy W + d A (dropped again).
 * s goes into the small products: a scaled product that is added to another is slow in oneDNN.
 * B h and d A are added to a block of the large product while that is in cache; d and dB take one
 * pass over dz. */

/* One pass over a's rows: u = scale a p^T, unless it is NULL, and g (+)= t^T a, unless that is. p
 * and g are [r, k], or [k, r] when turned. */
static int low_rank(am_tensor *a, am_tensor *p, am_tensor *u, am_tensor *g, am_tensor *t,
                    bool turned, double scale, int accumulate)
{
    am_tensor *thin = u ? u : t;
    int64_t m = thin->shape[0], k = a->shape[a->ndim - 1], r = thin->shape[1];
    if (!g && is_gemv(m, false, !turned))
        return gemv(u, a, p, NULL, m, r, k, scale, 0);
    return am_launch_low_rank(a->device, &(am_low_rank_args){.u = u ? am_tensor_ptr(u) : NULL,
                                                             .g = g ? am_tensor_ptr(g) : NULL,
                                                             .a = am_tensor_ptr(a),
                                                             .p = u ? am_tensor_ptr(p) : NULL,
                                                             .t = g ? am_tensor_ptr(t) : NULL,
                                                             .dtype = a->dtype,
                                                             .dtype_g = g ? g->dtype : a->dtype,
                                                             .turned = turned,
                                                             .accumulate = accumulate,
                                                             .scale = scale,
                                                             .m = m,
                                                             .k = k,
                                                             .r = r});
}

/* The frozen weight [n, k], which may be packed. */
typedef struct lora_weight {
    am_tensor *t;
    const am_packing *packing; /* NULL: it is not */
    int64_t n, k;
} lora_weight;

static lora_weight weight_of(am_tensor *w, const am_lora_attrs *at)
{
    const am_packing *p = &at->packing;
    if (p->type != AM_PACK_NONE)
        return (lora_weight){w, p, p->rows, p->cols};
    return (lora_weight){w, NULL, w->shape[0], w->shape[1]};
}

/* y (+)= x W^T + bias when trans, else y (+)= x W; then += u op(v), unless u is NULL. */
static int weight_product(am_tensor *y, am_tensor *x, const lora_weight *w, am_tensor *bias,
                          am_tensor *u, am_tensor *v, bool trans, int accumulate)
{
    int64_t m = am_rows_of(x), n = trans ? w->n : w->k, k = trans ? w->k : w->n;
    if (w->packing) {
        AM_TRY(am_packed_product(y, x, w->t, w->packing, trans, bias, m, accumulate));
        return u ? gemm(y, u, false, v, trans, NULL, m, n, u->shape[1], 1, 1) : AM_OK;
    }
    if (!u)
        return gemm(y, x, false, w->t, trans, bias, m, n, k, 1, accumulate);
    return gemm_low_rank(y, x, w->t, bias, u, v, trans, m, n, k, u->shape[1], accumulate);
}

static int lora_check(am_call *c)
{
    am_tensor *a = c->in[2], *b = c->in[3];
    if (c->attrs.lora.packing.type != AM_PACK_NONE)
        AM_TRY(am_packed_check(c, &c->attrs.lora.packing));
    else
        AM_TRY(linear_check(c));
    lora_weight w = weight_of(c->in[1], &c->attrs.lora);
    AM_TRY(am_check_bias(c, 4, w.n));
    AM_TRY(am_check_same_dtype(c, 0, 2));
    AM_TRY(am_check_same_dtype(c, 0, 3));
    if (a->ndim != 2 || b->ndim != 2 || a->shape[1] != w.k || b->shape[0] != w.n ||
        a->shape[0] != b->shape[1])
        return shape_mismatch(c, a, b, "A must be [r, in] and B [out, r]");
    if (!(c->attrs.lora.dropout_p >= 0 && c->attrs.lora.dropout_p <= 1))
        return am_fail(AM_EINVAL, "lora_linear: dropout %g is not within 0 and 1",
                       c->attrs.lora.dropout_p);
    return AM_OK;
}

static int drop(am_tensor *out, am_tensor *a, const am_lora_attrs *at, uint64_t seed,
                uint64_t stream, int accumulate)
{
    return am_launch_dropout(out->device, &(am_dropout_args){.out = am_tensor_ptr(out),
                                                             .a = am_tensor_ptr(a),
                                                             .dtype = a->dtype,
                                                             .p = at->dropout_p,
                                                             .seed = seed,
                                                             .stream = stream,
                                                             .n = am_tensor_numel(a),
                                                             .accumulate = accumulate});
}

static int lora_forward(am_call *c)
{
    am_tensor *x, *stored, *a, *b, *bias = NULL, *h, *xd, *z;
    const am_lora_attrs *at = &c->attrs.lora;
    AM_TRY(lora_check(c));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &stored, c->in[1]));
    AM_TRY(am_temp_dense(&c->temps, &a, c->in[2]));
    AM_TRY(am_temp_dense(&c->temps, &b, c->in[3]));
    if (c->n_in > 4 && c->in[4])
        AM_TRY(am_temp_dense(&c->temps, &bias, c->in[4]));
    lora_weight w = weight_of(stored, at);
    int64_t m = am_rows_of(x), r = a->shape[0];
    if (at->dropout_p > 0)
        am_rng_next(&c->rng_seed, &c->rng_stream);
    xd = x;
    if (at->dropout_p > 0 && at->dropout_pre) {
        AM_TRY(am_temp_new(&c->temps, &xd, x->dtype, x->ndim, x->shape, c->device));
        AM_TRY(drop(xd, x, at, c->rng_seed, c->rng_stream, 0));
    }
    int64_t h_shape[] = {m, r};
    AM_TRY(am_temp_new(&c->temps, &h, x->dtype, 2, h_shape, c->device));
    AM_TRY(low_rank(xd, a, h, NULL, NULL, false, at->scale, 0));
    AM_TRY(linear_out(c, w.n));
    am_tensor *y = c->out[0];
    if (at->dropout_p > 0 && !at->dropout_pre) {
        AM_TRY(weight_product(y, x, &w, bias, NULL, NULL, true, 0));
        AM_TRY(am_temp_new(&c->temps, &z, y->dtype, y->ndim, y->shape, c->device));
        AM_TRY(gemm(z, h, false, b, true, NULL, m, w.n, r, 1, 0));
        AM_TRY(drop(y, z, at, c->rng_seed, c->rng_stream, 1));
    } else {
        AM_TRY(weight_product(y, x, &w, bias, h, b, true, 0));
    }
    AM_TRY(am_save(c, 0, x));
    AM_TRY(am_save(c, 1, stored));
    AM_TRY(am_save(c, 2, a));
    AM_TRY(am_save(c, 3, b));
    return am_save(c, 4, h);
}

static int lora_backward(am_bwd *b)
{
    const am_lora_attrs *at = &b->attrs->lora;
    lora_weight w = weight_of(b->saved[1], at);
    am_tensor *x = b->saved[0], *a = b->saved[2], *bb = b->saved[3];
    am_tensor *h = b->saved[4], *dz = b->dout, *dh, *xd = x;
    int64_t m = am_rows_of(x), r = a->shape[0];
    bool pre = at->dropout_p > 0 && at->dropout_pre;
    if (at->dropout_p > 0 && !at->dropout_pre) {
        AM_TRY(am_temp_new(&b->temps, &dz, x->dtype, b->dout->ndim, b->dout->shape, b->device));
        AM_TRY(drop(dz, b->dout, at, b->rng_seed, b->rng_stream, 0));
    }
    int64_t h_shape[] = {m, r};
    AM_TRY(am_temp_new(&b->temps, &dh, x->dtype, 2, h_shape, b->device));
    am_grad g = {0};
    if (b->needs[3])
        AM_TRY(am_grad_begin(b, 3, true, &g));
    AM_TRY(low_rank(dz, bb, dh, g.t, h, true, at->scale, g.accumulate));
    if (b->needs[3])
        AM_TRY(am_grad_end(b, 3, &g));
    if (b->needs[2]) {
        if (pre) {
            AM_TRY(am_temp_new(&b->temps, &xd, x->dtype, x->ndim, x->shape, b->device));
            AM_TRY(drop(xd, x, at, b->rng_seed, b->rng_stream, 0));
        }
        AM_TRY(am_grad_begin(b, 2, true, &g));
        AM_TRY(low_rank(xd, NULL, NULL, g.t, dh, false, 1, g.accumulate));
        AM_TRY(am_grad_end(b, 2, &g));
    }
    if (b->needs[0] && !pre) {
        AM_TRY(am_grad_begin(b, 0, true, &g));
        AM_TRY(weight_product(g.t, b->dout, &w, NULL, dh, a, false, g.accumulate));
        AM_TRY(am_grad_end(b, 0, &g));
    } else if (b->needs[0]) {
        am_tensor *dxd;
        AM_TRY(am_grad_begin(b, 0, true, &g));
        AM_TRY(weight_product(g.t, b->dout, &w, NULL, NULL, NULL, false, g.accumulate));
        AM_TRY(am_temp_new(&b->temps, &dxd, x->dtype, x->ndim, x->shape, b->device));
        AM_TRY(gemm(dxd, dh, false, a, false, NULL, m, w.k, r, 1, 0));
        AM_TRY(drop(dxd, dxd, at, b->rng_seed, b->rng_stream, 0));
        AM_TRY(am_copy_kernel(g.t, dxd, 1));
        AM_TRY(am_grad_end(b, 0, &g));
    }
    if (b->needs[1])
        AM_TRY(linear_dw(b, 1, x));
    if (b->n_in > 4 && b->needs[4])
        AM_TRY(linear_dbias(b, 4));
    return AM_OK;
}

AM_OP(lora_linear, .forward = lora_forward, .backward = lora_backward,
      .kernels = {AM_KERNEL(gemm), AM_KERNEL(gemv), AM_KERNEL(low_rank), AM_KERNEL(dropout),
                  AM_KERNEL(reduce)});

/* ---- matmul: batched, leading dims broadcast ---------------------------------------------
 * dA = dC B^T, dB = A^T dC, summed over broadcast dims. */

/* Broadcast of the leading dims of a and b; both get those dims (stride 0 where repeated). */
static int batch_shape(am_call *c, const am_tensor *a, const am_tensor *b, int *ndim,
                       int64_t *shape)
{
    int na = a->ndim - 2, nb = b->ndim - 2, n = na > nb ? na : nb;
    for (int i = 1; i <= n; i++) {
        int64_t sa = i <= na ? a->shape[na - i] : 1, sb = i <= nb ? b->shape[nb - i] : 1;
        if (sa != sb && sa != 1 && sb != 1)
            return shape_mismatch(c, a, b, "leading dims do not broadcast");
        shape[n - i] = sa == 1 ? sb : sa;
    }
    *ndim = n;
    return AM_OK;
}

/* t as a dense [batch, rows, cols] of the broadcast shape, or shared by all (*stride 0). */
static int batched(am_temps *temps, am_tensor **out, int64_t *stride, am_tensor *t, int ndim,
                   const int64_t *batch)
{
    AM_TRY(am_temp_dense(temps, out, t));
    int64_t matrix = t->shape[t->ndim - 2] * t->shape[t->ndim - 1];
    int64_t have = am_shape_numel(t->ndim - 2, t->shape), want = am_shape_numel(ndim, batch);
    *stride = have == 1 ? 0 : matrix;
    if (have == want || have == 1)
        return AM_OK;
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, batch, (size_t)ndim * sizeof *shape);
    shape[ndim] = t->shape[t->ndim - 2];
    shape[ndim + 1] = t->shape[t->ndim - 1];
    am_tensor *from = *out;
    AM_TRY(am_temp_new(temps, out, t->dtype, ndim + 2, shape, t->device));
    return am_copy_kernel(*out, from, 0);
}

static int batch_gemm(am_tensor *c, am_tensor *a, int64_t sa, bool ta, am_tensor *b, int64_t sb,
                      bool tb, int64_t m, int64_t n, int64_t k)
{
    int64_t batch = am_shape_numel(c->ndim - 2, c->shape);
    if (batch * m * n == 0)
        return AM_OK;
    am_gemm_args args = dense(c, a, ta, b, tb, NULL, m, n, k, 0);
    args.batch = batch;
    args.stride_a = sa;
    args.stride_b = sb;
    args.stride_c = m * n;
    return am_launch_gemm(c->device, &args);
}

static int matmul_forward(am_call *c)
{
    am_tensor *a = c->in[0], *b = c->in[1], *da, *db;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (a->ndim < 2 || b->ndim < 2 || a->shape[a->ndim - 1] != b->shape[b->ndim - 2])
        return shape_mismatch(c, a, b, "inner dims differ (both need two dims or more)");
    int ndim = 0;
    int64_t shape[AM_MAX_DIMS], sa = 0, sb = 0;
    AM_TRY(batch_shape(c, a, b, &ndim, shape));
    AM_TRY(batched(&c->temps, &da, &sa, a, ndim, shape));
    AM_TRY(batched(&c->temps, &db, &sb, b, ndim, shape));
    int64_t m = a->shape[a->ndim - 2], k = a->shape[a->ndim - 1], n = b->shape[b->ndim - 1];
    shape[ndim] = m;
    shape[ndim + 1] = n;
    AM_TRY(am_out(c, a->dtype, ndim + 2, shape));
    AM_TRY(batch_gemm(c->out[0], da, sa, false, db, sb, false, m, n, k));
    AM_TRY(am_save(c, 0, a));
    return am_save(c, 1, b);
}

static int matmul_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0], *y = b->saved[1], *dout = b->dout, *d, *t;
    int ndim = dout->ndim - 2;
    int64_t m = dout->shape[ndim], n = dout->shape[ndim + 1], k = x->shape[x->ndim - 1], stride;
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, dout->shape, sizeof shape);
    if (b->needs[0]) {
        AM_TRY(batched(&b->temps, &t, &stride, y, ndim, dout->shape));
        shape[ndim] = m;
        shape[ndim + 1] = k;
        AM_TRY(am_temp_new(&b->temps, &d, x->dtype, ndim + 2, shape, b->device));
        AM_TRY(batch_gemm(d, dout, m * n, false, t, stride, true, m, k, n));
        AM_TRY(am_grad_give_summed(b, 0, d));
    }
    if (b->needs[1]) {
        AM_TRY(batched(&b->temps, &t, &stride, x, ndim, dout->shape));
        shape[ndim] = k;
        shape[ndim + 1] = n;
        AM_TRY(am_temp_new(&b->temps, &d, y->dtype, ndim + 2, shape, b->device));
        AM_TRY(batch_gemm(d, t, stride, true, dout, m * n, false, k, n, m));
        AM_TRY(am_grad_give_summed(b, 1, d));
    }
    return AM_OK;
}

AM_OP(matmul, .forward = matmul_forward, .backward = matmul_backward,
      .kernels = {AM_KERNEL(gemm), AM_KERNEL(copy), AM_KERNEL(reduce)});
