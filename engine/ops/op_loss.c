/* op_loss.c — masked cross-entropy, alone and fused with the head's linear map. Both give the sum
 * over rows whose label is not ignore_index; dividing by a count is the caller's business. */
#include "op.h"

/* Logits that the fused form holds at a time, 64 MB of f32, in whole blocks of rows: products are
 * cut into such blocks, and part of one may cost as much as all of it. */
enum { CHUNK_ELEMENTS = 16 << 20, BLOCK_F32 = 192, BLOCK_BF16 = 256 };

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

/* loss[at..] and lse[at..] of some rows of logits, and their dlogits (unless NULL), of dtype_d, for
 * a dloss of 1. */
static int rows_forward(am_tensor *loss, am_tensor *lse, int64_t at, const void *logits,
                        void *dlogits, int dtype_d, am_tensor *labels, const am_attrs *a,
                        int64_t rows, int64_t v, int dtype)
{
    size_t acc = (size_t)am_dtype_size(loss->dtype), lab = (size_t)am_dtype_size(labels->dtype);
    return am_launch_cross_entropy(
        loss->device,
        &(am_cross_entropy_args){.loss = (char *)am_tensor_ptr(loss) + (size_t)at * acc,
                                 .lse = (char *)am_tensor_ptr(lse) + (size_t)at * acc,
                                 .logits = logits,
                                 .labels = (char *)am_tensor_ptr(labels) + (size_t)at * lab,
                                 .dlogits = dlogits,
                                 .dtype = dtype,
                                 .dtype_labels = labels->dtype,
                                 .dtype_dlogits = dtype_d,
                                 .ignore = a->loss.ignore_index,
                                 .rows = rows,
                                 .v = v,
                                 .softcap = a->loss.softcap});
}

