/* op_loss.c — masked cross-entropy, alone and fused with the head's linear map. Both give the sum
 * over rows whose label is not ignore_index; dividing by a count is the caller's business. */
#include "op.h"

/* Rows of logits that the fused form holds at a time: about 32 MB of f32 for a 49k vocabulary. */
enum { CHUNK_ELEMENTS = 8 << 20 };

static int accumulator(int dtype)
{
    return dtype == AM_F64 ? AM_F64 : AM_F32;
}

static int check(am_call *c, int labels, int64_t rows)
{
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_int(c, labels));
    if (c->in[labels]->ndim != 1 || c->in[labels]->shape[0] != rows)
        return am_fail(AM_ESHAPE, "%s: %lld rows need as many labels", am_op_name(c->op),
                       (long long)rows);
    if (c->attrs.loss.softcap < 0)
        return am_fail(AM_EINVAL, "%s: softcap is negative", am_op_name(c->op));
    return AM_OK;
}

/* loss[at..] and lse[at..] of some rows. */
static int rows_forward(am_tensor *loss, am_tensor *lse, int64_t at, am_tensor *logits,
                        am_tensor *labels, const am_attrs *a, int64_t rows, int64_t v)
{
    size_t acc = (size_t)am_dtype_size(loss->dtype), lab = (size_t)am_dtype_size(labels->dtype);
    return am_launch_cross_entropy(
        loss->device,
        &(am_cross_entropy_args){.loss = (char *)am_tensor_ptr(loss) + (size_t)at * acc,
                                 .lse = (char *)am_tensor_ptr(lse) + (size_t)at * acc,
                                 .logits = am_tensor_ptr(logits),
                                 .labels = (char *)am_tensor_ptr(labels) + (size_t)at * lab,
                                 .dtype = logits->dtype,
                                 .dtype_labels = labels->dtype,
                                 .ignore = a->loss.ignore_index,
                                 .rows = rows,
                                 .v = v,
                                 .softcap = a->loss.softcap});
}

static int rows_backward(am_tensor *dlogits, am_tensor *logits, am_tensor *labels, am_tensor *lse,
                         int64_t at, am_tensor *dloss, const am_attrs *a, int64_t rows, int64_t v)
{
    size_t acc = (size_t)am_dtype_size(lse->dtype), lab = (size_t)am_dtype_size(labels->dtype);
    return am_launch_cross_entropy_bwd(
        lse->device,
        &(am_cross_entropy_bwd_args){.dlogits = am_tensor_ptr(dlogits),
                                     .logits = am_tensor_ptr(logits),
                                     .labels = (char *)am_tensor_ptr(labels) + (size_t)at * lab,
                                     .lse = (char *)am_tensor_ptr(lse) + (size_t)at * acc,
                                     .dloss = am_tensor_ptr(dloss),
                                     .dtype = logits->dtype,
                                     .dtype_labels = labels->dtype,
                                     .ignore = a->loss.ignore_index,
                                     .rows = rows,
                                     .v = v,
                                     .softcap = a->loss.softcap});
}

static int total(am_call *c, am_tensor *loss)
{
    AM_TRY(am_out(c, loss->dtype, 0, NULL));
    if (am_tensor_numel(loss) == 0)
        return am_tensor_fill(c->out[0], 0);
    return am_launch_reduce(c->device, &(am_reduce_args){.out = am_tensor_ptr(c->out[0]),
                                                         .a = am_tensor_ptr(loss),
                                                         .op = AM_R_SUM,
                                                         .dtype = loss->dtype,
                                                         .dtype_out = loss->dtype,
                                                         .scale = 1,
                                                         .outer = 1,
                                                         .n = am_tensor_numel(loss),
                                                         .inner = 1});
}

/* ---- cross_entropy: sum of lse(z) - z[label];  dz = dloss (softmax(z) - onehot) ------------ */

static int cross_entropy_forward(am_call *c)
{
    am_tensor *logits, *labels, *loss, *lse;
    if (c->in[0]->ndim != 2)
        return am_fail(AM_ESHAPE, "cross_entropy: logits must be [N, V]");
    AM_TRY(check(c, 1, c->in[0]->shape[0]));
    AM_TRY(am_temp_dense(&c->temps, &logits, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &labels, c->in[1]));
    int64_t rows = logits->shape[0], v = logits->shape[1];
    int acc = accumulator(logits->dtype);
    AM_TRY(am_temp_new(&c->temps, &loss, acc, 1, &rows, c->device));
    AM_TRY(am_temp_new(&c->temps, &lse, acc, 1, &rows, c->device));
    if (rows > 0)
        AM_TRY(rows_forward(loss, lse, 0, logits, labels, &c->attrs, rows, v));
    AM_TRY(total(c, loss));
    AM_TRY(am_save(c, 0, logits));
    AM_TRY(am_save(c, 1, labels));
    return am_save(c, 2, lse);
}

static int cross_entropy_backward(am_bwd *b)
{
    am_tensor *logits = b->saved[0];
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    if (am_tensor_numel(logits) > 0)
        AM_TRY(rows_backward(g.t, logits, b->saved[1], b->saved[2], 0, b->dout, b->attrs,
                             logits->shape[0], logits->shape[1]));
    return am_grad_end(b, 0, &g);
}

AM_OP(cross_entropy, .forward = cross_entropy_forward, .backward = cross_entropy_backward,
      .kernels = {AM_KERNEL(cross_entropy), AM_KERNEL(cross_entropy_bwd), AM_KERNEL(reduce)});

/* ---- linear_cross_entropy ------------------------------------------------------------------
 * Logits of a chunk of rows at a time, in f32; backward makes them again and turns them into their
 * gradient in place: dh = dz W, dW = dz^T h. */

static int64_t chunk_rows(int64_t v)
{
    int64_t n = CHUNK_ELEMENTS / (v > 0 ? v : 1);
    return n < 16 ? 16 : n;
}

/* z [rows, v] (f32, f64 for f64) = h[at..] W^T */
static int chunk_logits(am_tensor *z, am_tensor *h, int64_t at, int64_t rows, am_tensor *w)
{
    int64_t k = w->shape[1], v = w->shape[0];
    size_t size = (size_t)am_dtype_size(h->dtype);
    return am_launch_gemm(h->device,
                          &(am_gemm_args){.c = am_tensor_ptr(z),
                                          .a = (char *)am_tensor_ptr(h) + (size_t)(at * k) * size,
                                          .b = am_tensor_ptr(w),
                                          .dtype_ab = h->dtype,
                                          .dtype_c = z->dtype,
                                          .trans_b = 1,
                                          .alpha = 1,
                                          .m = rows,
                                          .n = v,
                                          .k = k,
                                          .lda = k,
                                          .ldb = k,
                                          .ldc = v,
                                          .batch = 1});
}

static int linear_cross_entropy_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *h = c->in[0], *w = c->in[1], *labels, *loss, *lse, *z;
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (h->ndim != 2 || w->ndim != 2 || h->shape[1] != w->shape[1])
        return am_fail(AM_ESHAPE,
                       "linear_cross_entropy: hidden %s and weight %s; needed are "
                       "[N, C] and [V, C]",
                       am_shape_text(ta, h->ndim, h->shape), am_shape_text(tb, w->ndim, w->shape));
    AM_TRY(check(c, 2, h->shape[0]));
    AM_TRY(am_temp_dense(&c->temps, &h, h));
    AM_TRY(am_temp_dense(&c->temps, &w, w));
    AM_TRY(am_temp_dense(&c->temps, &labels, c->in[2]));
    int acc = accumulator(h->dtype);
    int64_t n = h->shape[0], v = w->shape[0], rows = chunk_rows(v);
    int64_t shape[] = {n < rows ? n : rows, v};
    AM_TRY(am_temp_new(&c->temps, &loss, acc, 1, &n, c->device));
    AM_TRY(am_temp_new(&c->temps, &lse, acc, 1, &n, c->device));
    AM_TRY(am_temp_new(&c->temps, &z, acc, 2, shape, c->device));
    for (int64_t at = 0; at < n; at += rows) {
        int64_t m = n - at < rows ? n - at : rows;
        AM_TRY(chunk_logits(z, h, at, m, w));
        AM_TRY(rows_forward(loss, lse, at, z, labels, &c->attrs, m, v));
    }
    AM_TRY(total(c, loss));
    AM_TRY(am_save(c, 0, h));
    AM_TRY(am_save(c, 1, w));
    AM_TRY(am_save(c, 2, labels));
    return am_save(c, 3, lse);
}