static int rows_backward(am_tensor *dlogits, am_tensor *logits, am_tensor *labels, am_tensor *lse,
                         am_tensor *dloss, const am_attrs *a, int64_t rows, int64_t v)
{
    return am_launch_cross_entropy_bwd(
        lse->device, &(am_cross_entropy_bwd_args){.dlogits = am_tensor_ptr(dlogits),
                                                  .logits = am_tensor_ptr(logits),
                                                  .labels = am_tensor_ptr(labels),
                                                  .lse = am_tensor_ptr(lse),
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
        AM_TRY(rows_forward(loss, lse, 0, am_tensor_ptr(logits), NULL, 0, labels, &c->attrs, rows,
                            v, logits->dtype));
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
        AM_TRY(rows_backward(g.t, logits, b->saved[1], b->saved[2], b->dout, b->attrs,
                             logits->shape[0], logits->shape[1]));
    return am_grad_end(b, 0, &g);
}

AM_OP(cross_entropy, .forward = cross_entropy_forward, .backward = cross_entropy_backward,
      .kernels = {AM_KERNEL(cross_entropy), AM_KERNEL(cross_entropy_bwd), AM_KERNEL(reduce)});

/* ---- linear_cross_entropy ------------------------------------------------------------------
 * Logits of a chunk of rows at a time, in f32. Where a gradient will be wanted, the chunk's logits
 * become theirs at once, for a dloss of 1, while they are there (as in Liger Kernel, Hsu et al.
 * 2024): dh = dz W, dW = dz^T h. Backward only multiplies both by dloss.
 *
 * dz takes the place of z, in h's dtype. Where that is half as wide, z begins a row later, so that
 * dz's row i ends before z's row (i - 1) / 2: rows lo.. may be turned up to 2 lo + 1 at a time,
 * none of them onto one that is still to be read. */

static int64_t chunk_rows(int64_t v, int dtype)
{
    int64_t n = CHUNK_ELEMENTS / (v > 0 ? v : 1), block = dtype == AM_F32 ? BLOCK_F32 : BLOCK_BF16;
    if (n > block)
        n -= n % block;
    return n < 16 ? 16 : n;
}

typedef struct fused {
    am_tensor *h, *w, *labels, *loss, *lse; /* dense [N, C], [V, C], [N], [N], [N] */
    am_tensor *z;       /* a chunk's logits from row `first` on, then their gradients */
    am_tensor *dh, *dw; /* in the accumulator's dtype; NULL: not wanted */
    int first, grads;
} fused;

static void *row(am_tensor *t, int64_t at)
{
    return (char *)am_tensor_ptr(t) + at * t->shape[1] * am_dtype_size(t->dtype);
}

/* A product of dense matrices: c [m, n] = op(a) op(b), in the accumulator's dtype. */
static int product(const fused *f, am_gemm_args g)
{
    g.dtype_ab = f->h->dtype;
    g.dtype_c = f->z->dtype;
    g.alpha = 1;
    g.batch = 1;
    g.lda = g.trans_a ? g.m : g.k;
    g.ldb = g.trans_b ? g.k : g.n;
    g.ldc = g.n;
    return am_launch_gemm(f->h->device, &g);
}

static int chunk(const fused *f, int64_t at, int64_t rows, const am_attrs *attrs)
{
    int64_t v = f->w->shape[0], k = f->w->shape[1];
    void *h = row(f->h, at), *w = am_tensor_ptr(f->w);
    void *dz = am_tensor_ptr(f->z);
    am_gemm_args logits = {
        .c = row(f->z, f->first), .a = h, .b = w, .trans_b = 1, .m = rows, .n = v, .k = k};
    AM_TRY(product(f, logits));
    for (int64_t lo = 0, hi; lo < rows; lo = hi) {
        hi = f->first && 2 * lo + 2 < rows ? 2 * lo + 2 : rows;
        char *to = (char *)dz + lo * v * am_dtype_size(f->h->dtype);
        AM_TRY(rows_forward(f->loss, f->lse, at + lo, row(f->z, f->first + lo),
                            f->grads ? to : NULL, f->h->dtype, f->labels, attrs, hi - lo, v,
                            f->z->dtype));
    }
    if (f->dh) {
        am_gemm_args dh = {.c = row(f->dh, at), .a = dz, .b = w, .m = rows, .n = k, .k = v};
        AM_TRY(product(f, dh));
    }
    if (f->dw) {
        am_gemm_args dw = {.c = am_tensor_ptr(f->dw), .a = dz, .b = h, .m = v, .n = k, .k = rows};
        dw.trans_a = 1;
        dw.accumulate = at > 0;
        AM_TRY(product(f, dw));
    }
    return AM_OK;
}

/* What gradients need, for the inputs that want one. */
static int make_gradients(am_call *c, fused *f, int acc)
{
    if (c->needs[0])
        AM_TRY(am_temp_new(&c->temps, &f->dh, acc, 2, f->h->shape, c->device));
    if (c->needs[1])
        AM_TRY(am_temp_new(&c->temps, &f->dw, acc, 2, f->w->shape, c->device));
    if (f->dw && f->h->shape[0] == 0)
        AM_TRY(am_tensor_fill(f->dw, 0));
    AM_TRY(am_save(c, 0, f->dh));
    return am_save(c, 1, f->dw);
}

static int linear_cross_entropy_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *h = c->in[0], *w = c->in[1];
    fused f = {0};
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (h->ndim != 2 || w->ndim != 2 || h->shape[1] != w->shape[1])
        return am_fail(AM_ESHAPE,
                       "linear_cross_entropy: hidden %s and weight %s; needed are "
                       "[N, C] and [V, C]",
                       am_shape_text(ta, h->ndim, h->shape), am_shape_text(tb, w->ndim, w->shape));
    AM_TRY(check(c, 2, h->shape[0]));
    AM_TRY(am_temp_dense(&c->temps, &f.h, h));
    AM_TRY(am_temp_dense(&c->temps, &f.w, w));
    AM_TRY(am_temp_dense(&c->temps, &f.labels, c->in[2]));
    int acc = accumulator(h->dtype);
    int64_t n = h->shape[0], rows = chunk_rows(w->shape[0], w->dtype);
    f.grads = c->record;
    f.first = f.grads && h->dtype != acc;
    int64_t shape[] = {f.first + (n < rows ? n : rows), w->shape[0]};
    AM_TRY(am_temp_new(&c->temps, &f.loss, acc, 1, &n, c->device));
    AM_TRY(am_temp_new(&c->temps, &f.lse, acc, 1, &n, c->device));
    AM_TRY(am_temp_new(&c->temps, &f.z, acc, 2, shape, c->device));
    if (f.grads)
        AM_TRY(make_gradients(c, &f, acc));
    for (int64_t at = 0; at < n; at += rows)
        AM_TRY(chunk(&f, at, n - at < rows ? n - at : rows, &c->attrs));
    return total(c, f.loss);
}

/* g *= dloss, and hand it over. */
static int give_scaled(am_bwd *b, int i)
{
    am_tensor *g = b->saved[i];
    if (!b->needs[i])
        return AM_OK;
    if (am_tensor_numel(g) > 0) {
        am_binary_args mul = {.out = am_tensor_ptr(g),
                              .a = am_tensor_ptr(g),
                              .b = am_tensor_ptr(b->dout),
                              .op = AM_B_MUL,
                              .dtype = g->dtype};
        am_tensor *operands[] = {g, g, b->dout};
        AM_TRY(am_nd_make(&mul.nd, g->ndim, g->shape, 3, operands));
        AM_TRY(am_launch_binary(b->device, &mul));
    }
    return am_grad_give(b, i, g);
}

static int linear_cross_entropy_backward(am_bwd *b)
{
    AM_TRY(give_scaled(b, 0));
    return give_scaled(b, 1);
}

AM_OP(linear_cross_entropy, .forward = linear_cross_entropy_forward,
      .backward = linear_cross_entropy_backward,
      .kernels = {AM_KERNEL(gemm), AM_KERNEL(cross_entropy), AM_KERNEL(reduce), AM_KERNEL(binary)});