static int linear_cross_entropy_backward(am_bwd *b)
{
    am_tensor *h = b->saved[0], *w = b->saved[1], *labels = b->saved[2], *lse = b->saved[3];
    am_tensor *z, *dz;
    int64_t n = h->shape[0], k = h->shape[1], v = w->shape[0], rows = chunk_rows(v);
    int64_t shape[] = {n < rows ? n : rows, v};
    am_grad gh = {0}, gw = {0};
    if (b->needs[0])
        AM_TRY(am_grad_begin(b, 0, true, &gh));
    if (b->needs[1])
        AM_TRY(am_grad_begin(b, 1, true, &gw));
    AM_TRY(am_temp_new(&b->temps, &z, lse->dtype, 2, shape, b->device));
    dz = z;
    if (h->dtype != z->dtype) /* the products below want the weight's dtype */
        AM_TRY(am_temp_new(&b->temps, &dz, h->dtype, 2, shape, b->device));
    for (int64_t at = 0; at < n; at += rows) {
        int64_t m = n - at < rows ? n - at : rows;
        AM_TRY(chunk_logits(z, h, at, m, w));
        AM_TRY(rows_backward(z, z, labels, lse, at, b->dout, b->attrs, m, v));
        if (dz != z)
            AM_TRY(am_copy_kernel(dz, z, 0));
        if (gh.t)
            AM_TRY(am_launch_gemm(
                b->device,
                &(am_gemm_args){.c = (char *)am_tensor_ptr(gh.t) +
                                     (size_t)(at * k) * (size_t)am_dtype_size(gh.t->dtype),
                                .a = am_tensor_ptr(dz),
                                .b = am_tensor_ptr(w),
                                .dtype_ab = h->dtype,
                                .dtype_c = gh.t->dtype,
                                .accumulate = gh.accumulate,
                                .alpha = 1,
                                .m = m,
                                .n = k,
                                .k = v,
                                .lda = v,
                                .ldb = k,
                                .ldc = k,
                                .batch = 1}));
        if (gw.t)
            AM_TRY(am_launch_gemm(
                b->device, &(am_gemm_args){.c = am_tensor_ptr(gw.t),
                                           .a = am_tensor_ptr(dz),
                                           .b = (char *)am_tensor_ptr(h) +
                                                (size_t)(at * k) * (size_t)am_dtype_size(h->dtype),
                                           .dtype_ab = h->dtype,
                                           .dtype_c = gw.t->dtype,
                                           .trans_a = 1,
                                           .accumulate = gw.accumulate || at > 0,
                                           .alpha = 1,
                                           .m = v,
                                           .n = k,
                                           .k = m,
                                           .lda = v,
                                           .ldb = k,
                                           .ldc = k,
                                           .batch = 1}));
    }
    if (n == 0 && gw.t && !gw.accumulate)
        AM_TRY(am_tensor_fill(gw.t, 0));
    if (gh.t)
        AM_TRY(am_grad_end(b, 0, &gh));
    return gw.t ? am_grad_end(b, 1, &gw) : AM_OK;
}

AM_OP(linear_cross_entropy, .forward = linear_cross_entropy_forward,
      .backward = linear_cross_entropy_backward,
      .kernels = {AM_KERNEL(gemm), AM_KERNEL(cross_entropy), AM_KERNEL(cross_entropy_bwd),
                  AM_KERNEL(reduce)});
